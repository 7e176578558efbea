/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the programs that test qcow/read.c share. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/format.h"
#include "qcow/qcow.h"
#include "tests/lib/image.h"
#include "tests/unit/qcow/faults.h"

static struct qcow_cache *cache;

static inline int setup(void **state)
{
    (void)state;
    return qcow_cache_create(1 << 20, &cache, NULL);
}

static inline int teardown(void **state)
{
    (void)state;
    faults_pread = NULL;
    qcow_cache_destroy(cache);
    return 0;
}

static inline struct image tiny(uint64_t incompatible)
{
    struct image image;
    image_create(&image, &(struct image_options){
                             .cluster_bits = (incompatible & INCOMPAT_EXTENDED_L2) ? 14 : 12,
                             .guest_size = 1 << 20,
                             .incompatible = incompatible,
                             .compression = (incompatible & INCOMPAT_COMPRESSION) ? 1 : 0});
    return image;
}

/* @len guest bytes are those that image_fill() gives for a cluster at @in_cluster. */
static inline void expect_fill(struct qcow_image *opened, uint64_t guest_off, size_t len,
                               uint32_t seed, size_t in_cluster)
{
    uint8_t *expected = malloc(in_cluster + len), *buf = malloc(len);
    struct error err = {0};
    image_fill(expected, in_cluster + len, seed);
    if (qcow_read(opened, guest_off, buf, len, &err) != (ssize_t)len)
        fail_msg("%s", err.text);
    assert_memory_equal(buf, expected + in_cluster, len);
    free(expected);
    free(buf);
}

static inline void expect_zeros(struct qcow_image *opened, uint64_t guest_off, size_t len)
{
    uint8_t *buf = malloc(len);
    struct error err = {0};
    memset(buf, 0xee, len);
    if (qcow_read(opened, guest_off, buf, len, &err) != (ssize_t)len)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < len; i++)
        if (buf[i])
            fail_msg("byte %zu is %#x", i, buf[i]);
    free(buf);
}

static inline void expect_refused(struct qcow_image *opened, uint64_t guest_off, int code,
                                  const char *words)
{
    uint8_t buf[512];
    struct error err = {0};
    assert_int_equal(qcow_read(opened, guest_off, buf, sizeof(buf), &err), code);
    assert_int_equal(err.code, code);
    if (!strstr(err.text, words))
        fail_msg("'%s' does not say \"%s\"", err.text, words);
}

static inline void expect_extent(struct qcow_image *opened, uint64_t guest_off, uint64_t len,
                                 enum qcow_extent_kind kind)
{
    struct qcow_extent extent;
    struct error err = {0};
    if (qcow_map(opened, guest_off, UINT64_MAX, &extent, &err) != 0)
        fail_msg("%s", err.text);
    assert_true(extent.guest_off == guest_off);
    assert_int_equal(extent.kind, kind);
    if (extent.len != len)
        fail_msg("%llu bytes at %#llx, not %llu", (unsigned long long)extent.len,
                 (unsigned long long)guest_off, (unsigned long long)len);
}
