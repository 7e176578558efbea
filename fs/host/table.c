/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct table_entry {
    struct domain *domain; /* reference */
    uint64_t ticket;
};

void table_init(struct table *table)
{
    *table = (struct table){0};
    mutex_init(&table->lock);
}

void table_fini(struct table *table)
{
    mutex_lock(&table->lock);
    for (size_t i = 0; i < table->n; i++)
        domain_unref(table->entries[i].domain);
    free(table->entries);
    table->n = 0;
    mutex_unlock(&table->lock);
    mutex_fini(&table->lock);
}

uint64_t table_take_ticket(struct table *table)
{
    mutex_lock(&table->lock);
    uint64_t ticket = ++table->last_ticket;
    mutex_unlock(&table->lock);
    return ticket;
}

/* The index of @id, or where it belongs. */
static size_t find_place_locked(const struct table *table, const char *id, bool *ret_found)
    REQUIRES(table->lock)
{
    size_t low = 0, high = table->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(table->entries[middle].domain->id, id);
        if (order == 0) {
            *ret_found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_found = false;
    return low;
}

static bool make_room_locked(struct table *table) REQUIRES(table->lock)
{
    if (table->n < table->room)
        return true;
    size_t room = table->room ? 2 * table->room : 16;
    struct table_entry *grown = reallocarray(table->entries, room, sizeof(*grown));
    if (!grown)
        return false;
    table->entries = grown;
    table->room = room;
    return true;
}

/* Takes @domain only when it returns 1; @ret_old: a reference to be dropped without the lock. */
static int put_locked(struct table *table, struct domain *domain, uint64_t ticket,
                      struct domain **ret_old) REQUIRES(table->lock)
{
    bool is_found;
    size_t at = find_place_locked(table, domain->id, &is_found);
    if (is_found) {
        struct table_entry *entry = &table->entries[at];
        if (entry->ticket > ticket)
            return 0;
        entry->ticket = ticket;
        if (domain_is_same(entry->domain, domain))
            return 0;
        *ret_old = entry->domain;
        entry->domain = domain;
        return 1;
    }
    if (!make_room_locked(table))
        return -ENOMEM;
    memmove(table->entries + at + 1, table->entries + at,
            (table->n - at) * sizeof(*table->entries));
    table->entries[at] = (struct table_entry){domain, ticket};
    table->n++;
    return 1;
}

int table_put(struct table *table, struct domain *domain, uint64_t ticket)
{
    struct domain *old = NULL;
    mutex_lock(&table->lock);
    int r = put_locked(table, domain, ticket, &old);
    mutex_unlock(&table->lock);
    domain_unref(old);
    if (r <= 0)
        domain_unref(domain);
    return r;
}

static struct domain *remove_locked(struct table *table, const char *id, uint64_t ticket)
    REQUIRES(table->lock)
{
    bool is_found;
    size_t at = find_place_locked(table, id, &is_found);
    if (!is_found || table->entries[at].ticket > ticket)
        return NULL;
    struct domain *domain = table->entries[at].domain;
    table->n--;
    memmove(table->entries + at, table->entries + at + 1,
            (table->n - at) * sizeof(*table->entries));
    return domain;
}

bool table_remove(struct table *table, const char *id, uint64_t ticket)
{
    mutex_lock(&table->lock);
    struct domain *domain = remove_locked(table, id, ticket);
    mutex_unlock(&table->lock);
    domain_unref(domain);
    return domain != NULL;
}

struct domain *table_find(struct table *table, const char *id)
{
    mutex_lock(&table->lock);
    bool is_found;
    size_t at = find_place_locked(table, id, &is_found);
    struct domain *domain = is_found ? domain_ref(table->entries[at].domain) : NULL;
    mutex_unlock(&table->lock);
    errno = ENOENT; /* in case */
    return domain;
}

struct domain *table_find_name(struct table *table, const char *name)
{
    struct domain *domain = NULL;
    mutex_lock(&table->lock);
    for (size_t i = 0; i < table->n && !domain; i++)
        if (strcmp(table->entries[i].domain->name, name) == 0)
            domain = domain_ref(table->entries[i].domain);
    mutex_unlock(&table->lock);
    errno = ENOENT; /* in case */
    return domain;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(struct domain *const *)a)->name, (*(struct domain *const *)b)->name);
}

static int copy_locked(struct table *table, struct domain ***ret_domains, size_t *ret_n)
    REQUIRES(table->lock)
{
    struct domain **domains = calloc(table->n + 1, sizeof(struct domain *));
    if (!domains)
        return -ENOMEM;
    for (size_t i = 0; i < table->n; i++)
        domains[i] = domain_ref(table->entries[i].domain);
    *ret_domains = domains;
    *ret_n = table->n;
    return 0;
}

int table_list(struct table *table, struct domain ***ret_domains, size_t *ret_n)
{
    mutex_lock(&table->lock);
    int r = copy_locked(table, ret_domains, ret_n);
    mutex_unlock(&table->lock);
    if (r == 0)
        qsort(*ret_domains, *ret_n, sizeof(struct domain *), compare_names);
    return r;
}
