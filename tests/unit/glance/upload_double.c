/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/glance/upload_double.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/thread.h"

enum { DEADLINE_S = 20, TICK_NS = 1000000, PIECE = 65536 };

struct glance_image {
    char id[16];
    bool is_made;
};

static struct mutex lock = MUTEX_INITIALIZER;
static struct cond changed;
static bool has_cond;
static struct {
    bool is_held[N_STEPS];
    int code[N_STEPS];
    unsigned count[N_STEPS];
    unsigned n_images, n_bodies, n_made, n_ends;
    char reason[ERROR_TEXT_MAX];
    char replaced[ERROR_TEXT_MAX];
} world;

void double_reset(void)
{
    if (!has_cond)
        cond_init(&changed);
    has_cond = true;
    mutex_lock(&lock);
    memset(&world, 0, sizeof(world));
    mutex_unlock(&lock);
}

static void set_held(enum double_step step, bool is_held)
{
    mutex_lock(&lock);
    world.is_held[step] = is_held;
    cond_wake_all(&changed);
    mutex_unlock(&lock);
}

void double_hold(enum double_step step)
{
    set_held(step, true);
}

void double_let_go(enum double_step step)
{
    set_held(step, false);
}

void double_fail(enum double_step step, int code)
{
    mutex_lock(&lock);
    world.code[step] = code;
    mutex_unlock(&lock);
}

static void wait_locked(int64_t deadline_ns, const char *what) REQUIRES(lock)
{
    if (monotonic_ns() < deadline_ns) {
        cond_wait_until(&changed, &lock, monotonic_ns() + TICK_NS);
        return;
    }
    fprintf(stderr, "waited in vain for %s\n", what);
    abort();
}

static int64_t deadline(void)
{
    return monotonic_ns() + (int64_t)DEADLINE_S * 1000000000;
}

void double_await(enum double_step step, unsigned n)
{
    int64_t deadline_ns = deadline();
    mutex_lock(&lock);
    while (world.count[step] < n)
        wait_locked(deadline_ns, "a step");
    mutex_unlock(&lock);
}

static unsigned read_number(const unsigned *where)
{
    mutex_lock(&lock);
    unsigned n = *where;
    mutex_unlock(&lock);
    return n;
}

unsigned double_count(enum double_step step)
{
    return read_number(&world.count[step]);
}

unsigned double_images(void)
{
    return read_number(&world.n_images);
}

unsigned double_bodies(void)
{
    return read_number(&world.n_bodies);
}

unsigned double_ends(void)
{
    return read_number(&world.n_ends);
}

const char *double_reason(void)
{
    return world.reason;
}

const char *double_replaced(void)
{
    return world.replaced;
}

/* Counts, waits, fails. */
static int take_step(enum double_step step, const struct glance_cancel *cancel, struct error *err)
{
    mutex_lock(&lock);
    world.count[step]++;
    cond_wake_all(&changed);
    bool is_cancelled = false;
    while (world.is_held[step] && !is_cancelled) {
        mutex_unlock(&lock);
        is_cancelled = cancel && cancel->is_cancelled(cancel->ctx);
        mutex_lock(&lock);
        if (!is_cancelled)
            cond_wait_until(&changed, &lock, monotonic_ns() + TICK_NS);
    }
    int code = world.code[step];
    mutex_unlock(&lock);
    if (!is_cancelled)
        is_cancelled = cancel && cancel->is_cancelled(cancel->ctx);
    if (is_cancelled)
        return error_set(err, -EINTR, "cancelled");
    return code < 0 ? error_set(err, code, "step %d fails", step) : 0;
}

static void add(unsigned *where, int n)
{
    mutex_lock(&lock);
    *where += (unsigned)n;
    cond_wake_all(&changed);
    mutex_unlock(&lock);
}

/* ---- fs/glance/image.h ---- */

int glance_login(struct glance *glance, const struct glance_cancel *cancel, char **ret_project_id,
                 char **ret_user_id, struct error *err)
{
    (void)glance;
    int r = take_step(STEP_LOGIN, cancel, err);
    if (r < 0)
        return r;
    *ret_project_id = strdup("project");
    *ret_user_id = NULL;
    return 0;
}

int glance_image_create(struct glance *glance, const struct glance_record *record,
                        const struct glance_cancel *cancel, struct glance_image **ret_image,
                        struct error *err)
{
    (void)glance, (void)record;
    int r = take_step(STEP_CREATE, cancel, err);
    if (r < 0)
        return r;
    struct glance_image *image = calloc(1, sizeof(*image));
    image->is_made = true;
    add(&world.n_images, 1);
    add(&world.n_made, 1);
    snprintf(image->id, sizeof(image->id), "image-%u", read_number(&world.n_made));
    *ret_image = image;
    return 0;
}

const char *glance_image_id(const struct glance_image *image)
{
    return image->id;
}

static int send_pieces(const struct glance_body *body, const struct glance_progress *progress,
                       struct error *err)
{
    static char piece[PIECE];
    for (uint64_t off = 0; off < body->size; off += PIECE) {
        size_t len = body->size - off < PIECE ? (size_t)(body->size - off) : PIECE;
        int r = body->read(body->ctx, off, piece, len, err);
        if (r < 0)
            return r;
        progress->moved(progress->ctx, GLANCE_SENDING, off + len);
    }
    return 0;
}

