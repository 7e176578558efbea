/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/lib/fake_host_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"

enum { FAKE_DOMAINS_MAX = 64, AWAIT_S = 20 };

struct fake_verb_state {
    unsigned begun, ended;
    int fault;
    bool is_held;
};

struct fake_host {
    struct host base;
    char *dir;

    struct mutex lock;
    struct cond changed;
    struct host_events events GUARDED_BY(lock);
    struct domain *domains[FAKE_DOMAINS_MAX] GUARDED_BY(lock);
    struct fake_verb_state verbs[N_FAKE_VERBS] GUARDED_BY(lock);
    bool shows_life GUARDED_BY(lock);
    unsigned n_signs GUARDED_BY(lock);
};

void *fake_need(void *ptr)
{
    if (!ptr)
        abort();
    return ptr;
}

void fake_need_that(bool is_true, const char *what)
{
    if (is_true)
        return;
    fprintf(stderr, "fake host: %s: %s\n", what, strerrordesc_np(errno));
    abort();
}

/* ---- Verbs: counting, faults, delays ---- */

int fake_begin_verb(struct fake_host *fake, enum fake_verb verb)
{
    mutex_lock(&fake->lock);
    struct fake_verb_state *state = &fake->verbs[verb];
    state->begun++;
    cond_wake_all(&fake->changed);
    while (state->is_held)
        cond_wait(&fake->changed, &fake->lock);
    int fault = state->fault;
    mutex_unlock(&fake->lock);
    return fault;
}

int fake_begin_alive(struct fake_host *fake, enum fake_verb verb, const struct change_steps *steps)
{
    enum { SIGN_NS = 5000000 };
    mutex_lock(&fake->lock);
    struct fake_verb_state *state = &fake->verbs[verb];
    state->begun++;
    cond_wake_all(&fake->changed);
    while (state->is_held) {
        bool is_shown = fake->shows_life;
        mutex_unlock(&fake->lock);
        if (is_shown)
            steps->is_cancelled(steps->ctx);
        mutex_lock(&fake->lock);
        fake->n_signs += is_shown;
        if (state->is_held)
            cond_wait_until(&fake->changed, &fake->lock, monotonic_ns() + SIGN_NS);
    }
    int fault = state->fault;
    mutex_unlock(&fake->lock);
    return fault;
}

void fake_host_show_life(struct fake_host *fake, bool is_wanted)
{
    mutex_lock(&fake->lock);
    fake->shows_life = is_wanted;
    mutex_unlock(&fake->lock);
}

unsigned fake_host_count_signs(struct fake_host *fake)
{
    mutex_lock(&fake->lock);
    unsigned n = fake->n_signs;
    mutex_unlock(&fake->lock);
    return n;
}

void fake_end_verb(struct fake_host *fake, enum fake_verb verb)
{
    mutex_lock(&fake->lock);
    fake->verbs[verb].ended++;
    cond_wake_all(&fake->changed);
    mutex_unlock(&fake->lock);
}

void fake_host_fail(struct fake_host *fake, enum fake_verb verb, int code)
{
    mutex_lock(&fake->lock);
    fake->verbs[verb].fault = code;
    mutex_unlock(&fake->lock);
}

static void set_held(struct fake_host *fake, enum fake_verb verb, bool is_held)
{
    mutex_lock(&fake->lock);
    fake->verbs[verb].is_held = is_held;
    cond_wake_all(&fake->changed);
    mutex_unlock(&fake->lock);
}

void fake_host_hold(struct fake_host *fake, enum fake_verb verb)
{
    set_held(fake, verb, true);
}

void fake_host_let_go(struct fake_host *fake, enum fake_verb verb)
{
    set_held(fake, verb, false);
}

static void await(struct fake_host *fake, const unsigned *count, unsigned n)
{
    int64_t deadline = monotonic_ns() + (int64_t)AWAIT_S * 1000000000;
    mutex_lock(&fake->lock);
    while (*count < n)
        fake_need_that(cond_wait_until(&fake->changed, &fake->lock, deadline), "call never came");
    mutex_unlock(&fake->lock);
}

void fake_host_await_begun(struct fake_host *fake, enum fake_verb verb, unsigned n) NO_THREAD_SAFETY
{
    await(fake, &fake->verbs[verb].begun, n);
}

void fake_host_await_ended(struct fake_host *fake, enum fake_verb verb, unsigned n) NO_THREAD_SAFETY
{
    await(fake, &fake->verbs[verb].ended, n);
}

unsigned fake_host_count(struct fake_host *fake, enum fake_verb verb)
{
    mutex_lock(&fake->lock);
    unsigned n = fake->verbs[verb].begun;
    mutex_unlock(&fake->lock);
    return n;
}

/* ---- Records ---- */

static size_t find_locked(struct fake_host *fake, const char *key, bool is_id) REQUIRES(fake->lock)
{
    for (size_t i = 0; i < FAKE_DOMAINS_MAX; i++) {
        const struct domain *domain = fake->domains[i];
        if (domain && strcmp(is_id ? domain->id : domain->name, key) == 0)
            return i;
    }
    return FAKE_DOMAINS_MAX;
}

