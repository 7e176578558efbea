/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the broker does for a program in its sandbox, and what it refuses to one that was taken
 * over. */
#include "fs/sandbox/broker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/fuse/attach.h"
#include "fs/host/change.h"
#include "fs/host/qemu_img.h"
#include "qcow/base/cleanup.h"
#include "tests/unit/host/scratch.h"

/* Of the three texts that tasks are tried with here, what the broker's own memory says. */
static char secret[16] = "secret";

static int join_args(struct broker_call *call, struct error *err)
{
    size_t len = 1;
    for (size_t i = 0; i < call->n_args; i++)
        len += strlen(call->args[i]) + 1;
    call->ret_text = calloc(1, len);
    if (!call->ret_text)
        return error_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < call->n_args; i++)
        strcat(strcat(call->ret_text, call->args[i]), ";");
    return (int)call->n_args;
}

static int fail_with_reason(struct broker_call *call, struct error *err)
{
    return error_set(err, -EBUSY, "%s is busy: %s", (const char *)call->ctx, secret);
}

static int open_null(struct broker_call *call, struct error *err)
{
    call->ret_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return call->ret_fd < 0 ? error_set(err, -errno, "no /dev/null") : 0;
}

static int count_calls(struct broker_call *call, struct error *err)
{
    (void)err;
    return ++*(int *)call->kept;
}

static int die(struct broker_call *call, struct error *err)
{
    (void)call;
    (void)err;
    raise(SIGKILL);
    return 0;
}

static void forget(void *ctx)
{
    strcpy(ctx, "forgotten");
}

static void leave_nothing(void)
{
}

/* One broker for all tests, as a program has one. */
static int start(void **state)
{
    (void)state;
    static const struct broker_config config = {
        .workers = {[BROKER_MOUNT] = {join_args, NULL},
                    [BROKER_COMMIT] = {fail_with_reason, "the image"},
                    [BROKER_COMPARE] = {open_null, NULL},
                    [BROKER_DELETE_SNAPSHOT] = {count_calls, NULL},
                    [BROKER_WAKE] = {die, NULL}},
        .forget = forget,
        .forget_ctx = secret,
        .leave_terminal = leave_nothing,
    };
    struct error err;
    assert_false(broker_is_running());
    assert_int_equal(broker_start(&config, &err), 0);
    assert_true(broker_is_running());
    return 0;
}

static int stop(void **state)
{
    (void)state;
    broker_stop();
    return broker_is_running();
}

static void hands_strings_over_and_back(void **state)
{
    (void)state;
    struct broker_call call = {.args = {"a", "", "c d\n"}, .n_args = 3};
    struct error err = {0};
    assert_int_equal(broker_do(BROKER_MOUNT, &call, &err), 3);
    assert_string_equal(call.ret_text, "a;;c d\n;");
    assert_int_equal(call.ret_fd, -1);
    free(call.ret_text);
}

static void hands_back_why_it_failed_and_knows_no_secrets(void **state)
{
    (void)state;
    struct broker_call call = {0};
    struct error err = {0};
    assert_int_equal(broker_do(BROKER_COMMIT, &call, &err), -EBUSY);
    assert_string_equal(err.text, "the image is busy: forgotten");
    assert_string_equal(secret, "secret");
}

static void hands_back_a_descriptor(void **state)
{
    (void)state;
    struct broker_call call = {0};
    struct error err = {0};
    struct stat found, wanted;
    assert_int_equal(broker_do(BROKER_COMPARE, &call, &err), 0);
    assert_int_equal(fstat(call.ret_fd, &found), 0);
    assert_int_equal(stat("/dev/null", &wanted), 0);
    assert_true(found.st_rdev == wanted.st_rdev);
    assert_true(fcntl(call.ret_fd, F_GETFD) & FD_CLOEXEC);
    close(call.ret_fd);
    free(call.ret_text);
}

static void refuses_what_it_was_not_begun_for(void **state)
{
    (void)state;
    for (int task = BROKER_UNMOUNT; task < 1000; task += 333) {
        struct broker_call call = {0};
        struct error err = {0};
        assert_int_equal(broker_do((enum broker_task)task, &call, &err), -EPERM);
    }
}

