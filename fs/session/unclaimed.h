/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Overlays of this program that no journal names: the state folder was lost, or it was another one.
 * They are known by their names, BASE.MARK.overlay. A mount only shows them in `status`, since
 * their daemon may live with a state folder of its own; `--recover` merges them, unless that daemon
 * is seen to live (claim.h).
 */
#pragma once

#include <jansson.h>

#include "fs/host/host.h"
#include "fs/session/journal.h"
#include "qcow/base/error.h"

/*
 * The change that put overlays over the disks of the domain, as it can be told from them.
 * 0 and the change (caller frees), or 0 and NULL: there are none, or a journal names them; -EBUSY:
 * there are, and they are for a person to look at; -ENOMEM. Looks at the state folder, and at the
 * overlays of a domain that is off.
 */
int unclaimed_find(const struct journal *journal, const struct domain *domain,
                   struct change **ret_change, struct error *err);

/*
 * The entry for `leftovers` of `status`, or for `elsewhere` if their daemon is seen to live; NULL:
 * none.
 */
json_t *unclaimed_describe(const struct journal *journal, const struct domain *domain,
                           bool *ret_is_elsewhere);

/*
 * Finds those of all domains, and enters them in the journal as leftovers.
 *
 * @note_refused  told of each that is left for a person, and why
 *
 * 0 and an array as journal_adopt() gives it; or why the domains are not known, or -ENOMEM.
 */
int unclaimed_adopt(struct journal *journal, struct host *host,
                    void (*note_refused)(void *ctx, const char *name, const struct error *why),
                    void *ctx, struct journal_leftover **ret_leftovers, size_t *ret_n,
                    struct error *err);
