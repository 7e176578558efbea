/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/fuse/buffer.h"
#include "qcow/base/cleanup.h"

struct text {
    struct handle handle;
    size_t len;
    char *bytes;
};

static void destroy_text(struct handle *handle)
{
    struct text *text = (struct text *)handle;
    free(text->bytes);
    free(text);
}

/* What the node says now; caller frees. */
static int make_bytes(struct tree *tree, const struct inode *inode, char **ret_bytes)
{
    auto_domain struct domain *domain = NULL;
    int r = tree_domain(tree, inode, &domain, NULL);
    if (r < 0)
        return r;
    char *bytes;
    if (inode->kind == INODE_STATUS)
        bytes = registry_status(tree->config.registry, domain);
    else if (domain->xml && strcmp(domain->xml, inode->record->xml) == 0)
        bytes = strdup(domain->xml);
    else
        return -ESTALE; /* the definition has changed: its new text has another node */
    if (!bytes)
        return -ENOMEM;
    *ret_bytes = bytes;
    return 0;
}

static int make_text(struct tree *tree, const struct inode *inode, struct text **ret_text)
{
    auto_free char *bytes = NULL;
    int r = make_bytes(tree, inode, &bytes);
    if (r < 0)
        return r;
    struct text *text = malloc(sizeof(*text));
    if (!text)
        return -ENOMEM;
    *text = (struct text){
        .handle = {.destroy = destroy_text}, .len = strlen(bytes), .bytes = take_ptr(bytes)};
    *ret_text = text;
    return 0;
}

/*
 * `status` has no size that stat could tell, so it is read past the page cache; domain.xml has
 * one, and its node stands for this text only.
 */
void text_open(struct tree *tree, struct handle_table *handles, fuse_req_t req,
               const struct inode *inode, const struct fuse_file_info *fi)
{
    struct text *text;
    int r = make_text(tree, inode, &text);
    if (r < 0) {
        reply_status(req, r);
        return;
    }
    struct fuse_file_info answer = *fi;
    answer.direct_io = inode->kind == INODE_STATUS;
    answer.keep_cache = inode->kind == INODE_XML;
    handle_reply(handles, req, &text->handle, &answer);
}

static const struct text *get_text(const struct fuse_file_info *fi)
{
    return (const struct text *)handle_get(fi);
}

/*
 * From a copy: once the kernel has the bytes, another thread may be told to release the handle
 * while this one is still on its way out of the system call.
 */
void text_read(fuse_req_t req, size_t len, off_t off, const struct fuse_file_info *fi)
{
    const struct text *text = get_text(fi);
    size_t begin = off < 0 || (uint64_t)off > text->len ? text->len : (size_t)off;
    if (len > text->len - begin)
        len = text->len - begin;
    char *buffer = buffer_get(len);
    if (!buffer) {
        reply_status(req, -ENOMEM);
        return;
    }
    memcpy(buffer, text->bytes + begin, len);
    reply_data(req, buffer, len);
}

/* All of it is data. */
void text_seek(fuse_req_t req, off_t off, int whence, const struct fuse_file_info *fi)
{
    size_t text_len = get_text(fi)->len;
    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        reply_status(req, -EINVAL);
    else if (off < 0 || (uint64_t)off >= text_len)
        reply_status(req, -ENXIO);
    else
        fuse_reply_lseek(req, whence == SEEK_DATA ? off : (off_t)text_len);
}
