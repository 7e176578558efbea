/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of the process: options, detach, connect, mount, serve, tear down.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/alive.h"
#include "fs/cloud.h"
#include "fs/confine.h"
#include "fs/daemon.h"
#include "fs/errand.h"
#include "fs/full.h"
#include "fs/fuse/mount.h"
#include "fs/fuse/mountpoint.h"
#include "fs/helper.h"
#include "fs/host/directory.h"
#include "fs/host/file.h"
#include "fs/host/libvirt.h"
#include "fs/log.h"
#include "fs/notify.h"
#include "fs/options.h"
#include "fs/sandbox/broker.h"
#include "fs/session/journal.h"
#include "fs/session/registry.h"
#include "fs/session/space.h"
#include "fs/session/stamps.h"
#include "fs/session/unclaimed.h"
#include "fs/signals.h"
#include "qcow/base/cleanup.h"
#include "qcow/base/thread.h"
#include "qcow/qcow.h"

/* Contract section 7. */
enum exit_status {
    EXIT_FINE = 0,
    EXIT_USAGE = 1,
    EXIT_SYSTEM = 2,
    EXIT_NO_LIBVIRT = 3,
    EXIT_NO_MOUNT = 4,
    EXIT_LEFTOVERS = 5,
    EXIT_DIED = 7,
};

/*
 * The host reports events from the moment it is opened, and the registry that wants them needs the
 * host first: until it is there, and once it is about to go, events are dropped. Early ones are in
 * the records that the registry begins with.
 */
struct event_relay {
    struct mutex lock;
    struct registry *registry GUARDED_BY(lock);
};

/* What main() builds, in order, and takes down in reverse. */
struct program {
    struct options options;
    struct helper helper;
    struct notify notify;
    struct daemon daemon;
    struct event_relay relay;
    struct qcow_cache *cache;
    struct host *host;
    struct journal *journal;
    struct registry *registry;
    struct stamps *stamps;
    struct mount *mount;
    struct alive *alive;
    struct cloud cloud;
    struct sandbox_report sandbox;
    unsigned n_refused; /* leftovers that nobody but a person can judge */
    bool is_held_up;    /* by threads in calls that nobody can take back */
};

static void relay_changed(void *ctx, const struct domain *domain)
{
    struct event_relay *relay = ctx;
    mutex_lock(&relay->lock);
    if (relay->registry)
        registry_domain_changed(relay->registry, domain);
    mutex_unlock(&relay->lock);
}

static void relay_gone(void *ctx, const char *id)
{
    struct event_relay *relay = ctx;
    mutex_lock(&relay->lock);
    if (relay->registry)
        registry_domain_gone(relay->registry, id);
    mutex_unlock(&relay->lock);
}

static void set_relay(struct event_relay *relay, struct registry *registry)
{
    mutex_lock(&relay->lock);
    relay->registry = registry;
    mutex_unlock(&relay->lock);
}

static enum directory_format directory_format_of(enum options_format format)
{
    switch (format) {
    case OPTIONS_FORMAT_RAW:
        return DIRECTORY_FORMAT_RAW;
    case OPTIONS_FORMAT_QCOW2:
        return DIRECTORY_FORMAT_QCOW2;
    case OPTIONS_FORMAT_NONE:
        break;
    }
    return DIRECTORY_FORMAT_NONE;
}

static int open_directory(struct program *p, struct error *err)
{
    struct directory_config config = {
        .path = p->options.dir,
        .backing_dirs = (const char *const *)p->options.backing_dirs,
        .n_backing_dirs = p->options.n_backing_dirs,
        .format = directory_format_of(p->options.format),
    };
    if (directory_open(&config, &p->host, err) < 0)
        return EXIT_SYSTEM;
    return directory_confine_images(&config, err) < 0 ? EXIT_SYSTEM : EXIT_FINE;
}

static int open_libvirt(struct program *p, struct error *err)
{
    struct libvirt_config config = {
        .uri = p->options.source,
        .backing_dirs = (const char *const *)p->options.backing_dirs,
        .n_backing_dirs = p->options.n_backing_dirs,
        .scratch_dir = p->options.scratch_dir,
        .timeout_ms = p->options.timeout_s * 1000,
        .events = {.domain_changed = relay_changed, .domain_gone = relay_gone, .ctx = &p->relay},
    };
    switch (libvirt_open(&config, &p->host, err)) {
    case 0:
        return EXIT_FINE;
    case -EINVAL:
        return EXIT_USAGE;
    case -ENOTCONN:
        return EXIT_NO_LIBVIRT;
    default:
        return EXIT_SYSTEM;
    }
}

