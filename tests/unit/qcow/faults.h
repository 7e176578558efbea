/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults on demand below the decoder: its reads and allocations pass through here, since the
 * tests are linked with --wrap (see meson.build). Set up while no other thread runs.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* Answers each read in place of the system; NULL for the system's own. */
typedef ssize_t faults_pread_fn(int fd, void *buf, size_t len, off_t host_off);
extern faults_pread_fn *faults_pread;
ssize_t faults_real_pread(int fd, void *buf, size_t len, off_t host_off);

/* From now on the allocation after @n more fails (once); a negative @n ends that. */
void faults_fail_allocation(int n);

/* Whether that allocation was reached. */
int faults_allocation_failed(void);

/* Open descriptors of this process. */
size_t faults_count_fds(void);
