/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Many threads on few domains; meant to be run under ThreadSanitizer too. */
#include <errno.h>

#include "tests/lib/random.h"
#include "tests/unit/session/registry_fixture.h"

enum { THREADS = 8, ROUNDS = 150, STATUS_EVERY = 16 };

struct worker {
    struct fixture *fixture;
    unsigned seed;
    unsigned n_read, n_refused;
};

static bool is_expected(int r)
{
    return r == 0 || r == -ESTALE || r == -EBUSY || r == -EINTR || r == -EMFILE || r == -EIO ||
           r == -ESHUTDOWN;
}

static void read_some(struct reader *reader, unsigned disk, unsigned *seed)
{
    unsigned char buf[512];
    uint64_t off = (uint64_t)random_next(seed) % (FAKE_DISK_SIZE - sizeof(buf));
    struct error err = {0};
    ssize_t n = reader_read(reader, off, buf, sizeof(buf), &err);
    if (n < 0) {
        if (!is_expected((int)n))
            abort();
        return;
    }
    for (size_t i = 0; i < (size_t)n; i++)
        if (buf[i] != fake_host_byte(disk, off + i))
            abort();
}

static void open_once(struct worker *worker)
{
    static const struct {
        const char *name, *id, *target;
        unsigned disk;
    } disks[] = {{"live", "id-live", "vda", 0},
                 {"off", "id-off", "vda", 0},
                 {"off", "id-off", "vdb", 1},
                 {"solo", "id-solo", "vda", 0}};
    size_t which = (size_t)random_next(&worker->seed) % 4;
    struct asked asked;
    asked_init(&asked);
    asked.has_given_up = random_next(&worker->seed) % 16 == 0;
    uint64_t serial = peek_serial(worker->fixture, disks[which].id, disks[which].target);
    ask_serial(worker->fixture, disks[which].name, disks[which].target, serial, &asked);
    if (random_next(&worker->seed) % 8 == 0)
        registry_cancel(worker->fixture->registry, &asked);
    int r = asked_await(&asked);
    if (!is_expected(r))
        abort();
    if (r < 0) {
        worker->n_refused++;
        return;
    }
    for (unsigned i = 0; i < 4; i++)
        read_some(asked.reader, disks[which].disk, &worker->seed);
    worker->n_read++;
    reader_close(asked.reader);
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        open_once(worker);
        if (i % STATUS_EVERY)
            continue;
        struct domain *domain = fake_host_find(worker->fixture->fake, "live");
        free(registry_status(worker->fixture->registry, domain, NULL, 0));
        free(registry_xattr(worker->fixture->registry, domain, &domain->disks[0], NULL, 1,
                            "consistency"));
        domain_unref(domain);
    }
    return NULL;
}

/* Starts are seen under readers now and then. */
static void *disturb(void *arg)
{
    struct worker *worker = arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct domain *domain = fake_host_find(worker->fixture->fake, "solo");
        struct domain *started = domain_create(domain->id, domain->name);
        started->state = DOMAIN_RUNNING; /* and stopped again at once: the host says shut off */
        registry_domain_changed(worker->fixture->registry, started);
        domain_unref(started);
        domain_unref(domain);
        sched_yield();
    }
    return NULL;
}

static void run(const struct registry_config *config, bool is_cut_short)
{
    struct fixture f;
    fixture_open(&f, config);
    struct worker workers[THREADS + 1];
    pthread_t threads[THREADS + 1];
    for (unsigned i = 0; i <= THREADS; i++) {
        workers[i] = (struct worker){.fixture = &f, .seed = 1000 + i};
        assert_int_equal(
            pthread_create(&threads[i], NULL, i < THREADS ? work : disturb, &workers[i]), 0);
    }
    if (is_cut_short)
        registry_shutdown(f.registry);
    unsigned n_read = 0;
    for (unsigned i = 0; i <= THREADS; i++) {
        pthread_join(threads[i], NULL);
        n_read += workers[i].n_read;
    }
    if (!is_cut_short)
        assert_true(n_read > THREADS);
    fixture_close(&f);
}

static void many_threads_get_their_bytes_or_a_reason(void **state)
{
    (void)state;
    struct registry_config config = patient;
    config.linger_s = 0;
    run(&config, false);
}

static void many_threads_with_no_joining(void **state)
{
    (void)state;
    struct registry_config config = patient;
    config.join_s = 0;
    config.max_open = 2;
    run(&config, false);
}

static void shutdown_in_the_middle_of_it(void **state)
{
    (void)state;
    run(&patient, true);
}

int main(void)
{
    log_init(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_threads_get_their_bytes_or_a_reason),
        cmocka_unit_test(many_threads_with_no_joining),
        cmocka_unit_test(shutdown_in_the_middle_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