struct domain *fake_get(struct fake_host *fake, const char *key, bool is_id)
{
    mutex_lock(&fake->lock);
    size_t i = find_locked(fake, key, is_id);
    struct domain *domain = i < FAKE_DOMAINS_MAX ? domain_ref(fake->domains[i]) : NULL;
    mutex_unlock(&fake->lock);
    errno = ENOENT; /* in case */
    return domain;
}

struct domain *fake_host_find(struct fake_host *fake, const char *name)
{
    return fake_get(fake, name, false);
}

static void copy_disk(const struct disk *from, struct disk *ret)
{
    *ret = *from;
    ret->target = fake_need(strdup(from->target));
    ret->unsupported = from->unsupported ? fake_need(strdup(from->unsupported)) : NULL;
    ret->layers = fake_need(calloc(from->n_layers + 1, sizeof(*ret->layers))); /* one to spare */
    for (size_t i = 0; i < from->n_layers; i++)
        ret->layers[i] = (struct disk_layer){.path = fake_need(strdup(from->layers[i].path)),
                                             .format = from->layers[i].format};
}

/* A copy to change: records that were given out stay as they are. */
struct domain *fake_copy_domain(const struct domain *from)
{
    struct domain *copy = fake_need(domain_create(from->id, from->name));
    copy->state = from->state;
    copy->is_persistent = from->is_persistent;
    copy->has_managed_save = from->has_managed_save;
    copy->has_manager = from->has_manager;
    copy->xml = from->xml ? fake_need(strdup(from->xml)) : NULL;
    copy->n_disks = from->n_disks;
    copy->disks = fake_need(calloc(from->n_disks + 1, sizeof(*copy->disks)));
    for (size_t i = 0; i < from->n_disks; i++)
        copy_disk(&from->disks[i], &copy->disks[i]);
    return copy;
}

/* Puts @domain in place of the record with its id, or adds it, and tells the listener. */
void fake_publish(struct fake_host *fake, struct domain *domain)
{
    mutex_lock(&fake->lock);
    size_t at = find_locked(fake, domain->id, true);
    for (size_t i = 0; at == FAKE_DOMAINS_MAX && i < FAKE_DOMAINS_MAX; i++)
        if (!fake->domains[i])
            at = i;
    fake_need_that(at < FAKE_DOMAINS_MAX, "too many domains");
    struct domain *before = fake->domains[at];
    fake->domains[at] = domain_ref(domain);
    struct host_events events = fake->events;
    mutex_unlock(&fake->lock);
    domain_unref(before);
    if (events.domain_changed)
        events.domain_changed(events.ctx, domain);
    domain_unref(domain);
}

char *fake_host_path(const struct fake_host *fake, const char *name, unsigned disk)
{
    char *path = NULL;
    fake_need_that(asprintf(&path, "%s/%s-vd%c.img", fake->dir, name, 'a' + (char)disk) > 0,
                   "path");
    return path;
}

unsigned char fake_host_byte(unsigned disk, uint64_t guest_off)
{
    return (unsigned char)(1 + disk + guest_off % 251);
}

static void write_disk(const char *path, unsigned disk)
{
    auto_free unsigned char *bytes = fake_need(malloc(FAKE_DISK_SIZE));
    for (uint64_t i = 0; i < FAKE_DISK_SIZE; i++)
        bytes[i] = fake_host_byte(disk, i);
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fake_need_that(fd >= 0 && write(fd, bytes, FAKE_DISK_SIZE) == FAKE_DISK_SIZE, path);
}

void fake_host_add(struct fake_host *fake, const char *name, unsigned n_disks)
{
    auto_free char *id = NULL;
    fake_need_that(asprintf(&id, "id-%s", name) > 0, "id");
    struct domain *domain = fake_need(domain_create(id, name));
    domain->is_persistent = true;
    domain->n_disks = n_disks;
    domain->disks = fake_need(calloc(n_disks + 1, sizeof(*domain->disks)));
    for (unsigned i = 0; i < n_disks; i++) {
        struct disk *disk = &domain->disks[i];
        char target[] = {'v', 'd', (char)('a' + i), '\0'};
        disk->target = fake_need(strdup(target));
        disk->layers = fake_need(calloc(1, sizeof(*disk->layers)));
        disk->layers[0].path = fake_host_path(fake, name, i);
        disk->layers[0].format = QCOW_FORMAT_RAW;
        disk->n_layers = 1;
        write_disk(disk->layers[0].path, i);
    }
    fake_publish(fake, domain);
}

void fake_host_set_state(struct fake_host *fake, const char *name, enum domain_state state)
{
    struct domain *before = fake_need(fake_host_find(fake, name));
    struct domain *domain = fake_copy_domain(before);
    domain->state = state;
    domain_unref(before);
    fake_publish(fake, domain);
}

void fake_host_set_unsupported(struct fake_host *fake, const char *name, unsigned disk,
                               const char *reason)
{
    struct domain *before = fake_need(fake_host_find(fake, name));
    struct domain *domain = fake_copy_domain(before);
    free(domain->disks[disk].unsupported);
    domain->disks[disk].unsupported = fake_need(strdup(reason));
    domain_unref(before);
    fake_publish(fake, domain);
}

