/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/dir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fuse/buffer.h"

struct dir {
    struct handle handle;
    struct tree_listing *listing;
};

static void destroy_dir(struct handle *handle)
{
    struct dir *dir = (struct dir *)handle;
    tree_listing_destroy(dir->listing);
    free(dir);
}

static void note_failure(struct tree *tree, const struct inode *inode, int code, struct error *err)
{
    if (!err->code)
        error_set(err, code, "%s", strerrordesc_np(-code));
    registry_note_error(tree->config.registry, inode->domain_id, "directory", err);
}

void dir_open(struct tree *tree, struct handle_table *handles, fuse_req_t req,
              const struct inode *inode, const struct fuse_file_info *fi)
{
    struct dir *dir = calloc(1, sizeof(*dir));
    struct error err = {0};
    int r = dir ? tree_list(tree, inode, &dir->listing, &err) : -ENOMEM;
    if (r < 0) {
        free(dir);
        if (r != -ESTALE)
            note_failure(tree, inode, r, &err);
        reply_status(req, r);
        return;
    }
    dir->handle.destroy = destroy_dir;
    handle_reply(handles, req, &dir->handle, fi);
}

/* An entry's offset is the index of the one behind it. */
void dir_read(fuse_req_t req, size_t len, off_t off, const struct fuse_file_info *fi)
{
    const struct tree_listing *listing = ((const struct dir *)handle_get(fi))->listing;
    if (listing->end < 0 && off >= 0 && (size_t)off >= listing->n) {
        reply_status(req, listing->end);
        return;
    }
    char *buffer = buffer_get(len);
    if (!buffer) {
        reply_status(req, -ENOMEM);
        return;
    }
    size_t used = 0;
    for (size_t i = off < 0 ? listing->n : (size_t)off; i < listing->n; i++) {
        const struct tree_entry *entry = &listing->entries[i];
        struct stat st = {.st_ino = entry->ino, .st_mode = entry->type};
        size_t need =
            fuse_add_direntry(req, buffer + used, len - used, entry->name, &st, (off_t)i + 1);
        if (need > len - used)
            break;
        used += need;
    }
    reply_data(req, buffer, used);
}
