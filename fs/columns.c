/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/columns.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/cleanup.h"
#include "qcow/base/text.h"

enum {
    GAP = 2,
    SHORT = 8,     /* a column is not made narrower than this */
    WITH_END = 12, /* from here on there is room for the end of a name, too */
    REST = 24,     /* of a text at the end this much is to be seen at least, in a line */
    INDENT = 4,    /* of notes */
};

void columns_fini(struct columns *columns)
{
    for (size_t i = 0; i < columns->n_cells; i++)
        free(columns->cells[i]);
    free(columns->cells);
    for (size_t i = 0; i < columns->n_notes; i++)
        free(columns->notes[i].text);
    free(columns->notes);
    columns->cells = NULL;
    columns->notes = NULL;
    columns->n_cells = columns->n_notes = 0;
}

/* NULL: no memory, which is noted. */
__attribute__((format(printf, 2, 0))) static char *format_text(struct columns *columns,
                                                               const char *fmt, va_list ap)
{
    char *text;
    if (vasprintf(&text, fmt, ap) < 0) {
        columns->is_failed = 1;
        return NULL;
    }
    text_hide_controls(text);
    return text;
}

/* Room for one more behind @n items of @size bytes; NULL: no memory, which is noted. */
static void *grow(struct columns *columns, void *items, size_t n, size_t size)
{
    void *grown = reallocarray(items, n + 1, size);
    columns->is_failed |= !grown;
    return grown;
}

void columns_add(struct columns *columns, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    auto_free char *text = format_text(columns, fmt, ap);
    va_end(ap);
    char **grown =
        text ? grow(columns, columns->cells, columns->n_cells, sizeof(*columns->cells)) : NULL;
    if (!grown)
        return;
    columns->cells = grown;
    columns->cells[columns->n_cells++] = take_ptr(text);
}

void columns_add_note(struct columns *columns, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    auto_free char *text = format_text(columns, fmt, ap);
    va_end(ap);
    struct columns_note *grown =
        text ? grow(columns, columns->notes, columns->n_notes, sizeof(*grown)) : NULL;
    if (!grown)
        return;
    columns->notes = grown;
    columns->notes[columns->n_notes++] =
        (struct columns_note){.row = columns->n_cells / columns->n, .text = take_ptr(text)};
}

