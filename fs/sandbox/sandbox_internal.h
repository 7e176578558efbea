/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The parts of the sandbox, for sandbox.c and the tests. */
#pragma once

#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/sandbox/sandbox.h"

/* Is this a build with a sanitizer, which needs a little more? gcc and clang each say it their way.
 */
#define SANDBOX_HAS_SANITIZER 0
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#undef SANDBOX_HAS_SANITIZER
#define SANDBOX_HAS_SANITIZER 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#undef SANDBOX_HAS_SANITIZER
#define SANDBOX_HAS_SANITIZER 1
#endif

/* A bit for each capability that is kept by who has it. */
uint64_t capabilities_needed(const struct sandbox_config *config);
/* The same for the broker, which mounts, and runs what writes images. */
uint64_t capabilities_of_broker(void);
/*
 * Gives up all others. @bounding: what a program that is started can have at most, which for one
 * of root's is what it gets. 0 or negative errno.
 */
int capabilities_keep(uint64_t wanted, uint64_t bounding);
/* The effective ones. */
uint64_t capabilities_effective(void);

/* The version in force, or negative errno: -ENOSYS, -EOPNOTSUPP where the kernel has none. */
int landlock_enter(const struct sandbox_config *config);

/*
 * Is the list of calls right for that machine (SCMP_ARCH_...)? On others, calls go by other names
 * (mmap2, socketcall, clock_gettime64) or have their arguments in another order (clone of s390).
 */
bool seccomp_has_list(uint32_t arch);
/* 0, or negative errno: -EOPNOTSUPP on a machine that the list is not made for. */
int seccomp_enter(const struct sandbox_config *config);
/*
 * The rules, for whatever machine is set in @filter. @pid: the process that signals may be sent
 * to. 0 or negative errno.
 */
int seccomp_add_rules(scmp_filter_ctx filter, const struct sandbox_config *config, pid_t pid);

/* Names of the system calls that may be made whatever their arguments; NULL at the end. */
extern const char *const seccomp_allowed[];