/* Sends all, begins anew under another id, and is held up when half of it is sent again. */
int glance_image_send(struct glance_image *image, const struct glance_body *body,
                      const struct glance_progress *progress, const struct glance_cancel *cancel,
                      struct error *err)
{
    uint64_t size = body->size;
    struct error lost;
    progress->began(progress->ctx, 1, NULL);
    int r = send_pieces(body, progress, err);
    if (r == 0) {
        strcat(image->id, "b");
        progress->replaced(progress->ctx, image->id);
        error_set(&lost, -ECONNRESET, "the line is cut");
        progress->began(progress->ctx, 2, &lost);
        progress->moved(progress->ctx, GLANCE_SENDING, size / 2);
        r = take_step(STEP_SEND, cancel, err);
    }
    if (r == 0) {
        progress->moved(progress->ctx, GLANCE_VERIFYING, size);
        r = take_step(STEP_VERIFY, cancel, err);
    }
    if (r < 0)
        glance_image_delete(image, NULL);
    return r;
}

int glance_image_delete(struct glance_image *image, struct error *err)
{
    int r = take_step(STEP_DELETE, NULL, err);
    if (r < 0 || !image->is_made)
        return r;
    image->is_made = false;
    add(&world.n_images, -1);
    return 0;
}

void glance_image_free(struct glance_image *image)
{
    free(image);
}

/* ---- The source ---- */

struct glance *double_glance(void)
{
    static char anything;
    return (struct glance *)&anything;
}

static int describe(void *ctx, const struct upload_what *what, struct upload_disk *ret_disk,
                    struct error *err)
{
    (void)ctx;
    if (strcmp(what->snapshot, "now") != 0)
        return error_set(err, -ENOENT, "no snapshot '%s'", what->snapshot);
    *ret_disk =
        (struct upload_disk){.guest_size = DOUBLE_SIZE, .format = "raw", .target = strdup("vda")};
    return 0;
}

static int read_zeros(void *ctx, uint64_t off, void *buf, size_t len, struct error *err)
{
    (void)ctx, (void)off, (void)err;
    memset(buf, 0, len);
    return 0;
}

static int open_body(void *ctx, const struct upload_what *what, const struct glance_cancel *cancel,
                     struct glance_body *ret_body, struct error *err)
{
    (void)ctx, (void)what;
    int r = take_step(STEP_OPEN, cancel, err);
    if (r < 0)
        return r;
    add(&world.n_bodies, 1);
    *ret_body = (struct glance_body){.size = DOUBLE_SIZE, .read = read_zeros};
    return 0;
}

static void close_body(void *ctx, const struct glance_body *body)
{
    (void)ctx, (void)body;
    add(&world.n_bodies, -1);
}

static void note_replaced(void *ctx, const struct upload_replaced *replaced)
{
    (void)ctx;
    mutex_lock(&lock);
    snprintf(world.replaced, sizeof(world.replaced), "%s %u %s %s", replaced->domain_name,
             replaced->id, replaced->old_image_id, replaced->new_image_id);
    mutex_unlock(&lock);
}

static void note_end(void *ctx, const struct upload_end *end)
{
    (void)ctx;
    mutex_lock(&lock);
    world.n_ends++;
    if (end->err)
        snprintf(world.reason, sizeof(world.reason), "%s", end->err->text);
    mutex_unlock(&lock);
}

struct upload_source double_source(void)
{
    return (struct upload_source){.describe = describe,
                                  .open = open_body,
                                  .close = close_body,
                                  .replaced = note_replaced,
                                  .ended = note_end};
}

/* ---- Writers ---- */

static void note_answer(void *ctx, int result, const struct error *err)
{
    struct double_writer *writer = ctx;
    (void)err;
    mutex_lock(&lock);
    if (writer->result != 1)
        abort(); /* answered twice */
    writer->result = result;
    cond_wake_all(&changed);
    mutex_unlock(&lock);
}

static bool is_over(void *ctx)
{
    struct double_writer *writer = ctx;
    mutex_lock(&lock);
    if (writer->result != 1)
        abort(); /* the request would be gone */
    bool is_over = writer->is_over;
    mutex_unlock(&lock);
    return is_over;
}

void double_write(struct uploads *uploads, struct double_writer *writer, const char *domain,
                  const char *line)
{
    *writer = (struct double_writer){.result = 1};
    struct upload_request request = {
        .domain_id = domain,
        .domain_name = domain,
        .line = line,
        .len = strlen(line),
        .done = note_answer,
        .is_cancelled = is_over,
        .ctx = writer,
    };
    uploads_begin(uploads, &request);
}

void double_give_up(struct double_writer *writer)
{
    mutex_lock(&lock);
    writer->is_over = true;
    mutex_unlock(&lock);
}

int double_answer(struct double_writer *writer)
{
    int64_t deadline_ns = deadline();
    mutex_lock(&lock);
    while (writer->result == 1)
        wait_locked(deadline_ns, "an answer");
    int result = writer->result;
    mutex_unlock(&lock);
    return result;
}

bool double_is_answered(struct double_writer *writer)
{
    mutex_lock(&lock);
    bool is_answered = writer->result != 1;
    mutex_unlock(&lock);
    return is_answered;
}
