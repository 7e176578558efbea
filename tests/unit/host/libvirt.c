/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/libvirt.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include "qcow/base/thread.h"
#include "tests/unit/host/scratch.h"

/* What the host told, and the means to wait for it. */
struct log {
    struct mutex lock;
    struct cond changed;
    unsigned n_changed GUARDED_BY(lock);
    unsigned n_gone GUARDED_BY(lock);
};

static void on_changed(void *ctx, const struct domain *domain)
{
    (void)domain;
    struct log *log = ctx;
    mutex_lock(&log->lock);
    log->n_changed++;
    cond_wake_all(&log->changed);
    mutex_unlock(&log->lock);
}

static void on_gone(void *ctx, const char *id)
{
    (void)id;
    struct log *log = ctx;
    mutex_lock(&log->lock);
    log->n_gone++;
    cond_wake_all(&log->changed);
    mutex_unlock(&log->lock);
}

static struct host *open_test_host(struct log *log)
{
    const struct libvirt_config config = {
        .uri = "test:///default",
        .timeout_ms = 20000,
        .events = {.domain_changed = on_changed, .domain_gone = on_gone, .ctx = log}};
    mutex_init(&log->lock);
    cond_init(&log->changed);
    struct host *host;
    struct error err = {0};
    int r = libvirt_open(&config, &host, &err);
    if (r < 0)
        fail_msg("%s", err.text);
    return host;
}

static void close_test_host(struct host *host, struct log *log)
{
    host->ops->close(host);
    cond_fini(&log->changed);
    mutex_fini(&log->lock);
}

/* Waits until as many of either kind were told. */
static void wait_told(struct log *log, unsigned n_changed, unsigned n_gone)
{
    int64_t deadline_ns = monotonic_ns() + INT64_C(20) * 1000000000;
    mutex_lock(&log->lock);
    while ((log->n_changed < n_changed || log->n_gone < n_gone) &&
           cond_wait_until(&log->changed, &log->lock, deadline_ns))
        ;
    bool is_told = log->n_changed >= n_changed && log->n_gone >= n_gone;
    mutex_unlock(&log->lock);
    assert_true(is_told);
}

static void tells_local_from_remote_uris(void **state)
{
    (void)state;
    static const char *const local[] = {"qemu:///system",
                                        "qemu:///session",
                                        "test:///default",
                                        "qemu+unix:///system",
                                        "qemu+unix:///system?socket=/x",
                                        "qemu://",
                                        "qemu:/system",
                                        "qemu:///embed?root=/a+b://c"};
    static const char *const remote[] = {"qemu://host/system",         "qemu+ssh://host/system",
                                         "qemu+ssh://u@host:1/system", "qemu+ssh:///system",
                                         "qemu+tls:///system",         "qemu://[::1]/system",
                                         "qemu+unix://host/system",    "qemu+ext:///system"};
    for (size_t i = 0; i < sizeof(local) / sizeof(*local); i++) {
        print_message("%s\n", local[i]);
        assert_false(libvirt_uri_is_remote(local[i]));
    }
    for (size_t i = 0; i < sizeof(remote) / sizeof(*remote); i++) {
        print_message("%s\n", remote[i]);
        assert_true(libvirt_uri_is_remote(remote[i]));
    }
}

static void refuses_to_open_what_it_cannot_serve(void **state)
{
    (void)state;
    struct host *host;
    struct error err = {0};
    struct libvirt_config config = {.uri = "qemu+ssh://host/system", .timeout_ms = 20000};
    assert_int_equal(libvirt_open(&config, &host, &err), -EINVAL);
    config.uri = "nosuchdriver:///x";
    assert_int_equal(libvirt_open(&config, &host, &err), -ENOTCONN);
    assert_non_null(strstr(err.text, "nosuchdriver"));
    config.uri = "qemu+unix:///system?socket=/nonexistent/socket";
    assert_int_equal(libvirt_open(&config, &host, &err), -ENOTCONN);
}

