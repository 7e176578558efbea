/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/host/scratch.h"

static const char magic[] = "QFI\xfb and more";

static struct host *open_host(const struct scratch *s, enum directory_format format)
{
    scratch_mkdir(s, "in");
    scratch_mkdir(s, "other");
    scratch_mkdir(s, "out");
    const char *const backing_dirs[] = {scratch_path(s, "other")};
    const struct directory_config config = {.path = scratch_path(s, "in"),
                                            .backing_dirs = backing_dirs,
                                            .n_backing_dirs = 1,
                                            .format = format};
    struct host *host;
    struct error err = {0};
    assert_int_equal(directory_open(&config, &host, &err), 0);
    return host;
}

static void check_disk(struct host *host, const char *name, enum qcow_format format,
                       bool is_disputed)
{
    struct domain *domain = host->ops->find_name(host, name);
    if (!domain)
        fail_msg("no '%s'", name);
    assert_string_equal(domain->name, name);
    assert_int_equal(domain->state, DOMAIN_SHUTOFF);
    assert_null(domain->xml);
    assert_int_equal(domain->n_disks, 1);
    const struct disk *disk = &domain->disks[0];
    assert_string_equal(disk->target, "vda");
    assert_null(disk->unsupported);
    assert_int_equal(disk->n_layers, 1);
    assert_int_equal(disk->layers[0].format, format);
    assert_int_equal(disk->is_format_disputed, is_disputed);
    struct domain *again = host->ops->find(host, domain->id);
    assert_non_null(again);
    assert_string_equal(again->name, name);
    domain_unref(again);
    domain_unref(domain);
}

static void lists_regular_files_by_name(void **state)
{
    const struct scratch *s = *state;
    struct host *host = open_host(s, DIRECTORY_FORMAT_NONE);
    scratch_write(s, "in/b.qcow2", magic);
    scratch_write(s, "in/a.img", "");
    scratch_write(s, "in/.hidden", "");
    scratch_write(s, "other/x", "");
    scratch_write(s, "out/x", "");
    scratch_mkdir(s, "in/dir");
    assert_int_equal(mkfifo(scratch_path(s, "in/fifo"), 0600), 0);
    scratch_link(s, "a.img", "in/inside");
    scratch_link(s, "../other/x", "in/allowed");
    scratch_link(s, "../out/x", "in/outside");
    scratch_link(s, "nothing", "in/dangling");
    scratch_link(s, "dir", "in/todir");

    struct domain **domains;
    size_t n;
    struct error err = {0};
    assert_int_equal(host->ops->list(host, &domains, &n, &err), 0);
    static const char *const want[] = {".hidden", "a.img", "allowed", "b.qcow2", "inside"};
    assert_int_equal(n, sizeof(want) / sizeof(*want));
    for (size_t i = 0; i < n; i++)
        assert_string_equal(domains[i]->name, want[i]);
    host_list_free(domains, n);

    static const char *const absent[] = {"dir", "fifo", "outside", "dangling", "",
                                         ".",   "..",   "dir/x",   "../out/x"};
    for (size_t i = 0; i < sizeof(absent) / sizeof(*absent); i++) {
        print_message("%s\n", absent[i]);
        assert_null(host->ops->find_name(host, absent[i]));
    }
    assert_null(host->ops->find(host, "a.img"));
    host->ops->close(host);
}

static void an_empty_directory_has_no_domains(void **state)
{
    struct host *host = open_host(*state, DIRECTORY_FORMAT_NONE);
    struct domain **domains;
    size_t n;
    struct error err = {0};
    assert_int_equal(host->ops->list(host, &domains, &n, &err), 0);
    assert_int_equal(n, 0);
    host_list_free(domains, n);
    host->ops->close(host);
}

