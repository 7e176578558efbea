/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* L2 entries of all shapes, one at a time. */
#include <string.h>

#include "qcow/cluster.h"
#include "qcow/format.h"
#include "tests/fuzz/fuzz.h"

static void check_run(const struct cluster_shape *shape, const struct cluster_run *run,
                      uint64_t guest_off)
{
    uint64_t cluster_size = 1ULL << shape->cluster_bits;
    uint64_t in_cluster = guest_off & (cluster_size - 1);
    fuzz_check(run->guest_len > 0 && run->guest_len <= cluster_size - in_cluster);
    switch (run->kind) {
    case CLUSTER_DATA:
        fuzz_check((run->host_off & (cluster_size - 1)) == in_cluster);
        fuzz_check(run->host_off < 1ULL << 56);
        fuzz_check(!shape->has_data_file || run->host_off == guest_off);
        return;
    case CLUSTER_COMPRESSED:
        fuzz_check(!shape->has_data_file && run->guest_len == cluster_size - in_cluster);
        fuzz_check(run->host_len > 0 && run->host_len <= 2 * cluster_size);
        fuzz_check(run->host_off < 1ULL << 62);
        return;
    case CLUSTER_ZERO:
        fuzz_check(shape->version >= 3);
        return;
    case CLUSTER_UNALLOCATED:
        return;
    }
    fuzz_fail("a run of kind %d", (int)run->kind);
}

/* Within one run, each place says the same. */
static void check_steps(const struct cluster_shape *shape, const struct cluster_entry *entry,
                        uint64_t guest_off, const struct cluster_run *run)
{
    uint64_t at = guest_off + run->guest_len / 2;
    struct cluster_run later;
    struct error err = {0};
    fuzz_check(cluster_decode(shape, entry, at, &later, &err) == 0);
    fuzz_check(later.kind == run->kind && at + later.guest_len == guest_off + run->guest_len);
    if (run->kind == CLUSTER_DATA)
        fuzz_check(later.host_off - run->host_off == at - guest_off);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_input in = {.at = data, .left = len};
    uint8_t flags = fuzz_u8(&in);
    struct cluster_shape shape = {.version = 2 + flags % 2,
                                  .cluster_bits = 9 + fuzz_below(&in, 13),
                                  .has_data_file = flags / 2 % 4 == 0};
    shape.has_extended_l2 = shape.version == 3 && flags / 8 % 2 && shape.cluster_bits >= 14;
    struct cluster_entry entry = {.entry = fuzz_edge(&in), .bitmap = fuzz_u64(&in)};
    uint64_t guest_off = fuzz_edge(&in) & INT64_MAX;
    if (flags / 16 % 2) /* of a sound data file */
        entry.entry = (guest_off >> shape.cluster_bits << shape.cluster_bits) | L2_COPIED;
    struct cluster_run run;
    struct error err = {0};
    int r = cluster_decode(&shape, &entry, guest_off, &run, &err);
    fuzz_check(r == err.code && (r == 0 || err.text[0]));
    if (r == 0) {
        check_run(&shape, &run, guest_off);
        check_steps(&shape, &entry, guest_off, &run);
    }
    return 0;
}
