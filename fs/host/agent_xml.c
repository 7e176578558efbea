/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/agent_xml.h"

#include <stdbool.h>
#include <string.h>

#include "fs/host/xml_internal.h"
#include "qcow/base/cleanup.h"

static int read_target(const xmlNode *target, enum agent_state *state, struct error *err)
{
    auto_free char *name = NULL, *connection = NULL;
    int r = xml_attr(target, "name", &name, err);
    if (r == 0)
        r = xml_attr(target, "state", &connection, err);
    if (r < 0 || !name || strcmp(name, "org.qemu.guest_agent.0") != 0)
        return r;
    bool is_connected = connection && strcmp(connection, "connected") == 0;
    *state = is_connected ? AGENT_CONNECTED : AGENT_DISCONNECTED;
    return 0;
}

int agent_xml_read(const char *xml, enum agent_state *ret_state, struct error *err)
{
    auto_doc xmlDoc *doc = NULL;
    int r = xml_open(xml, "domain", &doc, err);
    if (r < 0)
        return r;
    enum agent_state state = AGENT_NONE;
    const xmlNode *devices = xml_child(xmlDocGetRootElement(doc), "devices");
    for (const xmlNode *channel = xml_child(devices, "channel"); channel && state == AGENT_NONE;
         channel = xml_next(channel)) {
        const xmlNode *target = xml_child(channel, "target");
        r = target ? read_target(target, &state, err) : 0;
        if (r < 0)
            return r;
    }
    *ret_state = state;
    return 0;
}
