/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fs/host/overlay_file.c: whether a chain leads to an overlay, by the formats that are recorded. */
#include "fs/host/overlay_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/sendfile.h>

#include <cmocka.h>

#include "fs/host/change.h"
#include "qcow/format.h"
#include "tests/lib/image.h"
#include "tests/unit/host/scratch.h"

/* A qcow2 file in the folder; @backing and @format may be NULL. */
static void put_image(const struct scratch *s, const char *name, const char *backing,
                      const char *format)
{
    struct image_extension extension = {
        .type = EXT_BACKING_FORMAT, .data = format, .len = format ? (uint32_t)strlen(format) : 0};
    struct image_options options = {.guest_size = 1 << 20,
                                    .backing_name = backing,
                                    .extensions = &extension,
                                    .n_extensions = format ? 1 : 0};
    struct image image;
    image_create(&image, &options);
    int fd = open(scratch_path(s, name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    off_t off = 0;
    assert_true(sendfile(fd, image.fd, &off, 1 << 20) > 0);
    close(fd);
    image_destroy(&image);
}

/* The overlay is "over", on "base". */
static bool leads(const struct scratch *s, const char *name, enum qcow_format format)
{
    struct change_disk disk = {.file = (char *)scratch_path(s, "over"),
                               .base = (char *)scratch_path(s, "base")};
    return overlay_file_is_below(&disk, scratch_path(s, name), format);
}

static void a_chain_leads_to_the_overlay(void **state)
{
    const struct scratch *s = *state;
    put_image(s, "over", "base", "raw");
    put_image(s, "middle", "over", "qcow2");
    put_image(s, "top", "middle", "qcow2");
    assert_true(leads(s, "over", QCOW_FORMAT_QCOW2));
    assert_true(leads(s, "top", QCOW_FORMAT_QCOW2));
    assert_false(leads(s, "base", QCOW_FORMAT_RAW));
}

static void what_a_guest_wrote_to_its_raw_disk_leads_nowhere(void **state)
{
    const struct scratch *s = *state;
    put_image(s, "raw", "over", "qcow2");
    put_image(s, "top", "raw", "raw");
    assert_false(leads(s, "raw", QCOW_FORMAT_RAW));
    assert_false(leads(s, "top", QCOW_FORMAT_QCOW2));
}

static void a_format_that_is_no_record_is_the_end(void **state)
{
    const struct scratch *s = *state;
    put_image(s, "other", "over", "qcow2");
    put_image(s, "top", "other", "vmdk");
    assert_false(leads(s, "top", QCOW_FORMAT_QCOW2));
}

/* The mistake on the safe side: it is not merged. */
static void without_a_record_the_looks_count(void **state)
{
    const struct scratch *s = *state;
    put_image(s, "middle", "over", "qcow2");
    put_image(s, "top", "middle", NULL);
    assert_true(leads(s, "top", QCOW_FORMAT_QCOW2));
}

static void a_loop_has_an_end(void **state)
{
    const struct scratch *s = *state;
    put_image(s, "a", "b", "qcow2");
    put_image(s, "b", "a", "qcow2");
    assert_false(leads(s, "a", QCOW_FORMAT_QCOW2));
}

static void a_name_is_marked_wherever_the_mark_stands(void **state)
{
    (void)state;
    assert_true(change_is_marked("a.img.virtsnapfs-0123456789abcdef.overlay"));
    assert_true(change_is_marked("virtsnapfs-0123456789abcdef"));
    assert_true(
        change_is_marked("/virtsnapfs-test/virtsnapfs-a.virtsnapfs-0123456789abcdef.delta"));
    assert_false(change_is_marked("/virtsnapfs-test/virtsnapfs-a.img"));
    assert_false(change_is_marked("a.img.virtsnapfs-0123456789abcde"));
    assert_false(change_is_marked(""));
}

#define IN_SCRATCH(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

static void a_snapshot_called_after_an_overlay_is_none(void **state)
{
    (void)state;
    assert_true(change_is_overlay("/d/a.img.virtsnapfs-0123456789abcdef.overlay"));
    assert_true(change_is_overlay("/d/a.virtsnapfs-0123456789abcdef.s1.virtsnapfs-fedcba9876543210"
                                  ".overlay"));
    assert_false(change_is_overlay("/d/a.img.virtsnapfs-0123456789abcdef.s1"));
    assert_false(change_is_overlay("/d/a.img.virtsnapfs-0123456789abcdef.s1.overlay"));
    assert_false(change_is_overlay("/d/a.img.virtsnapfs-0123456789abcdef.delta"));
    assert_false(change_is_overlay("/d/a.img.overlay"));
    assert_false(change_is_overlay("virtsnapfs-0123456789abcdef.overlay"));
    assert_false(change_is_overlay(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(a_chain_leads_to_the_overlay),
        IN_SCRATCH(what_a_guest_wrote_to_its_raw_disk_leads_nowhere),
        IN_SCRATCH(a_format_that_is_no_record_is_the_end),
        IN_SCRATCH(without_a_record_the_looks_count),
        IN_SCRATCH(a_loop_has_an_end),
        cmocka_unit_test(a_name_is_marked_wherever_the_mark_stands),
        cmocka_unit_test(a_snapshot_called_after_an_overlay_is_none),
    };
    return cmocka_run_group_tests_name("host/overlay_file", tests, NULL, NULL);
}
