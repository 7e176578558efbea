/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread that talks to libvirt: connects, keeps the records true, connects again. It alone
 * calls the host's events.
 */
#include <errno.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/host/eventloop.h"
#include "fs/host/fault.h"
#include "fs/host/libvirt.h"
#include "fs/host/libvirt_internal.h"
#include "fs/host/record.h"
#include "fs/log.h"
#include "qcow/base/cleanup.h"

enum {
    KEEPALIVE_S = 5, /* a frozen libvirtd is given up after about four times that */
    KEEPALIVE_COUNT = 3,
    BACKOFF_FIRST_MS = 250,
    BACKOFF_MAX_MS = 8000,
    RESYNC_MS = 60000, /* for what libvirt sends no event about, e.g. a removed managed save */
    N_EVENTS = 5,
};

struct worker {
    struct libvirt_host *lh;
    virConnectPtr conn; /* NULL while there is none */
    int callbacks[N_EVENTS];
    bool has_close_callback;
    bool was_connected;
    bool is_synced;
    unsigned backoff_ms;
    int64_t next_resync_ns;
};

static int64_t after_ms(unsigned ms)
{
    return monotonic_ns() + (int64_t)ms * 1000000;
}

/* ---- callbacks, on the event loop's thread: they only queue ---- */

static void post_changed(struct mailbox *mail, virDomainPtr dom)
{
    char id[VIR_UUID_STRING_BUFLEN];
    _Static_assert(sizeof(id) == MAIL_ID_SIZE, "a UUID as text");
    if (virDomainGetUUIDString(dom, id) == 0)
        mailbox_post_changed(mail, id);
}

static int on_lifecycle(virConnectPtr conn, virDomainPtr dom, int event, int detail, void *ctx)
{
    (void)conn;
    (void)event;
    (void)detail;
    post_changed(ctx, dom);
    return 0;
}

static void on_block_job(virConnectPtr conn, virDomainPtr dom, const char *disk, int type,
                         int status, void *ctx)
{
    (void)conn;
    (void)disk;
    (void)type;
    (void)status;
    post_changed(ctx, dom);
    mailbox_post_job(ctx);
}

static void on_device(virConnectPtr conn, virDomainPtr dom, const char *alias, void *ctx)
{
    (void)conn;
    (void)alias;
    post_changed(ctx, dom);
}

static void on_metadata(virConnectPtr conn, virDomainPtr dom, int type, const char *uri, void *ctx)
{
    (void)conn;
    (void)type;
    (void)uri;
    post_changed(ctx, dom);
}

static void on_closed(virConnectPtr conn, int reason, void *ctx)
{
    (void)conn;
    log_debug("libvirt closed the connection, reason %d", reason);
    mailbox_post_lost(ctx);
}

static void drop_mailbox(void *ctx)
{
    mailbox_unref(ctx);
}

/* By way of void (*)(void), which compilers take for "no type yet". */
#define GENERIC(callback) ((virConnectDomainEventGenericCallback)(void (*)(void))(callback))

static const struct {
    int id;
    virConnectDomainEventGenericCallback callback;
} watched_events[N_EVENTS] = {
    {VIR_DOMAIN_EVENT_ID_LIFECYCLE, GENERIC(on_lifecycle)},
    {VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, GENERIC(on_block_job)},
    {VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, GENERIC(on_device)},
    {VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, GENERIC(on_device)},
    {VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, GENERIC(on_metadata)},
};

/* ---- connection ---- */

/* Drivers lack one thing or another; reading all domains from time to time covers for events. */
static void watch(struct worker *w)
{
    struct mailbox *mail = w->lh->mail;
    for (int i = 0; i < N_EVENTS; i++) {
        w->callbacks[i] = virConnectDomainEventRegisterAny(w->conn, NULL, watched_events[i].id,
                                                           watched_events[i].callback,
                                                           mailbox_ref(mail), drop_mailbox);
        if (w->callbacks[i] < 0)
            mailbox_unref(mail);
    }
    /*
     * Only a driver with a daemon has keepalive, and a connection to lose. Others take a close
     * callback without complaint and never release it.
     */
    w->has_close_callback = false;
    if (virConnectSetKeepAlive(w->conn, KEEPALIVE_S, KEEPALIVE_COUNT) < 0)
        return;
    w->has_close_callback =
        virConnectRegisterCloseCallback(w->conn, on_closed, mailbox_ref(mail), drop_mailbox) == 0;
    if (!w->has_close_callback)
        mailbox_unref(mail);
}