size_t columns_width(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static const char *cell_of(const struct columns *columns, size_t row, size_t i)
{
    const char *heading = columns->headings[i];
    return row == 0 ? heading + (*heading == '>') : columns->cells[(row - 1) * columns->n + i];
}

static size_t shown_width(const struct columns *columns, const size_t *widths)
{
    size_t last = columns->n - 1;
    bool is_text = *columns->headings[last] != '>';
    size_t sum = is_text && widths[last] > REST ? REST : widths[last];
    for (size_t i = 0; i < last; i++)
        sum += widths[i] + GAP;
    return sum;
}

/* Names can be shortened, but not the text at the end, which may go on. */
static bool can_shrink(const struct columns *columns, const size_t *widths, size_t i)
{
    return i + 1 < columns->n && *columns->headings[i] != '>' && widths[i] > SHORT;
}

/*
 * Shares @room out among @n columns so that the widest lose most: who needs no more than a share
 * has what it needs, and leaves the rest to the others; what cannot be divided goes to the last.
 */
static void share_room(size_t *const *shrinking, size_t n, size_t room)
{
    size_t n_left = n;
    bool is_content[COLUMNS_MAX] = {false};
    for (size_t i = 0; i < n; i++) {
        if (is_content[i] || *shrinking[i] > room / n_left)
            continue;
        is_content[i] = true;
        room -= *shrinking[i];
        n_left--;
        i = SIZE_MAX; /* the share has grown: all are asked again */
    }
    size_t share = room / n_left, n_more = room % n_left;
    for (size_t i = n; i-- > 0;) {
        if (is_content[i])
            continue;
        size_t width = share + (n_more > 0);
        n_more -= n_more > 0;
        *shrinking[i] = width > SHORT ? width : SHORT;
    }
}

static void fit(const struct columns *columns, size_t *widths)
{
    size_t shown = shown_width(columns, widths), sum = 0, n = 0;
    size_t *shrinking[COLUMNS_MAX];
    for (size_t i = 0; i < columns->n; i++) {
        if (!can_shrink(columns, widths, i))
            continue;
        shrinking[n++] = &widths[i];
        sum += widths[i];
    }
    if (n == 0 || columns->max_width == 0 || shown <= columns->max_width)
        return;
    size_t others = shown - sum;
    share_room(shrinking, n, columns->max_width > others ? columns->max_width - others : 0);
}

/* Bytes of the first @n characters. */
static size_t bytes_of(const char *text, size_t n)
{
    size_t i = 0;
    for (; text[i]; i++)
        if (((unsigned char)text[i] & 0xc0) != 0x80 && n-- == 0)
            break;
    return i;
}

/* Of a name that is too long the beginning stays and, if there is room, the end. */
static void print_cell(const char *cell, size_t width, FILE *to)
{
    size_t n = columns_width(cell);
    if (n <= width) {
        fputs(cell, to);
        return;
    }
    size_t n_tail = width < WITH_END ? 0 : (width - 3) / 2;
    const char *tail = cell + bytes_of(cell, n - n_tail);
    fprintf(to, "%.*s...%s", (int)bytes_of(cell, width - 3 - n_tail), cell, tail);
}

/* Bytes of the words that fit into @room characters; of one that does not, as much as fits. */
static size_t bytes_that_fit(const char *text, size_t room)
{
    size_t n = bytes_of(text, room);
    for (size_t i = n; text[n] && i > 0; i--)
        if (text[i] == ' ')
            return i;
    return n;
}

/* All of it, in as many lines as it takes; @room 0: in one. */
static void print_wrapped(const char *text, size_t indent, size_t room, FILE *to)
{
    for (;;) {
        size_t n = room ? bytes_that_fit(text, room) : strlen(text);
        fprintf(to, "%.*s", (int)n, text);
        text += n;
        text += strspn(text, " ");
        if (!*text)
            return;
        fprintf(to, "\n%*s", (int)indent, "");
    }
}

static size_t room_from(const struct columns *columns, size_t begin)
{
    if (columns->max_width == 0)
        return 0;
    return columns->max_width > begin + REST ? columns->max_width - begin : REST;
}

static void print_row(const struct columns *columns, size_t row, const size_t *widths, FILE *to)
{
    size_t begin = 0, last = columns->n - 1;
    for (size_t i = 0; i <= last; begin += widths[i++] + GAP) {
        const char *cell = cell_of(columns, row, i);
        bool is_number = *columns->headings[i] == '>';
        if (i == last && !is_number) {
            print_wrapped(cell, begin, room_from(columns, begin), to);
            break;
        }
        size_t n = columns_width(cell);
        int pad = n < widths[i] ? (int)(widths[i] - n) : 0;
        fprintf(to, "%*s", is_number ? pad : 0, "");
        print_cell(cell, widths[i], to);
        fprintf(to, "%*s", i < last ? GAP + (is_number ? 0 : pad) : 0, "");
    }
    fputc('\n', to);
}

static void print_notes(const struct columns *columns, size_t row, FILE *to)
{
    for (size_t i = 0; i < columns->n_notes; i++) {
        if (columns->notes[i].row != row)
            continue;
        fprintf(to, "%*s", INDENT, "");
        print_wrapped(columns->notes[i].text, INDENT, room_from(columns, INDENT), to);
        fputc('\n', to);
    }
}

int columns_print(const struct columns *columns, FILE *to)
{
    if (columns->is_failed)
        return -ENOMEM;
    size_t n_rows = columns->n_cells / columns->n;
    size_t widths[COLUMNS_MAX] = {0};
    for (size_t row = 0; row <= n_rows; row++)
        for (size_t i = 0; i < columns->n; i++)
            if (columns_width(cell_of(columns, row, i)) > widths[i])
                widths[i] = columns_width(cell_of(columns, row, i));
    fit(columns, widths);
    for (size_t row = 0; row <= n_rows; row++) {
        print_row(columns, row, widths, to);
        print_notes(columns, row, to);
    }
    return 0;
}

void columns_format_size(unsigned long long bytes, char *ret_text)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    double value = (double)bytes;
    for (; value >= 1023.95 && unit + 1 < sizeof(units) / sizeof(*units); unit++)
        value /= 1024;
    snprintf(ret_text, COLUMNS_SIZE_LEN, "%.*f %s", unit > 0 && value < 99.95, value, units[unit]);
}

void columns_format_span(long long seconds, char *ret_text)
{
    long long s = seconds < 0 ? 0 : seconds;
    if (s < 60)
        snprintf(ret_text, COLUMNS_SPAN_LEN, "%llds", s);
    else if (s < 3600)
        snprintf(ret_text, COLUMNS_SPAN_LEN, "%lldm%02llds", s / 60, s % 60);
    else if (s < 86400)
        snprintf(ret_text, COLUMNS_SPAN_LEN, "%lldh%02lldm", s / 3600, s / 60 % 60);
    else
        snprintf(ret_text, COLUMNS_SPAN_LEN, "%lldd%02lldh", s / 86400, s / 3600 % 24);
}

void columns_format_speed(double speed, char *ret_text)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    for (; speed >= 999.95 && unit + 1 < sizeof(units) / sizeof(*units); unit++)
        speed /= 1000;
    snprintf(ret_text, COLUMNS_SPAN_LEN, "%.*f %s/s", unit > 0, speed, units[unit]);
}