static void shows_the_domains_of_the_test_driver(void **state)
{
    (void)state;
    struct log log = {0};
    struct host *host = open_test_host(&log);
    struct domain **domains;
    size_t n;
    struct error err = {0};
    assert_int_equal(host->ops->list(host, &domains, &n, &err), 0);
    assert_int_equal(n, 1);
    const struct domain *domain = domains[0];
    assert_string_equal(domain->name, "test");
    assert_int_equal(domain->state, DOMAIN_RUNNING);
    assert_true(domain->is_persistent);
    assert_non_null(strstr(domain->xml, "<domain type='test'"));
    assert_int_equal(domain->n_disks, 1);
    assert_string_equal(domain->disks[0].target, "vda");
    assert_string_equal(domain->disks[0].layers[0].path, "/guest/diskimage1");
    struct domain *found = host->ops->find(host, domain->id);
    assert_ptr_equal(found, domain);
    domain_unref(found);
    host_list_free(domains, n);
    assert_null(host->ops->find_name(host, "none"));
    close_test_host(host, &log);
}

/* test:///default is one state a process: changes made here are those of somebody else. */
static void follows_changes_by_events(void **state)
{
    (void)state;
    struct log log = {0};
    struct host *host = open_test_host(&log);
    virConnectPtr conn = virConnectOpen("test:///default");
    assert_non_null(conn);
    virDomainPtr dom = virDomainLookupByName(conn, "test");
    assert_non_null(dom);

    assert_int_equal(virDomainSuspend(dom), 0);
    wait_told(&log, 1, 0);
    struct domain *domain = host->ops->find_name(host, "test");
    assert_int_equal(domain->state, DOMAIN_PAUSED);
    domain_unref(domain);

    assert_int_equal(virDomainDestroy(dom), 0);
    wait_told(&log, 2, 0);
    domain = host->ops->find_name(host, "test");
    assert_int_equal(domain->state, DOMAIN_SHUTOFF);
    domain_unref(domain);

    char *xml = virDomainGetXMLDesc(dom, 0);
    assert_int_equal(virDomainUndefine(dom), 0);
    wait_told(&log, 2, 1);
    assert_null(host->ops->find_name(host, "test"));

    virDomainPtr again = virDomainDefineXML(conn, xml);
    assert_non_null(again);
    assert_int_equal(virDomainCreate(again), 0);
    wait_told(&log, 3, 1);
    virDomainFree(again);
    free(xml);
    virDomainFree(dom);
    virConnectClose(conn);
    close_test_host(host, &log);
}

static int note_nothing(void *ctx, const struct change *change, struct error *err)
{
    (void)ctx;
    (void)change;
    (void)err;
    return 0;
}

static int enter_nothing(void *ctx, struct change *change, struct error *err)
{
    return note_nothing(ctx, change, err);
}

static void leave_nothing(void *ctx, struct change *change)
{
    note_nothing(ctx, change, NULL);
}

static void a_snapshot_the_driver_cannot_make_changes_nothing(void **state)
{
    (void)state;
    struct log log = {0};
    struct host *host = open_test_host(&log);
    struct domain *domain = host->ops->find_name(host, "test");
    assert_non_null(domain);
    const struct host_method *method = host->ops->method(host, CHANGE_OVERLAY);
    const struct change_steps steps = {
        .note = note_nothing, .enter = enter_nothing, .leave = leave_nothing};
    struct change *change;
    struct error err = {0};
    assert_int_equal(change_create(CHANGE_OVERLAY, domain->id, domain->name, &change, &err), 0);
    int r = method->plan(host, domain, change, &err);
    if (r == 0)
        r = method->make(host, change, &steps, &err);
    assert_true(r < 0);
    assert_true(err.text[0]);
    change_free(change);
    domain_unref(domain);
    close_test_host(host, &log);
}

