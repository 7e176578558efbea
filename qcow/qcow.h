/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The decoder's whole public face: open, close, size, read, map, list snapshots.
 *
 * Read-only. The library opens no path, logs nothing and has no globals but what each thread keeps
 * for itself: an opener callback gives it a descriptor for each reference (backing file, external
 * data file), so that the policy of what may be opened stays with the caller. An image once open
 * may be read and mapped by any number of threads at the same time; open and close are the business
 * of one thread.
 *
 * Format: "QCow2 image file format" of QEMU 7.2, as pinned in docs/format-notes.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "qcow/base/error.h"

struct qcow_image;
struct qcow_cache;

enum qcow_format { QCOW_FORMAT_RAW, QCOW_FORMAT_QCOW2 };

/* "raw" or "qcow2". */
const char *qcow_format_name(enum qcow_format format);

/* 0 and the format, or -ENOTSUP for any other word than "raw" and "qcow2". */
int qcow_format_parse(const char *word, enum qcow_format *ret_format);

/*
 * Bytes that lie somewhere else than in a file of this machine, for a raw image to be read from:
 * an export of a server, or memory. They do not change and their number is fixed. Made by the
 * caller of qcow_open() or by its opener and handed over with the qcow_file that names it; close()
 * then comes exactly once, after the last read. read() and map() are called by any number of
 * threads at the same time, only for ranges that lie within, and fill @err when they fail.
 */
struct qcow_remote {
    uint64_t host_size; /* bytes */
    /* All @len bytes: 0, or -EIO. */
    int (*read)(void *ctx, uint64_t host_off, void *buf, size_t len, struct error *err);
    /*
     * How many bytes from @host_off on are zeros for certain, at most @max_len; 0 if that is not
     * known. Asks nobody, so that it does not block and cannot fail. NULL: nothing is ever known.
     */
    uint64_t (*find_zeros)(void *ctx, uint64_t host_off, uint64_t max_len);
    /*
     * Whether there is data at @host_off, or zeros, and for how many bytes on that is certain: at
     * least 1, at most @max_len. 0, or -EIO.
     */
    int (*map)(void *ctx, uint64_t host_off, uint64_t max_len, bool *ret_is_data, uint64_t *ret_len,
               struct error *err);
    void (*close)(void *ctx); /* frees this struct as well */
    void *ctx;
};

/* An opened file that holds an image. */
struct qcow_file {
    int fd;                  /* readable; a regular file or a block device; -1 with a remote */
    enum qcow_format format; /* as declared by somebody who knows; never probed */
    char *name;              /* for messages */
    const struct qcow_remote *remote; /* holds the bytes of a raw image in place of fd, or NULL */
};

/* Closes what is open in @file and frees its name; nothing of it is left. */
void qcow_file_close(struct qcow_file *file);

enum qcow_ref_kind {
    QCOW_REF_BACKING, /* the next image of the chain */
    QCOW_REF_DATA,    /* the external data file of a qcow2 image (always raw) */
};

/* A reference that an image makes, for the opener to judge. */
struct qcow_ref {
    enum qcow_ref_kind kind;
    unsigned depth;     /* layer that makes the reference: 0 is the image first opened */
    const char *name;   /* as recorded in the image; NULL if it records none (backing only) */
    const char *format; /* recorded format of the backing file, or NULL */
    const char *from;   /* name of the file that holds the reference */
    int from_fd;        /* its descriptor; borrowed */
};

/*
 * Answers a reference: 0 with an open file in @ret_file (all it holds is handed over), 1
 * for "there is none" (only for a backing reference; the image then ends the chain), or a
 * negative errno. It is asked for the backing file of every qcow2 layer, named or not, so that a
 * caller who knows the chain from elsewhere can put that in place of what the image says.
 * Called on the thread of qcow_open only.
 */
struct qcow_opener {
    int (*open_ref)(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                    struct error *err);
    void *ctx;
};

/*
 * One internal snapshot. Strings are as in the image: any bytes but NUL, possibly empty; cut to
 * the length that QEMU shows (127 bytes of the id, 255 of the name).
 */
struct qcow_snapshot {
    char *id;
    char *name;
    uint64_t guest_size;     /* virtual size of the disk in this snapshot, bytes, multiple of 512 */
    uint64_t vm_state_size;  /* bytes of saved RAM and device state, 0 if disk only */
    struct timespec created; /* UTC */
    uint64_t l1_off;         /* host offset of its L1 table: with the rest, its identity */
    uint32_t l1_entries;
};

/* What the header and the snapshot table say; nothing that they refer to is opened. */
struct qcow_info {
    uint64_t guest_size; /* bytes, multiple of 512 */
    uint32_t cluster_size;
    unsigned version;          /* 2 or 3; 0 for raw */
    bool is_encrypted;         /* opening it would give -ENOTSUP */
    bool is_dirty, is_corrupt; /* incompatible bits 0 and 1: readable all the same */
    char *backing_name;        /* NULL if none */
    char *backing_format;      /* NULL if not recorded */
    char *data_name;           /* NULL if no external data file or name not recorded */
    struct qcow_snapshot *snapshots;
    size_t n_snapshots;
};

/*
 * Reads header and snapshot table of @file (borrowed). Safe on the image of a running guest: the
 * header is read again after the table, and the whole is repeated if it moved in between. Cost
 * grows with the snapshot table only (at most 65536 entries, 64 MiB).
 *
 * 0, -EBADMSG (damaged), -ENOTSUP (version 1, unknown incompatible feature), -EIO, -EAGAIN (the
 * table kept moving), -ENOMEM. Encryption is not an error here. qcow_info_fini() releases
 * @ret_info.
 */
