/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/domain.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fs/host/host.h"

static struct domain *make_domain(void)
{
    struct domain *domain = domain_create("id", "name");
    assert_non_null(domain);
    domain->xml = strdup("<domain/>");
    domain->disks = calloc(2, sizeof(*domain->disks));
    assert_non_null(domain->disks);
    domain->n_disks = 2;
    domain->disks[0].target = strdup("vda");
    domain->disks[0].layers = calloc(1, sizeof(struct disk_layer));
    assert_non_null(domain->disks[0].layers);
    domain->disks[0].n_layers = 1;
    domain->disks[0].layers[0].path = strdup("/a");
    domain->disks[1].target = strdup("vdb");
    domain->disks[1].unsupported = strdup("it is encrypted");
    return domain;
}

static void lives_until_the_last_reference_goes(void **state)
{
    (void)state;
    struct domain *domain = make_domain();
    assert_ptr_equal(domain_ref(domain), domain);
    domain_unref(domain);
    assert_string_equal(domain->name, "name");
    domain_unref(domain);
    domain_unref(NULL);
}

static void finds_a_disk_by_its_target(void **state)
{
    (void)state;
    struct domain *domain = make_domain();
    assert_ptr_equal(domain_find_disk(domain, "vdb"), &domain->disks[1]);
    assert_null(domain_find_disk(domain, "vdc"));
    assert_null(domain_find_disk(domain, ""));
    domain_unref(domain);
}

static void sees_whether_anything_differs(void **state)
{
    (void)state;
    struct domain *a = make_domain(), *b = make_domain();
    assert_true(domain_is_same(a, b));
    b->state = DOMAIN_PAUSED;
    assert_false(domain_is_same(a, b));
    b->state = a->state;
    b->has_managed_save = true;
    assert_false(domain_is_same(a, b));
    b->has_managed_save = false;
    b->disks[0].layers[0].format = QCOW_FORMAT_QCOW2;
    assert_false(domain_is_same(a, b));
    b->disks[0].layers[0].format = QCOW_FORMAT_RAW;
    b->disks[0].layers[0].path[1] = 'b';
    assert_false(domain_is_same(a, b));
    b->disks[0].layers[0].path[1] = 'a';
    b->disks[0].is_chain_complete = true;
    assert_false(domain_is_same(a, b));
    b->disks[0].is_chain_complete = false;
    assert_true(domain_is_same(a, b));
    free(b->xml);
    b->xml = NULL;
    assert_false(domain_is_same(a, b));
    domain_unref(a);
    domain_unref(b);
}

static void names_states_as_virsh_does(void **state)
{
    (void)state;
    assert_string_equal(domain_state_name(DOMAIN_SHUTOFF), "shut off");
    assert_string_equal(domain_state_name(DOMAIN_RUNNING), "running");
    assert_string_equal(domain_state_name(DOMAIN_PAUSED), "paused");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lives_until_the_last_reference_goes),
        cmocka_unit_test(finds_a_disk_by_its_target),
        cmocka_unit_test(sees_whether_anything_differs),
        cmocka_unit_test(names_states_as_virsh_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
