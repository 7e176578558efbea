/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A whole image of any bytes, as qemu-img or an attacker made it: listed, opened with all its
 * snapshots, mapped, read, flattened. What it refers to is there, whatever its name.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "tests/fuzz/check.h"

enum { SNAPSHOTS_OPENED_MAX = 3, BELOW_LEN = 10000 };

static int answer(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                  struct error *err)
{
    static const char below[BELOW_LEN] = "what lies below";
    (void)ctx;
    (void)err;
    if (!ref->name)
        return 1;
    *ret_file = (struct qcow_file){.fd = fuzz_file("below", below, sizeof(below)),
                                   .format = QCOW_FORMAT_RAW,
                                   .name = strdup(ref->name)};
    return 0;
}

static struct qcow_file file_of(int fd)
{
    return (struct qcow_file){.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0),
                              .format = QCOW_FORMAT_QCOW2,
                              .name = strdup("any.qcow2")};
}

static void check_open(int fd, const struct qcow_snapshot *snapshot, struct qcow_cache *cache,
                       struct fuzz_input *in)
{
    static const struct qcow_opener opener = {.open_ref = answer};
    struct qcow_file file = file_of(fd);
    struct qcow_image *image;
    struct error err = {0};
    int r = qcow_open(&file, &opener, cache, snapshot, &image, &err);
    fuzz_check(r == err.code && (r == 0 || err.text[0]));
    if (r < 0)
        return;
    check_image(image, NULL, cache, in);
    qcow_close(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_input in = {.at = data, .left = len};
    struct qcow_cache *cache;
    struct qcow_info info = {0};
    struct error err = {0};
    int fd = fuzz_file("any", data, len);
    struct qcow_file file = file_of(fd);
    fuzz_check(qcow_cache_create(1 << 20, &cache, &err) == 0);
    int r = qcow_inspect(&file, &info, &err);
    fuzz_check(r == err.code && (r == 0 || err.text[0]));
    qcow_file_close(&file);
    check_open(fd, NULL, cache, &in);
    for (size_t i = 0; i < info.n_snapshots && i < SNAPSHOTS_OPENED_MAX; i++)
        check_open(fd, &info.snapshots[i], cache, &in);
    fuzz_check(qcow_cache_used(cache) == 0);
    qcow_info_fini(&info);
    qcow_cache_destroy(cache);
    close(fd);
    return 0;
}