static int open_host(struct program *p, struct error *err)
{
    if (p->options.dir)
        return open_directory(p, err);
    if (libvirt_uri_is_remote(p->options.source)) {
        error_set(err, -EINVAL,
                  "'%s' names another machine; its disks' paths would be taken for local ones",
                  p->options.source);
        return EXIT_USAGE;
    }
    return open_libvirt(p, err);
}

static const enum live_method live_methods[] = {
    [OPTIONS_LIVE_AUTO] = LIVE_AUTO,
    [OPTIONS_LIVE_OVERLAY] = LIVE_OVERLAY,
    [OPTIONS_LIVE_BACKUP] = LIVE_BACKUP,
    [OPTIONS_LIVE_COPY] = LIVE_COPY,
    [OPTIONS_LIVE_MANAGEDSAVE] = LIVE_MANAGEDSAVE,
};
static const enum cold_method cold_methods[] = {
    [OPTIONS_COLD_LOCK] = COLD_LOCK,
    [OPTIONS_COLD_INTERNAL] = COLD_INTERNAL,
    [OPTIONS_COLD_OVERLAY] = COLD_OVERLAY,
};
static const enum quiesce_policy quiesce_policies[] = {
    [OPTIONS_QUIESCE_TRY] = QUIESCE_TRY,
    [OPTIONS_QUIESCE_REQUIRE] = QUIESCE_REQUIRE,
    [OPTIONS_QUIESCE_NEVER] = QUIESCE_NEVER,
};

static const enum tree_list tree_lists[] = {
    [OPTIONS_LIST_RAW] = TREE_LIST_RAW,
    [OPTIONS_LIST_QCOW2] = TREE_LIST_QCOW2,
    [OPTIONS_LIST_ALL] = TREE_LIST_ALL,
};

static int create_registry(struct program *p, struct error *err)
{
    struct registry_config config = {
        .host = p->host,
        .cache = p->cache,
        .journal = p->journal,
        .live = live_methods[p->options.live],
        .cold = cold_methods[p->options.cold],
        .quiesce = quiesce_policies[p->options.quiesce],
        .min_free = p->options.min_free_len == OPTIONS_MIN_FREE_DEFAULT ? SPACE_MIN_FREE_DEFAULT
                                                                        : p->options.min_free_len,
        .timeout_ms = p->options.timeout_s * 1000,
        .join_s = p->options.join_s,
        .linger_s = p->options.linger_s,
        .max_hold_s = p->options.max_hold_s,
        .max_open = p->options.max_open,
        .sandbox = p->sandbox,
    };
    int r = registry_create(&config, &p->registry, err);
    if (r == 0)
        set_relay(&p->relay, p->registry);
    return r;
}

static int open_mount(struct program *p, struct error *err)
{
    struct mount_config config = {
        .tree = {.host = p->host,
                 .registry = p->registry,
                 .stamps = p->stamps,
                 .uid = p->options.uid,
                 .gid = p->options.gid,
                 .umask = p->options.umask,
                 .list = tree_lists[p->options.list]},
        .attach = confine_describe_mount(&p->options),
        .glance = p->cloud.glance,
        .no_glance = p->cloud.refusal.code < 0 ? p->cloud.refusal.text : NULL,
        .max_uploads = p->options.max_uploads,
        .is_single_thread = p->options.is_single_thread,
    };
    return mount_open(&config, &p->mount, err);
}

/* From the mount on, `--wait` waits for us; where that cannot be, serving is still worth it. */
static void begin_alive(struct program *p)
{
    struct error err = {0};
    if (alive_begin(p->options.state_dir, mount_path(p->mount), p->options.source, &p->alive,
                    &err) < 0)
        log_warn("%s: virtsnapfs --wait will not wait for this server", err.text);
}

static int start(struct program *p, struct error *err)
{
    if (confine_enter(&p->options, &p->cloud, &p->sandbox, err) < 0 ||
        cloud_start(&p->cloud, p->options.timeout_s, err) < 0 ||
        qcow_cache_create(p->options.cache_len, &p->cache, err) < 0 ||
        qcow_cache_set_threads(p->cache, p->options.n_threads, err) < 0)
        return EXIT_SYSTEM;
    int status = open_host(p, err);
    if (status != EXIT_FINE)
        return status;
    if (journal_open(p->options.state_dir, p->options.source, &p->journal, err) < 0 ||
        create_registry(p, err) < 0 ||
        stamps_open(p->options.state_dir, p->options.source, &p->stamps, err) < 0)
        return EXIT_SYSTEM;
    if (open_mount(p, err) < 0)
        return EXIT_NO_MOUNT;
    begin_alive(p);
    return file_forbid_tree(mount_path(p->mount), err) < 0 ? EXIT_SYSTEM : EXIT_FINE;
}

