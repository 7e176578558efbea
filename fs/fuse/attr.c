/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/attr.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "qcow/base/bytes.h"
#include "qcow/base/cleanup.h"

/* For what cannot change: an hour spares the questions and bounds what a mistake could cost. */
static const double forever_s = 3600;

/*
 * The kernel asks for the root's attributes on each walk of a path, and with dir: answering means
 * to look at each file. The last answer serves for this many times as long as finding it took, so
 * that a directory with thousands of images costs a twentieth of a core at most.
 */
enum { ROOT_REST_FACTOR = 20 };

static void fill_common(const struct tree *tree, const struct inode *inode, mode_t mode,
                        struct timespec mtime, struct tree_attr *attr)
{
    *attr = (struct tree_attr){
        .st = {.st_ino = inode->ino,
               .st_mode = mode & ~tree->config.umask,
               .st_nlink = 1,
               .st_uid = tree->config.uid,
               .st_gid = tree->config.gid,
               .st_blksize = 4096,
               .st_atim = mtime,
               .st_mtim = mtime,
               .st_ctim = mtime},
    };
}

static void fill_dir(const struct tree *tree, const struct inode *inode, struct timespec mtime,
                     struct tree_attr *attr)
{
    fill_common(tree, inode, S_IFDIR | 0555, mtime, attr);
}

static void fill_file(const struct tree *tree, const struct inode *inode, uint64_t len,
                      struct timespec mtime, struct tree_attr *attr)
{
    fill_common(tree, inode, S_IFREG | 0444, mtime, attr);
    attr->st.st_size = (off_t)len;
    attr->st.st_blocks = (blkcnt_t)((len + 511) / 512);
}

int attr_find_stamp(struct tree *tree, const char *domain_id, const char *part, uint64_t hash,
                    struct timespec *ret_mtime, struct error *err)
{
    auto_free char *key = NULL;
    if (asprintf(&key, "%s/%s", domain_id, part) < 0) {
        key = NULL;
        return error_set(err, -ENOMEM, "out of memory");
    }
    *ret_mtime = stamps_get(tree->config.stamps, key, hash, NULL);
    return 0;
}

static bool find_recent_root(struct tree *tree, int64_t now_ns, struct timespec *ret_mtime)
{
    mutex_lock(&tree->lock);
    bool is_recent = now_ns < tree->root_valid_ns;
    *ret_mtime = tree->root_mtime;
    mutex_unlock(&tree->lock);
    return is_recent;
}

static int get_root(struct tree *tree, const struct inode *inode, struct tree_attr *attr,
                    struct error *err)
{
    int64_t begin_ns = monotonic_ns();
    struct timespec mtime = {0};
    if (!find_recent_root(tree, begin_ns, &mtime)) {
        struct tree_domains domains;
        int r = tree_domains_init(tree, &domains, err);
        if (r < 0)
            return r;
        mtime = stamps_get(tree->config.stamps, "/", domains.hash, NULL);
        tree_domains_fini(&domains);
        int64_t end_ns = monotonic_ns();
        mutex_lock(&tree->lock);
        tree->root_mtime = mtime;
        tree->root_valid_ns = end_ns + ROOT_REST_FACTOR * (end_ns - begin_ns);
        mutex_unlock(&tree->lock);
    }
    fill_dir(tree, inode, mtime, attr);
    return 0;
}

/* The names in a domain's directory depend on nothing but this. */
static uint64_t hash_of_parts(const struct domain *domain)
{
    return inode_hash(0, domain->xml ? "xml" : "");
}

