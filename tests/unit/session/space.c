/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* On file systems of a known size: tmpfs, so as root. */
#include "fs/session/space.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { MIB = 1 << 20 };
static const uint64_t gib = 1ULL << 30;

/* Two file systems of 512 MiB each: for images and for scratch files. */
struct place {
    char root[64], images[96], scratch[96];
};

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    if (!p)
        return -1;
    snprintf(p->root, sizeof(p->root), "/tmp/virtsnapfs-space.XXXXXX");
    if (!mkdtemp(p->root)) {
        free(p);
        return -1;
    }
    snprintf(p->images, sizeof(p->images), "%s/images", p->root);
    snprintf(p->scratch, sizeof(p->scratch), "%s/scratch", p->root);
    *state = p;
    return mkdir(p->images, 0700) || mkdir(p->scratch, 0700) ||
           mount("tmpfs", p->images, "tmpfs", 0, "size=512m") ||
           mount("tmpfs", p->scratch, "tmpfs", 0, "size=512m");
}

static int tear_down(void **state)
{
    struct place *p = *state;
    umount(p->images);
    umount(p->scratch);
    rmdir(p->images);
    rmdir(p->scratch);
    int r = rmdir(p->root);
    free(p);
    return r;
}

/* That many bytes on disk. */
static void fill(const char *path, off_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(len ? posix_fallocate(fd, 0, len) : ftruncate(fd, 0), 0);
    close(fd);
}

/* One disk with an image of 64 MiB on disk; its file not yet there. */
static struct change *make_change(const struct place *p, enum change_method method,
                                  const char *scratch_dir)
{
    struct change *change;
    struct error err = {0};
    char base[128];
    assert_int_equal(
        change_create(method, "4dea22b3-1d52-d8f3-2516-782e98ab3fa0", "web", &change, &err), 0);
    snprintf(base, sizeof(base), "%s/a.qcow2", p->images);
    fill(base, 64 * MIB);
    char *file = change_file_path(change, base, scratch_dir, "overlay");
    bool has_file = method != CHANGE_INTERNAL && method != CHANGE_MANAGEDSAVE;
    assert_int_equal(
        change_add_disk(change, "vda", base, QCOW_FORMAT_QCOW2, has_file ? file : NULL, &err), 0);
    free(file);
    return change;
}

