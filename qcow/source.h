/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What lies below an image: bytes of a host file, or of a remote. The image that embeds a source
 * owns the file. All functions may be called by any thread and may block on I/O.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qcow/base/error.h"

struct qcow_file;
struct qcow_remote;

struct source {
    int fd;
    const struct qcow_remote *remote; /* read in place of fd, or NULL */
    uint64_t host_size;               /* when the source was opened */
    uint64_t id;                      /* unique among the users of one cache */
    bool leaves_cache;                /* data can be read without staying in the page cache */
    const char *name;                 /* for messages; borrowed from the file */
};

/* Learns the size of @fd (borrowed): a regular file or a block device. 0 or -EIO. */
int source_init(struct source *src, int fd, const char *name, uint64_t id, struct error *err);
/* The same for a file (borrowed) that may be a remote. */
int source_init_file(struct source *src, const struct qcow_file *file, uint64_t id,
                     struct error *err);

/* Bytes that the file has now; it may have grown since open, as the image of a running guest does.
 */
uint64_t source_size_now(const struct source *src);

/*
 * Reads bytes that must be there. 0, -EBADMSG if the file ends before, -EIO.
 *
 * @what  the thing read, for the message ("L2 table 3")
 */
int source_read(const struct source *src, uint64_t host_off, void *buf, size_t len,
                const char *what, struct error *err);

/*
 * Reads guest data: what lies past the end that the file had at open reads as zeros, as it does
 * in QEMU (preallocated images end there). A file that was truncated since is an -EIO.
 */
int source_read_data(const struct source *src, uint64_t host_off, void *buf, size_t len,
                     struct error *err);

/*
 * Is there data at @host_off? The length of the run of the same kind, at most @max_len, by
 * SEEK_DATA and SEEK_HOLE of the file (where they are not to be had, all is data) or as the remote
 * tells.
 */
int source_map(const struct source *src, uint64_t host_off, uint64_t max_len, bool *ret_is_data,
               uint64_t *ret_len, struct error *err);
