/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which named snapshot of a disk a file shows: one inside of the disk's image, or the layer that an
 * external snapshot froze. Plain data with copies of its own; any thread.
 */
#pragma once

#include <stdbool.h>
#include <time.h>

#include "fs/host/domain.h"
#include "qcow/qcow.h"

enum snapshot_kind { SNAPSHOT_INTERNAL, SNAPSHOT_EXTERNAL };

/* The strings identify it; two of one name that were taken at different times are not the same. */
struct frozen_snapshot {
    char *name;
    struct timespec created;
    char *path; /* of the frozen layer */
};

struct named_snapshot {
    enum snapshot_kind kind;
    struct qcow_snapshot internal;   /* INTERNAL */
    struct frozen_snapshot external; /* EXTERNAL */
};

/* Copies @from; 0 or -ENOMEM. snapshot_fini() releases @ret, also after a failure. */
int snapshot_copy(const struct named_snapshot *from, struct named_snapshot *ret);
void snapshot_fini(struct named_snapshot *snapshot);
bool snapshot_is_same(const struct named_snapshot *a, const struct named_snapshot *b);

/*
 * What the host's record says of that snapshot of the disk; NULL if it knows no such one now.
 * Borrowed from the record.
 */
const struct frozen_disk *snapshot_find_frozen(const struct frozen_snapshot *snapshot,
                                               const struct domain *domain, const char *target);

/* Its name as the image or the host spells it; borrowed. */
const char *snapshot_name(const struct named_snapshot *snapshot);
struct timespec snapshot_created(const struct named_snapshot *snapshot);
/* As in the xattr `method`: "internal", "external". */
const char *snapshot_method(const struct named_snapshot *snapshot);
