/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names and what stat shows of them, without a kernel. */
#include "fs/fuse/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/fuse/attr.h"
#include "tests/lib/image.h"
#include "tests/unit/session/registry_fixture.h"

enum { GUEST_SIZE = 4096, OLD_TIME = 1600000000 };

struct state {
    struct fixture f;
    struct stamps *stamps;
    struct tree *tree;
    struct image image; /* what the disk of "live" was made from */
    struct inode *dir;  /* live/ */
    struct inode *snapshots;
};

static struct image_snapshot make_snapshot(const struct image *image, const char *id,
                                           const char *name)
{
    return (struct image_snapshot){.id = id,
                                   .name = name,
                                   .l1_off = image->l1_off,
                                   .l1_entries = image->l1_entries,
                                   .sec = OLD_TIME,
                                   .extra_len = 16,
                                   .disk_size = GUEST_SIZE};
}

static struct inode *look_up(struct state *s, struct inode *parent, const char *name,
                             struct tree_attr *ret_attr)
{
    struct inode *inode = NULL;
    struct error err = {0};
    if (tree_lookup(s->tree, parent, name, &inode, ret_attr, &err) < 0)
        fail_msg("%s: %s", name, err.text);
    return inode;
}

static bool has_name(struct state *s, const char *name)
{
    struct tree_listing *listing = NULL;
    struct error err = {0};
    assert_int_equal(tree_list(s->tree, s->snapshots, &listing, &err), 0);
    bool is_there = false;
    for (size_t i = 0; i < listing->n; i++)
        is_there = is_there || strcmp(listing->entries[i].name, name) == 0;
    tree_listing_destroy(listing);
    return is_there;
}

