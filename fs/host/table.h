/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The records of all domains, in memory. Readers only take references, so that nobody waits for
 * longer than a look-up. Any thread.
 *
 * Two threads may read one domain from libvirt at the same time. Each takes a ticket before it
 * asks; a record that was asked for earlier never replaces one that was asked for later.
 */
#pragma once

#include "fs/host/domain.h"
#include "qcow/base/thread.h"

struct table_entry;

struct table {
    struct mutex lock;
    struct table_entry *entries GUARDED_BY(lock); /* by id */
    size_t n GUARDED_BY(lock);
    size_t room GUARDED_BY(lock);
    uint64_t last_ticket GUARDED_BY(lock);
};

void table_init(struct table *table);
void table_fini(struct table *table);

uint64_t table_take_ticket(struct table *table);

/* Takes @domain. 1 if readers see a change, 0 if not, -ENOMEM. */
int table_put(struct table *table, struct domain *domain, uint64_t ticket);

/* True if there was a record and it is gone now; a record newer than @ticket stays. */
bool table_remove(struct table *table, const char *id, uint64_t ticket);

/* The record by id or by name: a reference, or NULL. */
struct domain *table_find(struct table *table, const char *id);
struct domain *table_find_name(struct table *table, const char *name);

/* All records, sorted by name, for host_list_free(). 0 or -ENOMEM. */
int table_list(struct table *table, struct domain ***ret_domains, size_t *ret_n);
