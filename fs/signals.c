/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/signals.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>

#include "fs/log.h"

static void fill_set(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

void signals_block(void)
{
    sigset_t set;
    fill_set(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void *wait_for_signal(void *arg)
{
    struct signals *signals = arg;
    sigset_t set;
    fill_set(&set);
    int number;
    if (sigwait(&set, &number) != 0 || atomic_load(&signals->is_over))
        return NULL;
    log_info("%s: stopping", strsignal(number));
    signals->on_stop(signals->ctx);
    return NULL;
}

int signals_start(struct signals *signals, void (*on_stop)(void *ctx), void *ctx, struct error *err)
{
    signals->on_stop = on_stop;
    signals->ctx = ctx;
    atomic_init(&signals->is_over, false);
    int r = pthread_create(&signals->thread, NULL, wait_for_signal, signals);
    return r ? error_set(err, -r, "cannot start a thread: %s", strerrordesc_np(r)) : 0;
}

/* The signal is for that thread alone, and harmless if the thread has ended already. */
void signals_finish(struct signals *signals)
{
    atomic_store(&signals->is_over, true);
    pthread_kill(signals->thread, SIGTERM);
    pthread_join(signals->thread, NULL);
}
