/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A registry over a fake host, and opens that can be waited for; shared by the registry's tests.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fs/log.h"
#include "fs/session/journal.h"
#include "fs/session/registry.h"
#include "qcow/base/thread.h"
#include "tests/lib/fake_host.h"

struct fixture {
    struct fake_host *fake;
    struct qcow_cache *cache;
    struct journal *journal; /* in the fake host's folder */
    struct registry *registry;
};

/* Long enough that nothing ends by itself. */
static const struct registry_config patient = {
    .live = LIVE_OVERLAY, .join_s = 60, .linger_s = 60, .max_hold_s = 3600, .max_open = 16};

/* One open. */
struct asked {
    struct mutex lock;
    struct cond changed;
    bool is_done;
    bool has_given_up; /* what is_cancelled says */
    int result;
    struct reader *reader;
    struct error err;
};

static inline void relay_changed(void *ctx, const struct domain *domain)
{
    registry_domain_changed(ctx, domain);
}

static inline void relay_gone(void *ctx, const char *id)
{
    registry_domain_gone(ctx, id);
}

/* Domains "off" (shut off, two disks), "live" (running, one disk), "solo" (shut off, one disk). */
static inline void fixture_open(struct fixture *fixture, const struct registry_config *config)
{
    struct error err = {0};
    fixture->fake = fake_host_create();
    fake_host_add(fixture->fake, "off", 2);
    fake_host_add(fixture->fake, "solo", 1);
    fake_host_add(fixture->fake, "live", 1);
    fake_host_set_state(fixture->fake, "live", DOMAIN_RUNNING);
    assert_int_equal(qcow_cache_create(8 << 20, &fixture->cache, &err), 0);
    assert_int_equal(journal_open(fake_host_dir(fixture->fake), "fake", &fixture->journal, &err),
                     0);
    struct registry_config full = *config;
    full.journal = fixture->journal;
    full.host = fake_host_base(fixture->fake);
    full.cache = fixture->cache;
    assert_int_equal(registry_create(&full, &fixture->registry, &err), 0);
    fake_host_set_events(fixture->fake, (struct host_events){.domain_changed = relay_changed,
                                                             .domain_gone = relay_gone,
                                                             .ctx = fixture->registry});
}

static inline void fixture_close(struct fixture *fixture)
{
    registry_shutdown(fixture->registry);
    registry_destroy(fixture->registry);
    journal_close(fixture->journal);
    qcow_cache_destroy(fixture->cache);
    fake_host_destroy(fixture->fake);
}

static inline void asked_init(struct asked *asked)
{
    memset(asked, 0, sizeof(*asked));
    mutex_init(&asked->lock);
    cond_init(&asked->changed);
}

static inline void asked_done(void *ctx, int result, struct reader *reader, const struct error *err)
{
    struct asked *asked = ctx;
    mutex_lock(&asked->lock);
    if (asked->is_done)
        abort(); /* exactly one answer */
    asked->is_done = true;
    asked->result = result;
    asked->reader = reader;
    asked->err = *err;
    cond_wake_all(&asked->changed);
    mutex_unlock(&asked->lock);
}

static inline bool asked_is_cancelled(void *ctx)
{
    return ((struct asked *)ctx)->has_given_up;
}

static inline int asked_await(struct asked *asked)
{
    int64_t deadline = monotonic_ns() + (int64_t)20 * 1000000000;
    mutex_lock(&asked->lock);
    while (!asked->is_done)
        if (!cond_wait_until(&asked->changed, &asked->lock, deadline))
            abort();
    int result = asked->result;
    mutex_unlock(&asked->lock);
    return result;
}

static inline bool asked_is_done(struct asked *asked)
{
    mutex_lock(&asked->lock);
    bool is_done = asked->is_done;
    mutex_unlock(&asked->lock);
    return is_done;
}

static inline uint64_t peek_serial(struct fixture *fixture, const char *id, const char *target)
{
    struct session_peek peek;
    registry_peek(fixture->registry, id, target, &peek);
    return peek.serial;
}

/* Asks for that serial of a disk and does not wait. */
static inline void ask_serial(struct fixture *fixture, const char *name, const char *target,
                              uint64_t serial, struct asked *asked)
{
    struct domain *domain = fake_host_find(fixture->fake, name);
    assert_non_null(domain);
    struct open_request request = {
        .domain = domain,
        .disk = domain_find_disk(domain, target),
        .serial = serial,
        .shown = {.guest_size = FAKE_DISK_SIZE, .mtime = {.tv_sec = 1000}, .blocks = 77},
        .pid = 4711,
        .done = asked_done,
        .is_cancelled = asked_is_cancelled,
        .ctx = asked,
    };
    registry_open(fixture->registry, &request);
    domain_unref(domain);
}

/* Looks the name up and asks, as the kernel does. */
static inline void ask(struct fixture *fixture, const char *name, const char *target,
                       struct asked *asked)
{
    char id[40];
    snprintf(id, sizeof(id), "id-%s", name);
    asked_init(asked);
    ask_serial(fixture, name, target, peek_serial(fixture, id, target), asked);
}

static inline struct reader *open_disk(struct fixture *fixture, const char *name,
                                       const char *target)
{
    struct asked asked;
    ask(fixture, name, target, &asked);
    if (asked_await(&asked) != 0)
        fail_msg("open of %s/%s: %d %s", name, target, asked.result, asked.err.text);
    return asked.reader;
}

static inline int open_fails(struct fixture *fixture, const char *name, const char *target,
                             struct error *ret_err)
{
    struct asked asked;
    ask(fixture, name, target, &asked);
    int r = asked_await(&asked);
    assert_null(asked.reader);
    *ret_err = asked.err;
    return r;
}

static inline void check_bytes(struct reader *reader, unsigned disk)
{
    unsigned char buf[4096];
    struct error err = {0};
    assert_int_equal(reader_read(reader, 5000, buf, sizeof(buf), &err), sizeof(buf));
    for (unsigned i = 0; i < sizeof(buf); i++)
        assert_int_equal(buf[i], fake_host_byte(disk, 5000 + i));
}

static inline int read_code(struct reader *reader, struct error *err)
{
    unsigned char buf[512];
    return (int)reader_read(reader, 0, buf, sizeof(buf), err);
}