static void unwatch(struct worker *w)
{
    for (int i = 0; i < N_EVENTS; i++)
        if (w->callbacks[i] >= 0)
            virConnectDomainEventDeregisterAny(w->conn, w->callbacks[i]);
    if (w->has_close_callback)
        virConnectUnregisterCloseCallback(w->conn, on_closed);
}

/* @conn: a reference to be given to other threads, or NULL. */
static void publish(struct worker *w, virConnectPtr conn)
{
    struct libvirt_host *lh = w->lh;
    mutex_lock(&lh->lock);
    virConnectPtr old = lh->conn;
    lh->conn = conn;
    cond_wake_all(&lh->changed);
    mutex_unlock(&lh->lock);
    if (old)
        virConnectClose(old);
}

static void disconnect(struct worker *w)
{
    if (!w->conn)
        return;
    publish(w, NULL);
    unwatch(w);
    virConnectClose(w->conn);
    w->conn = NULL;
}

/* An alias of the user's libvirt.conf can lead to another machine. */
static int check_uri(virConnectPtr conn, struct error *err)
{
    auto_free char *uri = virConnectGetURI(conn);
    if (!uri)
        return fault_set(err, "cannot tell where libvirt is");
    if (libvirt_uri_is_remote(uri))
        return error_set(err, -EINVAL, "'%s' names another machine; only local libvirt is served",
                         uri);
    return 0;
}

/* A user's own libvirtd ends when nobody has used it for a while; libvirt starts it for root never.
 * If it cannot be started, the connection that is tried then says why. */
static void wake_libvirtd(const struct worker *w)
{
    if (!broker_is_running() || geteuid() == 0 || !strstr(w->lh->uri, ":///session"))
        return;
    struct broker_call call = {0};
    struct error why = {0};
    if (broker_do(BROKER_WAKE, &call, &why) < 0)
        log_debug("%s", why.text);
    else
        free(call.ret_text);
}

int libvirt_work_wake(struct broker_call *call, struct error *err)
{
    int r = eventloop_init_library(err);
    if (r < 0)
        return r;
    virConnectPtr conn = virConnectOpen(call->ctx);
    if (!conn)
        return fault_set(err, "cannot connect to libvirt '%s'", (const char *)call->ctx);
    virConnectClose(conn);
    return 0;
}

static int connect_libvirt(struct worker *w, struct error *err)
{
    wake_libvirtd(w);
    virConnectPtr conn = virConnectOpen(w->lh->uri);
    if (!conn)
        return fault_set(err, "cannot connect to libvirt '%s'", w->lh->uri);
    int r = check_uri(conn, err);
    if (r < 0) {
        virConnectClose(conn);
        return r;
    }
    w->conn = conn;
    watch(w);
    virConnectRef(conn);
    publish(w, conn);
    return 0;
}

int worker_get_connection(struct libvirt_host *lh, int64_t deadline_ns, virConnectPtr *ret_conn,
                          struct error *err)
{
    mutex_lock(&lh->lock);
    while (!lh->conn && cond_wait_until(&lh->changed, &lh->lock, deadline_ns))
        ;
    virConnectPtr conn = lh->conn;
    if (conn)
        virConnectRef(conn);
    mutex_unlock(&lh->lock);
    if (!conn)
        return error_set(err, -EIO, "no connection to libvirt '%s'", lh->uri);
    *ret_conn = conn;
    return 0;
}

/* ---- records ---- */

