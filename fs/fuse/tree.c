/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "fs/fuse/attr.h"
#include "fs/session/name.h"
#include "qcow/base/cleanup.h"

static const char snapshots_name[] = "snapshots";
static const char xml_name[] = "domain.xml";
static const char status_name[] = "status";
static const char upload_name[] = "upload";

/*
 * The kernel asks for attributes again at once when it may not believe those that came with a
 * name, and it looks names up anew each time: this saves the second question and delays nothing.
 * Not for disks, whose numbers may be fixed by an open the next moment.
 */
static const double lookup_timeout_s = 0.02;

void tree_cleanup_domain(struct domain **domain)
{
    domain_unref(*domain);
}

void tree_cleanup_catalog(struct catalog **catalog)
{
    catalog_unref(*catalog);
}

uint64_t tree_ino(enum inode_kind kind, const char *domain_id)
{
    static const char *const names[] = {
        [INODE_ROOT] = "root",  [INODE_DOMAIN] = "dir",       [INODE_SNAPSHOTS] = snapshots_name,
        [INODE_XML] = xml_name, [INODE_STATUS] = status_name, [INODE_UPLOAD] = upload_name,
    };
    return catalog_ino(domain_id, names[kind]);
}

int tree_create(const struct tree_config *config, struct tree **ret_tree)
{
    auto_free struct tree *tree = calloc(1, sizeof(*tree));
    if (!tree)
        return -ENOMEM;
    tree->config = *config;
    if (getrandom(&tree->nonce, sizeof(tree->nonce), 0) != sizeof(tree->nonce))
        return -errno;
    int r = inode_table_create(tree_ino(INODE_ROOT, ""), &tree->inodes);
    if (r < 0)
        return r;
    mutex_init(&tree->lock);
    *ret_tree = take_ptr(tree);
    return 0;
}

void tree_destroy(struct tree *tree)
{
    if (!tree)
        return;
    inode_table_destroy(tree->inodes);
    mutex_fini(&tree->lock);
    free(tree);
}

int tree_domain(struct tree *tree, const struct inode *inode, struct domain **ret_domain,
                struct error *err)
{
    struct host *host = tree->config.host;
    struct domain *domain = host->ops->find(host, inode->domain_id);
    if (!domain)
        return errno == ENOENT ? error_set(err, -ESTALE, "the domain is gone")
                               : error_set(err, -errno, "cannot look for the domain: %s",
                                           strerrordesc_np(errno));
    /* Below snapshots/ all is as it was before an instant put something over it. */
    bool is_of_disks = inode->kind == INODE_SNAPSHOTS || inode_is_disk(inode);
    *ret_domain = is_of_disks ? registry_record(tree->config.registry, domain) : domain_ref(domain);
    domain_unref(domain);
    return 0;
}

void tree_note_failure(struct tree *tree, const struct inode *inode, const char *what, int code,
                       const struct error *err)
{
    if (code != -ENOMEM && code != -EMFILE && code != -ENFILE)
        return;
    struct error why = *err;
    if (!why.code)
        error_set(&why, code, "%s", strerrordesc_np(-code));
    registry_note_error(tree->config.registry, inode->domain_id, what, &why);
}

