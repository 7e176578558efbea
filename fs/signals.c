/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/signals.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

#include "fs/log.h"
#include "qcow/base/cleanup.h"

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

/* The signal that came, or 0 once the mount is detached. */
static int wait_for_reason(struct signals *signals, int signal_fd, int table_fd)
{
    const struct signals_config *config = &signals->config;
    int peer_fd = config->peer_fd;
    for (;;) {
        struct pollfd fds[] = {{.fd = signal_fd, .events = POLLIN},
                               {.fd = table_fd, .events = POLLPRI},
                               {.fd = peer_fd}}; /* POLLHUP is always told */
        if (poll(fds, 3, -1) < 0)
            continue; /* EINTR: a debugger */
        struct signalfd_siginfo info;
        if (fds[0].revents && read(signal_fd, &info, sizeof(info)) == sizeof(info))
            return (int)info.ssi_signo;
        if (fds[1].revents && config->is_detached(config->ctx))
            return 0;
        if (fds[2].revents) {
            config->on_lost(config->ctx);
            peer_fd = -1;
        }
    }
}

static void *wait_for_end(void *arg)
{
    struct signals *signals = arg;
    sigset_t set;
    fill_set(&set);
    auto_close int signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    /* proc(5): poll() tells of changes by POLLPRI; without /proc there are just the signals */
    auto_close int table_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    int number = 0;
    if (signal_fd >= 0)
        number = wait_for_reason(signals, signal_fd, table_fd);
    else if (sigwait(&set, &number) != 0)
        return NULL;
    if (atomic_load(&signals->is_over))
        return NULL;
    log_info("%s: stopping", number ? sigdescr_np(number) : "unmounted");
    signals->config.on_stop(signals->config.ctx);
    return NULL;
}

int signals_start(struct signals *signals, const struct signals_config *config, struct error *err)
{
    signals->config = *config;
    atomic_init(&signals->is_over, false);
    int r = pthread_create(&signals->thread, NULL, wait_for_end, signals);
    return r ? error_set(err, -r, "cannot start a thread: %s", strerrordesc_np(r)) : 0;
}

/* The signal is for that thread alone, and harmless if the thread has ended already. */
void signals_finish(struct signals *signals)
{
    atomic_store(&signals->is_over, true);
    /* lint: clang-tidy/bugprone-bad-signal-to-kill-thread: a signalfd takes it there */
    pthread_kill(signals->thread, SIGTERM);
    pthread_join(signals->thread, NULL);
}