/* 1 if readers see a change, 0 if not, -ESTALE if the domain is gone, or another errno. */
static int update_table(struct libvirt_host *lh, virDomainPtr dom, struct error *err)
{
    uint64_t ticket = table_take_ticket(&lh->table);
    char id[VIR_UUID_STRING_BUFLEN];
    struct domain *before =
        virDomainGetUUIDString(dom, id) == 0 ? table_find(&lh->table, id) : NULL;
    struct domain *domain;
    int r = record_read(dom, before, &domain, err);
    domain_unref(before);
    if (r < 0)
        return r;
    r = table_put(&lh->table, domain, ticket);
    return r < 0 ? error_set(err, r, "out of memory") : r;
}

static bool may_tell(const struct worker *w)
{
    return w->is_synced && !mailbox_is_stopped(w->lh->mail);
}

static void tell_changed(const struct worker *w, const char *id)
{
    const struct host_events *events = &w->lh->events;
    struct domain *domain = table_find(&w->lh->table, id);
    if (domain && events->domain_changed && may_tell(w))
        events->domain_changed(events->ctx, domain);
    domain_unref(domain);
}

static void forget_domain(const struct worker *w, const char *id, uint64_t ticket)
{
    const struct host_events *events = &w->lh->events;
    if (table_remove(&w->lh->table, id, ticket) && events->domain_gone && may_tell(w))
        events->domain_gone(events->ctx, id);
}

/* A domain that cannot be read keeps its last record; it is tried again with all the others. */
static void read_domain(struct worker *w, virDomainPtr dom, const char *id)
{
    uint64_t ticket = table_take_ticket(&w->lh->table);
    struct error err = {0};
    int r = update_table(w->lh, dom, &err);
    if (r > 0)
        tell_changed(w, id);
    else if (r == -ESTALE)
        forget_domain(w, id, ticket);
    else if (r < 0)
        log_debug("domain %s: %s", id, err.text);
}

static void refresh(struct worker *w, const char *id)
{
    uint64_t ticket = table_take_ticket(&w->lh->table);
    auto_virdomain virDomainPtr dom = virDomainLookupByUUIDString(w->conn, id);
    if (dom) {
        read_domain(w, dom, id);
        return;
    }
    struct error err = {0};
    if (fault_set(&err, "cannot look up domain %s", id) == -ESTALE)
        forget_domain(w, id, ticket);
    else
        log_debug("%s", err.text);
}

static bool is_alive(const struct worker *w)
{
    return virConnectIsAlive(w->conn) != 0; /* -1: the driver cannot tell */
}

struct roll {
    virDomainPtr *doms;
    size_t n;
};

static void cleanup_roll(struct roll *roll)
{
    for (size_t i = 0; i < roll->n; i++)
        virDomainFree(roll->doms[i]);
    free(roll->doms);
}

static bool is_on_roll(const struct roll *roll, const char *id)
{
    for (size_t i = 0; i < roll->n; i++) {
        char listed[VIR_UUID_STRING_BUFLEN];
        if (virDomainGetUUIDString(roll->doms[i], listed) == 0 && strcmp(listed, id) == 0)
            return true;
    }
    return false;
}

static void forget_missing(struct worker *w, const struct roll *roll, uint64_t ticket)
{
    struct domain **domains;
    size_t n;
    if (table_list(&w->lh->table, &domains, &n) < 0)
        return; /* they go the next time */
    for (size_t i = 0; i < n; i++)
        if (!is_on_roll(roll, domains[i]->id))
            forget_domain(w, domains[i]->id, ticket);
    host_list_free(domains, n);
}

static int resync(struct worker *w, struct error *err)
{
    w->next_resync_ns = after_ms(RESYNC_MS);
    uint64_t ticket = table_take_ticket(&w->lh->table);
    __attribute__((cleanup(cleanup_roll))) struct roll roll = {0};
    int n = virConnectListAllDomains(w->conn, &roll.doms, 0);
    if (n < 0)
        return fault_set(err, "cannot list the domains of '%s'", w->lh->uri);
    roll.n = (size_t)n;
    for (size_t i = 0; i < roll.n; i++) {
        char id[VIR_UUID_STRING_BUFLEN];
        if (mailbox_is_stopped(w->lh->mail) || !is_alive(w))
            return error_set(err, -ENOTCONN, "lost libvirt '%s'", w->lh->uri);
        if (virDomainGetUUIDString(roll.doms[i], id) == 0)
            read_domain(w, roll.doms[i], id);
    }
    forget_missing(w, &roll, ticket);
    return 0;
}

