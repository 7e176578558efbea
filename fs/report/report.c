/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/report/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "fs/report/sample.h"
#include "qcow/base/cleanup.h"

enum {
    INTERVAL_S = 2,
    N_KEPT = 5, /* samples: the speed of readers is that of the last 10 s, so that it is steady */
};

/* Of the terminal; without one, no limit. */
struct screen {
    size_t n_lines, n_cells;
    bool is_terminal;
    bool can_move; /* its cursor, by what terminals obey since the VT100 */
};

static bool is_dumb(void)
{
    /* lint: clang-tidy/concurrency-mt-unsafe: there is one thread */
    const char *term = getenv("TERM");
    return !term || !*term || strcmp(term, "dumb") == 0;
}

static struct screen find_screen(FILE *to)
{
    struct winsize size;
    if (!isatty(fileno(to)) || ioctl(fileno(to), TIOCGWINSZ, &size) < 0 || size.ws_row < 2 ||
        size.ws_col < 2)
        return (struct screen){.n_lines = SIZE_MAX, .n_cells = SIZE_MAX};
    return (struct screen){.n_lines = size.ws_row,
                           .n_cells = size.ws_col,
                           .is_terminal = true,
                           .can_move = !is_dumb()};
}

/* As much of a line as fits: whole characters. */
static size_t cut(const char *line, size_t len, size_t n_cells)
{
    size_t i = 0, n = 0;
    for (; i < len; i++) {
        if (((unsigned char)line[i] & 0xc0) != 0x80 && ++n > n_cells)
            break;
    }
    return i;
}

/* Over what stands there, line by line, so that nothing flickers; what is left of it goes. */
static void refresh(const char *text, const struct screen *screen, FILE *to)
{
    fputs("\033[H", to);
    for (size_t i = 1; *text; i++) {
        size_t len = strcspn(text, "\n");
        if (i + 1 >= screen->n_lines && text[len] && text[len + 1]) {
            fputs("...\033[K\n", to);
            break;
        }
        fprintf(to, "%.*s\033[K\n", (int)cut(text, len, screen->n_cells), text);
        text += len + (text[len] == '\n');
    }
    fputs("\033[J", to);
}

static int print_json(const struct report_config *config, const struct sample *sample, FILE *to)
{
    size_t flags = config->is_watch ? JSON_COMPACT : JSON_INDENT(2);
    auto_free char *text = json_dumps(sample->root, flags);
    if (!text)
        return -ENOMEM;
    fprintf(to, "%s\n", text);
    return 0;
}

static int print_text(const struct report_config *config, const struct sample *sample,
                      const struct sample *before, FILE *to)
{
    auto_free char *text = NULL;
    size_t len = 0;
    FILE *memory = open_memstream(&text, &len);
    if (!memory)
        return -ENOMEM;
    struct screen screen = find_screen(to);
    int r = sample_draw(sample, before, screen.is_terminal ? screen.n_cells : 0, memory);
    if (fclose(memory) != 0 || r < 0)
        return -ENOMEM;
    if (config->is_watch && screen.can_move)
        refresh(text, &screen, to);
    else
        fprintf(to, "%s%s", text, config->is_watch ? "\n" : "");
    return 0;
}

static int print_sample(const struct report_config *config, const struct sample *sample,
                        const struct sample *before, FILE *to, struct error *err)
{
    int r =
        config->is_json ? print_json(config, sample, to) : print_text(config, sample, before, to);
    if (r < 0)
        return error_set(err, r, "out of memory");
    if (fflush(to) != 0 || ferror(to))
        return error_set(err, -EIO, "cannot write: %s", strerrordesc_np(errno));
    return 0;
}

/* True if the mount has ended, which is not an error for who watches it. */
static bool is_end(const struct report_config *config, int r)
{
    return config->is_watch && (r == -ENOTCONN || r == -ECONNABORTED);
}

/* The oldest one first. */
struct history {
    struct sample samples[N_KEPT];
    size_t n;
};

/* Takes @sample. */
static void remember(struct history *history, const struct sample *sample)
{
    if (history->n == N_KEPT) {
        sample_fini(&history->samples[0]);
        memmove(&history->samples[0], &history->samples[1], (N_KEPT - 1) * sizeof(*sample));
        history->n--;
    }
    history->samples[history->n++] = *sample;
}

static void forget(struct history *history)
{
    for (size_t i = 0; i < history->n; i++)
        sample_fini(&history->samples[i]);
}

int report_run(const struct report_config *config, FILE *to, struct error *err)
{
    struct history history = {0};
    int r;
    do {
        struct sample sample = {0};
        r = sample_take(config, &sample, err);
        if (r == 0)
            r = print_sample(config, &sample, &history.samples[0], to, err);
        remember(&history, &sample);
        if (r == 0 && config->is_watch)
            nanosleep(&(struct timespec){.tv_sec = INTERVAL_S}, NULL);
    } while (r == 0 && config->is_watch);
    forget(&history);
    return is_end(config, r) ? 0 : r;
}
