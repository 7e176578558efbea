/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What must hold for any image that opens, damaged or not: its map tiles the disk, what the map
 * calls a hole reads as zeros, pieces of a read are what the whole read is, and its flat file is
 * a sound qcow2 image of the same disk. One thread.
 */
#pragma once

#include "qcow/qcow.h"
#include "tests/fuzz/fuzz.h"

/* What is known of the disk; NULL in its place: nothing. */
struct check_oracle {
    void (*expect)(void *ctx, uint64_t guest_off, uint8_t *buf, size_t len); /* whole sectors */
    void *ctx;
    uint64_t guest_size;
};

/* @in chooses places, and is not used up. */
void check_image(struct qcow_image *image, const struct check_oracle *oracle,
                 struct qcow_cache *cache, struct fuzz_input *in);

/* check_flat.c: the part with the flat file. */
void check_flat(struct qcow_image *image, struct qcow_cache *cache, uint64_t seed);

/* A descriptor for @file's content, format qcow2; ends the program if it is not sound. */
void check_flat_form(int fd, uint64_t guest_size);
