/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The verbs of fs/glance/image.h and a source, without a network or a disk: each step can be held
 * up or made to fail, and what is left over is counted.
 */
#pragma once

#include "fs/glance/upload.h"

enum double_step {
    STEP_LOGIN,
    STEP_CREATE,
    STEP_OPEN,
    STEP_SEND,
    STEP_VERIFY,
    STEP_DELETE,
    N_STEPS
};

enum { DOUBLE_SIZE = 300000 };

/* Begins anew; nothing is held, nothing fails. */
void double_reset(void);
/* Makes a step wait, from now on, until it is let go or cancelled. */
void double_hold(enum double_step step);
void double_let_go(enum double_step step);
/* Makes a step fail with @code; 0: no longer. */
void double_fail(enum double_step step, int code);
/* Waits (20 s at most, then fails) until @n have come to that step since double_reset(). */
void double_await(enum double_step step, unsigned n);
unsigned double_count(enum double_step step);

/* What is there now. */
unsigned double_images(void);
unsigned double_bodies(void);
/* How often something ended, well or not, and the text of the last failure. */
unsigned double_ends(void);
const char *double_reason(void);
/* "DOMAIN UPLOAD OLD-IMAGE NEW-IMAGE" of the last one that was sent again. */
const char *double_replaced(void);

struct glance *double_glance(void);
struct upload_source double_source(void);

/* A writer. */
struct double_writer {
    int result;   /* 1 until it is answered */
    bool is_over; /* it gave up */
};
void double_write(struct uploads *uploads, struct double_writer *writer, const char *domain,
                  const char *line);
void double_give_up(struct double_writer *writer);
/* The answer, waited for likewise. */
int double_answer(struct double_writer *writer);
bool double_is_answered(struct double_writer *writer);
