/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What uploads read: the disks of the tree, by the same names, nodes and opens as programs do. An
 * upload is a reader like any other, with the pid of whoever waits for it, and its number.
 */
#pragma once

#include "fs/fuse/tree.h"
#include "fs/glance/upload.h"

/* @tree  borrowed for as long as there are uploads */
struct upload_source upload_source_make(struct tree *tree);
