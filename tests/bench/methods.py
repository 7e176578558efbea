#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of bench/methods, from its rows: run, method, metric, value.

methods.py table ROWS        prints it
methods.py docs ROWS PAGE    puts it between the markers of the page"""
import collections
import datetime
import os
import statistics
import sys

import figures

BEGIN, END = "<!-- costs: begin -->", "<!-- costs: end -->"
METHODS = {"overlay": "`live=overlay`", "backup": "`live=backup`", "copy": "`live=copy`",
           "managedsave": "`live=managedsave`", "cold-lock": "`cold=lock`",
           "cold-internal": "`cold=internal`", "cold-overlay": "`cold=overlay`"}
HEADINGS = ["", "open to first byte, ms", "close to put back, ms", "the guest's longest pause, × without us",
            "its writes, × without us", "room while open, MiB", "left in the images, MiB",
            "written to disk, × the guest's own", "CPU, ms"]


class Rows:
    """Values of a method's metric, in the order of the runs."""

    def __init__(self, path):
        self.values = collections.defaultdict(dict)
        with open(path, encoding="utf-8") as f:
            for line in f:
                run, method, metric, value = line.rstrip("\n").split("\t")
                self.values[method, metric][int(run)] = float(value)

    def all(self, method, metric):
        return list(self.values[method, metric].values())

    def ratios(self, method, metric, to_method, to_metric):
        """Of two values of the same run."""
        below = self.values[to_method, to_metric]
        return [value / below[run] for run, value in self.values[method, metric].items()
                if below.get(run)]

    def methods(self):
        return [method for method in METHODS if self.all(method, "first_ms")]

    def n_runs(self):
        return len({run for runs in self.values.values() for run in runs})


def number(value):
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def spread(values):
    """Median, and the smallest and largest beside it."""
    if not values:
        return "-"
    low, high = number(min(values)), number(max(values))
    median = number(statistics.median(values))
    return median if low == high else f"{median} ({low} to {high})"


def cells(rows, method):
    # Where nobody can start the guest there is none to pause, and nothing that it wrote.
    return [spread(rows.all(method, "first_ms")), spread(rows.all(method, "after_ms")),
            spread(rows.ratios(method, "gap_ms", "alone", "gap_ms")),
            spread([value / 1000 for value in rows.all(method, "rate_permille")]),
            spread(rows.all(method, "room_mib")), spread(rows.all(method, "left_mib")),
            spread(rows.ratios(method, "written_kib", method, "guest_kib")),
            spread(rows.all(method, "cpu_ms"))]


def table(rows):
    yield "| " + " | ".join(HEADINGS) + " |"
    yield "|---" * len(HEADINGS) + "|"
    for method in rows.methods():
        yield "| " + " | ".join([METHODS[method], *cells(rows, method)]) + " |"
    yield ""
    yield (f"Without us: longest pause {spread(rows.all('alone', 'gap_ms'))} ms, "
           f"{spread(rows.all('alone', 'rate'))} synced writes a second, of which each byte is "
           f"{spread(rows.ratios('alone', 'written_kib', 'alone', 'guest_kib'))} on disk.")


def block(rows):
    yield f"{datetime.date.today().isoformat()}. {figures.describe_machine()}."
    mine = [part for part in figures.describe_programs().split(", ")
            if part.startswith(("virtsnapfs", "QEMU", "libvirt"))]
    yield f"{', '.join(mine)}."
    yield (f"Medians of {rows.n_runs()} runs, and the smallest and largest value. "
           f"The machine's load average meanwhile: {spread(rows.all('alone', 'load'))}.")
    loads = rows.all("alone", "load")
    if loads and statistics.median(loads) > os.cpu_count():
        yield ("It had other work to do: take times and ratios of times for an order of magnitude; what lay on disk "
               "is as it is anywhere.")
    yield ""
    yield from table(rows)


def write_docs(rows, page):
    with open(page, encoding="utf-8") as f:
        before, rest = f.read().split(BEGIN + "\n")
    after = rest.split(END)[1]
    with open(page, "w", encoding="utf-8") as f:
        f.write("\n".join([before + BEGIN, *block(rows), END]) + after)


def main():
    verb, *rest = sys.argv[1:] or [""]
    if verb == "table" and len(rest) == 1 and os.path.exists(rest[0]):
        print("\n".join(table(Rows(rest[0]))))
    elif verb == "docs" and len(rest) == 2:
        write_docs(Rows(rest[0]), rest[1])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
