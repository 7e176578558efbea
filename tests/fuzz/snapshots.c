/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A snapshot table of any bytes behind a sound header: listed, and each snapshot opened. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qcow/format.h"
#include "qcow/header.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/image.h"

enum { OPENED_MAX = 4 };

static void open_one(const struct image *image, struct qcow_cache *cache,
                     const struct qcow_snapshot *snapshot)
{
    struct image_answers none = {0};
    struct qcow_opener opener = {.open_ref = image_answer, .ctx = &none};
    struct qcow_file file = image_file(image);
    struct qcow_image *opened;
    struct error err = {0};
    uint8_t buf[1024];
    if (qcow_open(&file, &opener, cache, snapshot, &opened, &err) < 0) {
        fuzz_check(err.text[0] && err.code != -ESTALE); /* it is there, whatever it is */
        return;
    }
    fuzz_check(qcow_size(opened) == snapshot->guest_size);
    ssize_t n = qcow_read(opened, snapshot->guest_size / 2, buf, sizeof(buf), &err);
    fuzz_check(n >= 0 || n == err.code);
    /* After its table is gone, it is gone. */
    image_point_to_snapshots(image, 0, 0);
    n = qcow_read(opened, 0, buf, sizeof(buf), &err);
    fuzz_check(n == -ESTALE || (n == 0 && snapshot->guest_size == 0));
    qcow_close(opened);
}

static void check_list(const struct image *image, const struct qcow_info *info, uint64_t table_off)
{
    struct qcow_cache *cache;
    struct error err = {0};
    fuzz_check(qcow_cache_create(1 << 20, &cache, &err) == 0);
    for (size_t i = 0; i < info->n_snapshots; i++) {
        const struct qcow_snapshot *s = &info->snapshots[i];
        fuzz_check(s->id && s->name && s->guest_size % SECTOR_SIZE == 0);
        fuzz_check(strlen(s->id) <= SNAPSHOT_ID_MAX && strlen(s->name) <= SNAPSHOT_NAME_MAX);
        fuzz_check(s->created.tv_nsec >= 0 && s->created.tv_nsec < 1000000000);
        fuzz_check(qcow_snapshot_is_same(s, s));
        if (i >= OPENED_MAX)
            continue;
        image_point_to_snapshots(image, table_off, (uint32_t)info->n_snapshots);
        open_one(image, cache, s);
    }
    qcow_cache_destroy(cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_input in = {.at = data, .left = len};
    uint8_t shape = fuzz_u8(&in);
    struct image_options options = {.version = 2 + shape % 2,
                                    .cluster_bits = 9 + shape / 2 % 13,
                                    .guest_size = 1ULL << (10 + shape / 32)};
    uint32_t n_snapshots =
        fuzz_u8(&in) % 2 ? fuzz_u8(&in) % 8 : fuzz_u32(&in) % (2 * SNAPSHOTS_MAX);
    struct image image;
    image_create(&image, &options);
    image_write(&image, 0, 1);
    uint64_t table_off = image_alloc(&image, 1);
    image_poke(&image, table_off, in.at, in.left);
    if (shape / 64 % 2)
        image_truncate(&image, table_off + in.left);
    image_point_to_snapshots(&image, table_off, n_snapshots);
    struct qcow_file file = image_file(&image);
    struct qcow_info info;
    struct error err = {0};
    int r = qcow_inspect(&file, &info, &err);
    fuzz_check(r == err.code && (r == 0 || err.text[0]));
    qcow_file_close(&file);
    if (r == 0) {
        fuzz_check(info.n_snapshots == n_snapshots);
        check_list(&image, &info, table_off);
        qcow_info_fini(&info);
    }
    image_destroy(&image);
    return 0;
}