static void the_name_declares_the_format(void **state)
{
    const struct scratch *s = *state;
    struct host *host = open_host(s, DIRECTORY_FORMAT_NONE);
    scratch_write(s, "in/a.qcow2", "no magic");
    scratch_write(s, "in/b.img", "no magic");
    scratch_write(s, "in/c.img", magic);
    scratch_write(s, "in/.qcow2", magic);
    check_disk(host, "a.qcow2", QCOW_FORMAT_QCOW2, false);
    check_disk(host, "b.img", QCOW_FORMAT_RAW, false);
    check_disk(host, "c.img", QCOW_FORMAT_RAW, true);
    check_disk(host, ".qcow2", QCOW_FORMAT_RAW, true);
    host->ops->close(host);
}

static void the_format_option_settles_disputes_only(void **state)
{
    const struct scratch *s = *state;
    struct host *host = open_host(s, DIRECTORY_FORMAT_QCOW2);
    scratch_write(s, "in/b.img", "no magic");
    scratch_write(s, "in/c.img", magic);
    check_disk(host, "b.img", QCOW_FORMAT_RAW, false);
    check_disk(host, "c.img", QCOW_FORMAT_QCOW2, false);
    host->ops->close(host);
}

static void the_format_option_can_say_raw(void **state)
{
    const struct scratch *s = *state;
    struct host *host = open_host(s, DIRECTORY_FORMAT_RAW);
    scratch_write(s, "in/c.img", magic);
    check_disk(host, "c.img", QCOW_FORMAT_RAW, false);
    host->ops->close(host);
}

static int open_ref(const struct scratch *s, struct host *host, enum qcow_ref_kind kind,
                    const char *name, const char *format, struct error *err)
{
    struct host_image_ctx ctx = {.host = host};
    struct qcow_ref ref = {.kind = kind,
                           .name = name,
                           .format = format,
                           .from = scratch_path(s, "in/top.qcow2"),
                           .from_fd = -1};
    struct qcow_file file;
    int r = host->ops->open_ref(&ctx, &ref, &file, err);
    if (r == 0) {
        assert_int_equal(file.format,
                         kind == QCOW_REF_BACKING && format && strcmp(format, "qcow2") == 0
                             ? QCOW_FORMAT_QCOW2
                             : QCOW_FORMAT_RAW);
        close(file.fd);
        free(file.name);
    }
    return r;
}

static void follows_references_within_the_allowed_directories(void **state)
{
    const struct scratch *s = *state;
    struct error err = {0};
    struct host *host = open_host(s, DIRECTORY_FORMAT_NONE);
    scratch_write(s, "in/base", "");
    scratch_write(s, "other/base", "");
    scratch_write(s, "out/base", "");
    scratch_link(s, "../out/base", "in/trick");
    assert_int_equal(open_ref(s, host, QCOW_REF_BACKING, "base", "raw", &err), 0);
    assert_int_equal(open_ref(s, host, QCOW_REF_BACKING, "base", "qcow2", &err), 0);
    assert_int_equal(open_ref(s, host, QCOW_REF_BACKING, "../other/base", "raw", &err), 0);
    assert_int_equal(open_ref(s, host, QCOW_REF_DATA, "base", NULL, &err), 0);
    assert_int_equal(open_ref(s, host, QCOW_REF_BACKING, NULL, NULL, &err), 1);

    assert_int_equal(open_ref(s, host, QCOW_REF_BACKING, "../out/base", "raw", &err), -EPERM);
    assert_non_null(strstr(err.text, "in/top.qcow2"));
    assert_non_null(strstr(err.text, "../out/base"));
    assert_int_equal(open_ref(s, host, QCOW_REF_DATA, "/etc/passwd", NULL, &err), -EPERM);
    assert_int_equal(open_ref(s, host, QCOW_REF_BACKING, "trick", "raw", &err), -EPERM);
    host->ops->close(host);
}

