/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an NBD server told of the blocks of its export: where there are zeros. The last answer only.
 * Any thread; nothing blocks but for memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qcow/base/thread.h"

/* Each run ends where the next begins; the first begins at `begin`. */
struct nbd_run {
    uint64_t end;
    bool is_data;
};
struct nbd_run_list {
    uint64_t begin;
    struct nbd_run *runs; /* owned */
    size_t n;
};

struct nbd_known {
    struct mutex lock;
    struct nbd_run_list list GUARDED_BY(lock);
};

/* Nothing is known. */
void nbd_known_init(struct nbd_known *known);
void nbd_known_fini(struct nbd_known *known);

/* The run that @host_off lies in; false if that is not known. */
bool nbd_known_find(struct nbd_known *known, uint64_t host_off, struct nbd_run *ret_run);

/* A new answer in place of the one before; takes what is in @list, and leaves it empty. */
void nbd_known_replace(struct nbd_known *known, struct nbd_run_list *list);
