/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The least that a FUSE server can do: one file, whose bytes are those of another one.
 *
 *   bare FILE MOUNTPOINT       serves FILE as MOUNTPOINT/disk.raw, in the foreground
 *
 * A read is one pread into a buffer of the thread and one reply; lseek asks the file. What libfuse
 * and the kernel are asked for is what virtsnapfs asks them for (fs/fuse/mount.c, ops.c), so that
 * the difference between the two is what virtsnapfs does. Whoever mounts it raises the mount's
 * readahead (peers.sh).
 */
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    NODE = 2,
    READ_MAX = 1 << 20,
    ALIGNMENT = 4096,
    BACKGROUND_MAX = 64,
    THREADS_MAX = 128,
    THREADS_IDLE_MAX = 8,
};

static const char name_of_file[] = "disk.raw";
static const double forever_s = 1e9;
static int file = -1;

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    conn->max_read = READ_MAX;
    conn->max_write = READ_MAX; /* the pages of a request come from it */
    conn->max_readahead = READ_MAX;
    conn->max_background = BACKGROUND_MAX;
    conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
    conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ |
                              FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

static int get_attr(fuse_ino_t node, struct stat *ret_st)
{
    if (node == FUSE_ROOT_ID)
        *ret_st = (struct stat){.st_mode = S_IFDIR | 0555, .st_nlink = 2};
    else if (fstat(file, ret_st) < 0)
        return -errno;
    ret_st->st_ino = node;
    return 0;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry = {
        .ino = NODE, .attr_timeout = forever_s, .entry_timeout = forever_s};
    int r = parent == FUSE_ROOT_ID && strcmp(name, name_of_file) == 0 ? get_attr(NODE, &entry.attr)
                                                                      : -ENOENT;
    if (r < 0)
        fuse_reply_err(req, -r);
    else
        fuse_reply_entry(req, &entry);
}

static void op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
    (void)fi;
    struct stat st;
    int r = get_attr(node, &st);
    if (r < 0)
        fuse_reply_err(req, -r);
    else
        fuse_reply_attr(req, &st, forever_s);
}

static void op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
    if (node != NODE) {
        fuse_reply_err(req, EISDIR);
        return;
    }
    fi->keep_cache = 1;
    fuse_reply_open(req, fi);
}

static void op_read(fuse_req_t req, fuse_ino_t node, size_t len, off_t off,
                    struct fuse_file_info *fi)
{
    (void)node;
    (void)fi;
    /* Threads are few and stay; the last use of it is the end of the process. */
    static _Thread_local void *buf;
    if (!buf)
        buf = aligned_alloc(ALIGNMENT, READ_MAX);
    ssize_t n = buf ? pread(file, buf, len < READ_MAX ? len : READ_MAX, off) : -1;
    if (n < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_buf(req, buf, (size_t)n);
}

static void op_lseek(fuse_req_t req, fuse_ino_t node, off_t off, int whence,
                     struct fuse_file_info *fi)
{
    (void)node;
    (void)fi;
    off_t found = lseek(file, off, whence);
    if (found < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_lseek(req, found);
}

static const struct fuse_lowlevel_ops operations = {
    .init = op_init,
    .lookup = op_lookup,
    .getattr = op_getattr,
    .open = op_open,
    .read = op_read,
    .lseek = op_lseek,
};

static int serve(struct fuse_session *session, const char *mountpoint)
{
    if (fuse_set_signal_handlers(session) != 0)
        return 1;
    if (fuse_session_mount(session, mountpoint) != 0)
        return 1;
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    fuse_loop_cfg_set_clone_fd(config, 1);
    fuse_loop_cfg_set_max_threads(config, THREADS_MAX);
    fuse_loop_cfg_set_idle_threads(config, THREADS_IDLE_MAX);
    int r = fuse_session_loop_mt(session, config);
    fuse_loop_cfg_destroy(config);
    fuse_session_unmount(session);
    return r != 0;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: bare FILE MOUNTPOINT\n");
        return 2;
    }
    file = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        fprintf(stderr, "bare: '%s': %s\n", argv[1], strerror(errno));
        return 1;
    }
    char options[64];
    snprintf(options, sizeof(options), "max_read=%d,fsname=bare,subtype=bare", READ_MAX);
    char *words[] = {argv[0], "-o", options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, words);
    struct fuse_session *session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
    fuse_opt_free_args(&args);
    if (!session)
        return 1;
    int r = serve(session, argv[2]);
    fuse_session_destroy(session);
    return r;
}
