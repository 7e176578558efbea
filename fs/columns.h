/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A table for people: a heading, rows of cells, each column as wide as its widest cell. Cells may
 * hold any text: what a terminal would obey (control characters) is printed as '?', since names of
 * snapshots are a guest's owner's to choose, and messages of a server. One thread at a time.
 */
#pragma once

#include <stddef.h>
#include <stdio.h>

enum { COLUMNS_MAX = 10 };

/* What is to be said of a row, below it. */
struct columns_note {
    size_t row;
    char *text;
};

struct columns {
    const char *const *headings; /* a '>' before one: numbers, so right-aligned */
    size_t n;                    /* at most COLUMNS_MAX */
    char **cells;                /* row after row */
    size_t n_cells;
    struct columns_note *notes; /* in the order of their rows */
    size_t n_notes;
    int is_failed; /* no memory */
    /*
     * Cells of a terminal; 0: no limit. Long names are shortened, to their beginning and, where
     * there is room for it, their end; notes and texts in the last column go on in further lines.
     */
    size_t max_width;
};

/* An empty table; @headings is borrowed. columns_fini() releases what columns_add() took. */
#define COLUMNS_INIT(names)                                                                        \
    {                                                                                              \
        .headings = (names), .n = sizeof(names) / sizeof(*(names))                                 \
    }
void columns_fini(struct columns *columns);

/* The next cell, from left to right; as many cells as headings make a row. */
void columns_add(struct columns *columns, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* A line below the row that is complete by now; any number of them. */
void columns_add_note(struct columns *columns, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Prints the table, the heading also without a row. 0 or -ENOMEM. */
int columns_print(const struct columns *columns, FILE *to);

/* Bytes as people say them, such as "1.5 GiB"; @ret_text has room for COLUMNS_SIZE_LEN. */
enum { COLUMNS_SIZE_LEN = 16 };
void columns_format_size(unsigned long long bytes, char *ret_text);

/* Seconds as people say them: 42s, 3m05s, 2h10m, 4d03h; @ret_text has room for COLUMNS_SPAN_LEN. */
enum { COLUMNS_SPAN_LEN = 32 };
void columns_format_span(long long seconds, char *ret_text);

/* Bytes a second, in units of 10^n as networks have them: "112.4 MB/s"; room as above. */
void columns_format_speed(double speed, char *ret_text);

/* How many cells of a terminal a text takes, as far as each character takes one. */
size_t columns_width(const char *text);
