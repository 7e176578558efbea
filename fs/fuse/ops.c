/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "fs/fuse/attr.h"
#include "fs/fuse/control.h"
#include "fs/fuse/dir.h"
#include "fs/fuse/text.h"
#include "fs/log.h"
#include "fs/session/name.h"
#include "qcow/base/cleanup.h"

/*
 * Reads that wait for a disk that hangs must leave room for those of other domains: the kernel's
 * default is 12 for the whole mount.
 */
enum { BACKGROUND_MAX = 64 };

static struct ops_context *get_context(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static struct tree *get_tree(fuse_req_t req)
{
    return get_context(req)->tree;
}

static struct inode *get_inode(fuse_req_t req, fuse_ino_t nodeid)
{
    if (nodeid == FUSE_ROOT_ID)
        return inode_root(get_tree(req)->inodes);
    /* lint: clang-tidy/performance-no-int-to-ptr: libfuse keeps no pointers, only numbers */
    return (struct inode *)(uintptr_t)nodeid;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    conn->max_read = OPS_READ_MAX;
    conn->max_write = OPS_READ_MAX; /* libfuse derives the pages a request may have from it */
    conn->max_readahead = OPS_READAHEAD;
    conn->max_background = BACKGROUND_MAX;
    conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
    /*
     * Nodes never change, so asking for attributes on each cached read would be for nothing;
     * splicing a megabyte measured half as fast as writing it.
     */
    conn->want &=
        ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                    FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
    /* With O_TRUNC at open an O_RDONLY | O_TRUNC is refused there, too. */
    conn->want |= conn->capable & (FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ATOMIC_O_TRUNC);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct tree *tree = get_tree(req);
    struct inode *inode;
    struct tree_attr attr;
    struct error err = {0};
    int r = tree_lookup(tree, get_inode(req, parent), name, &inode, &attr, &err);
    if (r < 0) {
        log_debug("lookup of '%s': %s", name, err.text);
        tree_note_failure(tree, get_inode(req, parent), name, r, &err);
        reply_status(req, r);
        return;
    }
    /* No name is cached: what it stands for may be another node the next moment. */
    struct fuse_entry_param entry = {
        .ino = (uintptr_t)inode,
        .generation = inode->generation,
        .attr = attr.st,
        .attr_timeout = attr.timeout_s,
        .entry_timeout = 0,
    };
    if (fuse_reply_entry(req, &entry) == -ENOENT)
        inode_forget(tree->inodes, inode, 1);
}

static void op_forget(fuse_req_t req, fuse_ino_t nodeid, uint64_t n)
{
    inode_forget(get_tree(req)->inodes, get_inode(req, nodeid), n);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        inode_forget(get_tree(req)->inodes, get_inode(req, forgets[i].ino), forgets[i].nlookup);
    fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi)
{
    (void)fi;
    struct tree_attr attr;
    struct error err = {0};
    int r = attr_get(get_tree(req), get_inode(req, nodeid), &attr, &err);
    if (r < 0) {
        log_debug("getattr: %s", err.text);
        tree_note_failure(get_tree(req), get_inode(req, nodeid), "attributes", r, &err);
        reply_status(req, r);
        return;
    }
    fuse_reply_attr(req, &attr.st, attr.timeout_s);
}

static void op_open(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi)
{
    struct ops_context *context = get_context(req);
    struct inode *inode = get_inode(req, nodeid);
    bool is_write = (fi->flags & O_ACCMODE) != O_RDONLY || fi->flags & O_TRUNC;
    if (is_write && inode->kind != INODE_UPLOAD) {
        reply_status(req, -EACCES);
    } else if (inode_is_disk(inode)) {
        file_open(context->files, req, inode, fi);
    } else {
        struct text_context texts = {context->tree, context->uploads, &context->handles};
        text_open(&texts, req, inode, fi);
    }
}

static void op_read(fuse_req_t req, fuse_ino_t nodeid, size_t len, off_t off,
                    struct fuse_file_info *fi)
{
    struct inode *inode = get_inode(req, nodeid);
    if (inode_is_disk(inode))
        file_read(get_context(req)->files, req, inode, len, off, fi);
    else
        text_read(req, len, off, fi);
}

/* The offset does not matter: each write is a line of its own. */
static void op_write(fuse_req_t req, fuse_ino_t nodeid, const char *bytes, size_t len, off_t off,
                     struct fuse_file_info *fi)
{
    (void)off, (void)fi;
    struct ops_context *context = get_context(req);
    struct inode *inode = get_inode(req, nodeid);
    if (inode->kind == INODE_UPLOAD)
        control_write(context->tree, context->uploads, req, inode, bytes, len);
    else
        reply_status(req, -EBADF);
}

static void op_lseek(fuse_req_t req, fuse_ino_t nodeid, off_t off, int whence,
                     struct fuse_file_info *fi)
{
    struct inode *inode = get_inode(req, nodeid);
    if (inode_is_disk(inode))
        file_seek(get_context(req)->files, req, inode, off, whence, fi);
    else
        text_seek(req, off, whence, fi);
}

static void op_release(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi)
{
    (void)nodeid;
    handle_release(&get_context(req)->handles, fi);
    reply_status(req, 0);
}

static void op_opendir(fuse_req_t req, fuse_ino_t nodeid, struct fuse_file_info *fi)
{
    struct ops_context *context = get_context(req);
    dir_open(context->tree, &context->handles, req, get_inode(req, nodeid), fi);
}

static void op_readdir(fuse_req_t req, fuse_ino_t nodeid, size_t len, off_t off,
                       struct fuse_file_info *fi)
{
    dir_read(get_tree(req), req, get_inode(req, nodeid), len, off, fi);
}

/* No space of its own: zeros, so that df and monitoring leave it out. */
static void op_statfs(fuse_req_t req, fuse_ino_t nodeid)
{
    (void)nodeid;
    struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = NAME_FILE_MAX};
    fuse_reply_statfs(req, &st);
}

