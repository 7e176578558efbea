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

static struct status_upload show_upload(const struct upload_info *info)
{
    return (struct status_upload){
        .id = info->id,
        .snapshot = info->snapshot,
        .image_name = info->image_name,
        .image_id = info->image_id,
        .error = info->error,
        .disk = info->disk,
        .format = info->format,
        .retry = info->retry,
        .state = info->state,
        .percent = info->percent,
        .attempt = info->attempt,
        .n_sent = info->n_sent,
        .size = info->size,
        .speed = info->speed,
        .rest_s = info->rest_s,
        .idle_s = info->idle_s,
        .ended_s = info->ended_s,
        .ended = info->ended,
    };
}

/* The status of a domain, with its uploads. */
static int make_status(const struct text_context *context, struct domain *domain, char **ret_bytes)
{
    struct upload_info *infos = NULL;
    size_t n = 0;
    int r = context->uploads ? uploads_list(context->uploads, domain->id, &infos, &n) : 0;
    if (r < 0)
        return r;
    auto_free struct status_upload *shown = calloc(n + 1, sizeof(*shown));
    for (size_t i = 0; shown && i < n; i++)
        shown[i] = show_upload(&infos[i]);
    *ret_bytes = shown ? registry_status(context->tree->config.registry, domain, shown, n) : NULL;
    uploads_list_free(infos, n);
    return *ret_bytes ? 0 : -ENOMEM;
}

static int make_xml(const struct inode *inode, const struct domain *domain, char **ret_bytes)
{
    if (!domain->xml || strcmp(domain->xml, inode->record->xml) != 0)
        return -ESTALE; /* the definition has changed: its new text has another node */
    *ret_bytes = strdup(domain->xml);
    return *ret_bytes ? 0 : -ENOMEM;
}

static int make_table(const struct text_context *context, const char *domain_id, char **ret_bytes)
{
    *ret_bytes = context->uploads ? uploads_table(context->uploads, domain_id) : strdup("");
    return *ret_bytes ? 0 : -ENOMEM;
}

/* What the node says now; caller frees. */
static int make_bytes(const struct text_context *context, const struct inode *inode,
                      char **ret_bytes)
{
    auto_domain struct domain *domain = NULL;
    int r = tree_domain(context->tree, inode, &domain, NULL);
    if (r < 0)
        return r;
    if (inode->kind == INODE_STATUS)
        return make_status(context, domain, ret_bytes);
    if (inode->kind == INODE_UPLOAD)
        return make_table(context, domain->id, ret_bytes);
    return make_xml(inode, domain, ret_bytes);
}

static int make_text(const struct text_context *context, const struct inode *inode,
                     struct text **ret_text)
{
    auto_free char *bytes = NULL;
    int r = make_bytes(context, inode, &bytes);
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
 * `status` and `upload` have no size that stat could tell, so they are read past the page cache;
 * domain.xml has one, and its node stands for this text only.
 */
void text_open(const struct text_context *context, fuse_req_t req, const struct inode *inode,
               const struct fuse_file_info *fi)
{
    struct text *text;
    int r = make_text(context, inode, &text);
    if (r < 0) {
        tree_note_failure(context->tree, inode, "text", r, &(struct error){.code = 0});
        reply_status(req, r);
        return;
    }
    struct fuse_file_info answer = *fi;
    answer.direct_io = inode->kind != INODE_XML;
    answer.keep_cache = inode->kind == INODE_XML;
    handle_reply(context->handles, req, &text->handle, &answer);
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
