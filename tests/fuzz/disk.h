/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Small chains of images made of an input's bytes, and what a reader should find in them. Any bytes
 * make a chain: of one to three layers, with clusters of any size and kind, internal snapshots, an
 * external data file. Some are then damaged, and nothing is expected of these any more. One thread.
 */
#pragma once

#include "qcow/qcow.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/image.h"

enum {
    DISK_LAYERS_MAX = 3,
    DISK_SNAPSHOTS_MAX = 2,
    DISK_CELLS = 24, /* clusters of a disk that may hold something, some of each L2 table */
};

/* One cluster of the guest. */
struct disk_cell {
    uint64_t guest_off;
    uint64_t l2_place; /* where its L2 entry lies in the file; 0: nothing was ever put there */
    uint64_t entry;    /* the entry */
    uint32_t seed;     /* of its bytes; 0: zeros */
    /* By subcluster (without extended L2 all bits are the same): held here, or zeros here. */
    uint32_t held, zero;
};

/* The active disk of an image, or that of a snapshot. */
struct disk_view {
    uint64_t guest_size; /* whole sectors */
    uint64_t l1_off;
    uint32_t l1_entries;
    struct disk_cell cells[DISK_CELLS];
};

struct disk {
    struct image image;
    struct image data_file; /* fd -1: none */
    unsigned compression;
    struct disk_view views[1 + DISK_SNAPSHOTS_MAX]; /* [0]: active */
    unsigned n_views;
    uint64_t snapshots_off;
};

struct disk_chain {
    struct disk layers[DISK_LAYERS_MAX]; /* [0]: top */
    unsigned n_layers;
    bool is_damaged;
    bool is_loop; /* the lowest layer has the top one as its backing file */
};

/* Spoils something in an image. */
void disk_damage(const struct disk *disk, struct fuzz_input *in);

void disk_chain_create(struct disk_chain *chain, struct fuzz_input *in);
void disk_chain_destroy(struct disk_chain *chain);

/* The top layer's file; it is the caller's, as qcow_open() takes it. */
struct qcow_file disk_chain_file(const struct disk_chain *chain);
/* Answers the references of the chain; @ctx is the chain. */
int disk_chain_answer(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                      struct error *err);

/* What the disk has at @guest_off, by view of the top layer; @guest_off and @len whole sectors. */
void disk_chain_expect(const struct disk_chain *chain, unsigned view, uint64_t guest_off,
                       uint8_t *buf, size_t len);