/* 0 and the value (caller frees), -ENODATA, or what is wrong with the domain. */
static int find_xattr(struct tree *tree, const struct inode *inode, const char *name,
                      char **ret_value)
{
    static const char prefix[] = "user.virtsnapfs.";
    if (!inode_is_disk(inode) || strncmp(name, prefix, strlen(prefix)) != 0)
        return -ENODATA;
    auto_domain struct domain *domain = NULL;
    int r = tree_domain(tree, inode, &domain, NULL);
    if (r < 0)
        return r;
    const struct disk *disk = domain_find_disk(domain, inode->target);
    char *value = NULL;
    if (disk)
        value = registry_xattr(tree->config.registry, domain, disk,
                               inode->is_now ? NULL : &inode->snapshot, inode->serial,
                               name + strlen(prefix));
    if (!value)
        return -ENODATA;
    *ret_value = value;
    return 0;
}

static void op_getxattr(fuse_req_t req, fuse_ino_t nodeid, const char *name, size_t room)
{
    auto_free char *value = NULL;
    int r = find_xattr(get_tree(req), get_inode(req, nodeid), name, &value);
    size_t len = value ? strlen(value) : 0;
    if (r < 0)
        reply_status(req, r);
    else if (room == 0)
        fuse_reply_xattr(req, len);
    else if (room < len)
        reply_status(req, -ERANGE);
    else
        reply_data(req, value, len);
}

/* Not listed, so that no copy of a file seems to lack what the file has now and not later. */
static void op_listxattr(fuse_req_t req, fuse_ino_t nodeid, size_t room)
{
    (void)nodeid;
    if (room == 0)
        fuse_reply_xattr(req, 0);
    else
        reply_data(req, NULL, 0);
}

static void refuse(fuse_req_t req)
{
    reply_status(req, -EROFS);
}

/* `upload` may be emptied, as a shell does before it writes; there is nothing in it. */
static void op_setattr(fuse_req_t req, fuse_ino_t nodeid, struct stat *st, int to_set,
                       struct fuse_file_info *fi)
{
    const int forbidden = FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID;
    bool is_cut = to_set & FUSE_SET_ATTR_SIZE && !(to_set & forbidden) && st->st_size == 0;
    if (is_cut && get_inode(req, nodeid)->kind == INODE_UPLOAD)
        op_getattr(req, nodeid, fi);
    else
        refuse(req);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev)
{
    (void)parent, (void)name, (void)mode, (void)dev;
    refuse(req);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *fi)
{
    (void)parent, (void)name, (void)mode, (void)fi;
    refuse(req);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    (void)parent, (void)name, (void)mode;
    refuse(req);
}

/* unlink and rmdir */
static void op_remove(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    (void)parent, (void)name;
    refuse(req);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    (void)target, (void)parent, (void)name;
    refuse(req);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                      const char *new_name, unsigned flags)
{
    (void)parent, (void)name, (void)new_parent, (void)new_name, (void)flags;
    refuse(req);
}

static void op_link(fuse_req_t req, fuse_ino_t nodeid, fuse_ino_t parent, const char *name)
{
    (void)nodeid, (void)parent, (void)name;
    refuse(req);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t nodeid, const char *name, const char *value,
                        size_t len, int flags)
{
    (void)nodeid, (void)name, (void)value, (void)len, (void)flags;
    refuse(req);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t nodeid, const char *name)
{
    (void)nodeid, (void)name;
    refuse(req);
}

/*
 * Left out on purpose: locks, which the kernel then keeps by itself; flush and fsync, which it
 * then takes for done; access, which default_permissions answers.
 */
const struct fuse_lowlevel_ops ops_table = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .unlink = op_remove,
    .rmdir = op_remove,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
    .create = op_create,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .release = op_release,
    .lseek = op_lseek,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .releasedir = op_release,
    .statfs = op_statfs,
    .setxattr = op_setxattr,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .removexattr = op_removexattr,
};
