/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/sandbox/broker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fs/log.h"
#include "fs/sandbox/sandbox_internal.h"
#include "qcow/base/cleanup.h"

/*
 * A request is one message: the task's number, then its strings, each with its end. With it comes
 * a socket for the answer, which is one message as well: the result, then a text, and perhaps a
 * descriptor.
 */
enum { TASK_DETACH = N_BROKER_TASKS, CONTROL_FD = 3, WAIT_MS = 1000 };

struct request {
    uint32_t task;
    char text[BROKER_TEXT_MAX];
};

struct answer {
    int32_t result;
    char text[BROKER_TEXT_MAX]; /* what the task tells, or why it failed */
};

static int control_fd = -1; /* set once, before there are threads */
static void *kept;          /* the broker's own */

/* ---- messages ---- */

/* 0 or negative errno. */
static int send_message(int fd, void *data, size_t len, int passed_fd)
{
    struct iovec part = {.iov_base = data, .iov_len = len};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (passed_fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &passed_fd, sizeof(int));
    }
    ssize_t n;
    do
        n = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

/* Bytes, 0 at the end, or negative errno; @ret_fd is -1 if none came. */
static ssize_t receive_message(int fd, void *data, size_t room, int *ret_fd)
{
    struct iovec part = {.iov_base = data, .iov_len = room};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t n;
    do
        n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    *ret_fd = -1;
    if (n < 0)
        return -errno;
    const struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(ret_fd, CMSG_DATA(head), sizeof(int));
    return n;
}

/* ---- the broker's side ---- */

/* Points into @request. False if its strings are not as we send them. */
static bool parse_request(struct request *request, size_t len, struct broker_call *call)
{
    size_t text_len = len - offsetof(struct request, text);
    if (len < offsetof(struct request, text) || (text_len && request->text[text_len - 1]))
        return false;
    for (size_t at = 0; at < text_len; at += strlen(request->text + at) + 1) {
        if (call->n_args == BROKER_ARGS_MAX)
            return false;
        call->args[call->n_args++] = request->text + at;
    }
    return true;
}

static int work(const struct broker_config *config, struct request *request, size_t len,
                struct broker_call *call, struct error *err)
{
    if (!parse_request(request, len, call) || request->task >= N_BROKER_TASKS ||
        !config->workers[request->task].run)
        return error_set(err, -EPERM, "the broker does not do that");
    call->ctx = config->workers[request->task].ctx;
    return config->workers[request->task].run(call, err);
}

static void answer_request(const struct broker_config *config, struct request *request, size_t len,
                           int reply_fd)
{
    struct error err = {0};
    struct broker_call call = {.kept = kept, .ret_fd = -1};
    struct answer answer = {.result = work(config, request, len, &call, &err)};
    const char *text = answer.result < 0 ? err.text : call.ret_text ? call.ret_text : "";
    size_t text_len = strnlen(text, sizeof(answer.text) - 1);
    memcpy(answer.text, text, text_len);
    send_message(reply_fd, &answer, offsetof(struct answer, text) + text_len + 1, call.ret_fd);
    free(call.ret_text);
}

/* In a child, so that the next request need not wait. _exit: what atexit runs is the program's. */
static void handle_request(const struct broker_config *config, struct request *request, size_t len,
                           int reply_fd)
{
    if (request->task == TASK_DETACH) {
        /* Not before the mount: an automount of systemd's lets its own process group alone through
         * to the place, and all others wait there until it is mounted (autofs). */
        setsid();
        config->leave_terminal();
        struct answer answer = {0};
        send_message(reply_fd, &answer, offsetof(struct answer, text) + 1, -1);
        return;
    }
    if (fork() != 0)
        return; /* -1: the reply's end closes, which the other side takes for a failure */
    close(CONTROL_FD);
    signal(SIGCHLD, SIG_DFL);
    answer_request(config, request, len, reply_fd);
    _exit(0);
}

static void drop_privileges(void)
{
    if (geteuid() != 0)
        return; /* fusermount3 is setuid */
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    capabilities_keep(capabilities_of_broker(), capabilities_of_broker());
}

