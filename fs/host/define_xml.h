/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A definition without an overlay: the XML of the moment, in which nothing but the source of that
 * disk is another, so that what others changed meanwhile stays. Looks at no file but for telling a
 * block device; any thread.
 */
#pragma once

#include <stdbool.h>

#include "fs/host/change.h"
#include "qcow/base/error.h"

/*
 * Puts the disk of @xml whose source is the overlay of @overlay back on the base. Where the
 * overlay's <backingStore> says what is below it, that moves up with all it says; else the base is
 * named as @overlay has it.
 *
 * @was_bare  the disk had no <backingStore> before: one is taken away (libvirt leaves one when an
 *            overlay of a domain that was off is merged while it runs; with all layers in it, if
 *            libvirtd was started anew before)
 *
 * 1 and the new text (caller frees); 0 if there is nothing to do; -EBADMSG (what is below an
 * overlay is not the base: @err says so), -ENOMEM.
 */
int define_xml_restore(const char *xml, const struct change_disk *overlay, bool was_bare,
                       char **ret_xml, struct error *err);

/*
 * 0 if define_xml_restore() can bring back what @xml says of the disk @target after an overlay was
 * put over it while the domain is off: libvirt then keeps nothing of the source but its path and
 * format. -EOPNOTSUPP with the reason, -EBADMSG, -ENOMEM.
 */
int define_xml_check_plain(const char *xml, const char *target, struct error *err);
