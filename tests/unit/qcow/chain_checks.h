/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the programs that test qcow/chain.c and qcow/image.c share. */
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
static size_t fds_before;

static inline int setup(void **state)
{
    (void)state;
    assert_int_equal(qcow_cache_create(1 << 20, &cache, NULL), 0);
    fds_before = faults_count_fds();
    return 0;
}

/* Whatever a test did, no descriptor and no memory of the cache may be left. */
static inline int teardown(void **state)
{
    (void)state;
    faults_pread = NULL;
    assert_int_equal(faults_count_fds(), fds_before);
    assert_int_equal(qcow_cache_used(cache), 0);
    qcow_cache_destroy(cache);
    return 0;
}

static inline struct image tiny(const char *name, uint64_t guest_size)
{
    struct image image;
    image_create(&image, &(struct image_options){.name = name, .guest_size = guest_size});
    return image;
}

static inline int open_with(const struct image *image,
                            int (*open_ref)(void *, const struct qcow_ref *, struct qcow_file *,
                                            struct error *),
                            void *ctx, struct qcow_image **opened, struct error *err)
{
    struct qcow_opener opener = {.open_ref = open_ref, .ctx = ctx};
    struct qcow_file file = image_file(image);
    return qcow_open(&file, &opener, cache, NULL, opened, err);
}

static inline void expect_refused(const struct image *image, struct image_answers *answers,
                                  int code, const char *words)
{
    struct qcow_image *opened;
    struct error err = {0};
    struct image_answers none = {0};
    assert_int_equal(open_with(image, image_answer, answers ? answers : &none, &opened, &err),
                     code);
    if (!strstr(err.text, words))
        fail_msg("'%s' does not say \"%s\"", err.text, words);
}

/* All of the disk at once; the caller frees it. */
static inline uint8_t *read_all(const struct image *top, struct image_answers *answers)
{
    struct qcow_image *opened = image_open(top, answers, cache, NULL);
    uint64_t guest_size = qcow_size(opened);
    uint8_t *buf = malloc(guest_size);
    struct error err = {0};
    if (qcow_read(opened, 0, buf, guest_size, &err) != (ssize_t)guest_size)
        fail_msg("%s", err.text);
    qcow_close(opened);
    return buf;
}

static inline void expect_fill(const uint8_t *buf, size_t len, uint32_t seed)
{
    uint8_t *expected = malloc(len);
    image_fill(expected, len, seed);
    assert_memory_equal(buf, expected, len);
    free(expected);
}

static inline void expect_zeros(const uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (buf[i])
            fail_msg("byte %zu is %#x", i, buf[i]);
}

static inline struct image with_data_file(const char *data_name)
{
    struct image image;
    image_create(&image, &(struct image_options){
                             .name = "top",
                             .guest_size = 4096,
                             .cluster_bits = 9,
                             .incompatible = INCOMPAT_DATA_FILE,
                             .extensions = &(struct image_extension){EXT_DATA_FILE, data_name,
                                                                     (uint32_t)strlen(data_name)},
                             .n_extensions = data_name[0] != '\0'});
    return image;
}
