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

struct columns {
    const char *const *headings; /* a '>' before one: numbers, so right-aligned */
    size_t n;                    /* at most COLUMNS_MAX */
    char **cells;                /* row after row */
    size_t n_cells;
    int is_failed; /* no memory */
    size_t
        max_width; /* cells of a terminal; 0: no limit. Long names are shortened in their middle */
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

/* Prints the table, the heading also without a row. 0 or -ENOMEM. */
int columns_print(const struct columns *columns, FILE *to);

/* Bytes as people say them, such as "1.5 GiB"; @ret_text has room for COLUMNS_SIZE_LEN. */
enum { COLUMNS_SIZE_LEN = 16 };
void columns_format_size(unsigned long long bytes, char *ret_text);

/* How many cells of a terminal a text takes, as far as each character takes one. */
size_t columns_width(const char *text);
