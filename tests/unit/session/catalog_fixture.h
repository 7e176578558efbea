/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A fake host with one domain, and its catalogs; shared by the catalog's tests. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/log.h"
#include "fs/session/catalog.h"
#include "fs/session/catalog_internal.h"
#include "qcow/base/thread.h"
#include "tests/lib/fake_host.h"
#include "tests/lib/image.h"

struct fixture {
    struct fake_host *fake;
    struct domain *domain; /* "d" with two raw disks; or what replaced it */
};

static inline int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->fake = fake_host_create();
    fake_host_add(f->fake, "d", 2);
    f->domain = fake_host_find(f->fake, "d");
    log_init(LOG_LEVEL_ERROR); /* the warnings are wanted here */
    *state = f;
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;
    domain_unref(f->domain);
    fake_host_destroy(f->fake);
    free(f);
    return 0;
}

/* The host is asked for chains only, and these domains have no external snapshots. */
static inline struct catalog *get(struct domain *domain)
{
    struct catalog *catalog = NULL;
    struct error err = {0};
    assert_int_equal(catalog_get(NULL, domain, &catalog, &err), 0);
    return catalog;
}

/* The catalog after @before, once that has rested for what it cost. */
static inline struct catalog *get_next(struct domain *domain, const struct catalog *before)
{
    int64_t deadline_ns = monotonic_ns() + (int64_t)20 * 1000000000;
    struct catalog *catalog;
    while ((catalog = get(domain)) == before) {
        catalog_unref(catalog);
        assert_true(monotonic_ns() < deadline_ns);
    }
    return catalog;
}

static inline const struct catalog_entry *find(const struct catalog *catalog, const char *file)
{
    const struct catalog_entry *entry = catalog_find(catalog, file);
    if (!entry)
        fail_msg("no '%s'", file);
    return entry;
}

static inline void check_file_name(const struct catalog *catalog, size_t idx, const char *want)
{
    char *file = catalog_file_name(catalog, &catalog->entries[idx], VIEW_RAW);
    assert_string_equal(file, want);
    assert_ptr_equal(catalog_find(catalog, file), &catalog->entries[idx]);
    free(file);
}

/* A record with one disk on @path. */
static inline struct domain *make_domain(const char *name, const char *path,
                                         enum qcow_format format)
{
    struct domain *domain = domain_create(name, name);
    domain->n_disks = 1;
    domain->disks = calloc(1, sizeof(*domain->disks));
    struct disk *disk = &domain->disks[0];
    disk->target = strdup("vda");
    disk->n_layers = 1;
    disk->layers = calloc(1, sizeof(*disk->layers));
    disk->layers[0].path = strdup(path);
    disk->layers[0].format = format;
    return domain;
}

static inline struct domain *make_image_domain(const char *name, const struct image *image)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", image->fd);
    return make_domain(name, path, QCOW_FORMAT_QCOW2);
}