static int get_domain_dir(struct tree *tree, const struct inode *inode, struct tree_attr *attr,
                          struct error *err)
{
    auto_domain struct domain *domain = NULL;
    int r = tree_domain(tree, inode, &domain, err);
    if (r < 0)
        return r;
    struct timespec mtime = {0};
    r = attr_find_stamp(tree, inode->domain_id, "", hash_of_parts(domain), &mtime, err);
    if (r < 0)
        return r;
    if (inode->kind == INODE_DOMAIN)
        fill_dir(tree, inode, mtime, attr);
    else
        fill_file(tree, inode, 0, mtime, attr); /* as in /proc; its text is made at open */
    if (inode->kind == INODE_UPLOAD)
        attr->st.st_mode |= S_IWUSR & ~tree->config.umask;
    return 0;
}

static int get_snapshots_dir(struct tree *tree, const struct inode *inode, struct tree_attr *attr,
                             struct error *err)
{
    auto_catalog struct catalog *catalog = NULL;
    int r = tree_catalog(tree, inode, &catalog, err);
    if (r < 0)
        return r;
    struct timespec mtime = {0};
    uint64_t hash = catalog->names_hash;
    if (tree->config.list != TREE_LIST_RAW)
        hash = inode_hash(hash, tree->config.list == TREE_LIST_ALL ? "all" : "qcow2");
    r = attr_find_stamp(tree, inode->domain_id, "snapshots", hash, &mtime, err);
    if (r == 0)
        fill_dir(tree, inode, mtime, attr);
    return r;
}

/*
 * Each text has its node, so this never changes. The time is the node's own: to ask for the stamp
 * of a text that is over would make that of the present one new.
 */
static void get_xml(struct tree *tree, const struct inode *inode, struct tree_attr *attr)
{
    fill_file(tree, inode, strlen(inode->record->xml), inode->mtime, attr);
    attr->timeout_s = forever_s;
}

static bool is_entry_of(const struct catalog *catalog, const struct catalog_entry *entry,
                        const struct inode *inode)
{
    const struct disk *disk = &catalog->domain->disks[entry->disk_idx];
    return strcmp(disk->target, inode->target) == 0 && entry->is_now == inode->is_now &&
           (entry->is_now || snapshot_is_same(&entry->snapshot, &inode->snapshot));
}

const struct catalog_entry *attr_find_entry(const struct catalog *catalog,
                                            const struct inode *inode)
{
    const struct catalog_entry *named = catalog_find(catalog, inode->file);
    if (named && is_entry_of(catalog, named, inode))
        return named;
    /* Of two snapshots with one name the second takes it over when the first is deleted. */
    for (size_t i = 0; i < catalog->n_entries; i++)
        if (is_entry_of(catalog, &catalog->entries[i], inode))
            return &catalog->entries[i];
    return NULL;
}

/*
 * A disk that has no file with a time: its guest may write at any time and nobody would tell. So it
 * counts as changed by each instant that was taken meanwhile (the nodes of two have other serials),
 * or was first seen. Serials begin anew with each mount, and what a guest that is not off did
 * between two mounts nobody has seen: there it counts as changed by each mount, too.
 */
static uint64_t hash_of_now(struct tree *tree, const struct inode *inode)
{
    struct host *host = tree->config.host;
    auto_domain struct domain *domain = host->ops->find(host, inode->domain_id);
    bool is_off = domain && domain->state == DOMAIN_SHUTOFF;
    return inode_hash(is_off ? inode->serial : inode->serial ^ tree->nonce, "now");
}

static int find_mtime(struct tree *tree, const struct inode *inode,
                      const struct catalog_entry *entry, struct timespec *ret_mtime,
                      struct error *err)
{
    *ret_mtime = entry->mtime;
    if (!entry->is_undated)
        return 0;
    auto_free char *part = NULL;
    if (asprintf(&part, "now/%s", inode->target) < 0) {
        part = NULL;
        return error_set(err, -ENOMEM, "out of memory");
    }
    return attr_find_stamp(tree, inode->domain_id, part, hash_of_now(tree, inode), ret_mtime, err);
}

