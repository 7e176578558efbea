/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/copy_xml.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void describes_the_file(void **state)
{
    (void)state;
    char *xml;
    struct error err = {0};
    assert_int_equal(copy_xml_build("/a\"<&", &xml, &err), 0);
    assert_non_null(strstr(xml, "<disk type=\"file\"><driver type=\"qcow2\"/>"
                                "<source file=\"/a&quot;&lt;&amp;\"/></disk>"));
    free(xml);
}

static void check_state(const char *mirror, enum copy_xml_state want)
{
    char xml[512];
    snprintf(
        xml, sizeof(xml),
        "<domain><devices><disk><mirror job='copy' ready='yes'><source file='/delta'/></mirror>"
        "<target dev='vdb'/></disk><disk>%s<target dev='vda'/></disk></devices></domain>",
        mirror);
    enum copy_xml_state state;
    struct error err = {0};
    assert_int_equal(copy_xml_find(xml, "vda", "/delta", &state, &err), 0);
    assert_int_equal(state, want);
}

static void tells_the_stages_of_a_copy(void **state)
{
    (void)state;
    check_state("", COPY_XML_NONE);
    check_state("<mirror job='copy'><source file='/delta'/></mirror>", COPY_XML_FILLING);
    check_state("<mirror job='copy' ready='yes'><source file='/delta'/></mirror>", COPY_XML_READY);
    check_state("<mirror job='copy' ready='abort'><source file='/delta'/></mirror>",
                COPY_XML_ENDING);
    check_state("<mirror job='copy' ready='pivot'><source file='/delta'/></mirror>",
                COPY_XML_ENDING);
}

static void leaves_alone_what_is_not_its_own(void **state)
{
    (void)state;
    check_state("<mirror job='copy' ready='yes'><source file='/other'/></mirror>", COPY_XML_NONE);
    check_state("<mirror job='active-commit' ready='yes'><source file='/delta'/></mirror>",
                COPY_XML_NONE);
    check_state("<mirror job='copy' ready='yes'/>", COPY_XML_NONE);
    check_state("<mirror job='copy' ready='yes'><source dev='/delta'/></mirror>", COPY_XML_NONE);
    enum copy_xml_state found;
    struct error err = {0};
    assert_int_equal(copy_xml_find("<domain/>", "vda", "/delta", &found, &err), 0);
    assert_int_equal(found, COPY_XML_NONE);
    assert_int_equal(copy_xml_find("<x/>", "vda", "/delta", &found, &err), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(describes_the_file),
        cmocka_unit_test(tells_the_stages_of_a_copy),
        cmocka_unit_test(leaves_alone_what_is_not_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
