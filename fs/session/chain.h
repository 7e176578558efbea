/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The files of a disk's present chain, found as opening it finds them: what the record names, and
 * below that what the images say, by the host's policy. Reads headers and snapshot tables only.
 * Any thread; may block on the file system.
 */
#pragma once

#include <sys/stat.h>

#include "fs/host/host.h"

struct chain_layer {
    char *path;
    enum qcow_format format;
    uint64_t guest_size;
    struct stat st;
};

struct chain {
    struct chain_layer *layers; /* [0] is the top */
    size_t n_layers;
    bool is_cut; /* by a file that could not be read, which may pass */
};

/*
 * The disk without overlays of this program on top, as it is once they are merged: until what a
 * killed daemon left is undone, and in the moment between the end of a merge and libvirt's word of
 * it, the record names them, though named snapshots lie in what is below, and the file may be gone.
 * Borrows all of @disk.
 */
struct disk chain_skip_overlays(const struct disk *disk);

/*
 * Follows the chain of @disk as far as it can be followed, and as far as each image names the
 * same file as its backing file that the record names: where these differ, a commit may be on its
 * way, and nobody can tell which file holds what. 0 or what file_is_shortage() is true of;
 * chain_fini() releases @ret_chain.
 */
int chain_read(struct host *host, const struct disk *disk, struct chain *ret_chain);
void chain_fini(struct chain *chain);

/*
 * The depth at which the chain has the layer that an external snapshot froze: the file @frozen
 * right below the file @overlay. With another file on top of it, some overlay was merged into
 * what is there, or away from it, and what the snapshot froze may be gone. 0: not found.
 */
size_t chain_find_frozen(const struct chain *chain, const struct frozen_disk *frozen);

/*
 * The chain from @depth down, as a disk that disk_image_open() takes: what the record of @disk
 * names, and at least the first layer. 0 or -ENOMEM; chain_fini_disk() releases @ret_disk.
 */
int chain_make_disk(const struct chain *chain, const struct disk *disk, size_t depth,
                    struct disk *ret_disk);
void chain_fini_disk(struct disk *disk);
