/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/libvirt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/agent.h"
#include "fs/host/backup.h"
#include "fs/host/eventloop.h"
#include "fs/host/file.h"
#include "fs/host/libvirt_internal.h"
#include "fs/host/live.h"
#include "fs/host/methods.h"
#include "fs/host/overlay.h"
#include "fs/host/ref.h"
#include "fs/log.h"
#include "qcow/base/cleanup.h"

enum { AGENT_TIMEOUT_MS = 5000 };

/* A worker that is held up in a call to a frozen libvirtd is left behind after this time. */
static const int64_t close_wait_ns = 5 * INT64_C(1000000000);

static struct libvirt_host *from_host(struct host *host)
{
    return (struct libvirt_host *)host;
}

static int host_list(struct host *host, struct domain ***ret_domains, size_t *ret_n,
                     struct error *err)
{
    int r = table_list(&from_host(host)->table, ret_domains, ret_n);
    return r < 0 ? error_set(err, r, "out of memory") : 0;
}

static struct domain *host_find(struct host *host, const char *id)
{
    return table_find(&from_host(host)->table, id);
}

static struct domain *host_find_name(struct host *host, const char *name)
{
    return table_find_name(&from_host(host)->table, name);
}

static int host_refresh(struct host *host, const char *id, struct error *err)
{
    auto_live struct live live = {.lh = from_host(host), .id = id, .name = id};
    live_renew_deadline(&live);
    int r = live_attach(&live, err);
    return r < 0 ? r : worker_refresh_domain(live.lh, live.dom, err);
}

/*
 * What the XML names is used in place of what the image says. Where it is silent, as it is for
 * most stopped domains, the image is followed as libvirt does at the next start. External data
 * files are unknown to libvirt 9.0, so that nobody has judged such a name before it comes here
 * (CVE-2024-32498): only directories that the user named can hold them.
 */
static int host_open_ref(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                         struct error *err)
{
    const struct host_image_ctx *image = ctx;
    const struct disk *disk = image->disk;
    if (ref->kind == QCOW_REF_DATA) {
        struct libvirt_host *lh = from_host(image->host);
        return ref_open_recorded(ref, (const char *const *)lh->backing_dirs, lh->n_backing_dirs,
                                 ret_file, err);
    }
    size_t next = (size_t)ref->depth + 1;
    if (next < disk->n_layers)
        return ref_open_declared(disk->layers[next].path, disk->layers[next].format, ret_file, err);
    if (disk->is_chain_complete)
        return 1;
    return ref_open_recorded(ref, NULL, 0, ret_file, err);
}

static int host_freeze(struct host *host, const char *id, struct error *err)
{
    return agent_freeze(host, id, AGENT_TIMEOUT_MS, err);
}

static int host_thaw(struct host *host, const char *id, struct error *err)
{
    return agent_thaw(host, id, AGENT_TIMEOUT_MS, err);
}

void libvirt_destroy(struct libvirt_host *lh)
{
    table_fini(&lh->table);
    mailbox_unref(lh->mail);
    file_free_dirs(lh->backing_dirs, lh->n_backing_dirs);
    cond_fini(&lh->changed);
    mutex_fini(&lh->lock);
    free(lh->uri);
    free(lh->scratch_dir);
    free(lh);
}

/* True if the worker has ended; false if it was left to end by itself and to free the host. */
static bool wait_worker_locked(struct libvirt_host *lh) REQUIRES(lh->lock)
{
    int64_t deadline_ns = monotonic_ns() + close_wait_ns;
    while (!lh->has_ended && cond_wait_until(&lh->changed, &lh->lock, deadline_ns))
        ;
    if (lh->has_ended)
        return true;
    pthread_detach(lh->worker);
    lh->is_abandoned = true;
    return false;
}

static void host_close(struct host *host)
{
    struct libvirt_host *lh = from_host(host);
    mailbox_stop(lh->mail);
    mutex_lock(&lh->lock);
    bool has_ended = wait_worker_locked(lh);
    mutex_unlock(&lh->lock);
    if (!has_ended) {
        log_debug("libvirt does not answer; closed without it");
        return;
    }
    pthread_join(lh->worker, NULL);
    eventloop_stop();
    libvirt_destroy(lh);
}

