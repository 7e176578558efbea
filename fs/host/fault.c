/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/fault.h"

#include <errno.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <stdarg.h>
#include <stdio.h>

static int find_errno(const virError *fault)
{
    switch (fault->code) {
    case VIR_ERR_NO_DOMAIN:
        return -ESTALE;
    case VIR_ERR_OPERATION_TIMEOUT:
    case VIR_ERR_AGENT_UNRESPONSIVE:
        return -ETIMEDOUT;
    case VIR_ERR_NO_SUPPORT:
    case VIR_ERR_CONFIG_UNSUPPORTED:
    case VIR_ERR_ARGUMENT_UNSUPPORTED:
    case VIR_ERR_OPERATION_UNSUPPORTED:
        return -EOPNOTSUPP;
    case VIR_ERR_BLOCK_COPY_ACTIVE:
    case VIR_ERR_OPERATION_INVALID: /* not in this state: no longer running, another job */
    case VIR_ERR_RESOURCE_BUSY:
        return -EBUSY;
    case VIR_ERR_AUTH_FAILED:
    case VIR_ERR_AUTH_CANCELLED:
    case VIR_ERR_ACCESS_DENIED:
    case VIR_ERR_OPERATION_DENIED:
        return -EACCES;
    case VIR_ERR_NO_MEMORY:
        return -ENOMEM;
    case VIR_ERR_SYSTEM_ERROR: /* int1 is an errno */
        return fault->int1 == ENOSPC || fault->int1 == EDQUOT ? -ENOSPC : -EIO;
    default:
        return -EIO;
    }
}

int fault_fill(struct error *err, const char *fmt, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    const virError *fault = virGetLastError();
    if (!fault)
        return error_set(err, -EIO, "%s", text);
    return error_set(err, find_errno(fault), "%s: %s", text,
                     fault->message ? fault->message : "unknown error");
}
