/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/hardware.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static struct hardware read_hardware(const char *os, const char *devices, const char *target)
{
    char xml[2048];
    snprintf(xml, sizeof(xml), "<domain>%s<devices>%s</devices></domain>", os, devices);
    struct hardware hardware;
    struct error err = {0};
    if (hardware_read(xml, target, &hardware, &err) < 0)
        fail_msg("%s", err.text);
    return hardware;
}

static void reads_the_machine(void **state)
{
    (void)state;
    struct hardware h = read_hardware(
        "<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>",
        "<disk><target dev='vda' bus='virtio'/></disk><disk><target dev='sda' bus='sata'/></disk>"
        "<interface type='network'><model type='e1000'/></interface>"
        "<interface type='network'><model type='virtio'/></interface>"
        "<channel><target name='com.redhat.spice.0'/></channel>"
        "<channel><target name='org.qemu.guest_agent.0'/></channel>",
        "sda");
    assert_string_equal(h.arch, "x86_64");
    assert_string_equal(h.machine, "pc-q35-7.2");
    assert_string_equal(h.disk_bus, "sata");
    assert_string_equal(h.vif_model, "e1000");
    assert_null(h.scsi_model);
    assert_true(h.has_agent);
    assert_false(h.is_uefi);
    hardware_fini(&h);
}

static void finds_the_controller_of_a_scsi_disk(void **state)
{
    (void)state;
    static const char devices[] =
        "<controller type='usb' index='1' model='x'/>"
        "<controller type='scsi' index='0' model='lsilogic'/>"
        "<controller type='scsi' index='1' model='virtio-scsi'/>"
        "<disk><target dev='sda' bus='scsi'/></disk>"
        "<disk><target dev='sdb' bus='scsi'/><address type='drive' controller='1'/></disk>";
    struct hardware h = read_hardware("", devices, "sda");
    assert_string_equal(h.scsi_model, "lsilogic");
    hardware_fini(&h);
    h = read_hardware("", devices, "sdb");
    assert_string_equal(h.scsi_model, "virtio-scsi");
    hardware_fini(&h);
}

static void knows_uefi(void **state)
{
    (void)state;
    struct hardware h = read_hardware("<os firmware='efi'><type>hvm</type></os>", "", "vda");
    assert_true(h.is_uefi);
    hardware_fini(&h);
    h = read_hardware("<os><loader readonly='yes' type='pflash'>/x</loader></os>", "", "vda");
    assert_true(h.is_uefi);
    hardware_fini(&h);
    h = read_hardware("<os firmware='bios'><loader type='rom'>/x</loader></os>", "", "vda");
    assert_false(h.is_uefi);
    hardware_fini(&h);
}

static void leaves_out_what_is_not_said(void **state)
{
    (void)state;
    struct hardware h = read_hardware("", "<disk/><interface/>", "vda");
    assert_null(h.arch);
    assert_null(h.machine);
    assert_null(h.disk_bus);
    assert_null(h.vif_model);
    assert_false(h.has_agent);
    hardware_fini(&h);
}

static void refuses_what_is_no_domain(void **state)
{
    (void)state;
    struct hardware hardware;
    struct error err = {0};
    assert_int_equal(hardware_read("<x/>", "vda", &hardware, &err), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_the_machine),
        cmocka_unit_test(finds_the_controller_of_a_scsi_disk),
        cmocka_unit_test(knows_uefi),
        cmocka_unit_test(leaves_out_what_is_not_said),
        cmocka_unit_test(refuses_what_is_no_domain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