static void keeps_what_a_task_wants_to_know_later(void **state)
{
    (void)state;
    for (int i = 1; i < 4; i++) {
        struct broker_call call = {0};
        struct error err = {0};
        assert_int_equal(broker_do(BROKER_DELETE_SNAPSHOT, &call, &err), i);
        free(call.ret_text);
    }
}

static void unmounts_nothing_that_the_program_names(void **state)
{
    (void)state;
    static _Alignas(max_align_t) char nothing[BROKER_KEPT_MAX];
    struct broker_call call = {.kept = nothing};
    struct error err = {0};
    assert_int_equal(attach_work_unmount(&call, &err), -EINVAL);
    call = (struct broker_call){.kept = nothing, .args = {"/proc", "0"}, .n_args = 2};
    nothing[sizeof(dev_t)] = '/'; /* as if something were mounted */
    assert_int_equal(attach_work_unmount(&call, &err), -EINVAL);
}

static void survives_the_death_of_a_task(void **state)
{
    struct broker_call call = {0};
    struct error err = {0};
    assert_int_equal(broker_do(BROKER_WAKE, &call, &err), -EIO);
    hands_strings_over_and_back(state);
}

static void *ask_many_times(void *arg)
{
    for (int i = 0; i < 50; i++)
        hands_strings_over_and_back(arg);
    return NULL;
}

static void threads_get_their_own_answers(void **state)
{
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_many_times, *state), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

static void text_that_is_too_long_is_refused(void **state)
{
    (void)state;
    auto_free char *text = malloc(BROKER_TEXT_MAX + 1);
    assert_non_null(text);
    memset(text, 'x', BROKER_TEXT_MAX);
    text[BROKER_TEXT_MAX] = '\0';
    struct broker_call call = {.args = {text}, .n_args = 1};
    struct error err = {0};
    assert_int_equal(broker_do(BROKER_MOUNT, &call, &err), -EIO);
}

/* ---- qemu-img: only on overlays, and on none that the program could have made itself ---- */

static bool is_in_any_mount(const char *path)
{
    return strstr(path, "/any-mount/") != NULL;
}

static struct qemu_img_fence fence_of(const struct scratch *s)
{
    return (struct qemu_img_fence){.state_dir = scratch_path(s, "state"),
                                   .mountpoint = scratch_path(s, "mount"),
                                   .is_own_mount = is_in_any_mount};
}

static struct error told;

static int commit(const struct scratch *s, const char *overlay, const char *base)
{
    struct qemu_img_fence fence = fence_of(s);
    struct broker_call call = {.ctx = &fence, .args = {overlay, base}, .n_args = 2};
    int r = qemu_img_work_commit(&call, &told);
    print_message("%s: %s\n", overlay, told.text);
    return r;
}

#define MARKED "disk.virtsnapfs-0123456789abcdef.overlay"

static void qemu_img_is_run_on_overlays_only(void **state)
{
    const struct scratch *s = *state;
    const char *base = scratch_path(s, "base");
    scratch_mkdir(s, "state");
    scratch_write(s, "disk.qcow2", "x");
    scratch_write(s, "state/" MARKED, "x");
    assert_int_equal(commit(s, scratch_path(s, "disk.qcow2"), base), -EPERM);
    assert_int_equal(commit(s, scratch_path(s, "state/" MARKED), base), -EPERM);
    assert_int_equal(commit(s, scratch_path(s, "state/../state/" MARKED), base), -EPERM);
    assert_int_equal(commit(s, scratch_path(s, MARKED), base), -EPERM); /* not there */
    scratch_mkdir(s, "mount");
    scratch_write(s, "mount/" MARKED, "x");
    assert_int_equal(commit(s, scratch_path(s, "mount/" MARKED), base), -EPERM);
    scratch_mkdir(s, "any-mount");
    scratch_write(s, "any-mount/" MARKED, "x");
    assert_int_equal(commit(s, scratch_path(s, "any-mount/" MARKED), base), -EPERM);
    assert_int_equal(commit(s, MARKED, base), -EPERM);
    assert_int_equal(commit(s, "--help", base), -EPERM);
    scratch_link(s, scratch_path(s, "disk.qcow2"), MARKED);
    assert_int_equal(commit(s, scratch_path(s, MARKED), base), -EPERM);
    unlink(scratch_path(s, MARKED));
    scratch_write(s, MARKED, "no qcow2");
    assert_int_equal(commit(s, scratch_path(s, MARKED), "--help"), -EPERM);
    int r = commit(s, scratch_path(s, MARKED), base);
    assert_true(r == -EIO || r == -EOPNOTSUPP); /* it was run, or there is none */
    scratch_mkdir(s, "inner");
    scratch_write(s, "inner/" MARKED, "no qcow2");
    scratch_link(s, "inner", "alias");
    r = commit(s, scratch_path(s, "alias/" MARKED), base);
    assert_true(r == -EOPNOTSUPP || strstr(told.text, "/inner/" MARKED)); /* what was checked */
}

