/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The other half of tree.h: directories as lists of names. */
#include "fs/fuse/tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/session/name.h"
#include "qcow/base/cleanup.h"

/* "NAME@ID" for the second of two domains that would have one name; caller frees. */
static char *join_id(const char *name, const char *id)
{
    char *joined;
    int room = NAME_FILE_MAX - 1 - (int)strnlen(id, NAME_FILE_MAX - 1);
    if (asprintf(&joined, "%.*s@%.*s", room, name, NAME_FILE_MAX - 1, id) < 0)
        return NULL;
    for (char *slash = joined; (slash = strchr(slash, '/'));)
        *slash = '_';
    return joined;
}

/* The list is sorted by name, so that equal ones stand side by side. */
static char *name_nth(const struct tree_domains *domains, size_t i)
{
    const struct domain *domain = domains->domains[i];
    auto_free char *name = name_of_domain(domain->name);
    if (!name)
        return NULL;
    if (i > 0 && strcmp(domains->domains[i - 1]->name, domain->name) == 0)
        return join_id(name, domain->id);
    return take_ptr(name);
}

int tree_domains_init(struct tree *tree, struct tree_domains *ret_domains, struct error *err)
{
    struct host *host = tree->config.host;
    struct tree_domains domains = {0};
    int r = host->ops->list(host, &domains.domains, &domains.n, err);
    if (r < 0)
        return r;
    domains.names = calloc(domains.n + 1, sizeof(*domains.names));
    bool is_complete = domains.names;
    for (size_t i = 0; i < domains.n && is_complete; i++) {
        domains.names[i] = name_nth(&domains, i);
        is_complete = domains.names[i];
        if (is_complete)
            domains.hash = inode_hash(domains.hash, domains.names[i]);
    }
    if (!is_complete) {
        tree_domains_fini(&domains);
        return error_set(err, -ENOMEM, "out of memory");
    }
    *ret_domains = domains;
    return 0;
    /* lint: gcc-analyzer/malloc-leak: the caller has it */
}

void tree_domains_fini(struct tree_domains *domains)
{
    for (size_t i = 0; domains->names && i < domains->n; i++)
        free(domains->names[i]);
    free(domains->names);
    host_list_free(domains->domains, domains->n);
    *domains = (struct tree_domains){0};
}

static void cleanup_listing(struct tree_listing **listing)
{
    tree_listing_destroy(*listing);
}

void tree_listing_destroy(struct tree_listing *listing)
{
    if (!listing)
        return;
    for (size_t i = 0; i < listing->n; i++)
        free(listing->entries[i].name);
    free(listing->entries);
    free(listing);
}

/* Takes @name, which may be NULL for "no memory". */
static int add_entry(struct tree_listing *listing, char *name, uint64_t ino, mode_t type)
{
    auto_free char *owned = name;
    if (!owned)
        return -ENOMEM;
    /* lint: gcc-analyzer/malloc-leak: kept at an index that gcc loses sight of */
    if (listing->n == listing->room) {
        size_t room = listing->room ? 2 * listing->room : 16;
        struct tree_entry *grown = reallocarray(listing->entries, room, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        listing->entries = grown;
        listing->room = room;
    }
    listing->entries[listing->n++] =
        (struct tree_entry){.name = take_ptr(owned), .ino = ino, .type = type};
    return 0;
}

static int list_root(struct tree *tree, struct tree_listing *listing, struct error *err)
{
    struct tree_domains domains;
    int r = tree_domains_init(tree, &domains, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < domains.n && r == 0; i++)
        r = add_entry(listing, take_ptr(domains.names[i]),
                      tree_ino(INODE_DOMAIN, domains.domains[i]->id), S_IFDIR);
    tree_domains_fini(&domains);
    return r;
}

static int list_domain(const struct domain *domain, struct tree_listing *listing)
{
    static const struct {
        const char *name;
        enum inode_kind kind;
        mode_t type;
    } parts[] = {
        {"snapshots", INODE_SNAPSHOTS, S_IFDIR},
        {"domain.xml", INODE_XML, S_IFREG},
        {"status", INODE_STATUS, S_IFREG},
        {"upload", INODE_UPLOAD, S_IFREG},
    };
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        if (parts[i].kind == INODE_XML && !domain->xml)
            continue;
        int r = add_entry(listing, strdup(parts[i].name), tree_ino(parts[i].kind, domain->id),
                          parts[i].type);
        if (r < 0)
            return r;
    }
    return 0;
}

static int add_view(struct tree_listing *listing, const struct catalog *catalog,
                    const struct catalog_entry *entry, enum view view)
{
    return add_entry(listing, catalog_file_name(catalog, entry, view),
                     catalog_view_ino(entry, view), S_IFREG);
}

static int list_snapshots(struct tree *tree, const struct inode *inode,
                          struct tree_listing *listing, struct error *err)
{
    auto_catalog struct catalog *catalog = NULL;
    int r = tree_catalog(tree, inode, &catalog, err);
    if (r == 0 && catalog_is_doubtful(catalog))
        listing->end = -EIO; /* or a backup would delete what it has of them */
    for (size_t i = 0; r == 0 && i < catalog->n_entries; i++) {
        if (tree->config.list != TREE_LIST_QCOW2)
            r = add_view(listing, catalog, &catalog->entries[i], VIEW_RAW);
        if (r == 0 && tree->config.list != TREE_LIST_RAW)
            r = add_view(listing, catalog, &catalog->entries[i], VIEW_QCOW2);
    }
    return r;
}

static int fill_listing(struct tree *tree, const struct inode *inode, struct tree_listing *listing,
                        struct error *err)
{
    if (inode->kind == INODE_ROOT)
        return list_root(tree, listing, err);
    if (inode->kind == INODE_SNAPSHOTS)
        return list_snapshots(tree, inode, listing, err);
    auto_domain struct domain *domain = NULL;
    int r = tree_domain(tree, inode, &domain, err);
    return r < 0 ? r : list_domain(domain, listing);
}

static uint64_t parent_ino(const struct inode *inode)
{
    return inode->kind == INODE_SNAPSHOTS ? tree_ino(INODE_DOMAIN, inode->domain_id)
                                          : tree_ino(INODE_ROOT, "");
}

int tree_list(struct tree *tree, const struct inode *inode, struct tree_listing **ret_listing,
              struct error *err)
{
    if (inode->kind != INODE_ROOT && inode->kind != INODE_DOMAIN && inode->kind != INODE_SNAPSHOTS)
        return error_set(err, -ENOTDIR, "not a directory");
    __attribute__((cleanup(cleanup_listing))) struct tree_listing *listing =
        calloc(1, sizeof(*listing));
    /* lint: gcc-analyzer/malloc-leak: the cleanup frees it */
    if (!listing || add_entry(listing, strdup("."), inode->ino, S_IFDIR) < 0 ||
        add_entry(listing, strdup(".."), parent_ino(inode), S_IFDIR) < 0)
        /* lint: clang-analyzer/unix.Malloc: kept in the listing, which the cleanup frees */
        return error_set(err, -ENOMEM, "out of memory");
    int r = fill_listing(tree, inode, listing, err);
    if (r < 0)
        return err && err->code ? r : error_set(err, r, "out of memory");
    *ret_listing = take_ptr(listing);
    return 0;
}