/* Domains are put back while the mount still answers, so that readers get their errors. */
static void stop(void *ctx)
{
    struct program *p = ctx;
    notify_send(&p->notify, NOTIFY_STOPPING);
    mount_cancel_uploads(p->mount);
    registry_shutdown(p->registry); /* guests do not wait for Glance */
    mount_end_uploads(p->mount);
    mount_stop(p->mount);
}

static bool is_detached(void *ctx)
{
    const struct program *p = ctx;
    return mount_is_detached(p->mount);
}

/* Reading goes on, and so does putting back guests that run: libvirt does that. */
static void tell_broker_lost(void *ctx)
{
    (void)ctx;
    log_error("the broker, the process that works outside of the sandbox, was killed: nothing is "
              "merged any more that takes qemu-img, and the end will not unmount; mount again");
}

static void note_damaged(void *ctx, const char *path, const struct error *why)
{
    struct program *p = ctx;
    p->n_refused++;
    log_error("journal '%s' is left as it is: %s", path, why->text);
}

static void note_refused(void *ctx, const char *name, const struct error *why)
{
    struct program *p = ctx;
    p->n_refused++;
    log_error("domain '%s' is left as it is: %s", name, why->text);
}

/* What daemons before us left is undone in the background. */
static int recover(struct program *p, struct error *err)
{
    struct journal_leftover *leftovers = NULL;
    size_t n = 0;
    int r = journal_adopt(p->journal, note_damaged, p, &leftovers, &n, err);
    registry_recover(p->registry, leftovers, n);
    free(leftovers);
    return r;
}

/* The same for overlays that no journal names, only if somebody asks for it. */
static int recover_unclaimed(struct program *p, struct error *err)
{
    struct journal_leftover *leftovers = NULL;
    size_t n = 0;
    /* What is being undone just now would look like an overlay that no journal names. */
    registry_await_recovery(p->registry);
    int r = unclaimed_adopt(p->journal, p->host, note_refused, p, &leftovers, &n, err);
    registry_recover(p->registry, leftovers, n);
    free(leftovers);
    return r;
}

static int serve(struct program *p, struct error *err)
{
    const struct signals_config config = {.is_detached = is_detached,
                                          .on_stop = stop,
                                          .peer_fd = broker_fd(),
                                          .on_lost = tell_broker_lost,
                                          .ctx = p};
    struct signals signals;
    if (signals_start(&signals, &config, err) < 0)
        return EXIT_SYSTEM;
    struct error why = {0};
    if (recover(p, &why) < 0)
        log_error("%s", why.text);
    if (!p->options.is_foreground)
        broker_detach();
    helper_say_mounted(&p->helper, &p->options);
    daemon_ready(&p->daemon);
    notify_send(&p->notify, NOTIFY_READY);
    log_info("serving '%s' on '%s'", p->options.source, p->options.mountpoint);
    int r = mount_serve(p->mount, err);
    notify_send(&p->notify, NOTIFY_STOPPING); /* whether by stop() or because of an unmount */
    signals_finish(&signals);
    return r < 0 ? EXIT_DIED : EXIT_FINE;
}

/* What the threads of instants use. */
static void destroy_instants(struct program *p)
{
    if (p->registry)
        registry_destroy(p->registry);
    journal_close(p->journal);
    if (p->host)
        p->host->ops->close(p->host);
    qcow_cache_destroy(p->cache);
}

static void tear_down(struct program *p)
{
    if (p->mount)
        mount_cancel_uploads(p->mount);
    p->is_held_up = p->registry && registry_shutdown(p->registry) > 0;
    if (p->mount)
        mount_end_uploads(p->mount);
    mount_close(p->mount);
    cloud_end(&p->cloud);
    set_relay(&p->relay, NULL);
    if (!p->is_held_up)
        destroy_instants(p);
    stamps_close(p->stamps);
    alive_end(p->alive);
    broker_stop();
}

