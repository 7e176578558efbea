/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What was found at one moment, and how it is drawn. Parts of report.c's work. */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "fs/report/report.h"

/*
 * "domains" is an array of what each DOMAIN/status says, in the order of their names, with
 * "directory" (the name in the tree) added; or of {"directory", "error"} where one cannot be read.
 */
struct sample {
    json_t *root;    /* "mountpoint", "source", "time", "domains"; owned; NULL: none */
    int64_t when_ns; /* monotonic */
};

/* 0 or negative errno, as report_run(). sample_fini() releases it. */
int sample_take(const struct report_config *config, struct sample *ret_sample, struct error *err);
void sample_fini(struct sample *sample);

/*
 * For people. @before is a sample of some 10 s earlier, which tells how fast readers are of late,
 * or has no root. Names are shortened so that tables fit into @max_width cells of a terminal; 0: no
 * limit. 0 or -ENOMEM.
 */
int sample_draw(const struct sample *sample, const struct sample *before, size_t max_width,
                FILE *to);
