/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/state.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "qcow/base/cleanup.h"

static int sync_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    auto_free char *parent = slash > path ? strndup(path, (size_t)(slash - path)) : strdup("/");
    if (!parent)
        return -ENOMEM;
    auto_close int fd = open(slash ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == EACCES)
        return 0; /* a folder of somebody else's, and ours came to be in it: do what we can */
    if (fd < 0)
        return -errno;
    /* EINVAL, EROFS: a file system that keeps nothing, or none that we made anything in. */
    return fsync(fd) < 0 && errno != EINVAL && errno != EROFS ? -errno : 0;
}

static int make_dir(const char *path)
{
    if (mkdir(path, 0700) == 0)
        return 0;
    int code = errno;
    struct stat st;
    if (stat(path, &st) < 0)
        return -code; /* that of mkdir says more: EACCES, EROFS, ENOSPC */
    return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

/* From the top down, @dir itself last. */
static int for_each_dir(const char *dir, int (*act)(const char *path))
{
    auto_free char *path = strdup(dir);
    if (!path || !*path)
        return path ? -ENOENT : -ENOMEM;
    for (char *at = path + 1; *at; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        int r = act(path);
        *at = '/';
        if (r < 0)
            return r;
    }
    return act(path);
}

int state_make_dirs(const char *dir)
{
    return for_each_dir(dir, make_dir);
}

int state_sync_dirs(const char *dir)
{
    return for_each_dir(dir, sync_parent);
}

int state_write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '%';
}

char *state_escape(const char *text)
{
    char *out = malloc(3 * strlen(text) + 1);
    if (!out)
        return NULL;
    char *at = out;
    for (; *text; text++) {
        if (is_plain((unsigned char)*text))
            *at++ = *text;
        else
            at += sprintf(at, "%%%02X", (unsigned char)*text);
    }
    *at = '\0';
    return out;
}

/* The value of an upper-case hex digit, or -1. */
static int digit_value(char c)
{
    const char *digits = "0123456789ABCDEF";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

char *state_unescape(const char *text)
{
    auto_free char *out = malloc(strlen(text) + 1);
    if (!out)
        return NULL;
    char *at = out;
    for (; *text; text++) {
        int value = (unsigned char)*text;
        if (*text == '%') {
            int high = digit_value(text[1]);
            int low = high < 0 ? -1 : digit_value(text[2]);
            value = low < 0 ? 0 : high << 4 | low;
            text += low < 0 ? 0 : 2;
        } else if (!is_plain((unsigned char)value)) {
            value = 0;
        }
        if (value == 0) {
            errno = EINVAL;
            return NULL;
        }
        *at++ = (char)value;
    }
    *at = '\0';
    return take_ptr(out);
}

void state_hash(const void *data, size_t len, char ret_hex[STATE_HASH_LEN])
{
    struct sha256_ctx sha;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_init(&sha);
    sha256_update(&sha, len, data);
    sha256_digest(&sha, SHA256_DIGEST_SIZE, digest);
    for (size_t i = 0; i < SHA256_DIGEST_SIZE; i++)
        sprintf(ret_hex + 2 * i, "%02x", digest[i]);
}
