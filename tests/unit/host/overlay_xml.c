/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/overlay_xml.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qcow/base/cleanup.h"

static const char two_disks[] = "<domain><devices><disk><target dev='vda'/></disk><disk "
                                "device='cdrom'><target dev='sda'/></disk>"
                                "</devices></domain>";

/* Builds the snapshot of a change that puts @file over @target. */
static int build(const char *domain_xml, const char *target, const char *file, char **ret_xml)
{
    struct change *change;
    struct error err = {0};
    assert_int_equal(change_create(CHANGE_OVERLAY, "id", "name", &change, &err), 0);
    strcpy(change->mark + strlen(CHANGE_MARK_PREFIX), "<&b");
    assert_int_equal(change_add_disk(change, target, "/b", QCOW_FORMAT_RAW, file, &err), 0);
    int r = overlay_xml_build(domain_xml, change, ret_xml, &err);
    change_free(change);
    return r;
}

static void names_every_disk_and_freezes_those_of_the_change(void **state)
{
    (void)state;
    char *xml;
    assert_int_equal(build(two_disks, "vda", "/o", &xml), 0);
    assert_non_null(strstr(xml, "<disks><disk name=\"vda\" snapshot=\"external\" type=\"file\">"
                                "<driver type=\"qcow2\"/><source file=\"/o\"/></disk>"
                                "<disk name=\"sda\" snapshot=\"no\"/></disks></domainsnapshot>"));
    free(xml);
}

static void escapes_what_xml_would_take_amiss(void **state)
{
    (void)state;
    char *xml;
    assert_int_equal(build(two_disks, "vda", "/o\"<&amp;'", &xml), 0);
    assert_non_null(strstr(xml, "<name>virtsnapfs-&lt;&amp;b.overlay</name>"));
    assert_non_null(strstr(xml, "file=\"/o&quot;&lt;&amp;amp;'\""));
    free(xml);
}

static void refuses_a_disk_that_does_not_exist(void **state)
{
    (void)state;
    char *xml;
    enum overlay_xml_job job;
    struct error err = {0};
    assert_int_equal(build(two_disks, "vdb", "/o", &xml), -EBADMSG);
    assert_int_equal(overlay_xml_find_job(two_disks, "vdb", "/b", &job, &err), -EBADMSG);
    assert_int_equal(build("<x/>", "vda", "/o", &xml), -EBADMSG);
}

static void check_job(const char *mirror, enum overlay_xml_job want)
{
    char xml[512];
    snprintf(xml, sizeof(xml),
             "<domain><devices><disk><mirror job='copy'/><target dev='vdb'/></disk>"
             "<disk>%s<target dev='vda'/></disk></devices></domain>",
             mirror);
    enum overlay_xml_job job;
    struct error err = {0};
    assert_int_equal(overlay_xml_find_job(xml, "vda", "/b", &job, &err), 0);
    assert_int_equal(job, want);
}

static void tells_the_stages_of_a_commit(void **state)
{
    (void)state;
    check_job("", OVERLAY_XML_NO_JOB);
#define INTO_BASE "><source file='/b'/></mirror>"
    check_job("<mirror type='file' job='active-commit'" INTO_BASE, OVERLAY_XML_COMMIT);
    check_job("<mirror job='active-commit' ready='yes'" INTO_BASE, OVERLAY_XML_COMMIT_READY);
    check_job("<mirror job='active-commit' ready='pivot'" INTO_BASE, OVERLAY_XML_COMMIT_ENDING);
    check_job("<mirror job='active-commit' ready='abort'" INTO_BASE, OVERLAY_XML_COMMIT_ENDING);
    check_job("<mirror job='active-commit'><source dev='/b'/></mirror>", OVERLAY_XML_COMMIT);
    check_job("<mirror job='copy' ready='yes'" INTO_BASE, OVERLAY_XML_OTHER_JOB);
    check_job("<mirror job='active-commit' ready='yes'><source file='/c'/></mirror>",
              OVERLAY_XML_OTHER_JOB);
    check_job("<mirror job='active-commit' ready='yes'/>", OVERLAY_XML_OTHER_JOB);
    check_job("<mirror/>", OVERLAY_XML_OTHER_JOB);
}

#define DOMAIN(name, disk)                                                                         \
    "<domain><name>" name "</name><devices><disk><source file='/x'/><target dev='vdb'/></disk>"    \
    "<disk>" disk "<target dev='vda'/></disk></devices></domain>"
#define OURS "/virtsnapfs-test/a.img.virtsnapfs-0123456789abcdef.overlay"
#define BEFORE DOMAIN("a", "<driver type='raw'/><source file='/d/a.img'/>")

/* NULL: nothing is to be put back. */
static void check_hidden(const char *xml, const char *before, const char *wanted)
{
    auto_free char *found = NULL;
    struct error err = {0};
    assert_int_equal(overlay_xml_hide_ours(xml, before, &found, &err), wanted ? 1 : 0);
    if (wanted)
        assert_non_null(strstr(found, wanted));
    else
        assert_null(found);
}

static void hides_overlays_of_ours_and_nothing_else(void **state)
{
    (void)state;
    /* The very text of before. */
    check_hidden(DOMAIN("a", "<driver type='qcow2'/><source file='" OURS "'/>"), BEFORE, BEFORE);
    /* What others changed meanwhile is seen. */
    check_hidden(DOMAIN("b", "<source file='" OURS "'/>"), BEFORE, "<name>b</name>");
    check_hidden(DOMAIN("b", "<source file='" OURS "'/>"), BEFORE,
                 "<driver type=\"raw\"/><source file=\"/d/a.img\"/>");
    check_hidden(DOMAIN("a", "<source file='/d/b.img'/>"), BEFORE, NULL);
    check_hidden(DOMAIN("a", "<source file='/d/a.img.virtsnapfs-0123456789abcdef.delta'/>"), BEFORE,
                 NULL);
    check_hidden(DOMAIN("a", "<source file='/d/a.overlay'/>"), BEFORE, NULL);
    /* Somebody's snapshot on top of it is there to stay. */
    check_hidden(DOMAIN("a", "<source file='/d/snap'/><backingStore><source file='" OURS
                             "'/></backingStore>"),
                 BEFORE, NULL);
    /* Nothing else is known. */
    check_hidden(DOMAIN("a", "<source file='" OURS "'/>"), DOMAIN("a", "<source file='" OURS "'/>"),
                 NULL);
    check_hidden(DOMAIN("a", "<source file='" OURS "'/>"),
                 "<domain><devices><disk><target dev='vdb'/></disk></devices></domain>", NULL);
}

static void hides_nothing_in_what_is_no_domain(void **state)
{
    (void)state;
    auto_free char *found = NULL;
    struct error err = {0};
    assert_int_equal(overlay_xml_hide_ours("no XML", BEFORE, &found, &err), -EBADMSG);
    assert_int_equal(overlay_xml_hide_ours(BEFORE, "no XML", &found, &err), -EBADMSG);
    assert_null(found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_every_disk_and_freezes_those_of_the_change),
        cmocka_unit_test(escapes_what_xml_would_take_amiss),
        cmocka_unit_test(refuses_a_disk_that_does_not_exist),
        cmocka_unit_test(tells_the_stages_of_a_commit),
        cmocka_unit_test(hides_overlays_of_ours_and_nothing_else),
        cmocka_unit_test(hides_nothing_in_what_is_no_domain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