void fake_host_put_image(struct fake_host *fake, const char *name, unsigned disk, int fd)
{
    struct domain *before = fake_need(fake_host_find(fake, name));
    struct domain *domain = fake_copy_domain(before);
    domain_unref(before);
    struct disk_layer *top = &domain->disks[disk].layers[0];
    auto_close int out = open(top->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fake_need_that(out >= 0, top->path);
    off_t from = 0;
    ssize_t n;
    while ((n = sendfile(out, fd, &from, 1 << 20)) > 0)
        ;
    fake_need_that(n == 0, top->path);
    top->format = QCOW_FORMAT_QCOW2;
    fake_publish(fake, domain);
}

void fake_host_set_xml(struct fake_host *fake, const char *name, const char *xml)
{
    struct domain *before = fake_need(fake_host_find(fake, name));
    struct domain *domain = fake_copy_domain(before);
    domain_unref(before);
    free(domain->xml);
    domain->xml = fake_need(strdup(xml));
    fake_publish(fake, domain);
}

void fake_host_remove(struct fake_host *fake, const char *name)
{
    mutex_lock(&fake->lock);
    size_t at = find_locked(fake, name, false);
    fake_need_that(at < FAKE_DOMAINS_MAX, name);
    struct domain *domain = fake->domains[at];
    fake->domains[at] = NULL;
    struct host_events events = fake->events;
    mutex_unlock(&fake->lock);
    if (events.domain_gone)
        events.domain_gone(events.ctx, domain->id);
    domain_unref(domain);
}

/* ---- host_ops ---- */

static struct fake_host *from_host(struct host *host)
{
    return (struct fake_host *)host;
}

static int compare_domains(const void *a, const void *b)
{
    return strcmp((*(struct domain *const *)a)->name, (*(struct domain *const *)b)->name);
}

static int fake_list(struct host *host, struct domain ***ret_domains, size_t *ret_n,
                     struct error *err)
{
    (void)err;
    struct fake_host *fake = from_host(host);
    struct domain **domains = fake_need(calloc(FAKE_DOMAINS_MAX, sizeof(struct domain *)));
    size_t n = 0;
    mutex_lock(&fake->lock);
    for (size_t i = 0; i < FAKE_DOMAINS_MAX; i++)
        if (fake->domains[i])
            domains[n++] = domain_ref(fake->domains[i]);
    mutex_unlock(&fake->lock);
    qsort(domains, n, sizeof(*domains), compare_domains);
    *ret_domains = domains;
    *ret_n = n;
    return 0;
}

static struct domain *fake_find(struct host *host, const char *id)
{
    struct fake_host *fake = from_host(host);
    fake_begin_verb(fake, FAKE_FIND);
    struct domain *domain = fake_get(fake, id, true);
    fake_end_verb(fake, FAKE_FIND);
    return domain;
}

static struct domain *fake_find_name(struct host *host, const char *name)
{
    return fake_get(from_host(host), name, false);
}

static int fake_open_ref(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                         struct error *err)
{
    (void)ctx;
    (void)ret_file;
    if (ref->kind == QCOW_REF_BACKING && !ref->name)
        return 1;
    return error_set(err, -EPERM, "'%s' refers to another file", ref->from);
}

static void fake_close(struct host *host)
{
    (void)host; /* the test destroys it */
}

static const struct host_ops fake_ops = {
    .list = fake_list,
    .find = fake_find,
    .find_name = fake_find_name,
    .open_ref = fake_open_ref,
    .method = fake_method,
    .close = fake_close,
};

/* ---- Life ---- */

struct fake_host *fake_host_create(void)
{
    struct fake_host *fake = fake_need(calloc(1, sizeof(*fake)));
    fake->base.ops = &fake_ops;
    mutex_init(&fake->lock);
    cond_init(&fake->changed);
    const char *tmp = getenv("TMPDIR");
    fake_need_that(asprintf(&fake->dir, "%s/fake-host.XXXXXX", tmp ? tmp : "/tmp") > 0, "path");
    fake_need_that(mkdtemp(fake->dir) != NULL, fake->dir);
    return fake;
}

void fake_host_destroy(struct fake_host *fake)
{
    for (size_t i = 0; i < FAKE_DOMAINS_MAX; i++)
        domain_unref(fake->domains[i]);
    auto_free char *command = NULL;
    fake_need_that(asprintf(&command, "rm -rf '%s'", fake->dir) > 0, "path");
    fake_need_that(system(command) == 0, command);
    cond_fini(&fake->changed);
    mutex_fini(&fake->lock);
    free(fake->dir);
    free(fake);
}

struct host *fake_host_base(struct fake_host *fake)
{
    return &fake->base;
}

const char *fake_host_dir(const struct fake_host *fake)
{
    return fake->dir;
}

void fake_host_set_events(struct fake_host *fake, struct host_events events)
{
    mutex_lock(&fake->lock);
    fake->events = events;
    mutex_unlock(&fake->lock);
}
