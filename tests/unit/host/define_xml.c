/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/define_xml.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct change_disk overlay = {
    .target = "vda", .base = "/i/a.img", .base_format = QCOW_FORMAT_RAW, .file = "/i/a.overlay"};

#define ON_OVERLAY "<driver name='qemu' type='qcow2' cache='none'/><source file='/i/a.overlay'/>"
#define TARGET "<target dev='vda'/>"

static char *wrap(const char *disk)
{
    char *xml;
    assert_true(asprintf(&xml,
                         "<domain><name>n</name><currentMemory>7</currentMemory><devices>"
                         "<disk type='file'><source file='/i/other'/><target dev='vdb'/></disk>"
                         "%s<graphics passwd='x&amp;y'/></devices></domain>",
                         disk) > 0);
    return xml;
}

/* Restores a domain with @disk and looks for @wanted in its place, and for the rest as it was. */
static void check_restored(const char *disk, bool was_bare, const char *wanted)
{
    struct error err = {0};
    char *xml = wrap(disk), *found = NULL;
    assert_int_equal(define_xml_restore(xml, &overlay, was_bare, &found, &err), 1);
    if (!strstr(found, wanted))
        fail_msg("'%s' is not in '%s'", wanted, found);
    assert_non_null(strstr(found, "<currentMemory>7</currentMemory>"));
    assert_non_null(strstr(found, "passwd=\"x&amp;y\""));
    assert_non_null(strstr(found, "<source file=\"/i/other\"/>"));
    assert_null(strstr(found, "overlay"));
    free(xml);
    free(found);
}

static int restore(const char *disk, bool was_bare, struct error *err)
{
    char *xml = wrap(disk), *found = NULL;
    int r = define_xml_restore(xml, &overlay, was_bare, &found, err);
    if (r > 0)
        free(found);
    else
        assert_null(found);
    free(xml);
    return r;
}

static void names_the_base_where_nothing_is_said_of_it(void **state)
{
    (void)state;
    check_restored("<disk type='file'>" ON_OVERLAY TARGET "</disk>", false,
                   "<disk type=\"file\"><driver name=\"qemu\" type=\"raw\" cache=\"none\"/>"
                   "<source file=\"/i/a.img\"/><target dev=\"vda\"/></disk>");
}

static void raises_what_is_below_with_all_it_says(void **state)
{
    (void)state;
    check_restored("<disk type='file'>" ON_OVERLAY
                   "<backingStore type='file'><format type='qcow2'/><source file='/i/a.img'>"
                   "<seclabel model='dac' relabel='no'/></source></backingStore>" TARGET "</disk>",
                   false,
                   "<driver name=\"qemu\" type=\"qcow2\" cache=\"none\"/><source file=\"/i/a.img\">"
                   "<seclabel model=\"dac\" relabel=\"no\"/></source><target dev=\"vda\"/></disk>");
}

static void keeps_the_chain_below_the_base(void **state)
{
    (void)state;
    check_restored("<disk type='file'>" ON_OVERLAY
                   "<backingStore type='file'><format type='qcow2'/><source file='/i/a.img'/>"
                   "<backingStore type='file'><format type='raw'/><source file='/i/b'/>"
                   "<backingStore/></backingStore></backingStore>" TARGET "</disk>",
                   false,
                   "<source file=\"/i/a.img\"/><backingStore type=\"file\"><format type=\"raw\"/>"
                   "<source file=\"/i/b\"/><backingStore/></backingStore><target dev=\"vda\"/>");
}

static void keeps_volumes_and_startup_policies(void **state)
{
    (void)state;
    check_restored("<disk type='file'><driver type='qcow2'/>"
                   "<source file='/i/a.overlay' startupPolicy='optional'/>"
                   "<backingStore type='volume'><format type='raw'/>"
                   "<source pool='p' volume='v'/></backingStore>" TARGET "</disk>",
                   false,
                   "<disk type=\"volume\"><driver type=\"raw\"/>"
                   "<source pool=\"p\" volume=\"v\" startupPolicy=\"optional\"/><target");
}

static void takes_away_a_chain_only_where_there_was_none(void **state)
{
    (void)state;
    static const char on_base[] = "<disk type='file'><driver type='raw'/><source file='/i/a.img'/>"
                                  "<backingStore/>" TARGET "</disk>";
    static const char with_layers[] =
        "<disk type='file'><driver name='qemu' type='raw'/><source file='/i/a.img'/>"
        "<backingStore type='file'><format type='raw'/><source file='/i/below'/><backingStore/>"
        "</backingStore>" TARGET "</disk>";
    struct error err = {0};
    check_restored(on_base, true, "<source file=\"/i/a.img\"/><target dev=\"vda\"/>");
    check_restored(with_layers, true, "<source file=\"/i/a.img\"/><target dev=\"vda\"/>");
    assert_int_equal(restore(on_base, false, &err), 0);
    assert_int_equal(restore(with_layers, false, &err), 0);
}

static void changes_nothing_where_the_overlay_is_not(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(restore("", true, &err), 0);
    assert_int_equal(restore("<disk type='file'><driver type='raw'/><source file='/i/c'/>"
                             "<backingStore/>" TARGET "</disk>",
                             true, &err),
                     0);
    assert_int_equal(restore("<disk type='file' device='cdrom'>" TARGET "</disk>", true, &err), 0);
}

static void refuses_another_base(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(restore("<disk type='file'>" ON_OVERLAY
                             "<backingStore type='file'><format type='raw'/>"
                             "<source file='/i/c'/></backingStore>" TARGET "</disk>",
                             false, &err),
                     -EBADMSG);
    assert_non_null(strstr(err.text, "'/i/c'"));
    char *found = NULL;
    assert_int_equal(define_xml_restore("<x/>", &overlay, false, &found, &err), -EBADMSG);
}

static int check_plain(const char *disk)
{
    struct error err = {0};
    char *xml = wrap(disk);
    int r = define_xml_check_plain(xml, "vda", &err);
    free(xml);
    return r;
}

static void knows_what_an_overlay_would_lose(void **state)
{
    (void)state;
    assert_int_equal(check_plain("<disk><driver type='raw'/><source file='/i/a.img' "
                                 "startupPolicy='optional'/>" TARGET "</disk>"),
                     0);
    assert_int_equal(check_plain("<disk><driver type='raw'/><source dev='/d'/>" TARGET "</disk>"),
                     0);
    assert_int_equal(check_plain("<disk><source file='/i/a.img'/>" TARGET "</disk>"), -EOPNOTSUPP);
    assert_int_equal(
        check_plain("<disk><driver type='raw'/><source pool='p' volume='v'/>" TARGET "</disk>"),
        -EOPNOTSUPP);
    assert_int_equal(
        check_plain("<disk><driver type='raw'/><source file='/i'><seclabel/></source>" TARGET
                    "</disk>"),
        -EOPNOTSUPP);
    assert_int_equal(
        check_plain("<disk><driver type='raw'/><source file='/i'/><backingStore/>" TARGET
                    "</disk>"),
        -EOPNOTSUPP);
    assert_int_equal(check_plain(""), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_the_base_where_nothing_is_said_of_it),
        cmocka_unit_test(raises_what_is_below_with_all_it_says),
        cmocka_unit_test(keeps_the_chain_below_the_base),
        cmocka_unit_test(keeps_volumes_and_startup_policies),
        cmocka_unit_test(takes_away_a_chain_only_where_there_was_none),
        cmocka_unit_test(changes_nothing_where_the_overlay_is_not),
        cmocka_unit_test(refuses_another_base),
        cmocka_unit_test(knows_what_an_overlay_would_lose),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