/* Domain "live" with snapshots "s" of id 1 and of id 2, its disk changed long ago. */
static int set_up(void **state)
{
    struct state *s = calloc(1, sizeof(*s));
    struct error err = {0};
    fixture_open(&s->f, &patient);
    image_create(&s->image, &(struct image_options){.guest_size = GUEST_SIZE});
    image_write(&s->image, 0, 1);
    struct image_snapshot both[] = {make_snapshot(&s->image, "1", "s"),
                                    make_snapshot(&s->image, "2", "s")};
    image_add_snapshots(&s->image, both, 2);
    fake_host_put_image(s->f.fake, "live", 0, s->image.fd);
    fake_host_set_xml(s->f.fake, "live", "<domain/>");
    char *path = fake_host_path(s->f.fake, "live", 0);
    struct timespec times[2] = {{.tv_sec = OLD_TIME}, {.tv_sec = OLD_TIME}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    free(path);
    assert_int_equal(stamps_open(NULL, "test", &s->stamps, &err), 0);
    struct tree_config config = {
        .host = fake_host_base(s->f.fake), .registry = s->f.registry, .stamps = s->stamps};
    assert_int_equal(tree_create(&config, &s->tree), 0);
    struct tree_attr attr;
    s->dir = look_up(s, inode_root(s->tree->inodes), "live", &attr);
    s->snapshots = look_up(s, s->dir, "snapshots", &attr);
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct state *s = *state;
    fixture_close(&s->f);
    tree_destroy(s->tree);
    stamps_close(s->stamps);
    image_destroy(&s->image);
    free(s);
    return 0;
}

/* Asks for what a node stands for, as an open of it does. */
static struct reader *open_node(struct state *s, const struct inode *inode)
{
    auto_domain struct domain *domain = NULL;
    struct error err = {0};
    assert_int_equal(tree_domain(s->tree, inode, &domain, &err), 0);
    struct asked asked;
    asked_init(&asked);
    struct open_request request = {
        .domain = domain,
        .disk = domain_find_disk(domain, inode->target),
        .snapshot = inode->is_now ? NULL : &inode->snapshot,
        .serial = inode->serial,
        .done = asked_done,
        .ctx = &asked,
    };
    inode_shown(s->tree->inodes, inode, &request.shown);
    registry_open(s->f.registry, &request);
    if (asked_await(&asked) < 0)
        fail_msg("open of %s: %s", inode->file, asked.err.text);
    return asked.reader;
}

static void check_reading(struct reader *reader)
{
    unsigned char want[512], got[512];
    struct error err = {0};
    image_fill(want, sizeof(want), 1);
    assert_int_equal(reader_read(reader, 0, got, sizeof(got), &err), sizeof(got));
    assert_memory_equal(got, want, sizeof(want));
}

static size_t count_layers(struct state *s, const struct inode *inode)
{
    auto_domain struct domain *domain = NULL;
    struct error err = {0};
    assert_int_equal(tree_domain(s->tree, inode, &domain, &err), 0);
    return domain->disks[0].n_layers;
}

/* The overlay of the fake host is an empty file: nothing can be found out from that. */
static void check_under_overlay(struct state *s, struct inode *named, time_t want_time)
{
    struct tree_attr attr;
    assert_int_equal(count_layers(s, s->dir), 2); /* as the host has it */
    assert_int_equal(count_layers(s, s->snapshots), 1);
    assert_true(has_name(s, "now.raw"));
    assert_true(has_name(s, "s.raw"));
    assert_ptr_equal(look_up(s, s->snapshots, "s.raw", &attr), named);
    assert_int_equal(attr.st.st_size, GUEST_SIZE);
    look_up(s, s->snapshots, "now.raw", &attr);
    assert_int_equal(attr.st.st_size, GUEST_SIZE);
    assert_int_equal(attr.st.st_mtim.tv_sec, want_time);
    struct reader *reader = open_node(s, named);
    check_reading(reader);
    reader_close(reader);
}

static void an_overlay_is_not_seen(void **state)
{
    struct state *s = *state;
    struct tree_attr attr;
    struct inode *named = look_up(s, s->snapshots, "s.raw", &attr);
    struct inode *now = look_up(s, s->snapshots, "now.raw", &attr);
    struct reader *reader = open_node(s, now);
    check_under_overlay(s, named, OLD_TIME);
    struct reader *joined = open_node(s, look_up(s, s->snapshots, "now.raw", &attr));
    assert_int_equal(fake_host_count(s->f.fake, FAKE_TAKE), 1);
    check_reading(joined);
    fake_host_hold(s->f.fake, FAKE_MERGE);
    reader_close(joined);
    reader_close(reader);
    fake_host_await_begun(s->f.fake, FAKE_MERGE, 1);
    check_under_overlay(s, named, OLD_TIME);
    fake_host_let_go(s->f.fake, FAKE_MERGE);
    fake_host_await_ended(s->f.fake, FAKE_MERGE, 1);
    assert_int_equal(count_layers(s, s->snapshots), 1);
    assert_ptr_equal(look_up(s, s->snapshots, "s.raw", &attr), named);
}

/* It is found by its name, but the name may go over to another snapshot. */
static void a_node_follows_its_snapshot_to_another_name(void **state)
{
    struct state *s = *state;
    struct tree_attr attr;
    struct error err = {0};
    struct inode *first = look_up(s, s->snapshots, "s.raw", &attr);
    struct inode *second = look_up(s, s->snapshots, "s@2.raw", &attr);
    struct image_snapshot left = make_snapshot(&s->image, "2", "s");
    image_add_snapshots(&s->image, &left, 1);
    fake_host_put_image(s->f.fake, "live", 0, s->image.fd);
    int64_t deadline_ns = monotonic_ns() + (int64_t)20 * 1000000000;
    while (has_name(s, "s@2.raw")) /* until the catalog has rested */
        assert_true(monotonic_ns() < deadline_ns);
    assert_int_equal(attr_get(s->tree, second, &attr, &err), 0);
    assert_int_equal(attr.st.st_ino, second->ino);
    assert_ptr_equal(look_up(s, s->snapshots, "s.raw", &attr), second);
    assert_int_equal(attr_get(s->tree, first, &attr, &err), -ESTALE);
}

static void check_mtime(const struct tree_attr *attr, struct timespec want)
{
    assert_int_equal(attr->st.st_mtim.tv_sec, want.tv_sec);
    assert_int_equal(attr->st.st_mtim.tv_nsec, want.tv_nsec);
}

static void asking_for_an_old_text_does_not_renew_the_present_one(void **state)
{
    struct state *s = *state;
    struct tree_attr attr;
    struct error err = {0};
    struct inode *old = look_up(s, s->dir, "domain.xml", &attr);
    struct timespec old_time = attr.st.st_mtim;
    fake_host_set_xml(s->f.fake, "live", "<domain>another</domain>");
    struct inode *present = look_up(s, s->dir, "domain.xml", &attr);
    struct timespec present_time = attr.st.st_mtim;
    assert_ptr_not_equal(present, old);
    assert_int_equal(attr_get(s->tree, old, &attr, &err), 0);
    check_mtime(&attr, old_time);
    assert_ptr_equal(look_up(s, s->dir, "domain.xml", &attr), present);
    check_mtime(&attr, present_time);
    assert_int_equal(attr_get(s->tree, present, &attr, &err), 0);
    check_mtime(&attr, present_time);
    fake_host_set_xml(s->f.fake, "live", "<domain/>");
    assert_ptr_not_equal(look_up(s, s->dir, "domain.xml", &attr), old);
    assert_int_equal(attr.st.st_size, strlen("<domain/>"));
}

/* What a mount shows of a domain's disk that nothing gives a time to. */
static struct timespec undated_mtime(struct state *s, struct tree *tree, const char *name)
{
    struct tree *own = s->tree;
    struct tree_attr attr;
    struct session_attr shown;
    struct error err = {0};
    s->tree = tree;
    struct inode *dir = look_up(s, inode_root(tree->inodes), name, &attr);
    struct inode *now = look_up(s, look_up(s, dir, "snapshots", &attr), "now.raw", &attr);
    s->tree = own;
    const struct catalog_entry entry = {.is_now = true, .is_undated = true, .guest_size = 512};
    const struct session_peek peek = {.serial = now->serial};
    assert_int_equal(attr_refresh_disk(tree, now, &entry, &peek, &err), 0);
    inode_shown(tree->inodes, now, &shown);
    return shown.mtime;
}

static bool is_same(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* Serials begin anew, stamps do not: what a guest wrote between two mounts must not hide. */
static void an_undated_disk_of_a_running_guest_is_changed_by_a_remount(void **state)
{
    struct state *s = *state;
    struct timespec live = undated_mtime(s, s->tree, "live");
    struct timespec off = undated_mtime(s, s->tree, "off");
    assert_true(is_same(undated_mtime(s, s->tree, "live"), live));
    struct tree *remounted;
    assert_int_equal(tree_create(&s->tree->config, &remounted), 0);
    assert_false(is_same(undated_mtime(s, remounted, "live"), live));
    assert_true(is_same(undated_mtime(s, remounted, "off"), off));
    tree_destroy(remounted);
}

int main(void)
{
    log_init(LOG_LEVEL_ERROR);
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(an_overlay_is_not_seen),
        TEST(a_node_follows_its_snapshot_to_another_name),
        TEST(asking_for_an_old_text_does_not_renew_the_present_one),
        TEST(an_undated_disk_of_a_running_guest_is_changed_by_a_remount),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
