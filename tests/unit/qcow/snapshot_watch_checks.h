/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the programs that test the watch of qcow/snapshots.h share. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/format.h"
#include "qcow/snapshots.h"
#include "tests/lib/image.h"
#include "tests/unit/qcow/faults.h"

/* Clusters where tables may stand, all within the file from the start. */
enum { TABLE_A = 0x10000, TABLE_B = 0x11000, TABLE_C = 0x12000, FILE_END = 0x13000 };

static const struct image_snapshot other = {
    .id = "1", .name = "other", .l1_off = 0x5000, .l1_entries = 1, .sec = 1};
static const struct image_snapshot mine = {.id = "2",
                                           .name = "mine",
                                           .l1_off = 0x6000,
                                           .l1_entries = 1,
                                           .sec = 2,
                                           .extra_len = 16,
                                           .disk_size = 1 << 20};
static const struct image_snapshot third = {.id = "3",
                                            .name = "somebody-else's",
                                            .l1_off = 0x7000,
                                            .l1_entries = 1,
                                            .sec = 3,
                                            .extra_len = 24,
                                            .disk_size = 1 << 20};

struct fixture {
    struct image image;
    struct source src;
    struct snapshot_watch watch;
};

static struct fixture fixture; /* for the hooks, which know no context */

/* As QEMU: the new table is there before the header says so. */
static inline void put_table(uint64_t host_off, const struct image_snapshot *const *snapshots,
                             size_t n)
{
    uint64_t at = host_off;
    for (size_t i = 0; i < n; i++)
        at += image_put_snapshots(&fixture.image, at, snapshots[i], 1);
}

static inline void set_table(uint64_t host_off, const struct image_snapshot *const *snapshots,
                             size_t n)
{
    put_table(host_off, snapshots, n);
    image_point_to_snapshots(&fixture.image, host_off, (uint32_t)n);
}

#define SET_TABLE(host_off, ...)                                                                   \
    set_table(host_off, (const struct image_snapshot *const[]){__VA_ARGS__},                       \
              sizeof((const struct image_snapshot *const[]){__VA_ARGS__}) / sizeof(&mine))

static inline void scribble(uint64_t host_off)
{
    uint8_t junk[0x1000];
    memset(junk, 0xa5, sizeof(junk));
    image_poke(&fixture.image, host_off, junk, sizeof(junk));
}

static inline int setup(void **state)
{
    (void)state;
    image_create(&fixture.image,
                 &(struct image_options){.cluster_bits = 12, .guest_size = 1 << 20});
    image_truncate(&fixture.image, FILE_END);
    SET_TABLE(TABLE_A, &other, &mine);
    struct error err = {0};
    assert_int_equal(source_init(&fixture.src, fixture.image.fd, "tiny.qcow2", 1, &err), 0);
    const struct qcow_snapshot view = image_snapshot_view(&fixture.image, &mine);
    if (snapshot_watch_init(&fixture.watch, &fixture.src, &view, &err) != 0)
        fail_msg("%s", err.text);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    faults_pread = NULL;
    snapshot_watch_fini(&fixture.watch);
    image_destroy(&fixture.image);
    return 0;
}

static inline int check(struct error *err)
{
    return snapshot_watch_check(&fixture.watch, &fixture.src, err);
}

static inline void expect_there(void)
{
    struct error err = {0};
    if (check(&err) != 0)
        fail_msg("%s", err.text);
}

static inline void expect_gone(void)
{
    struct error err = {0};
    int r = check(&err);
    if (r != -ESTALE)
        fail_msg("%d (%s)", r, err.text);
    assert_string_equal(err.text, "'tiny.qcow2': snapshot 'mine' (id 2) is gone");
}