static _Noreturn void serve(const struct broker_config *config, int fd)
{
    prctl(PR_SET_NAME, "virtsnapfs-brok", 0, 0, 0);
    signal(SIGCHLD, SIG_IGN); /* children leave no zombies */
    signal(SIGQUIT, SIG_IGN); /* the others that end programs are blocked: signals_block() */
    if (config->forget)
        config->forget(config->forget_ctx);
    dup2(fd, CONTROL_FD);
    close_range(CONTROL_FD + 1, ~0U, 0);
    /* Shared with the children that do the calls; the program was forked before. */
    /* lint: cppcheck/invalidFunctionArg: anonymous memory is asked for with -1, mmap(2) */
    kept = mmap(NULL, BROKER_KEPT_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (kept == MAP_FAILED)
        _exit(1);
    drop_privileges();
    static struct request request;
    for (;;) {
        auto_close int reply_fd = -1;
        ssize_t len = receive_message(CONTROL_FD, &request, sizeof(request), &reply_fd);
        if (len <= 0)
            _exit(0);
        if (reply_fd >= 0 && (size_t)len >= sizeof(request.task))
            handle_request(config, &request, (size_t)len, reply_fd);
    }
}

/* ---- the program's side ---- */

int broker_start(const struct broker_config *config, struct error *err)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return error_set(err, -errno, "cannot make sockets: %s", strerrordesc_np(errno));
    pid_t pid = fork();
    if (pid == 0)
        serve(config, fds[1]);
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return error_set(err, -errno, "cannot fork: %s", strerrordesc_np(errno));
    }
    control_fd = fds[0];
    return 0;
}

bool broker_is_running(void)
{
    return control_fd >= 0;
}

int broker_fd(void)
{
    return control_fd;
}

static int fill_request(enum broker_task task, const struct broker_call *call,
                        struct request *request, size_t *ret_len)
{
    request->task = task;
    size_t at = 0;
    for (size_t i = 0; i < call->n_args; i++) {
        size_t len = strlen(call->args[i]) + 1;
        if (len > sizeof(request->text) - at)
            return -ENAMETOOLONG;
        memcpy(request->text + at, call->args[i], len);
        at += len;
    }
    *ret_len = offsetof(struct request, text) + at;
    return 0;
}

static void wait_answer(int fd, const struct broker_call *call)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    while (call->on_wait && poll(&poll_fd, 1, WAIT_MS) <= 0)
        call->on_wait(call->wait_ctx);
}

/* Sends, and waits for the answer. Bytes of the answer, or negative errno. */
static ssize_t ask(const struct broker_call *call, struct request *request, size_t len,
                   struct answer *answer, int *ret_fd)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    auto_close int fd = fds[0];
    int r = send_message(control_fd, request, len, fds[1]);
    close(fds[1]); /* so that the end of the broker's copy is the end */
    if (r < 0)
        return r;
    wait_answer(fd, call);
    return receive_message(fd, answer, sizeof(*answer), ret_fd);
}

int broker_do(enum broker_task task, struct broker_call *call, struct error *err)
{
    auto_free struct request *request = malloc(sizeof(*request));
    auto_free struct answer *answer = malloc(sizeof(*answer));
    if (!request || !answer)
        return error_set(err, -ENOMEM, "out of memory");
    size_t len = 0;
    int fd = -1;
    ssize_t n = fill_request(task, call, request, &len);
    if (n == 0)
        n = ask(call, request, len, answer, &fd);
    auto_close int passed_fd = fd;
    if (n < (ssize_t)offsetof(struct answer, text) + 1)
        return error_set(err, -EIO, "the broker process does not answer: %s",
                         n < 0 ? strerrordesc_np((int)-n) : "it has ended");
    answer->text[(size_t)n - offsetof(struct answer, text) - 1] = '\0';
    if (answer->result < 0)
        return error_set(err, answer->result, "%s", answer->text);
    call->ret_text = strdup(answer->text);
    if (!call->ret_text)
        return error_set(err, -ENOMEM, "out of memory");
    call->ret_fd = take_fd(passed_fd);
    return answer->result;
}

void broker_detach(void)
{
    if (!broker_is_running())
        return;
    struct broker_call call = {0};
    struct error ignored;
    if (broker_do((enum broker_task)TASK_DETACH, &call, &ignored) == 0)
        free(call.ret_text);
}

void broker_stop(void)
{
    if (broker_is_running())
        close(take_fd(control_fd));
}