static void check_room(const struct change *change, uint64_t most_min_free)
{
    struct error err = {0};
    if (space_check(change, most_min_free, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(space_check(change, most_min_free + 4096, &err), -ENOSPC);
}

static void the_default_is_a_twentieth_from_1_to_20_gib(void **state)
{
    (void)state;
    assert_int_equal(space_min_free(SPACE_MIN_FREE_DEFAULT, 0), gib);
    assert_int_equal(space_min_free(SPACE_MIN_FREE_DEFAULT, 20 * gib), gib);
    assert_int_equal(space_min_free(SPACE_MIN_FREE_DEFAULT, 100 * gib), 5 * gib);
    assert_int_equal(space_min_free(SPACE_MIN_FREE_DEFAULT, 400 * gib), 20 * gib);
    assert_int_equal(space_min_free(SPACE_MIN_FREE_DEFAULT, 100000 * gib), 20 * gib);
    assert_int_equal(space_min_free(0, 100 * gib), 0);
    assert_int_equal(space_min_free(4711, 100 * gib), 4711);
}

/* 448 MiB are free; 64 for the overlay and 64 for the image that it is merged into. */
static void an_overlay_needs_room_twice(void **state)
{
    struct change *change = make_change(*state, CHANGE_OVERLAY, NULL);
    check_room(change, 320 * MIB);
    change_free(change);
}

static void an_overlay_elsewhere_needs_room_in_both_places(void **state)
{
    const struct place *p = *state;
    char filler[128];
    struct change *change = make_change(p, CHANGE_COLD_OVERLAY, p->scratch);
    check_room(change, 384 * MIB); /* the images are the narrower place */
    snprintf(filler, sizeof(filler), "%s/filler", p->scratch);
    fill(filler, 256 * MIB);
    check_room(change, 192 * MIB); /* now it is the scratch folder */
    change_free(change);
}

static void a_scratch_file_needs_room_where_it_is(void **state)
{
    const struct place *p = *state;
    struct change *change = make_change(p, CHANGE_BACKUP, p->scratch);
    check_room(change, 448 * MIB);
    change_free(change);
}

static void a_copy_needs_room_for_what_is_copied(void **state)
{
    const struct place *p = *state;
    struct change *change = make_change(p, CHANGE_COPY, p->scratch);
    check_room(change, 384 * MIB);
    change_free(change);
}

static void an_internal_snapshot_needs_room_for_the_image(void **state)
{
    struct change *change = make_change(*state, CHANGE_INTERNAL, NULL);
    check_room(change, 384 * MIB);
    change_free(change);
    change = make_change(*state, CHANGE_MANAGEDSAVE, NULL);
    check_room(change, 384 * MIB);
    change_free(change);
}

static void the_refusal_has_figures(void **state)
{
    struct change *change = make_change(*state, CHANGE_OVERLAY, NULL);
    struct error err = {0};
    assert_int_equal(space_check(change, SPACE_MIN_FREE_DEFAULT, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "469762048 bytes free"));
    assert_non_null(strstr(err.text, "min_free is 1073741824"));
    assert_non_null(strstr(err.text, "reserve for growing files 134217728"));
    assert_int_equal(space_check(change, UINT64_MAX - 1, &err), -ENOSPC); /* no overflow */
    change_free(change);
}

static void what_needs_no_room_is_not_refused(void **state)
{
    (void)state;
    struct change *change;
    struct error err = {0};
    assert_int_equal(change_create(CHANGE_OVERLAY, "id", "web", &change, &err), 0);
    assert_int_equal(space_check(change, SPACE_MIN_FREE_DEFAULT, &err), 0);
    assert_int_equal(change_add_disk(change, "vda", "", QCOW_FORMAT_RAW, NULL, &err), 0);
    assert_int_equal(change_add_disk(change, "vdb", "/dev/null", QCOW_FORMAT_RAW, NULL, &err), 0);
    assert_int_equal(space_check(change, UINT64_MAX - 1, &err), 0);
    struct space_watch watch = {0};
    assert_int_equal(space_look(&watch, change, UINT64_MAX - 1, &err), 0);
    assert_int_equal(watch.next_ms, 1000);
    change_free(change);
}

static void a_folder_that_is_not_there_is_told(void **state)
{
    struct change *change = make_change(*state, CHANGE_BACKUP, "/nowhere/at/all");
    struct error err = {0};
    assert_int_equal(space_check(change, 0, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
    struct space_watch watch = {0};
    assert_int_equal(space_look(&watch, change, 0, &err), -ENOENT);
    assert_int_equal(watch.next_ms, 1000);
    change_free(change);
}

/* The merge needs as much as the overlay has: at 224 of 448 MiB it has to begin. */
static void merging_begins_while_there_is_room_for_it(void **state)
{
    struct change *change = make_change(*state, CHANGE_OVERLAY, NULL);
    struct space_watch watch = {0};
    struct error err = {0};
    assert_int_equal(space_used(&change->disks[0].file, 1), 0);
    assert_int_equal(space_look(&watch, change, 0, &err), 0);
    fill(change->disks[0].file, 224 * MIB);
    assert_int_equal(space_used(&change->disks[0].file, 1), 224 * MIB);
    assert_int_equal(space_look(&watch, change, 0, &err), 0);
    assert_int_equal(watch.next_ms, 50);
    assert_int_equal(space_look(&watch, change, 4096, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "to be merged there 234881024"));
    fill(change->disks[0].file, 225 * MIB);
    assert_int_equal(space_look(&watch, change, 0, &err), -ENOSPC);
    change_free(change);
}

static void an_overlay_elsewhere_counts_where_it_is_merged(void **state)
{
    const struct place *p = *state;
    struct change *change = make_change(p, CHANGE_OVERLAY, p->scratch);
    struct space_watch watch = {0};
    struct error err = {0};
    fill(change->disks[0].file, 400 * MIB);
    assert_int_equal(space_look(&watch, change, 48 * MIB, &err), 0);
    assert_int_equal(space_look(&watch, change, 49 * MIB, &err), -ENOSPC);
    assert_non_null(strstr(err.text, p->images));
    change_free(change);
}

static void a_scratch_file_ends_the_instant_before_the_disk_is_full(void **state)
{
    const struct place *p = *state;
    struct change *change = make_change(p, CHANGE_BACKUP, p->scratch);
    struct space_watch watch = {0};
    struct error err = {0};
    fill(change->disks[0].file, 400 * MIB);
    assert_int_equal(space_look(&watch, change, 112 * MIB, &err), 0);
    assert_int_equal(space_look(&watch, change, 113 * MIB, &err), -ENOSPC);
    change_free(change);
}

/* 448 MiB at 512 in a second, and four looks on the way. */
static void looks_come_the_sooner_the_less_is_left(void **state)
{
    struct change *change = make_change(*state, CHANGE_OVERLAY, NULL);
    struct space_watch watch = {0};
    struct error err = {0};
    assert_int_equal(space_look(&watch, change, 0, &err), 0);
    assert_int_equal(watch.next_ms, 218);
    watch = (struct space_watch){0};
    assert_int_equal(space_look(&watch, change, 400 * MIB, &err), 0);
    assert_int_equal(watch.next_ms, 50);
    /* As if a nanosecond, or nearly so, had been enough for half of it. */
    watch.margin = 448 * MIB;
    assert_int_equal(space_look(&watch, change, 224 * MIB, &err), 0);
    assert_int_equal(watch.next_ms, 50);
    change_free(change);
}

static void a_symlink_leads_to_the_image_s_file_system(void **state)
{
    const struct place *p = *state;
    char link[128];
    struct error err = {0};
    struct change *change = make_change(p, CHANGE_INTERNAL, NULL);
    snprintf(link, sizeof(link), "%s/link", p->root);
    assert_int_equal(symlink(change->disks[0].base, link), 0);
    free(change->disks[0].base);
    change->disks[0].base = strdup(link);
    check_room(change, 384 * MIB);
    assert_int_equal(space_check(change, 0, &err), 0);
    unlink(link);
    change_free(change);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_is_a_twentieth_from_1_to_20_gib),
        TEST(an_overlay_needs_room_twice),
        TEST(an_overlay_elsewhere_needs_room_in_both_places),
        TEST(a_scratch_file_needs_room_where_it_is),
        TEST(a_copy_needs_room_for_what_is_copied),
        TEST(an_internal_snapshot_needs_room_for_the_image),
        TEST(the_refusal_has_figures),
        TEST(what_needs_no_room_is_not_refused),
        TEST(a_folder_that_is_not_there_is_told),
        TEST(merging_begins_while_there_is_room_for_it),
        TEST(an_overlay_elsewhere_counts_where_it_is_merged),
        TEST(a_scratch_file_ends_the_instant_before_the_disk_is_full),
        TEST(looks_come_the_sooner_the_less_is_left),
        TEST(a_symlink_leads_to_the_image_s_file_system),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