static void a_reference_needs_a_recorded_format(void **state)
{
    const struct scratch *s = *state;
    struct error err = {0};
    struct host *host = open_host(s, DIRECTORY_FORMAT_NONE);
    scratch_write(s, "in/base", "");
    assert_int_equal(open_ref(s, host, QCOW_REF_BACKING, "base", NULL, &err), -EOPNOTSUPP);
    assert_non_null(strstr(err.text, "never probed"));
    assert_int_equal(open_ref(s, host, QCOW_REF_BACKING, "base", "vmdk", &err), -EOPNOTSUPP);
    assert_int_equal(open_ref(s, host, QCOW_REF_BACKING, "nbd:x", "raw", &err), -EOPNOTSUPP);
    assert_int_equal(open_ref(s, host, QCOW_REF_DATA, NULL, NULL, &err), -EOPNOTSUPP);
    assert_int_equal(open_ref(s, host, QCOW_REF_BACKING, "none", "raw", &err), -EIO);
    host->ops->close(host);
}

static void refuses_what_is_no_directory(void **state)
{
    const struct scratch *s = *state;
    struct host *host;
    struct error err = {0};
    scratch_write(s, "file", "");
    struct directory_config config = {.path = scratch_path(s, "none")};
    assert_int_equal(directory_open(&config, &host, &err), -ENOENT);
    config.path = scratch_path(s, "file");
    assert_int_equal(directory_open(&config, &host, &err), -ENOTDIR);
}

/* The host's answers with room for @n_more descriptors beyond those that are open. */
static void check_with_descriptors(struct host *host, int n_more, struct domain *known)
{
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int next = fcntl(0, F_DUPFD_CLOEXEC, 0);
    assert_true(next >= 0);
    close(next);
    struct rlimit few = {.rlim_cur = (rlim_t)(next + n_more), .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    struct domain **domains = NULL;
    size_t n = 0;
    struct error err = {0};
    int listed = host->ops->list(host, &domains, &n, &err);
    struct domain *found = host->ops->find_name(host, "b.img");
    int why = errno;
    struct domain *again = host->ops->find(host, known->id);
    int why_again = errno;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    print_message("%d descriptors: list %d, find_name %s\n", n_more, listed, found ? "yes" : "no");
    if (listed == 0) /* then it lacks none */
        assert_int_equal(n, 2);
    else
        assert_int_equal(listed, -EMFILE);
    if (!found)
        assert_int_equal(why, EMFILE);
    else /* then it is judged by its content */
        assert_true(found->disks[0].is_format_disputed);
    if (!again)
        assert_int_equal(why_again, EMFILE);
    if (n_more == 0)
        assert_true(listed < 0 && !found && !again);
    host_list_free(domains, n);
    domain_unref(found);
    domain_unref(again);
}

static void without_descriptors_nothing_is_said_to_be_gone(void **state)
{
    const struct scratch *s = *state;
    struct host *host = open_host(s, DIRECTORY_FORMAT_NONE);
    scratch_write(s, "in/a.qcow2", "");
    scratch_write(s, "in/b.img", magic);
    struct domain *known = host->ops->find_name(host, "a.qcow2");
    assert_non_null(known);
    for (int n_more = 0; n_more < 5; n_more++)
        check_with_descriptors(host, n_more, known);
    errno = 0;
    assert_null(host->ops->find_name(host, "none"));
    assert_int_equal(errno, ENOENT);
    domain_unref(known);
    host->ops->close(host);
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(lists_regular_files_by_name),
        WITH_SCRATCH(an_empty_directory_has_no_domains),
        WITH_SCRATCH(the_name_declares_the_format),
        WITH_SCRATCH(the_format_option_settles_disputes_only),
        WITH_SCRATCH(the_format_option_can_say_raw),
        WITH_SCRATCH(follows_references_within_the_allowed_directories),
        WITH_SCRATCH(a_reference_needs_a_recorded_format),
        WITH_SCRATCH(refuses_what_is_no_directory),
        WITH_SCRATCH(without_descriptors_nothing_is_said_to_be_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
