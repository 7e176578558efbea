/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/fuse/inode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static int set_up(void **state)
{
    struct inode_table *table;
    assert_int_equal(inode_table_create(7, &table), 0);
    *state = table;
    return 0;
}

static int tear_down(void **state)
{
    inode_table_destroy(*state);
    return 0;
}

static struct inode *get(struct inode_table *table, const struct inode_spec *spec)
{
    struct inode *inode;
    assert_int_equal(inode_get(table, spec, &inode), 0);
    return inode;
}

static struct inode_spec now_spec(const char *domain_id, const char *target, uint64_t serial)
{
    return (struct inode_spec){.kind = INODE_RAW,
                               .domain_id = domain_id,
                               .ino = 42,
                               .file = "now.raw",
                               .target = target,
                               .top_path = "/a",
                               .serial = serial};
}

static struct inode_spec snapshot_spec(const struct named_snapshot *snapshot, const char *top_path)
{
    struct inode_spec spec = now_spec("d", "vda", 0);
    spec.snapshot = snapshot;
    spec.top_path = top_path;
    return spec;
}

static void the_root_is_always_there(void **state)
{
    struct inode *root = inode_root(*state);
    assert_int_equal(root->kind, INODE_ROOT);
    assert_int_equal(root->ino, 7);
    inode_forget(*state, root, 1000);
    assert_ptr_equal(inode_root(*state), root);
}

static void one_thing_has_one_node_until_it_is_forgotten(void **state)
{
    struct inode_spec spec = {.kind = INODE_DOMAIN, .domain_id = "d", .ino = 1};
    struct inode *first = get(*state, &spec);
    uint64_t generation = first->generation;
    assert_ptr_equal(get(*state, &spec), first);
    assert_ptr_equal(get(*state, &spec), first);
    inode_forget(*state, first, 2);
    assert_int_equal(inode_table_count(*state), 1);
    inode_forget(*state, first, 1);
    assert_int_equal(inode_table_count(*state), 0);
    assert_int_not_equal(get(*state, &spec)->generation, generation);
}

static void each_instant_has_a_node_of_its_own(void **state)
{
    struct inode_spec one = now_spec("d", "vda", 1), two = now_spec("d", "vda", 2);
    struct inode_spec other_disk = now_spec("d", "vdb", 1), other_domain = now_spec("e", "vda", 1);
    struct inode *first = get(*state, &one);
    assert_ptr_not_equal(get(*state, &two), first);
    assert_ptr_not_equal(get(*state, &other_disk), first);
    assert_ptr_not_equal(get(*state, &other_domain), first);
    assert_ptr_equal(get(*state, &one), first);
    assert_int_equal(first->ino, 42);
    assert_true(first->is_now);
}

static void texts_that_join_to_the_same_are_not_the_same(void **state)
{
    struct inode_spec one = now_spec("a/b", "c", 1), two = now_spec("a", "b/c", 1);
    assert_ptr_not_equal(get(*state, &one), get(*state, &two));
    struct named_snapshot s = {.internal = {.id = "1", .name = "2/1:3"}};
    struct named_snapshot t = {.internal = {.id = "1/5:2", .name = "3"}};
    struct inode_spec three = snapshot_spec(&s, "/a"), four = snapshot_spec(&t, "/a");
    assert_ptr_not_equal(get(*state, &three), get(*state, &four));
}

/* Or the page cache of the deleted one would be shown for the other. */
static void a_snapshot_made_anew_has_another_node(void **state)
{
    struct named_snapshot s = {
        .internal = {
            .id = "1", .name = "s", .guest_size = 512, .created = {5, 6}, .l1_off = 0x10000}};
    struct inode_spec spec = snapshot_spec(&s, "/a");
    struct inode *first = get(*state, &spec);
    assert_false(first->is_now);
    assert_string_equal(first->snapshot.internal.name, "s");
    assert_ptr_equal(get(*state, &spec), first);
    struct named_snapshot moved = s, later = s, grown = s;
    moved.internal.l1_off = 0x20000;
    later.internal.created.tv_nsec = 7;
    grown.internal.guest_size = 1024;
    struct inode_spec specs[] = {snapshot_spec(&moved, "/a"), snapshot_spec(&later, "/a"),
                                 snapshot_spec(&grown, "/a"), snapshot_spec(&s, "/b")};
    for (unsigned i = 0; i < 4; i++)
        assert_ptr_not_equal(get(*state, &specs[i]), first);
}

static void an_external_snapshot_made_anew_has_another_node(void **state)
{
    struct named_snapshot s = {
        .kind = SNAPSHOT_EXTERNAL,
        .external = {.name = (char[]){"s"}, .created = {.tv_sec = 5}, .path = (char[]){"/b"}}};
    struct inode_spec spec = snapshot_spec(&s, "/a"), moved_top = snapshot_spec(&s, "/c");
    struct inode *first = get(*state, &spec);
    assert_false(first->is_now);
    assert_string_equal(first->snapshot.external.name, "s");
    assert_ptr_equal(get(*state, &spec), first);
    assert_ptr_equal(get(*state, &moved_top), first); /* the guest goes on in another file */
    struct named_snapshot later = s, other = s,
                          internal = {.internal = {.id = (char[]){"1"}, .name = (char[]){"s"}}};
    later.external.created.tv_sec = 6;
    other.external.path = (char[]){"/d"};
    struct inode_spec specs[] = {snapshot_spec(&later, "/a"), snapshot_spec(&other, "/a"),
                                 snapshot_spec(&internal, "/a")};
    for (unsigned i = 0; i < 3; i++)
        assert_ptr_not_equal(get(*state, &specs[i]), first);
}