static const struct host_method *host_method(struct host *host, enum change_method method)
{
    (void)host;
    static const struct host_method *const methods[N_CHANGE_METHODS] = {
        [CHANGE_OVERLAY] = &host_method_overlay,
        [CHANGE_COPY] = &host_method_copy,
        [CHANGE_MANAGEDSAVE] = &host_method_managedsave,
        [CHANGE_INTERNAL] = &host_method_internal,
        [CHANGE_BACKUP] = &host_method_backup,
        [CHANGE_COLD_OVERLAY] = &host_method_cold_overlay,
    };
    return methods[method];
}

static const struct host_ops libvirt_ops = {
    .list = host_list,
    .find = host_find,
    .find_name = host_find_name,
    .refresh = host_refresh,
    .open_ref = host_open_ref,
    .method = host_method,
    .freeze = host_freeze,
    .thaw = host_thaw,
    .close = host_close,
};

bool libvirt_uri_is_remote(const char *uri)
{
    const char *scheme_end = strstr(uri, "://");
    if (!scheme_end)
        return false;
    /* Any transport but the local socket leads elsewhere, if only by a command of the user's. */
    const char *transport = memchr(uri, '+', (size_t)(scheme_end - uri));
    if (transport && strncmp(transport, "+unix://", strlen("+unix://")) != 0)
        return true;
    return scheme_end[3] != '\0' && !strchr("/?#", scheme_end[3]);
}

/* Real, since libvirtd has another working directory. */
static int resolve_scratch(const char *dir, char **ret_real, struct error *err)
{
    char **real;
    int r = file_resolve_dirs(&dir, 1, &real, err);
    if (r < 0)
        return r;
    *ret_real = take_ptr(real[0]);
    file_free_dirs(real, 1);
    return 0;
}

static int copy_config(const struct libvirt_config *config, struct libvirt_host *lh,
                       struct error *err)
{
    lh->timeout_ms = config->timeout_ms;
    lh->events = config->events;
    lh->mail = mailbox_create();
    lh->uri = strdup(config->uri);
    if (!lh->mail || !lh->uri)
        return error_set(err, -ENOMEM, "out of memory");
    int r = config->scratch_dir ? resolve_scratch(config->scratch_dir, &lh->scratch_dir, err) : 0;
    if (r < 0)
        return r;
    lh->n_backing_dirs = config->n_backing_dirs;
    return file_resolve_dirs(config->backing_dirs, config->n_backing_dirs, &lh->backing_dirs, err);
}

static int start_threads(struct libvirt_host *lh, struct error *err)
{
    int r = eventloop_start(err);
    if (r < 0)
        return r;
    r = worker_start(lh, err);
    if (r < 0)
        eventloop_stop();
    return r;
}

static int create_host(const struct libvirt_config *config, struct libvirt_host **ret_host,
                       struct error *err)
{
    struct libvirt_host *lh = calloc(1, sizeof(*lh));
    if (!lh)
        return error_set(err, -ENOMEM, "out of memory");
    lh->host.ops = &libvirt_ops;
    mutex_init(&lh->lock);
    cond_init(&lh->changed);
    table_init(&lh->table);
    int r = copy_config(config, lh, err);
    if (r == 0)
        r = start_threads(lh, err);
    if (r < 0) {
        libvirt_destroy(lh);
        return r;
    }
    *ret_host = lh;
    return 0;
}

static int wait_synced_locked(struct libvirt_host *lh, struct error *err) REQUIRES(lh->lock)
{
    int64_t deadline_ns = monotonic_ns() + (int64_t)lh->timeout_ms * 1000000;
    while (!lh->is_synced && !lh->open_error.code)
        if (!cond_wait_until(&lh->changed, &lh->lock, deadline_ns))
            break;
    if (lh->is_synced)
        return 0;
    if (!lh->open_error.code)
        return error_set(err, -ENOTCONN, "libvirt '%s' does not answer within %u ms", lh->uri,
                         lh->timeout_ms);
    if (err)
        *err = lh->open_error;
    return lh->open_error.code;
}

int libvirt_open(const struct libvirt_config *config, struct host **ret_host, struct error *err)
{
    if (libvirt_uri_is_remote(config->uri))
        return error_set(err, -EINVAL, "'%s' names another machine; only local libvirt is served",
                         config->uri);
    int r = eventloop_init_library(err);
    if (r < 0)
        return r;
    struct libvirt_host *lh = NULL;
    r = create_host(config, &lh, err);
    if (r < 0)
        return r;
    mutex_lock(&lh->lock);
    r = wait_synced_locked(lh, err);
    mutex_unlock(&lh->lock);
    if (r < 0) {
        host_close(&lh->host);
        return r;
    }
    *ret_host = &lh->host;
    return 0;
}
