/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/reply.h"

#include <errno.h>

/* The kernel takes errors below this only, and libfuse ends the program for others. */
enum { ERRNO_MAX = 512 };

int reply_errno(int code)
{
    switch (code) {
    case -EBADMSG:   /* damaged image */
    case -ESHUTDOWN: /* we are going away */
    case -ENOTCONN:  /* lost hypervisor; to a program it would look like a lost mount */
    case -ECANCELED: /* instant ended early */
    case -ELOOP:     /* a chain that bites its tail; to a program it would be about symlinks */
        return EIO;
    case -EAGAIN: /* it kept moving; a program would wait for it in poll(2) */
        return EBUSY;
    case -ENOSYS: /* the kernel would never ask again, for no file of the mount */
        return EOPNOTSUPP;
    default:
        return code < 0 && code > -ERRNO_MAX ? -code : EIO;
    }
}

void reply_status(fuse_req_t req, int code)
{
    fuse_reply_err(req, code ? reply_errno(code) : 0);
}

void reply_data(fuse_req_t req, const void *bytes, size_t len)
{
    fuse_reply_buf(req, bytes, len);
}

void reply_parts(fuse_req_t req, const struct qcow_parts *parts)
{
    fuse_reply_iov(req, parts->iov, parts->n);
}
