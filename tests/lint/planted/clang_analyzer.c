/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A path on which the divisor is 0. */
#include <stddef.h>

struct total {
    unsigned sum, n;
};

unsigned mean(const unsigned *values, size_t n);

unsigned mean(const unsigned *values, size_t n)
{
    struct total total = {0};
    for (size_t i = 0; i < n; i++) {
        total.sum += values[i];
        total.n += values[i] > 0;
    }
    return total.sum / total.n; /* plant: clang-analyzer/core.DivideZero */
}
