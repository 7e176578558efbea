/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/backup_xml.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char three_disks[] =
    "<domain><devices><disk><target dev='vda'/></disk><disk device='cdrom'><target dev='sda'/>"
    "</disk><disk><target dev='vdb'/></disk></devices></domain>";

/* Builds the job of a change with vda, and with vdb or what else is named @second. */
static int build(const char *second, const char *file, char **ret_xml, struct error *err)
{
    struct change *change;
    assert_int_equal(change_create(CHANGE_BACKUP, "id", "name", &change, err), 0);
    change->socket = strdup("/s&'<");
    assert_int_equal(change_add_disk(change, "vda", "/a", QCOW_FORMAT_QCOW2, "/a.scratch", err), 0);
    if (second)
        assert_int_equal(change_add_disk(change, second, "", QCOW_FORMAT_RAW, file, err), 0);
    int r = backup_xml_build(three_disks, change, ret_xml, err);
    change_free(change);
    return r;
}

static void names_every_disk_and_exports_those_of_the_change(void **state)
{
    (void)state;
    char *xml;
    struct error err = {0};
    assert_int_equal(build(NULL, NULL, &xml, &err), 0);
    assert_non_null(strstr(
        xml, "<disks><disk name=\"vda\" backup=\"yes\" type=\"file\" exportname=\"vda\">"
             "<driver type=\"qcow2\"/><scratch file=\"/a.scratch\"/></disk>"
             "<disk name=\"sda\" backup=\"no\"/><disk name=\"vdb\" backup=\"no\"/></disks>"));
    free(xml);
}

static void escapes_what_xml_would_take_amiss(void **state)
{
    (void)state;
    char *xml, *socket;
    struct error err = {0};
    assert_int_equal(build("vdb", "/b\"<&amp;'", &xml, &err), 0);
    assert_non_null(strstr(xml, "<scratch file=\"/b&quot;&lt;&amp;amp;'\"/>"));
    assert_int_equal(backup_xml_find_socket(xml, &socket, &err), 0);
    assert_string_equal(socket, "/s&'<");
    free(socket);
    free(xml);
}

static void refuses_a_disk_that_went_away(void **state)
{
    (void)state;
    char *xml;
    struct error err = {0};
    assert_int_equal(build("vdc", "/c", &xml, &err), -EBADMSG);
    assert_string_equal(err.text, "1 of 2 disks are not there any more");
}

static void a_job_without_a_socket_is_nobody_s(void **state)
{
    (void)state;
    char *socket = (char *)"";
    struct error err = {0};
    assert_int_equal(backup_xml_find_socket("<domainbackup mode='push'/>", &socket, &err), 0);
    assert_null(socket);
    assert_int_equal(backup_xml_find_socket("<domainbackup><server transport='tcp' name='h'/>"
                                            "</domainbackup>",
                                            &socket, &err),
                     0);
    assert_null(socket);
    assert_int_equal(backup_xml_find_socket("<domain/>", &socket, &err), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_every_disk_and_exports_those_of_the_change),
        cmocka_unit_test(escapes_what_xml_would_take_amiss),
        cmocka_unit_test(refuses_a_disk_that_went_away),
        cmocka_unit_test(a_job_without_a_socket_is_nobody_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
