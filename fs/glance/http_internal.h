/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For the unit test of what is tried again, which has no time to wait. */
#pragma once

/* Before threads start. */
void http_set_retry_ms(unsigned ms);
