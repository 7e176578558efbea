/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/notify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

/* A manager's socket; @name as NOTIFY_SOCKET has it. */
static int listen_at(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    memcpy(address.sun_path, name, len);
    if (name[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
                     0);
    return fd;
}

static void check_receives(int fd, const char *wanted)
{
    char text[256];
    ssize_t n = recv(fd, text, sizeof(text) - 1, 0);
    assert_true(n >= 0);
    text[n] = '\0';
    assert_string_equal(text, wanted);
}

static void check_speaks_to(const char *name)
{
    int fd = listen_at(name);
    assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
    struct notify notify;
    notify_begin(&notify);
    assert_null(getenv("NOTIFY_SOCKET"));
    notify_send(&notify, NOTIFY_READY);
    notify_send(&notify, "STATUS=x");
    check_receives(fd, "READY=1\nSTATUS=Mounted");
    check_receives(fd, "STATUS=x");
    notify_end(&notify);
    close(fd);
}

static void speaks_to_a_path(void **state)
{
    (void)state;
    char folder[] = "/tmp/virtsnapfs-unit.XXXXXX";
    assert_non_null(mkdtemp(folder));
    char name[64];
    snprintf(name, sizeof(name), "%s/notify", folder);
    check_speaks_to(name);
    unlink(name);
    rmdir(folder);
}

static void speaks_to_an_abstract_name(void **state)
{
    (void)state;
    char name[64];
    snprintf(name, sizeof(name), "@virtsnapfs-unit-%d", (int)getpid());
    check_speaks_to(name);
}

static void nobody_there_is_no_fault(void **state)
{
    (void)state;
    static const char *const names[] = {"/nowhere/at/all", "relative", "", "@", "/"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        setenv("NOTIFY_SOCKET", names[i], 1);
        struct notify notify;
        notify_begin(&notify);
        if (notify.fd != -1 || getenv("NOTIFY_SOCKET"))
            fail_msg("'%s' is taken for a socket", names[i]);
        notify_send(&notify, NOTIFY_READY);
        notify_end(&notify);
    }
}

static void a_name_that_is_too_long_is_no_fault(void **state)
{
    (void)state;
    char name[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 1];
    memset(name, 'a', sizeof(name));
    name[0] = '/';
    name[sizeof(name) - 1] = '\0';
    setenv("NOTIFY_SOCKET", name, 1);
    struct notify notify;
    notify_begin(&notify);
    assert_int_equal(notify.fd, -1);
    notify_end(&notify);
}

static void nothing_is_done_without_a_socket(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    struct notify notify;
    notify_begin(&notify);
    assert_int_equal(notify.fd, -1);
    notify_send(&notify, NOTIFY_STOPPING);
    notify_end(&notify);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(speaks_to_a_path),
        cmocka_unit_test(speaks_to_an_abstract_name),
        cmocka_unit_test(nobody_there_is_no_fault),
        cmocka_unit_test(a_name_that_is_too_long_is_no_fault),
        cmocka_unit_test(nothing_is_done_without_a_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
