/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/table.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fs/host/host.h"

static struct domain *make(const char *id, const char *name)
{
    struct domain *domain = domain_create(id, name);
    assert_non_null(domain);
    return domain;
}

static void lists_by_name_and_finds_by_both(void **state)
{
    (void)state;
    struct table table;
    table_init(&table);
    assert_int_equal(table_put(&table, make("2", "a"), table_take_ticket(&table)), 1);
    assert_int_equal(table_put(&table, make("1", "c"), table_take_ticket(&table)), 1);
    assert_int_equal(table_put(&table, make("3", "b"), table_take_ticket(&table)), 1);
    struct domain **domains;
    size_t n;
    assert_int_equal(table_list(&table, &domains, &n), 0);
    assert_int_equal(n, 3);
    assert_string_equal(domains[0]->name, "a");
    assert_string_equal(domains[1]->name, "b");
    assert_string_equal(domains[2]->name, "c");
    host_list_free(domains, n);
    struct domain *found = table_find(&table, "3");
    assert_string_equal(found->name, "b");
    domain_unref(found);
    found = table_find_name(&table, "c");
    assert_string_equal(found->id, "1");
    domain_unref(found);
    assert_null(table_find(&table, "4"));
    assert_null(table_find_name(&table, "d"));
    table_fini(&table);
}

static void tells_whether_readers_see_a_change(void **state)
{
    (void)state;
    struct table table;
    table_init(&table);
    assert_int_equal(table_put(&table, make("1", "a"), table_take_ticket(&table)), 1);
    struct domain *old = table_find(&table, "1");
    assert_int_equal(table_put(&table, make("1", "a"), table_take_ticket(&table)), 0);
    assert_int_equal(table_put(&table, make("1", "b"), table_take_ticket(&table)), 1);
    assert_string_equal(old->name, "a");
    domain_unref(old);
    assert_null(table_find_name(&table, "a"));
    table_fini(&table);
}

static void what_was_asked_for_earlier_never_replaces_the_newer(void **state)
{
    (void)state;
    struct table table;
    table_init(&table);
    uint64_t early = table_take_ticket(&table);
    uint64_t late = table_take_ticket(&table);
    assert_int_equal(table_put(&table, make("1", "new"), late), 1);
    assert_int_equal(table_put(&table, make("1", "old"), early), 0);
    assert_false(table_remove(&table, "1", early));
    struct domain *found = table_find_name(&table, "new");
    assert_non_null(found);
    domain_unref(found);
    assert_true(table_remove(&table, "1", table_take_ticket(&table)));
    assert_false(table_remove(&table, "1", table_take_ticket(&table)));
    table_fini(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_by_name_and_finds_by_both),
        cmocka_unit_test(tells_whether_readers_see_a_change),
        cmocka_unit_test(what_was_asked_for_earlier_never_replaces_the_newer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
