/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/snapshot_xml.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DOMAIN(inside) "<domain><name>d</name>" inside "</domain>"

static int check(const char *xml)
{
    struct error err = {0};
    return snapshot_xml_check(xml, &err);
}

static void refuses_firmware_in_flash_memory(void **state)
{
    (void)state;
    assert_int_equal(check(DOMAIN("<os><type>hvm</type></os>")), 0);
    assert_int_equal(check(DOMAIN("<os><loader type='rom'>/f</loader></os>")), 0);
    assert_int_equal(check(DOMAIN("")), 0);
    assert_int_equal(check(DOMAIN("<os><loader type='pflash'>/f</loader></os>")), -EOPNOTSUPP);
    assert_int_equal(check(DOMAIN("<os firmware='efi'/>")), -EOPNOTSUPP);
    assert_int_equal(check("<domain>"), -EBADMSG);
}

static int check_save(const char *devices)
{
    char xml[512] = "<domain><devices>";
    strcat(strcat(xml, devices), "</devices></domain>");
    struct error err = {0};
    return snapshot_xml_check_save(xml, &err);
}

static void refuses_to_save_devices_of_the_host(void **state)
{
    (void)state;
    assert_int_equal(check_save("<interface type='network'/><filesystem type='mount'/>"), 0);
    assert_int_equal(check_save("<filesystem><driver type='path'/></filesystem>"), 0);
    assert_int_equal(check_save("<hostdev mode='subsystem' type='pci'/>"), -EOPNOTSUPP);
    assert_int_equal(check_save("<interface type='network'/><interface type='hostdev'/>"),
                     -EOPNOTSUPP);
    assert_int_equal(check_save("<filesystem><driver type='virtiofs'/></filesystem>"), -EOPNOTSUPP);
}

static void covers_what_can_be_written(void **state)
{
    (void)state;
    static const char xml[] =
        "<domain><devices>"
        "<disk device='cdrom'><source file='/c'/><target dev='sda'/></disk>"
        "<disk device='floppy'><source file='/f'/><target dev='fda'/></disk>"
        "<disk device='floppy'><target dev='fdb'/></disk>"
        "<disk><source file='/a'/><target dev='vda'/></disk>"
        "<disk device='disk'><source file='/b'/><target dev='vdb'/><readonly/></disk>"
        "<disk device='lun'><source dev='/d'/><target dev='sdb'/></disk>"
        "</devices></domain>";
    char **targets;
    size_t n;
    struct error err = {0};
    assert_int_equal(snapshot_xml_targets(xml, &targets, &n, &err), 0);
    assert_int_equal(n, 3);
    assert_string_equal(targets[0], "fda");
    assert_string_equal(targets[1], "vda");
    assert_string_equal(targets[2], "sdb");
    snapshot_xml_free_targets(targets, n);
    static const char broken[] = "<domain><devices><disk><source/><target dev='a'/></disk>"
                                 "<disk><source/></disk></devices></domain>";
    assert_int_equal(snapshot_xml_targets(broken, &targets, &n, &err), -EBADMSG);
}

static struct change *make_change(void)
{
    struct change *change;
    struct error err = {0};
    assert_int_equal(change_create(CHANGE_INTERNAL, "id", "d", &change, &err), 0);
    free(change->mark);
    change->mark = strdup("virtsnapfs-0123456789abcdef");
    assert_int_equal(change_add_disk(change, "vda", "/a", QCOW_FORMAT_QCOW2, NULL, &err), 0);
    assert_int_equal(change_add_disk(change, "v<b", "/b", QCOW_FORMAT_QCOW2, NULL, &err), 0);
    return change;
}

#define ASKED                                                                                      \
    "<domainsnapshot><name>virtsnapfs-0123456789abcdef</name><memory snapshot=\"no\"/>"            \
    "<disks><disk name=\"vda\" snapshot=\"internal\"/>"                                            \
    "<disk name=\"v&lt;b\" snapshot=\"internal\"/></disks>"

static void asks_for_all_disks_and_no_memory(void **state)
{
    (void)state;
    struct change *change = make_change();
    struct error err = {0};
    char *xml;
    assert_int_equal(snapshot_xml_build(change, NULL, &xml, &err), 0);
    assert_non_null(strstr(xml, ASKED "</domainsnapshot>"));
    free(xml);
    change_free(change);
}

static void tells_of_a_snapshot_with_its_domain(void **state)
{
    (void)state;
    struct change *change = make_change();
    struct error err = {0};
    char *xml;
    assert_int_equal(snapshot_xml_build(change, "<domain><name>d&amp;</name></domain>", &xml, &err),
                     0);
    assert_non_null(strstr(xml, ASKED "<state>shutoff</state><creationTime>0</creationTime>"
                                      "<domain><name>d&amp;</name></domain></domainsnapshot>"));
    free(xml);
    assert_int_equal(snapshot_xml_build(change, "<x/>", &xml, &err), -EBADMSG);
    change_free(change);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_firmware_in_flash_memory),
        cmocka_unit_test(refuses_to_save_devices_of_the_host),
        cmocka_unit_test(covers_what_can_be_written),
        cmocka_unit_test(asks_for_all_disks_and_no_memory),
        cmocka_unit_test(tells_of_a_snapshot_with_its_domain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
