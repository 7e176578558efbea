/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the lean program lacks (full.h): the linker takes these in place of the ones of fs/host,
 * fs/session and fs/glance, with all that stands behind them. lean.c sees to it that none is
 * called, but for url_check() and those that are given nothing.
 */
#include <errno.h>
#include <stdlib.h>

#include "fs/glance/image.h"
#include "fs/glance/url.h"
#include "fs/host/hardware.h"
#include "fs/host/libvirt.h"
#include "fs/session/nbd.h"

static int refuse(struct error *err)
{
    return error_set(err, -ENOSYS, "this program serves folders only");
}

bool libvirt_uri_is_remote(const char *uri)
{
    (void)uri;
    return false;
}

int libvirt_open(const struct libvirt_config *config, struct host **ret_host, struct error *err)
{
    (void)config;
    (void)ret_host;
    return refuse(err);
}

int libvirt_work_wake(struct broker_call *call, struct error *err)
{
    (void)call;
    return refuse(err);
}

int hardware_read(const char *xml, const char *target, struct hardware *ret_hardware,
                  struct error *err)
{
    (void)xml;
    (void)target;
    (void)ret_hardware;
    return refuse(err);
}

void hardware_fini(struct hardware *hardware)
{
    (void)hardware;
}

int nbd_open(const char *socket, const char *export_name, unsigned timeout_ms,
             struct qcow_file *ret_file, struct error *err)
{
    (void)socket;
    (void)export_name;
    (void)timeout_ms;
    (void)ret_file;
    return refuse(err);
}

/* The full program, which is run if nothing else is wrong with the cloud, looks closer. */
int url_check(const char *url, const char *what, struct error *err)
{
    (void)url;
    (void)what;
    (void)err;
    return 0;
}

int glance_create(struct glance_config *config, unsigned stall_timeout_s,
                  struct glance **ret_glance, struct error *err)
{
    (void)stall_timeout_s;
    (void)ret_glance;
    glance_config_free(config);
    return refuse(err);
}

void glance_destroy(struct glance *glance)
{
    (void)glance;
}

int glance_login(struct glance *glance, const struct glance_cancel *cancel, char **ret_project_id,
                 char **ret_user_id, struct error *err)
{
    (void)glance;
    (void)cancel;
    (void)ret_project_id;
    (void)ret_user_id;
    return refuse(err);
}

int glance_image_create(struct glance *glance, const struct glance_record *record,
                        const struct glance_cancel *cancel, struct glance_image **ret_image,
                        struct error *err)
{
    (void)glance;
    (void)record;
    (void)cancel;
    (void)ret_image;
    return refuse(err);
}

const char *glance_image_id(const struct glance_image *image)
{
    (void)image;
    return "";
}

int glance_image_send(struct glance_image *image, const struct glance_body *body,
                      const struct glance_progress *progress, const struct glance_cancel *cancel,
                      struct error *err)
{
    (void)image;
    (void)body;
    (void)progress;
    (void)cancel;
    return refuse(err);
}

int glance_image_delete(struct glance_image *image, struct error *err)
{
    (void)image;
    return refuse(err);
}

void glance_image_free(struct glance_image *image)
{
    (void)image;
}
