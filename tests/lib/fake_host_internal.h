/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What fake_host.c and fake_overlay.c share. */
#pragma once

#include <stdbool.h>

#include "fs/host/method.h"
#include "tests/lib/fake_host.h"

/* @ptr, which must not be NULL: there is memory in tests. */
void *fake_need(void *ptr);
/* Aborts with @what and errno unless @is_true. */
void fake_need_that(bool is_true, const char *what);

/* Around what can be counted, refused or held up: 0 or the code that it is to fail with. */
int fake_begin_verb(struct fake_host *fake, enum fake_verb verb);
/* The same with a sign of life now and then while it is held, if the test wants that. */
int fake_begin_alive(struct fake_host *fake, enum fake_verb verb, const struct change_steps *steps);
void fake_end_verb(struct fake_host *fake, enum fake_verb verb);

/* A reference by id or name, or NULL; a copy to be changed; and to put that in its place. */
struct domain *fake_get(struct fake_host *fake, const char *key, bool is_id);
struct domain *fake_copy_domain(const struct domain *from);
void fake_publish(struct fake_host *fake, struct domain *domain);

const struct host_method *fake_method(struct host *host, enum change_method method);
