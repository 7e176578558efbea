/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/eventloop.h"

#include <errno.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <libxml/parser.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/fault.h"
#include "fs/sandbox/broker.h"
#include "qcow/base/thread.h"

enum {
    STOP_TICK_MS = 5,
    /*
     * libvirt frees what belongs to a closed connection in low-priority callbacks, one or more
     * turns of the loop after the close.
     */
    STOP_TICKS = 6,
};

struct loop {
    pthread_t thread;
    int timer;        /* of libvirt; disabled until the loop is to stop */
    bool is_stopping; /* atomic */
};

static struct mutex loop_lock = MUTEX_INITIALIZER;
static struct loop *the_loop GUARDED_BY(loop_lock);
static unsigned n_users GUARDED_BY(loop_lock);

static pthread_once_t library_once = PTHREAD_ONCE_INIT;
static int library_result;

static void ignore_error(void *ctx, virErrorPtr error)
{
    (void)ctx;
    (void)error;
}

static void init_library(void)
{
    /* Its warnings would go to stderr beside our own line on the same matter (4: errors only). */
    /* lint: clang-tidy/concurrency-mt-unsafe: no thread of ours reads variables yet */
    setenv("LIBVIRT_DEBUG", "4", 0);
    /* The broker starts a user's own libvirtd; in its sandbox the program cannot. */
    if (broker_is_running())
        /* lint: clang-tidy/concurrency-mt-unsafe: nobody else changes the environment */
        setenv("LIBVIRT_AUTOSTART", "0", 1);
    xmlInitParser();
    library_result = virInitialize();
    virSetErrorFunc(NULL, ignore_error);
    if (library_result == 0)
        library_result = virEventRegisterDefaultImpl();
}

int eventloop_init_library(struct error *err)
{
    pthread_once(&library_once, init_library);
    if (library_result < 0)
        return error_set(err, -EIO, "libvirt cannot be initialised");
    return 0;
}

int eventloop_spawn(pthread_t *ret_thread, void *(*run)(void *), void *arg)
{
    return thread_start(run, arg, ret_thread);
}

static void wake(int timer, void *ctx)
{
    (void)timer;
    (void)ctx;
}

static void *run_loop(void *arg)
{
    struct loop *loop = arg;
    while (!__atomic_load_n(&loop->is_stopping, __ATOMIC_ACQUIRE))
        virEventRunDefaultImpl();
    for (int i = 0; i < STOP_TICKS; i++)
        virEventRunDefaultImpl();
    return NULL;
}

static int create_loop(struct loop **ret_loop, struct error *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return error_set(err, -ENOMEM, "out of memory");
    loop->timer = virEventAddTimeout(-1, wake, NULL, NULL);
    if (loop->timer < 0) {
        free(loop);
        return fault_set(err, "cannot set up the event loop");
    }
    int r = eventloop_spawn(&loop->thread, run_loop, loop);
    if (r < 0) {
        virEventRemoveTimeout(loop->timer);
        free(loop);
        return error_set(err, r, "cannot start a thread: %s", strerrordesc_np(-r));
    }
    *ret_loop = loop;
    return 0;
}

int eventloop_start(struct error *err)
{
    int r = 0;
    mutex_lock(&loop_lock);
    if (!the_loop)
        r = create_loop(&the_loop, err);
    if (r == 0)
        n_users++;
    mutex_unlock(&loop_lock);
    return r;
}

void eventloop_stop(void)
{
    struct loop *loop = NULL;
    mutex_lock(&loop_lock);
    if (--n_users == 0) {
        loop = the_loop;
        the_loop = NULL;
    }
    mutex_unlock(&loop_lock);
    if (!loop)
        return;
    __atomic_store_n(&loop->is_stopping, true, __ATOMIC_RELEASE);
    virEventUpdateTimeout(loop->timer, STOP_TICK_MS);
    pthread_join(loop->thread, NULL);
    virEventRemoveTimeout(loop->timer);
    free(loop);
}
