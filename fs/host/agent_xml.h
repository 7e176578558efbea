/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the XML of a running domain says of its guest agent. */
#pragma once

#include "qcow/base/error.h"

enum agent_state {
    AGENT_NONE,         /* no channel for one */
    AGENT_DISCONNECTED, /* nobody in the guest has the channel open */
    AGENT_CONNECTED,
};

/* Pure. 0, -EBADMSG if this is no domain's XML, -ENOMEM. */
int agent_xml_read(const char *xml, enum agent_state *ret_state, struct error *err);