int worker_refresh_domain(struct libvirt_host *lh, virDomainPtr dom, struct error *err)
{
    int r = update_table(lh, dom, err);
    char id[VIR_UUID_STRING_BUFLEN];
    if (r > 0 && virDomainGetUUIDString(dom, id) == 0)
        mailbox_post_announce(lh->mail, id);
    return r < 0 ? r : 0;
}

/* ---- the thread ---- */

/* What libvirt_open() waits for: the first success, or the first failure in its place. */
static void report_open(struct worker *w, const struct error *err)
{
    struct libvirt_host *lh = w->lh;
    mutex_lock(&lh->lock);
    if (err)
        lh->open_error = *err;
    else
        lh->is_synced = true;
    cond_wake_all(&lh->changed);
    mutex_unlock(&lh->lock);
}

static void back_off(struct worker *w, const struct error *err)
{
    log_debug("%s; next try in %u ms", err->text, w->backoff_ms);
    mailbox_sleep(w->lh->mail, after_ms(w->backoff_ms));
    w->backoff_ms = w->backoff_ms * 2 < BACKOFF_MAX_MS ? w->backoff_ms * 2 : BACKOFF_MAX_MS;
}

/* Connects and reads all domains, or waits a while. */
static void try_connect(struct worker *w)
{
    struct error err = {0};
    int r = connect_libvirt(w, &err);
    if (r == 0)
        r = resync(w, &err);
    if (r < 0) {
        disconnect(w);
        if (r != -EINVAL && r != -ENOMEM)
            err.code = -ENOTCONN;
        if (!w->is_synced)
            report_open(w, &err);
        back_off(w, &err);
        return;
    }
    if (w->was_connected)
        log_info("connected to libvirt '%s' again", w->lh->uri);
    w->was_connected = true;
    w->backoff_ms = BACKOFF_FIRST_MS;
    w->is_synced = true;
    report_open(w, NULL);
}

static void check_connection(struct worker *w)
{
    if (is_alive(w) || mailbox_is_stopped(w->lh->mail))
        return;
    log_warn("lost the connection to libvirt '%s'; the last known state is shown until it is back",
             w->lh->uri);
    disconnect(w);
}

static void serve_mail(struct worker *w)
{
    char id[MAIL_ID_SIZE];
    struct error err = {0};
    switch (mailbox_take(w->lh->mail, w->next_resync_ns, id)) {
    case MAIL_STOP:
    case MAIL_LOST:
        break;
    case MAIL_NONE:
    case MAIL_RESYNC:
        if (resync(w, &err) < 0)
            log_debug("%s", err.text);
        break;
    case MAIL_CHANGED:
        refresh(w, id);
        break;
    case MAIL_ANNOUNCE:
        tell_changed(w, id);
        break;
    }
    check_connection(w);
}

/* True if the host is this thread's to free. */
static bool report_end(struct libvirt_host *lh)
{
    mutex_lock(&lh->lock);
    lh->has_ended = true;
    bool is_abandoned = lh->is_abandoned;
    cond_wake_all(&lh->changed);
    mutex_unlock(&lh->lock);
    return is_abandoned;
}

static void *run_worker(void *arg)
{
    struct libvirt_host *lh = arg;
    struct worker w = {.lh = lh, .backoff_ms = BACKOFF_FIRST_MS};
    while (!mailbox_is_stopped(lh->mail)) {
        if (w.conn)
            serve_mail(&w);
        else
            try_connect(&w);
    }
    disconnect(&w);
    if (report_end(lh)) {
        eventloop_stop();
        libvirt_destroy(lh);
    }
    return NULL;
}

int worker_start(struct libvirt_host *lh, struct error *err)
{
    int r = eventloop_spawn(&lh->worker, run_worker, lh);
    return r < 0 ? error_set(err, r, "cannot start a thread: %s", strerrordesc_np(-r)) : 0;
}
