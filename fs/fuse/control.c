/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/control.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/fuse/interrupt.h"
#include "qcow/base/cleanup.h"

/* A write that was not answered yet. Of the thread that begins the job, then of the job's. */
struct writing {
    struct interrupt interrupt;
    size_t len;
};

static bool is_given_up(void *ctx)
{
    struct writing *writing = ctx;
    return interrupt_ends(&writing->interrupt);
}

static void answer(void *ctx, int result, const struct error *err)
{
    struct writing *writing = ctx;
    (void)err; /* the job tells it: upload_source_make() */
    if (result == 0)
        fuse_reply_write(writing->interrupt.req, writing->len);
    else
        reply_status(writing->interrupt.req, result);
    free(writing);
}

void control_write(struct tree *tree, struct uploads *uploads, fuse_req_t req,
                   const struct inode *inode, const char *bytes, size_t len)
{
    auto_domain struct domain *domain = NULL;
    int r = tree_domain(tree, inode, &domain, NULL);
    struct writing *writing = r < 0 ? NULL : malloc(sizeof(*writing));
    if (!writing) {
        reply_status(req, r < 0 ? r : -ENOMEM);
        return;
    }
    *writing = (struct writing){.interrupt = {.req = req}, .len = len};
    struct upload_request request = {
        .domain_id = domain->id,
        .domain_name = domain->name,
        .line = bytes,
        .len = len,
        .pid = fuse_req_ctx(req)->pid,
        .done = answer,
        .is_cancelled = is_given_up,
        .ctx = writing,
    };
    uploads_begin(uploads, &request);
}
