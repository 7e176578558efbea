/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the three programs that test qcow/header.c share. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/header.h"
#include "tests/lib/image.h"

static inline int read_header(const struct image *image, struct qcow_header *hdr, struct error *err)
{
    struct source src;
    int r = source_init(&src, image->fd, image->name, 1, err);
    return r < 0 ? r : header_read(&src, hdr, err);
}

/* The image is refused with words that say where and what; ends the image. */
static inline void expect_refused(struct image *image, int code, const char *words)
{
    struct qcow_header hdr;
    struct error err = {0};
    assert_int_equal(read_header(image, &hdr, &err), code);
    assert_int_equal(err.code, code);
    if (!strstr(err.text, words) || !strstr(err.text, "'tiny.qcow2'"))
        fail_msg("'%s' does not say \"%s\"", err.text, words);
    image_destroy(image);
}

/* The image is accepted; the caller ends the header, this ends the image. */
static inline struct qcow_header expect_accepted(struct image *image)
{
    struct qcow_header hdr = {0};
    struct error err = {0};
    if (read_header(image, &hdr, &err) != 0)
        fail_msg("refused: %s", err.text);
    image_destroy(image);
    return hdr;
}

static inline void expect_plain_acceptance(struct image *image)
{
    struct qcow_header hdr = expect_accepted(image);
    header_fini(&hdr);
}

static inline struct image tiny(unsigned version, unsigned cluster_bits, uint64_t guest_size)
{
    struct image image;
    image_create(&image, &(struct image_options){.version = version,
                                                 .cluster_bits = cluster_bits,
                                                 .guest_size = guest_size});
    return image;
}

static inline struct image tiny_with(uint64_t incompatible,
                                     const struct image_extension *extensions, size_t n)
{
    struct image image;
    image_create(&image, &(struct image_options){.cluster_bits = 16,
                                                 .guest_size = 1 << 20,
                                                 .incompatible = incompatible,
                                                 .extensions = extensions,
                                                 .n_extensions = n});
    return image;
}
