/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * host_ops without a hypervisor: domains whose disks are raw files in a folder of its own, with
 * faults and delays on demand. A fault of the test's own (no disk space, no memory) aborts. Any
 * thread.
 */
#pragma once

#include <stdint.h>

#include "fs/host/host.h"

struct fake_host;

enum { FAKE_DISK_SIZE = 1 << 20 };

/* What a fake host does, to be counted, refused or held up. */
enum fake_verb { FAKE_FIND, FAKE_TAKE, FAKE_MERGE, N_FAKE_VERBS };

struct fake_host *fake_host_create(void);
void fake_host_destroy(struct fake_host *fake); /* also deletes the folder */
struct host *fake_host_base(struct fake_host *fake);
const char *fake_host_dir(const struct fake_host *fake);
void fake_host_set_events(struct fake_host *fake, struct host_events events);

/*
 * A domain that is shut off, with id "id-NAME" and disks vda, vdb, ... of FAKE_DISK_SIZE bytes in
 * DIR/NAME-TARGET.img. Byte i of disk d is fake_host_byte(d, i).
 */
void fake_host_add(struct fake_host *fake, const char *name, unsigned n_disks);
unsigned char fake_host_byte(unsigned disk, uint64_t guest_off);
void fake_host_set_state(struct fake_host *fake, const char *name, enum domain_state state);
/* Marks a disk as one that cannot be served. */
void fake_host_set_unsupported(struct fake_host *fake, const char *name, unsigned disk,
                               const char *reason);
/* Makes a disk a copy of the qcow2 image in @fd, as that is now. */
void fake_host_put_image(struct fake_host *fake, const char *name, unsigned disk, int fd);
void fake_host_set_xml(struct fake_host *fake, const char *name, const char *xml);
void fake_host_remove(struct fake_host *fake, const char *name);
struct domain *fake_host_find(struct fake_host *fake, const char *name); /* a reference */
/* Path of the disk's image; caller frees. */
char *fake_host_path(const struct fake_host *fake, const char *name, unsigned disk);

/* From now on that verb fails with @code (0: works again). Not for FAKE_FIND. */
void fake_host_fail(struct fake_host *fake, enum fake_verb verb, int code);
/* From now on calls of that verb wait inside of it until let go. */
void fake_host_hold(struct fake_host *fake, enum fake_verb verb);
void fake_host_let_go(struct fake_host *fake, enum fake_verb verb);
/*
 * A merge that is held shows life meanwhile, every few milliseconds; fake_host_count_signs() says
 * how often it did.
 */
void fake_host_show_life(struct fake_host *fake, bool is_wanted);
unsigned fake_host_count_signs(struct fake_host *fake);
/* Waits (at most 20 s, then aborts) until @n calls of that verb were begun, or had ended. */
void fake_host_await_begun(struct fake_host *fake, enum fake_verb verb, unsigned n);
void fake_host_await_ended(struct fake_host *fake, enum fake_verb verb, unsigned n);
unsigned fake_host_count(struct fake_host *fake, enum fake_verb verb); /* calls begun */
