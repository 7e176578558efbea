/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/reply.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void errors_of_the_contract_pass_unchanged(void **state)
{
    (void)state;
    static const int codes[] = {ENOENT,     ESTALE,  EACCES, EROFS,  EPERM,     EBUSY,
                                EOPNOTSUPP, ENOSPC,  EMFILE, EIO,    ETIMEDOUT, EINTR,
                                ENXIO,      ENODATA, ENOMEM, EINVAL, ERANGE,    ENOTDIR};
    for (unsigned i = 0; i < sizeof(codes) / sizeof(*codes); i++)
        assert_int_equal(reply_errno(-codes[i]), codes[i]);
}

static void what_a_program_would_misread_becomes_an_io_error(void **state)
{
    (void)state;
    assert_int_equal(reply_errno(-EBADMSG), EIO);
    assert_int_equal(reply_errno(-ESHUTDOWN), EIO);
    assert_int_equal(reply_errno(-ENOTCONN), EIO);
    assert_int_equal(reply_errno(-ECANCELED), EIO);
    assert_int_equal(reply_errno(-ELOOP), EIO);
    assert_int_equal(reply_errno(-EAGAIN), EBUSY);
}

/* ENOSYS would end the operation for the whole mount, other numbers the program. */
static void the_kernel_is_spared_what_it_takes_amiss(void **state)
{
    (void)state;
    assert_int_equal(reply_errno(-ENOSYS), EOPNOTSUPP);
    assert_int_equal(reply_errno(-512), EIO);
    assert_int_equal(reply_errno(-100000), EIO);
    assert_int_equal(reply_errno(5), EIO);
    assert_int_equal(reply_errno(0), EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_of_the_contract_pass_unchanged),
        cmocka_unit_test(what_a_program_would_misread_becomes_an_io_error),
        cmocka_unit_test(the_kernel_is_spared_what_it_takes_amiss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