static void an_opened_node_keeps_its_numbers(void **state)
{
    struct inode_spec spec = now_spec("d", "vda", 1);
    struct inode *inode = get(*state, &spec);
    struct session_attr a = {.guest_size = 1}, b = {.guest_size = 2}, c = {.guest_size = 3}, shown;
    inode_show(*state, inode, &a);
    assert_false(inode_shown(*state, inode, &shown));
    assert_int_equal(shown.guest_size, 1);
    inode_freeze(*state, inode, &b);
    inode_show(*state, inode, &c);
    inode_freeze(*state, inode, &c);
    assert_true(inode_shown(*state, inode, &shown));
    assert_int_equal(shown.guest_size, 2);
}

static void the_views_of_a_disk_have_nodes_of_their_own(void **state)
{
    struct inode_spec raw = now_spec("d", "vda", 1), qcow2 = raw;
    qcow2.kind = INODE_QCOW2;
    struct inode *first = get(*state, &raw), *second = get(*state, &qcow2);
    assert_ptr_not_equal(first, second);
    assert_true(inode_is_disk(first) && inode_is_disk(second));
    assert_false(inode_is_disk(inode_root(*state)));
    assert_ptr_equal(get(*state, &qcow2), second);
}

static void a_qcow2_node_knows_its_file_from_open_on(void **state)
{
    struct inode_spec spec = now_spec("d", "vda", 1);
    spec.kind = INODE_QCOW2;
    struct inode *inode = get(*state, &spec);
    struct session_attr a = {.guest_size = 1}, shown;
    struct inode_flat flat = {.size = 7, .layout = 8};
    assert_int_equal(inode_flat(*state, inode).size, 0);
    assert_true(inode_freeze_flat(*state, inode, &a, &flat));
    assert_true(inode_freeze_flat(*state, inode, &a, &flat));
    assert_true(inode_shown(*state, inode, &shown));
    assert_int_equal(inode_flat(*state, inode).size, 7);
    assert_ptr_equal(get(*state, &spec), inode);
}

/* The page cache of the old one may be full of it, and it may be open. */
static void another_file_gets_another_node(void **state)
{
    struct inode_spec spec = now_spec("d", "vda", 1);
    spec.kind = INODE_QCOW2;
    struct session_attr a = {.guest_size = 1};
    struct inode_flat flats[] = {{7, 8}, {7, 9}, {0, 9}};
    struct inode *inodes[3];
    for (unsigned i = 0; i < 3; i++) {
        inodes[i] = get(*state, &spec);
        assert_true(inode_freeze_flat(*state, inodes[i], &a, &flats[i]));
        assert_false(inode_freeze_flat(*state, inodes[i], &a, &flats[(i + 1) % 3]));
        assert_int_equal(inode_flat(*state, inodes[i]).layout, flats[i].layout);
        for (unsigned j = 0; j < i; j++)
            assert_ptr_not_equal(inodes[j], inodes[i]);
    }
    /* A second time does no harm, and they can be forgotten in any order. */
    assert_false(inode_freeze_flat(*state, inodes[1], &a, &flats[0]));
    assert_int_equal(inode_table_count(*state), 3);
    inode_forget(*state, inodes[1], 1);
    inode_forget(*state, inodes[2], 1);
    inode_forget(*state, inodes[0], 1);
    assert_int_equal(inode_table_count(*state), 0);
}

static void thousands_of_nodes_are_found_again(void **state)
{
    enum { N = 5000 };
    static struct inode *inodes[N];
    for (unsigned i = 0; i < N; i++) {
        struct inode_spec spec = now_spec("d", "vda", i);
        inodes[i] = get(*state, &spec);
    }
    assert_int_equal(inode_table_count(*state), N);
    for (unsigned i = 0; i < N; i++) {
        struct inode_spec spec = now_spec("d", "vda", i);
        assert_ptr_equal(get(*state, &spec), inodes[i]);
        inode_forget(*state, inodes[i], 2);
    }
    assert_int_equal(inode_table_count(*state), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_root_is_always_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_thing_has_one_node_until_it_is_forgotten, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(each_instant_has_a_node_of_its_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(texts_that_join_to_the_same_are_not_the_same, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_snapshot_made_anew_has_another_node, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_external_snapshot_made_anew_has_another_node, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_opened_node_keeps_its_numbers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_views_of_a_disk_have_nodes_of_their_own, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_qcow2_node_knows_its_file_from_open_on, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(another_file_gets_another_node, set_up, tear_down),
        cmocka_unit_test_setup_teardown(thousands_of_nodes_are_found_again, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
