/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an image's record says of the domain. */
#include "fs/glance/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/base/cleanup.h"

static const struct record_machine pc = {
    .uuid = (char *)"12345678-1234-1234-1234-123456789abc",
    .arch = (char *)"x86_64",
    .machine_type = (char *)"pc-q35-7.2",
    .disk_bus = (char *)"scsi",
    .scsi_model = (char *)"virtio-scsi",
    .vif_model = (char *)"virtio",
    .has_agent = true,
};

struct made {
    struct upload_line line;
    struct glance_record record;
};

static struct made make(const char *text, const struct record_machine *machine, uint64_t guest_size)
{
    struct made made;
    struct error err = {0};
    if (line_parse(text, strlen(text), &made.line, &err) < 0)
        fail_msg("%s", err.text);
    struct record_request request = {
        .line = &made.line,
        .machine = machine,
        .name = "snap",
        .disk_format = "qcow2",
        .guest_size = guest_size,
        .project_id = "project",
        .user_id = "user",
    };
    assert_int_equal(record_make(&request, &made.record), 0);
    return made;
}

static void unmake(struct made *made)
{
    record_fini(&made->record);
    line_fini(&made->line);
}

/* NULL if there is none; fails if there are two. */
static const char *find(const struct made *made, const char *name)
{
    const char *found = NULL;
    for (size_t i = 0; i < made->record.n_properties; i++) {
        if (strcmp(made->record.properties[i].name, name) != 0)
            continue;
        assert_null(found);
        found = made->record.properties[i].value;
    }
    return found;
}

static void check(const struct made *made, const char *name, const char *wanted)
{
    const char *found = find(made, name);
    if (!found || strcmp(found, wanted) != 0)
        fail_msg("%s: %s, wanted %s", name, found ? found : "(none)", wanted);
}

static void tells_what_nova_tells(void **state)
{
    (void)state;
    struct made made = make("now", &pc, 20ULL << 30);
    assert_string_equal(made.record.name, "snap");
    assert_string_equal(made.record.disk_format, "qcow2");
    assert_string_equal(made.record.visibility, "private");
    assert_int_equal(made.record.min_disk_gib, 20);
    assert_int_equal(made.record.min_ram_mib, 0);
    assert_false(made.record.is_protected);
    check(&made, "image_type", "snapshot");
    check(&made, "image_location", "snapshot");
    check(&made, "image_state", "available");
    check(&made, "owner_id", "project");
    check(&made, "user_id", "user");
    check(&made, "instance_uuid", "12345678-1234-1234-1234-123456789abc");
    check(&made, "architecture", "x86_64");
    check(&made, "hw_architecture", "x86_64");
    check(&made, "hw_machine_type", "pc-q35-7.2");
    check(&made, "hw_firmware_type", "bios");
    check(&made, "hw_disk_bus", "scsi");
    check(&made, "hw_scsi_model", "virtio-scsi");
    check(&made, "hw_vif_model", "virtio");
    check(&made, "hw_qemu_guest_agent", "yes");
    unmake(&made);
}

static void tells_nothing_of_what_is_not_known(void **state)
{
    (void)state;
    struct made made = make("now", &(struct record_machine){0}, 512);
    assert_int_equal(made.record.n_properties, 5);
    assert_int_equal(made.record.min_disk_gib, 1);
    unmake(&made);
}

static void leaves_out_what_nova_would_refuse(void **state)
{
    (void)state;
    struct record_machine machine = pc;
    machine.disk_bus = (char *)"sd";
    machine.scsi_model = (char *)"auto";
    machine.vif_model = (char *)"usb-net";
    struct made made = make("now", &machine, 1);
    assert_null(find(&made, "hw_disk_bus"));
    assert_null(find(&made, "hw_scsi_model"));
    assert_null(find(&made, "hw_vif_model"));
    unmake(&made);
}

static void tells_the_firmware(void **state)
{
    (void)state;
    struct record_machine machine = {.arch = (char *)"aarch64"};
    struct made made = make("now", &machine, 1);
    assert_null(find(&made, "hw_firmware_type"));
    unmake(&made);
    machine.is_uefi = true;
    made = make("now", &machine, 1);
    check(&made, "hw_firmware_type", "uefi");
    unmake(&made);
}

static void lets_the_line_have_its_way(void **state)
{
    (void)state;
    struct made made = make("now min_disk=3 min_ram=512 protected=1 visibility=shared "
                            "property:hw_disk_bus=ide property:hw_vif_model= property:mine=x",
                            &pc, 20ULL << 30);
    assert_int_equal(made.record.min_disk_gib, 3);
    assert_int_equal(made.record.min_ram_mib, 512);
    assert_true(made.record.is_protected);
    assert_string_equal(made.record.visibility, "shared");
    check(&made, "hw_disk_bus", "ide");
    check(&made, "mine", "x");
    assert_null(find(&made, "hw_vif_model"));
    unmake(&made);
}

static void rounds_the_disk_up(void **state)
{
    (void)state;
    static const struct {
        uint64_t guest_size;
        uint32_t gib;
    } rows[] = {{0, 0},
                {1, 1},
                {1 << 30, 1},
                {(1 << 30) + 512, 2},
                {UINT64_MAX, INT32_MAX}}; /* more than Glance takes */
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct made made = make("now", &pc, rows[i].guest_size);
        assert_int_equal(made.record.min_disk_gib, rows[i].gib);
        unmake(&made);
    }
}

static void check_name(const char *snapshot, const char *domain, const char *wanted)
{
    auto_free char *name = record_default_name(snapshot, domain);
    assert_string_equal(name, wanted);
}

static void names_images_so_that_glance_takes_it(void **state)
{
    (void)state;
    check_name("now", "fed18", "now-of-fed18");
    check_name("now", "a\nb\xff", "now-of-a_b_");
    check_name("now", "\xf0\x9f\x98\x80!", "now-of-____!");
    check_name("\xc3", "\x80", "_-of-_");
    char domain[600];
    memset(domain, 'x', sizeof(domain));
    memcpy(domain + 240, "\xc3\xa9", 2);
    domain[599] = '\0';
    auto_free char *name = record_default_name("now", domain);
    assert_true(line_is_name(name));
    assert_int_equal(strlen(name), 256); /* one of them has two bytes */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_what_nova_tells),
        cmocka_unit_test(tells_nothing_of_what_is_not_known),
        cmocka_unit_test(leaves_out_what_nova_would_refuse),
        cmocka_unit_test(tells_the_firmware),
        cmocka_unit_test(lets_the_line_have_its_way),
        cmocka_unit_test(rounds_the_disk_up),
        cmocka_unit_test(names_images_so_that_glance_takes_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
