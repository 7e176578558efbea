/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The cloud that uploads go to, from what says where it is to the connection. Main thread.
 */
#pragma once

#include "fs/glance/config.h"
#include "fs/glance/image.h"
#include "qcow/base/error.h"

struct cloud {
    struct glance_config *config; /* until it is connected */
    struct glance *glance;        /* NULL: uploads are refused */
    struct error refusal;         /* why, if something is wrong with a cloud that nobody named */
};

/*
 * Reads environment and files, and wipes the secrets of the environment; from then on neither a
 * core file nor a program of the same user can show what we hold. Before there is a thread or a
 * child. No cloud at all is fine.
 *
 * @name  in clouds.yaml, or NULL
 *
 * 0, or what is wrong with a cloud that was named, by @name or the environment.
 */
int cloud_load(const char *name, struct cloud *ret_cloud, struct error *err);

/*
 * Before there is a second thread, but in the process that serves. Talks to nobody yet.
 *
 * @stall_s  how long nothing may move in an upload
 *
 * 0 or negative errno.
 */
int cloud_start(struct cloud *cloud, unsigned stall_s, struct error *err);
void cloud_end(struct cloud *cloud); /* a zeroed one is fine */