int qcow_inspect(const struct qcow_file *file, struct qcow_info *ret_info, struct error *err);
void qcow_info_fini(struct qcow_info *info);

/* Copies @from; 0 or -ENOMEM. qcow_snapshot_fini() releases @ret. */
int qcow_snapshot_copy(const struct qcow_snapshot *from, struct qcow_snapshot *ret);
void qcow_snapshot_fini(struct qcow_snapshot *snapshot);

/* True if both describe the same snapshot: all fields are equal. Pure. */
bool qcow_snapshot_is_same(const struct qcow_snapshot *a, const struct qcow_snapshot *b);

/* True if the file begins with the magic of qcow2 ("QFI\xfb"); for warnings, never to choose. */
bool qcow_has_magic(int fd);

/*
 * Memory for tables and inflated clusters, shared by all images opened with it. Any thread.
 *
 * @limit  bytes; what readers hold at one moment may exceed it by a cluster for each thread
 */
int qcow_cache_create(size_t limit, struct qcow_cache **ret_cache, struct error *err);
/*
 * Lets @n_threads inflate clusters for one reader at the same time, the reader's own among them (1
 * if not called). The others are started when there is first work for them. Before any image is
 * opened. 0 or -ENOMEM.
 */
int qcow_cache_set_threads(struct qcow_cache *cache, unsigned n_threads, struct error *err);
void qcow_cache_destroy(struct qcow_cache *cache); /* after the last image; NULL is fine */
size_t qcow_cache_used(struct qcow_cache *cache);  /* bytes held now */

/*
 * Opens an image with its whole chain. Takes @file (with all it holds, also on failure).
 *
 * @opener    asked for each reference; borrowed for the call
 * @cache     borrowed until qcow_close()
 * @snapshot  an internal snapshot to read in place of the active disk, found again by all its
 *            fields, or NULL. Reads then compare the snapshot's own table entry again after the
 *            data was read, and give -ESTALE once somebody deleted it.
 *
 * 0, -EBADMSG (damaged; the text names table, offset and value), -ENOTSUP (encrypted, unknown
 * feature, compression or reference, qcow2 in a remote), -ELOOP (a chain that bites its tail or is
 * deeper than 200), -ESTALE (no such snapshot any more), -EIO, -ENOMEM, or what the opener said.
 */
int qcow_open(struct qcow_file *file, const struct qcow_opener *opener, struct qcow_cache *cache,
              const struct qcow_snapshot *snapshot, struct qcow_image **ret_image,
              struct error *err);
void qcow_close(struct qcow_image *image); /* NULL is fine */

/* Virtual size in bytes, a multiple of 512: what QEMU shows to a guest. */
uint64_t qcow_size(const struct qcow_image *image);

/*
 * Number of layers, and the open file of layer @depth (0 is the image itself), borrowed; for
 * locks and for stat. Data files are not layers.
 */
unsigned qcow_depth(const struct qcow_image *image);
const struct qcow_file *qcow_layer_file(const struct qcow_image *image, unsigned depth);

/*
 * Reads guest bytes. Blocks on disk I/O; holds no lock meanwhile.
 *
 * The number of bytes read: @len, or less at the end of the disk (0 from there on). Negative:
 * -EBADMSG, -EIO, -ESTALE, -ENOMEM; the buffer's content is then undefined, never "zeros".
 */
ssize_t qcow_read(struct qcow_image *image, uint64_t guest_off, void *buf, size_t len,
                  struct error *err);

/* Where bytes are: pieces that follow one another. */
enum { QCOW_PARTS_MAX = 64 };
struct qcow_parts {
    struct iovec iov[QCOW_PARTS_MAX];
    int n;
};

/*
 * As qcow_read(), but spares long runs of zeros: they need not be in @buf. @ret_parts tells where
 * the bytes are, each in @buf at its place or in zeros that the library has.
 */
ssize_t qcow_read_parts(struct qcow_image *image, uint64_t guest_off, void *buf, size_t len,
                        struct qcow_parts *ret_parts, struct error *err);

/*
 * Frees what the library keeps for the calling thread. Comes by itself when a thread ends; for
 * main().
 */
void qcow_thread_release(void);

enum qcow_extent_kind {
    QCOW_DATA, /* some layer holds data for it */
    QCOW_ZERO, /* marked as zeros */
    QCOW_HOLE, /* no layer holds anything: reads as zeros */
};

struct qcow_extent {
    uint64_t guest_off;
    uint64_t len; /* bytes, at least 1 */
    enum qcow_extent_kind kind;
};

/*
 * The extent that begins at @guest_off, at most @max_len bytes long and grown as far as its kind
 * goes, or as a bounded number of table slices tells: the next one may be of the same kind, so
 * that a caller who walks a long way can be stopped in between. Reads tables only, never data.
 *
 * 0; -ENXIO if @guest_off is not below qcow_size(); else as qcow_read().
 */
int qcow_map(struct qcow_image *image, uint64_t guest_off, uint64_t max_len,
             struct qcow_extent *ret_extent, struct error *err);

/*
 * Whether the whole map can be walked in a time that the files account for: for whoever has called
 * qcow_map() again and again, and is still not where he wants to be. Reads the L1 tables (see
 * qcow/l1_check.h); once an image was found sound, never again.
 *
 * 0, or as l1_check() says.
 */
int qcow_check_walk(struct qcow_image *image, struct error *err);