int tree_catalog(struct tree *tree, const struct inode *inode, struct catalog **ret_catalog,
                 struct error *err)
{
    auto_domain struct domain *domain = NULL;
    int r = tree_domain(tree, inode, &domain, err);
    return r < 0 ? r : catalog_get(tree->config.host, domain, ret_catalog, err);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Takes %XX back, as far as there is any. Caller frees. */
static char *unescape(const char *file)
{
    char *raw = malloc(strlen(file) + 1);
    if (!raw)
        return NULL;
    char *at = raw;
    while (*file) {
        int high = file[0] == '%' ? hex_value(file[1]) : -1;
        int low = high < 0 ? -1 : hex_value(file[2]);
        if (low > 0 || (low == 0 && high > 0)) {
            *at++ = (char)(high << 4 | low);
            file += 3;
        } else {
            *at++ = *file++;
        }
    }
    *at = '\0';
    return raw;
}

/* By the whole list: for names that had to be cut, which do not tell what they stand for. */
static int find_in_list(struct tree *tree, const char *file, struct domain **ret_domain,
                        struct error *err)
{
    struct tree_domains domains;
    int r = tree_domains_init(tree, &domains, err);
    if (r < 0)
        return r;
    struct domain *found = NULL;
    for (size_t i = 0; i < domains.n && !found; i++)
        if (strcmp(domains.names[i], file) == 0)
            found = domain_ref(domains.domains[i]);
    tree_domains_fini(&domains);
    if (!found)
        return error_set(err, -ENOENT, "no such domain");
    *ret_domain = found;
    return 0;
}

/* The domain whose directory has that name. */
static int find_domain(struct tree *tree, const char *file, struct domain **ret_domain,
                       struct error *err)
{
    if (strchr(file, '@'))
        return find_in_list(tree, file, ret_domain, err);
    auto_free char *raw = unescape(file);
    auto_free char *shown = raw ? name_of_domain(raw) : NULL;
    if (!shown)
        return error_set(err, -ENOMEM, "out of memory");
    struct host *host = tree->config.host;
    errno = ENOENT;
    struct domain *domain = strcmp(shown, file) == 0 ? host->ops->find_name(host, raw) : NULL;
    if (!domain)
        return error_set(err, -errno, "cannot find domain '%s': %s", raw, strerrordesc_np(errno));
    *ret_domain = domain;
    return 0;
}

/* The node of a part of the tree that stands for itself. */
static int get_plain(struct tree *tree, enum inode_kind kind, const char *domain_id,
                     struct inode **ret_inode, struct error *err)
{
    struct inode_spec spec = {
        .kind = kind, .domain_id = domain_id, .ino = tree_ino(kind, domain_id)};
    int r = inode_get(tree->inodes, &spec, ret_inode);
    return r < 0 ? error_set(err, r, "out of memory") : 0;
}

int tree_get_snapshots(struct tree *tree, const char *domain_id, struct inode **ret_inode,
                       struct error *err)
{
    return get_plain(tree, INODE_SNAPSHOTS, domain_id, ret_inode, err);
}

/*
 * Another one each time: the kernel lets one write of a node wait for the one before it, and one
 * with --poll takes hours.
 */
static int get_upload_node(struct tree *tree, const char *domain_id, struct inode **ret_inode,
                           struct error *err)
{
    struct inode_spec spec = {
        .kind = INODE_UPLOAD, .domain_id = domain_id, .ino = tree_ino(INODE_UPLOAD, domain_id)};
    mutex_lock(&tree->lock);
    spec.serial = ++tree->n_upload_nodes;
    mutex_unlock(&tree->lock);
    int r = inode_get(tree->inodes, &spec, ret_inode);
    return r < 0 ? error_set(err, r, "out of memory") : 0;
}

static int lookup_in_root(struct tree *tree, const char *name, struct inode **ret_inode,
                          struct error *err)
{
    auto_domain struct domain *domain = NULL;
    int r = find_domain(tree, name, &domain, err);
    return r < 0 ? r : get_plain(tree, INODE_DOMAIN, domain->id, ret_inode, err);
}

static int get_xml_node(struct tree *tree, struct domain *domain, struct inode **ret_inode,
                        struct error *err)
{
    struct inode_spec spec = {
        .kind = INODE_XML,
        .domain_id = domain->id,
        .ino = tree_ino(INODE_XML, domain->id),
        .record = domain,
        .text_hash = inode_hash(0, domain->xml),
    };
    int r = attr_find_stamp(tree, domain->id, xml_name, spec.text_hash, &spec.mtime, err);
    if (r < 0)
        return r;
    r = inode_get(tree->inodes, &spec, ret_inode);
    return r < 0 ? error_set(err, r, "out of memory") : 0;
}

static int lookup_in_domain(struct tree *tree, const struct inode *parent, const char *name,
                            struct inode **ret_inode, struct error *err)
{
    auto_domain struct domain *domain = NULL;
    int r = tree_domain(tree, parent, &domain, err);
    if (r < 0)
        return r;
    if (strcmp(name, snapshots_name) == 0)
        return get_plain(tree, INODE_SNAPSHOTS, domain->id, ret_inode, err);
    if (strcmp(name, status_name) == 0)
        return get_plain(tree, INODE_STATUS, domain->id, ret_inode, err);
    if (strcmp(name, upload_name) == 0)
        return get_upload_node(tree, domain->id, ret_inode, err);
    if (strcmp(name, xml_name) == 0 && domain->xml)
        return get_xml_node(tree, domain, ret_inode, err);
    return error_set(err, -ENOENT, "no such file");
}

static int get_disk_node(struct tree *tree, const struct catalog *catalog,
                         const struct catalog_entry *entry, const char *name,
                         struct inode **ret_inode, struct error *err)
{
    const struct domain *domain = catalog->domain;
    const struct disk *disk = &domain->disks[entry->disk_idx];
    struct session_peek peek = {0};
    if (entry->is_now)
        registry_peek(tree->config.registry, domain->id, disk->target, &peek);
    enum view view = name_view(name);
    struct inode_spec spec = {
        .kind = view == VIEW_RAW ? INODE_RAW : INODE_QCOW2,
        .domain_id = domain->id,
        .ino = catalog_view_ino(entry, view),
        .file = name,
        .target = disk->target,
        .top_path = disk->n_layers ? disk->layers[0].path : "",
        .snapshot = entry->is_now ? NULL : &entry->snapshot,
        .serial = peek.serial,
    };
    struct inode *inode;
    int r = inode_get(tree->inodes, &spec, &inode);
    if (r < 0)
        return error_set(err, r, "out of memory");
    r = attr_refresh_disk(tree, inode, entry, &peek, err);
    if (r < 0) {
        inode_forget(tree->inodes, inode, 1);
        return r;
    }
    *ret_inode = inode;
    return 0;
}

static int lookup_in_snapshots(struct tree *tree, const struct inode *parent, const char *name,
                               struct inode **ret_inode, struct error *err)
{
    auto_catalog struct catalog *catalog = NULL;
    int r = tree_catalog(tree, parent, &catalog, err);
    if (r < 0)
        return r;
    const struct catalog_entry *entry = catalog_find(catalog, name);
    int code = errno;
    if (!entry && code == ENOENT && catalog_is_doubtful(catalog))
        return error_set(err, -EIO, "not all snapshots can be read");
    if (!entry)
        return error_set(err, -code, "cannot find snapshot '%s': %s", name, strerrordesc_np(code));
    return get_disk_node(tree, catalog, entry, name, ret_inode, err);
}

static int find_node(struct tree *tree, const struct inode *parent, const char *name,
                     struct inode **ret_inode, struct error *err)
{
    switch (parent->kind) {
    case INODE_ROOT:
        return lookup_in_root(tree, name, ret_inode, err);
    case INODE_DOMAIN:
        return lookup_in_domain(tree, parent, name, ret_inode, err);
    case INODE_SNAPSHOTS:
        return lookup_in_snapshots(tree, parent, name, ret_inode, err);
    case INODE_RAW:
    case INODE_QCOW2:
    case INODE_XML:
    case INODE_STATUS:
    case INODE_UPLOAD:
        break;
    }
    return error_set(err, -ENOTDIR, "not a directory");
}

int tree_lookup(struct tree *tree, struct inode *parent, const char *name, struct inode **ret_inode,
                struct tree_attr *ret_attr, struct error *err)
{
    struct inode *inode;
    int r = find_node(tree, parent, name, &inode, err);
    if (r < 0)
        return r;
    if (inode_is_disk(inode))
        attr_get_shown(tree, inode, ret_attr); /* it has just been brought up to date */
    else
        r = attr_get(tree, inode, ret_attr, err);
    if (r < 0) {
        inode_forget(tree->inodes, inode, 1);
        return r;
    }
    if (!inode_is_disk(inode) && ret_attr->timeout_s < lookup_timeout_s)
        ret_attr->timeout_s = lookup_timeout_s;
    *ret_inode = inode;
    return 0;
}
