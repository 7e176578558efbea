/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What does not compile is not analyzed. */
int give_nothing(void);

int give_nothing(void)
{
    /* plant: clang-tidy/clang-diagnostic-error, clang-analyzer/clang-diagnostic-error */
    return nothing; /* plant: gcc-analyzer/error */
}
