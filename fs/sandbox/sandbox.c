/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/sandbox/sandbox.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "fs/log.h"
#include "fs/sandbox/sandbox_internal.h"

/* True if it is in force; a kernel that does not know it is no reason to warn. */
static bool judge(int r, const char *what)
{
    if (r >= 0)
        return true;
    if (r == -ENOSYS || r == -EOPNOTSUPP)
        log_debug("no %s on this kernel or machine: the sandbox goes without", what);
    else
        log_warn("no %s (%s): the sandbox goes without", what, strerrordesc_np(-r));
    return false;
}

/*
 * In this order: Landlock and seccomp ask for no_new_privs, the bounding set can be emptied only
 * while there are capabilities, and the filter forbids what the others do.
 */
int sandbox_enter(const struct sandbox_config *config, struct sandbox_report *ret_report,
                  struct error *err)
{
    struct sandbox_report report = {.is_on = true};
    int r = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
    report.has_no_new_privs = judge(r, "no_new_privs");
    r = landlock_enter(config);
    if (r == -ENOMEM)
        return error_set(err, r, "out of memory");
    report.landlock_abi = judge(r, "Landlock") ? (unsigned)r : 0;
    /* Not root's alone: a unit of systemd's gives them to a user's (AmbientCapabilities=). */
    judge(capabilities_keep(capabilities_needed(config), 0), "way to give up capabilities");
    report.capabilities = capabilities_effective();
    r = seccomp_enter(config);
    if (r == -ENOMEM)
        return error_set(err, r, "out of memory");
    report.has_seccomp = judge(r, "filter for system calls");
    *ret_report = report;
    return 0;
}
