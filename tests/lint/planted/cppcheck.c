/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is meant first: '&' or '?'. */
unsigned table_len(unsigned features, unsigned wanted);

unsigned table_len(unsigned features, unsigned wanted)
{
    return 65536 / (features & wanted ? 16 : 8); /* plant: cppcheck/clarifyCalculation */
}