static int delete_snapshot(const struct scratch *s, const char *image, const char *name)
{
    struct qemu_img_fence fence = fence_of(s);
    struct broker_call call = {.ctx = &fence, .args = {image, name}, .n_args = 2};
    struct error err = {0};
    int r = qemu_img_work_delete_snapshot(&call, &err);
    print_message("%s of %s: %s\n", name, image, err.text);
    return r;
}

static void only_snapshots_of_ours_are_deleted(void **state)
{
    static const char mark[] = "virtsnapfs-0123456789abcdef";
    const struct scratch *s = *state;
    char image[PATH_MAX];
    snprintf(image, sizeof(image), "%s", scratch_path(s, "disk.qcow2"));
    scratch_mkdir(s, "state");
    scratch_write(s, "disk.qcow2", "x");
    scratch_write(s, "state/disk.qcow2", "x");
    assert_int_equal(delete_snapshot(s, image, "before-upgrade"), -EPERM);
    assert_int_equal(delete_snapshot(s, image, "--help"), -EPERM);
    assert_int_equal(delete_snapshot(s, image, "virtsnapfs-0123456789abcde"), -EPERM);
    assert_int_equal(delete_snapshot(s, image, "virtsnapfs-0123456789abcdef0"), -EPERM);
    assert_int_equal(delete_snapshot(s, image, "x-virtsnapfs-0123456789abcdef"), -EPERM);
    assert_int_equal(delete_snapshot(s, "disk.qcow2", mark), -EPERM);
    assert_int_equal(delete_snapshot(s, "nbd:localhost:1", mark), -EPERM);
    assert_int_equal(delete_snapshot(s, scratch_path(s, "missing"), mark), -ENOENT);
    assert_int_equal(delete_snapshot(s, scratch_path(s, "state/disk.qcow2"), mark), -EPERM);
    scratch_mkdir(s, "mount");
    scratch_write(s, "mount/disk.qcow2", "x");
    assert_int_equal(delete_snapshot(s, scratch_path(s, "mount/disk.qcow2"), mark), -EPERM);
    scratch_link(s, scratch_path(s, "state/disk.qcow2"), "link");
    assert_int_equal(delete_snapshot(s, scratch_path(s, "link"), mark), -EPERM);
    int r = delete_snapshot(s, image, mark);
    assert_true(r == -EIO || r == -EOPNOTSUPP); /* it was run, or there is none */
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hands_strings_over_and_back),
        cmocka_unit_test(hands_back_why_it_failed_and_knows_no_secrets),
        cmocka_unit_test(hands_back_a_descriptor),
        cmocka_unit_test(refuses_what_it_was_not_begun_for),
        cmocka_unit_test(keeps_what_a_task_wants_to_know_later),
        cmocka_unit_test(unmounts_nothing_that_the_program_names),
        cmocka_unit_test(survives_the_death_of_a_task),
        cmocka_unit_test(threads_get_their_own_answers),
        cmocka_unit_test(text_that_is_too_long_is_refused),
        cmocka_unit_test_setup_teardown(qemu_img_is_run_on_overlays_only, scratch_setup,
                                        scratch_teardown),
        cmocka_unit_test_setup_teardown(only_snapshots_of_ours_are_deleted, scratch_setup,
                                        scratch_teardown),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
