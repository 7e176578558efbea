/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/live.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/fault.h"
#include "fs/host/record.h"
#include "fs/host/xml.h"
#include "fs/log.h"

enum { RETRY_MS = 50 };

struct live live_of(struct host *host, const struct change *change)
{
    struct live live = {
        .lh = (struct libvirt_host *)host, .id = change->domain_id, .name = change->domain_name};
    live_renew_deadline(&live);
    return live;
}

static int attach_once(struct live *live, struct error *err)
{
    int r = worker_get_connection(live->lh, live->deadline_ns, &live->conn, err);
    if (r < 0)
        return r;
    live->dom = virDomainLookupByUUIDString(live->conn, live->id);
    return live->dom ? 0 : fault_set(err, "cannot look up domain '%s'", live->name);
}

/* Until the worker has noticed, it still hands out a connection that died. */
int live_attach(struct live *live, struct error *err)
{
    if (live->dom)
        return 0;
    for (;;) {
        live_detach(live);
        int r = attach_once(live, err);
        if (r == 0 || !live_is_cut(live) || monotonic_ns() >= live->deadline_ns)
            return r;
        if (!mailbox_sleep(live->lh->mail, monotonic_ns() + (int64_t)RETRY_MS * 1000000))
            return r;
    }
}

void live_detach(struct live *live)
{
    if (live->dom)
        virDomainFree(live->dom);
    if (live->conn)
        virConnectClose(live->conn);
    live->dom = NULL;
    live->conn = NULL;
}

bool live_is_cut(const struct live *live)
{
    return live->conn && virConnectIsAlive(live->conn) == 0;
}

void live_renew_deadline(struct live *live)
{
    if (live->steps)
        live->steps->is_cancelled(live->steps->ctx);
    live->deadline_ns = monotonic_ns() + (int64_t)live->lh->timeout_ms * 1000000;
}

void live_refresh_record(struct live *live)
{
    struct error err = {0};
    int r = live_attach(live, &err);
    if (r == 0)
        r = worker_refresh_domain(live->lh, live->dom, &err);
    if (r < 0)
        log_debug("%s", err.text);
}

int live_check_block_job(const struct live *live, const char *target, struct error *err)
{
    virDomainBlockJobInfo info;
    int r = virDomainGetBlockJobInfo(live->dom, target, &info, 0);
    if (r < 0)
        return fault_set(err, "cannot ask disk '%s' of domain '%s' for jobs", target, live->name);
    if (r > 0)
        return error_set(err, -EBUSY, "disk '%s' of domain '%s' has a block job running", target,
                         live->name);
    return 0;
}

int view_read(const struct live *live, unsigned flags, struct view *ret_view, struct error *err)
{
    auto_view struct view view = {0};
    view.xml = virDomainGetXMLDesc(live->dom, flags);
    if (!view.xml)
        return fault_set(err, "cannot read the XML of domain '%s'", live->name);
    struct xml_volumes volumes = record_volumes(live->conn);
    int r = xml_read_disks(view.xml, &volumes, &view.disks, &view.n_disks, err);
    if (r < 0)
        return r;
    *ret_view = view;
    /* lint: cppcheck/unreadVariable: the cleanup reads it */
    /* lint: clang-analyzer/deadcode.DeadStores: the cleanup reads it */
    view = (struct view){0};
    return 0;
}

void view_fini(struct view *view)
{
    free(view->xml);
    domain_free_disks(view->disks, view->n_disks);
    *view = (struct view){0};
}

const struct disk *view_find_disk(const struct view *view, const char *target)
{
    for (size_t i = 0; i < view->n_disks; i++)
        if (strcmp(view->disks[i].target, target) == 0)
            return &view->disks[i];
    return NULL;
}

bool view_names_file(const struct view *view, const char *path)
{
    for (size_t i = 0; i < view->n_disks; i++)
        for (size_t j = 0; j < view->disks[i].n_layers; j++)
            if (strcmp(view->disks[i].layers[j].path, path) == 0)
                return true;
    return false;
}