int attr_refresh_disk(struct tree *tree, struct inode *inode, const struct catalog_entry *entry,
                      const struct session_peek *peek, struct error *err)
{
    struct session_attr attr;
    if (inode_shown(tree->inodes, inode, &attr))
        return 0;
    if (inode->is_now && peek->serial != inode->serial)
        return error_set(err, -ESTALE, "the instant is over");
    if (inode->is_now && peek->is_taken) {
        if (inode->kind == INODE_RAW)
            inode_freeze(tree->inodes, inode, &peek->attr);
        else
            inode_show(tree->inodes, inode, &peek->attr); /* its size is known from open on */
        return 0;
    }
    if (!entry)
        return error_set(err, -ESTALE, "the disk or snapshot is gone");
    if (entry->failure)
        return error_set(err, entry->failure, "the disk cannot be inspected");
    attr = (struct session_attr){.guest_size = entry->guest_size, .blocks = entry->blocks};
    int r = find_mtime(tree, inode, entry, &attr.mtime, err);
    if (r < 0)
        return r;
    inode_show(tree->inodes, inode, &attr);
    return 0;
}

static int refresh_from_host(struct tree *tree, struct inode *inode, struct error *err)
{
    auto_catalog struct catalog *catalog = NULL;
    int r = tree_catalog(tree, inode, &catalog, err);
    if (r < 0)
        return r;
    struct session_peek peek = {0};
    if (inode->is_now)
        registry_peek(tree->config.registry, inode->domain_id, inode->target, &peek);
    return attr_refresh_disk(tree, inode, attr_find_entry(catalog, inode), &peek, err);
}

/*
 * Never empty, and all of it is data once its size is known. Before, what the disk's files take is
 * an estimate that is neither empty nor full.
 */
static void fill_flat(const struct tree *tree, const struct inode *inode,
                      const struct session_attr *disk, struct tree_attr *attr)
{
    uint64_t size = inode_flat(tree->inodes, inode).size;
    uint64_t max_size = reader_max_flat_size(disk->guest_size);
    fill_file(tree, inode, size ? size : max_size, disk->mtime, attr);
    if (!size)
        attr->st.st_blocks = (blkcnt_t)min_u64(max_u64(disk->blocks, 1), max_size / 512 - 1);
}

void attr_get_shown(struct tree *tree, const struct inode *inode, struct tree_attr *ret_attr)
{
    struct session_attr attr;
    bool is_frozen = inode_shown(tree->inodes, inode, &attr);
    if (inode->kind == INODE_QCOW2) {
        fill_flat(tree, inode, &attr, ret_attr);
    } else {
        fill_file(tree, inode, attr.guest_size, attr.mtime, ret_attr);
        ret_attr->st.st_blocks = (blkcnt_t)attr.blocks;
    }
    ret_attr->timeout_s = is_frozen ? forever_s : 0;
}

static int get_disk(struct tree *tree, struct inode *inode, struct tree_attr *ret_attr,
                    struct error *err)
{
    struct session_attr attr;
    int r = inode_shown(tree->inodes, inode, &attr) ? 0 : refresh_from_host(tree, inode, err);
    if (r == 0)
        attr_get_shown(tree, inode, ret_attr);
    return r;
}

int attr_get(struct tree *tree, struct inode *inode, struct tree_attr *ret_attr, struct error *err)
{
    switch (inode->kind) {
    case INODE_ROOT:
        return get_root(tree, inode, ret_attr, err);
    case INODE_DOMAIN:
    case INODE_STATUS:
    case INODE_UPLOAD:
        return get_domain_dir(tree, inode, ret_attr, err);
    case INODE_SNAPSHOTS:
        return get_snapshots_dir(tree, inode, ret_attr, err);
    case INODE_XML:
        get_xml(tree, inode, ret_attr);
        return 0;
    case INODE_RAW:
    case INODE_QCOW2:
        return get_disk(tree, inode, ret_attr, err);
    }
    return error_set(err, -EIO, "a node of kind %d", inode->kind);
}