/* Answers a reference of the image at @from for @disk. */
static int open_ref(struct host *host, const struct disk *disk, struct qcow_ref ref,
                    char **ret_name, enum qcow_format *ret_format, struct error *err)
{
    struct host_image_ctx ctx = {.host = host, .disk = disk};
    struct qcow_file file;
    int r = host->ops->open_ref(&ctx, &ref, &file, err);
    if (r == 0) {
        close(file.fd);
        *ret_name = file.name;
        *ret_format = file.format;
    }
    return r;
}

static void what_the_xml_names_goes_before_what_the_image_says(void **state)
{
    const struct scratch *s = *state;
    scratch_write(s, "declared", "");
    scratch_write(s, "recorded", "");
    struct log log = {0};
    struct host *host = open_test_host(&log);
    char top[PATH_MAX], declared[PATH_MAX];
    snprintf(top, sizeof(top), "%s/top", s->dir);
    snprintf(declared, sizeof(declared), "%s/declared", s->dir);
    struct disk_layer layers[] = {{top, QCOW_FORMAT_QCOW2}, {declared, QCOW_FORMAT_QCOW2}};
    struct disk disk = {.target = (char[]){"vda"}, .layers = layers, .n_layers = 2};
    struct qcow_ref ref = {.name = "recorded", .format = "raw", .from = top};
    char *name = NULL;
    enum qcow_format format;
    struct error err = {0};

    assert_int_equal(open_ref(host, &disk, ref, &name, &format, &err), 0);
    assert_string_equal(name, declared);
    assert_int_equal(format, QCOW_FORMAT_QCOW2);
    free(name);

    ref.depth = 1; /* the XML is silent: the image is followed */
    assert_int_equal(open_ref(host, &disk, ref, &name, &format, &err), 0);
    assert_string_equal(name, scratch_path(s, "recorded"));
    assert_int_equal(format, QCOW_FORMAT_RAW);
    free(name);
    ref.format = NULL;
    assert_int_equal(open_ref(host, &disk, ref, &name, &format, &err), -EOPNOTSUPP);

    disk.is_chain_complete = true; /* the XML says that there is none */
    assert_int_equal(open_ref(host, &disk, ref, &name, &format, &err), 1);
    close_test_host(host, &log);
}

static void data_files_lie_in_backing_directories_only(void **state)
{
    const struct scratch *s = *state;
    scratch_mkdir(s, "in");
    scratch_write(s, "in/data", "");
    scratch_write(s, "data", "");
    const char *const dirs[] = {scratch_path(s, "in")};
    const struct libvirt_config config = {
        .uri = "test:///default", .backing_dirs = dirs, .n_backing_dirs = 1, .timeout_ms = 20000};
    struct host *host;
    struct error err = {0};
    assert_int_equal(libvirt_open(&config, &host, &err), 0);
    char top[PATH_MAX];
    snprintf(top, sizeof(top), "%s/top", s->dir);
    struct disk_layer layer = {top, QCOW_FORMAT_QCOW2};
    struct disk disk = {.target = (char[]){"vda"}, .layers = &layer, .n_layers = 1};
    struct qcow_ref ref = {.kind = QCOW_REF_DATA, .name = "data", .from = top};
    char *name = NULL;
    enum qcow_format format;
    assert_int_equal(open_ref(host, &disk, ref, &name, &format, &err), -EPERM);
    ref.name = "in/data";
    assert_int_equal(open_ref(host, &disk, ref, &name, &format, &err), 0);
    assert_int_equal(format, QCOW_FORMAT_RAW);
    free(name);
    host->ops->close(host);
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_local_from_remote_uris),
        cmocka_unit_test(refuses_to_open_what_it_cannot_serve),
        cmocka_unit_test(shows_the_domains_of_the_test_driver),
        cmocka_unit_test(follows_changes_by_events),
        cmocka_unit_test(a_snapshot_the_driver_cannot_make_changes_nothing),
        WITH_SCRATCH(what_the_xml_names_goes_before_what_the_image_says),
        WITH_SCRATCH(data_files_lie_in_backing_directories_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
