/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fs/log.h"
#include "qcow/base/cleanup.h"

/* A path, or with '@' in front a name of the abstract kind. The address's length, or 0: neither. */
static socklen_t make_address(const char *name, struct sockaddr_un *ret_address)
{
    size_t len = strlen(name);
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if ((name[0] != '/' && name[0] != '@') || len < 2 || len >= sizeof(ret_address->sun_path))
        return 0;
    memcpy(ret_address->sun_path, name, len);
    if (name[0] == '@')
        ret_address->sun_path[0] = '\0';
    /* An abstract name's end is told by the length alone; a path has a NUL behind it. */
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (name[0] == '/'));
}

void notify_begin(struct notify *ret_notify)
{
    *ret_notify = NOTIFY_NONE;
    /* lint: clang-tidy/concurrency-mt-unsafe: there is one thread yet */
    const char *name = getenv("NOTIFY_SOCKET");
    if (!name)
        return;
    struct sockaddr_un address;
    socklen_t len = make_address(name, &address);
    auto_close int fd = len ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, len) == 0)
        ret_notify->fd = take_fd(fd);
    else
        log_warn("cannot reach NOTIFY_SOCKET '%s': the service manager is told nothing", name);
    /* lint: clang-tidy/concurrency-mt-unsafe: there is one thread yet */
    unsetenv("NOTIFY_SOCKET");
}

void notify_end(struct notify *notify)
{
    if (notify->fd >= 0)
        close(notify->fd);
    *notify = NOTIFY_NONE;
}

void notify_send(const struct notify *notify, const char *lines)
{
    if (notify->fd >= 0 && send(notify->fd, lines, strlen(lines), MSG_NOSIGNAL) < 0)
        log_debug("cannot tell the service manager: %s", strerrordesc_np(errno));
}
