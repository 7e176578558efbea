/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names that come from images, guests' owners and servers, made fit to be shown. No objects; any
 * thread.
 */
#pragma once

/*
 * Puts '?' in place of each byte that a terminal would obey, or that would begin another line: C0
 * and DEL, C1 as UTF-8 (two bytes), and C1 as a byte that belongs to no character of UTF-8. Other
 * bytes stay, whatever their encoding; the length does not change.
 */
void text_hide_controls(char *text);
