/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/dir.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fuse/buffer.h"
#include "qcow/base/thread.h"

struct dir {
    struct handle handle;

    struct mutex lock;
    struct tree_listing *listing GUARDED_BY(lock);
    bool is_begun GUARDED_BY(lock); /* its first name was asked for */
};

static void destroy_dir(struct handle *handle)
{
    struct dir *dir = (struct dir *)handle;
    tree_listing_destroy(dir->listing);
    mutex_fini(&dir->lock);
    free(dir);
}

static void refuse(struct tree *tree, fuse_req_t req, const struct inode *inode, int code,
                   struct error *err)
{
    if (!err->code)
        error_set(err, code, "%s", strerrordesc_np(-code));
    if (code != -ESTALE)
        registry_note_error(tree->config.registry, inode->domain_id, "directory", err);
    reply_status(req, code);
}

void dir_open(struct tree *tree, struct handle_table *handles, fuse_req_t req,
              const struct inode *inode, const struct fuse_file_info *fi)
{
    struct dir *dir = calloc(1, sizeof(*dir));
    struct error err = {0};
    int r = dir ? tree_list(tree, inode, &dir->listing, &err) : -ENOMEM;
    if (r < 0) {
        free(dir);
        refuse(tree, req, inode, r, &err);
        return;
    }
    mutex_init(&dir->lock);
    dir->handle.destroy = destroy_dir;
    handle_reply(handles, req, &dir->handle, fi);
}

static bool begin_again(struct dir *dir)
{
    mutex_lock(&dir->lock);
    bool is_again = dir->is_begun;
    dir->is_begun = true;
    mutex_unlock(&dir->lock);
    return is_again;
}

/* rewinddir(3): who keeps a directory open wants to see what has come since. */
static int list_again(struct tree *tree, struct dir *dir, const struct inode *inode,
                      struct error *err)
{
    struct tree_listing *listing;
    int r = tree_list(tree, inode, &listing, err);
    if (r < 0)
        return r;
    mutex_lock(&dir->lock);
    struct tree_listing *before = dir->listing;
    dir->listing = listing;
    mutex_unlock(&dir->lock);
    tree_listing_destroy(before);
    return 0;
}

/*
 * Bytes, 0 at the end, or what stands for the names that could not be found out. An entry's offset
 * is the index of the one behind it.
 */
static ssize_t fill(fuse_req_t req, const struct tree_listing *listing, size_t at, char *buffer,
                    size_t len)
{
    if (listing->end < 0 && at >= listing->n)
        return listing->end;
    size_t used = 0;
    for (size_t i = at; i < listing->n; i++) {
        const struct tree_entry *entry = &listing->entries[i];
        struct stat st = {.st_ino = entry->ino, .st_mode = entry->type};
        size_t need =
            fuse_add_direntry(req, buffer + used, len - used, entry->name, &st, (off_t)i + 1);
        if (need > len - used)
            break;
        used += need;
    }
    return (ssize_t)used;
}

void dir_read(struct tree *tree, fuse_req_t req, const struct inode *inode, size_t len, off_t off,
              const struct fuse_file_info *fi)
{
    struct dir *dir = (struct dir *)handle_get(fi);
    struct error err = {0};
    int r = off == 0 && begin_again(dir) ? list_again(tree, dir, inode, &err) : 0;
    if (r < 0) {
        refuse(tree, req, inode, r, &err);
        return;
    }
    char *buffer = buffer_get(len);
    if (!buffer) {
        reply_status(req, -ENOMEM);
        return;
    }
    mutex_lock(&dir->lock);
    ssize_t n = fill(req, dir->listing, off < 0 ? SIZE_MAX : (size_t)off, buffer, len);
    mutex_unlock(&dir->lock);
    if (n < 0)
        reply_status(req, (int)n);
    else
        reply_data(req, buffer, (size_t)n);
}
