/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chains of small images of all shapes, made by disk.c, sound and damaged: inspected, opened,
 * mapped, read, flattened, with their snapshots. Sound ones must open and hold what was put there.
 */
#include "tests/fuzz/check.h"
#include "tests/fuzz/disk.h"

enum { INPUT_MAX = 8192 };

struct view_ref {
    const struct disk_chain *chain;
    unsigned view;
};

static void expect(void *ctx, uint64_t guest_off, uint8_t *buf, size_t len)
{
    const struct view_ref *ref = ctx;
    disk_chain_expect(ref->chain, ref->view, guest_off, buf, len);
}

/* @snapshot NULL: the active disk, which is view 0. */
static void check_view(struct disk_chain *chain, unsigned view,
                       const struct qcow_snapshot *snapshot, struct qcow_cache *cache,
                       struct fuzz_input *in)
{
    struct qcow_opener opener = {.open_ref = disk_chain_answer, .ctx = chain};
    struct qcow_file file = disk_chain_file(chain);
    struct qcow_image *image;
    struct error err = {0};
    int r = qcow_open(&file, &opener, cache, snapshot, &image, &err);
    if (r < 0) {
        fuzz_check(r == err.code && err.text[0]);
        if (!chain->is_damaged && !chain->is_loop)
            fuzz_fail("a sound image does not open: %s", err.text);
        return;
    }
    fuzz_check(!chain->is_loop || chain->is_damaged);
    struct view_ref ref = {.chain = chain, .view = view};
    struct check_oracle oracle = {
        .expect = expect, .ctx = &ref, .guest_size = chain->layers[0].views[view].guest_size};
    check_image(image, chain->is_damaged ? NULL : &oracle, cache, in);
    qcow_close(image);
}

static void check_snapshots(struct disk_chain *chain, struct qcow_cache *cache,
                            struct fuzz_input *in)
{
    struct qcow_file file = disk_chain_file(chain);
    struct qcow_info info;
    struct error err = {0};
    int r = qcow_inspect(&file, &info, &err);
    qcow_file_close(&file);
    if (r < 0) {
        fuzz_check(chain->is_damaged && r == err.code && err.text[0]);
        return;
    }
    fuzz_check(chain->is_damaged || info.n_snapshots + 1 == chain->layers[0].n_views);
    for (size_t i = 0; i < info.n_snapshots && i < DISK_SNAPSHOTS_MAX; i++)
        check_view(chain, (unsigned)i + 1, &info.snapshots[i], cache, in);
    qcow_info_fini(&info);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_input in = {.at = data, .left = len};
    if (len > INPUT_MAX)
        return 0;
    static const size_t cache_sizes[] = {0, 64 << 10, 1 << 20, 16 << 20};
    struct disk_chain chain;
    struct qcow_cache *cache;
    struct error err = {0};
    size_t cache_size = cache_sizes[fuzz_below(&in, 4)];
    disk_chain_create(&chain, &in);
    fuzz_check(qcow_cache_create(cache_size, &cache, &err) == 0);
    check_view(&chain, 0, NULL, cache, &in);
    if (chain.layers[0].image.format == QCOW_FORMAT_QCOW2)
        check_snapshots(&chain, cache, &in);
    fuzz_check(qcow_cache_used(cache) == 0); /* nothing is left pinned, or of closed files */
    qcow_cache_destroy(cache);
    disk_chain_destroy(&chain);
    return 0;
}
