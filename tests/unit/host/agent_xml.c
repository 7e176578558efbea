/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/agent_xml.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void check(const char *channels, enum agent_state want)
{
    char xml[1024];
    snprintf(xml, sizeof(xml), "<domain><devices><disk/>%s<console/></devices></domain>", channels);
    enum agent_state state;
    struct error err = {0};
    assert_int_equal(agent_xml_read(xml, &state, &err), 0);
    assert_int_equal(state, want);
}

static void tells_whether_somebody_listens(void **state)
{
    (void)state;
    check("<channel><target type='virtio' name='org.qemu.guest_agent.0' "
          "state='connected'/></channel>",
          AGENT_CONNECTED);
    check("<channel><target name='org.qemu.guest_agent.0' state='disconnected'/></channel>",
          AGENT_DISCONNECTED);
    check("<channel><target name='org.qemu.guest_agent.0'/></channel>", AGENT_DISCONNECTED);
}

static void passes_over_other_channels(void **state)
{
    (void)state;
    check("", AGENT_NONE);
    check("<channel/><channel><target type='guestfwd' address='10.0.2.1'/></channel>", AGENT_NONE);
    check("<channel><target name='com.redhat.spice.0' state='connected'/></channel>", AGENT_NONE);
    check("<channel><target name='com.redhat.spice.0' state='connected'/></channel>"
          "<channel><target name='org.qemu.guest_agent.0' state='disconnected'/></channel>",
          AGENT_DISCONNECTED);
}

static void refuses_what_is_no_domain(void **state)
{
    (void)state;
    enum agent_state agent;
    struct error err = {0};
    assert_int_equal(agent_xml_read("<x/>", &agent, &err), -EBADMSG);
    assert_int_equal(agent_xml_read("", &agent, &err), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_whether_somebody_listens),
        cmocka_unit_test(passes_over_other_channels),
        cmocka_unit_test(refuses_what_is_no_domain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