static int run(struct program *p)
{
    struct error err = {0};
    if (helper_begin(&p->helper, &p->options, &err) < 0) {
        log_error("%s", err.text);
        return err.code == -EINVAL ? EXIT_USAGE : EXIT_NO_MOUNT;
    }
    if (p->helper.is_fake)
        return EXIT_FINE;
    if (errand_check_free(&p->options, &err) < 0) {
        log_error("%s", err.text);
        return EXIT_NO_MOUNT;
    }
    signals_block();
    notify_begin(&p->notify);
    if (cloud_load(p->options.cloud, &p->cloud, &err) < 0) {
        log_error("%s", err.text);
        return EXIT_SYSTEM;
    }
    if (!p->options.is_foreground && daemon_fork(&p->daemon, &err) < 0) {
        log_error("%s", err.text);
        return EXIT_SYSTEM;
    }
    int status = start(p, &err);
    if (status == EXIT_FINE)
        status = serve(p, &err);
    if (status != EXIT_FINE)
        log_error("%s", err.text);
    tear_down(p);
    daemon_fail(&p->daemon, helper_status(&p->helper, status));
    notify_end(&p->notify);
    return status;
}

/* Up to where a mount would begin. */
static int start_recovery(struct program *p, struct error *err)
{
    if (confine_enter(&p->options, &p->cloud, &p->sandbox, err) < 0 ||
        qcow_cache_create(p->options.cache_len, &p->cache, err) < 0)
        return EXIT_SYSTEM;
    int status = open_host(p, err);
    if (status != EXIT_FINE)
        return status;
    if (journal_open(p->options.state_dir, p->options.source, &p->journal, err) < 0 ||
        create_registry(p, err) < 0)
        return EXIT_SYSTEM;
    return EXIT_FINE;
}

/*
 * `--recover`: in the foreground. A signal may end it at any point; what it has not undone is
 * still in the journal then.
 */
static int recover_and_end(struct program *p)
{
    struct error err = {0};
    signal(SIGPIPE, SIG_IGN); /* a libvirtd that dies */
    int status = start_recovery(p, &err);
    if (status == EXIT_FINE && (recover(p, &err) < 0 || recover_unclaimed(p, &err) < 0))
        status = EXIT_SYSTEM;
    if (status != EXIT_FINE)
        log_error("%s", err.text);
    size_t n_left = p->registry ? registry_await_recovery(p->registry) : 0;
    tear_down(p);
    return status == EXIT_FINE && n_left + p->n_refused > 0 ? EXIT_LEFTOVERS : status;
}

static int act(struct program *p)
{
    switch (p->options.action) {
    case OPTIONS_SERVE:
        return run(p);
    case OPTIONS_RECOVER:
        return recover_and_end(p);
    case OPTIONS_WAIT:
        return errand_wait(&p->options) < 0 ? EXIT_SYSTEM : EXIT_FINE;
    case OPTIONS_STATUS:
        return errand_status(&p->options) < 0 ? EXIT_SYSTEM : EXIT_FINE;
    case OPTIONS_HELP:
        p->helper.is_called ? helper_print_help(stdout) : options_print_help(stdout);
        break;
    case OPTIONS_VERSION:
        printf("virtsnapfs %s\n", VIRTSNAPFS_VERSION);
        break;
    }
    return EXIT_FINE;
}

int main(int argc, char **argv)
{
    if (daemon_open_streams() < 0)
        return EXIT_SYSTEM; /* there is nowhere to say it */
    /*
     * One arena: clusters that one thread inflates are freed by another. With an arena for each
     * thread, reading a zlib image to the end took 108 MB of memory in place of 87.
     */
    /* lint: clang-tidy/concurrency-mt-unsafe: there is one thread yet */
    mallopt(M_ARENA_MAX, 1);
    struct program p = {.daemon = DAEMON_FOREGROUND, .notify = NOTIFY_NONE};
    mutex_init(&p.relay.lock);
    struct error err = {0};
    int status = EXIT_FINE;
    int r = helper_parse(argc, argv, &p.helper, &p.options, &err);
    if (r == 0)
        r = full_become(&p.options, argv, &err);
    log_init(p.options.is_debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    if (r < 0) {
        log_error("%s", err.text);
        status = r == -EINVAL ? EXIT_USAGE : EXIT_SYSTEM;
    } else {
        status = act(&p);
    }
    status = helper_status(&p.helper, status);
    if (p.is_held_up) { /* the threads may come to life, and find nothing of libvirt's destroyed */
        fflush(NULL);
        _exit(status);
    }
    helper_fini(&p.helper);
    options_fini(&p.options);
    mutex_fini(&p.relay.lock);
    return status;
}
