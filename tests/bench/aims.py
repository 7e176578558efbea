#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the benchmark aims at, what has to be measured for it, and what came of it.

    aims.py groups                    the names that run's --only takes, with what they are
    aims.py plan GROUP...             what to measure, a line each: GROUP METRIC IMAGE PROGRAM
    aims.py table ROWS [GROUP...]     the aims, the measured ratios, met or missed (Markdown)
    aims.py medians ROWS              TSV: metric, image, program, median, min, max, runs, unit

ROWS is a TSV file of single measurements: run, group, metric, image, program, value, unit. A value
NA is a program that cannot do it. A ratio is made of two measurements of one group and run, which
were made one after the other; what is shown is the median of all runs and the smallest and largest.
"""
import dataclasses
import os
import statistics
import sys

OURS = "virtsnapfs"
BARE = "bare"
HP = "passthrough_hp"
FUSE = ["qsd-fuse", "nbdfuse", "qcowmount"]
FAST = "qemu-img-m16W"

# Units of which less is better.
TIMES = {"s", "ms", "us", "s/GiB", "MiB", "KiB"}

GROUPS = {
    "seq": "sequential read, warm, plain",
    "images": "the same over other images",
    "compressed": "zlib and zstd read to the end",
    "cp": "cp to a local file",
    "rand": "random 4 KiB, 1 and 8 readers",
    "cold": "cold cache",
    "first": "start to first byte",
    "seek": "SEEK_DATA/SEEK_HOLE walk",
    "hole": "a hole read as zeros",
    "memory": "memory of the server",
    "backup": "live=backup of a running guest",
    "flat": "NAME.qcow2 read to the end",
    "upload": "upload to Glance",
}


@dataclasses.dataclass
class Aim:
    """One line of the table. A metric's value of ours is compared with the best of `peers`, or with
    `other` (metric, image, programs) where that is another metric or image; with neither it stands
    for itself. is_faster: by how much ours is less, not more."""
    group: str
    what: str
    metric: str
    image: str
    at_least: float = 0
    at_most: float = 0
    peers: list = dataclasses.field(default_factory=list)
    other: tuple = ()
    of: str = ""
    is_faster: bool = False
    unit: str = " ×"

    def against(self):
        return self.other or ((self.metric, self.image, self.peers) if self.peers else ())

    def bound(self):
        sign, bound = ("≥", self.at_least) if self.at_least else ("≤", self.at_most)
        return f"{sign} {bound:g}{self.unit} {self.of}".rstrip()

    def is_met(self, value):
        return value >= self.at_least if self.at_least else value <= self.at_most


def make_aims():
    """The table of the project's issue on speed, a line or more for each of its rows."""
    best = "the best FUSE peer"
    yield Aim("seq", "sequential read, warm, `plain`", "seq", "plain", 4, peers=["qsd-fuse"],
              of="QEMU's FUSE export")
    yield Aim("seq", "sequential read, warm, `plain`", "seq", "plain", 1.4, peers=[HP], of="passthrough_hp on a raw file")
    yield Aim("seq", "sequential read, warm, `plain`", "seq", "plain", 0.9, peers=[BARE], of="a bare FUSE server")
    for image in ("chain2", "chain5", "frag", "snap3@s2", "c2m", "subcl"):
        yield Aim("images", f"the same over `{image}`", "seq", image, 0.85,
                  other=("seq", "plain", [OURS]), of="our `plain`")
    yield Aim("compressed", "`zlib` read to the end", "seq", "zlib", 3, peers=FUSE, of=best)
    yield Aim("compressed", "`zlib` read to the end", "cores", "zlib", 0.8, unit="", of="of all cores busy")
    yield Aim("compressed", "`zstd` read to the end", "seq", "zstd", 2, peers=FUSE, of=best)
    copies = {"plain": 2, "frag": 1.5, "chain5": 1.5, "zlib": 0.7, "zstd": 1}
    for image in copies:
        yield Aim("cp", f"`cp` to a local file, `{image}`", "cp", image, 2, peers=FUSE,
                  of=best, is_faster=True)
    for image, bound in copies.items():
        yield Aim("cp", f"time of `cp`, `{image}`", "cp", image, at_most=bound, peers=[FAST],
                  of="`qemu-img convert -m 16 -W`")
    for image, bound in (("plain", 1.2), ("sparse1t", 1.2), ("zlib", 2)):
        for readers in (1, 8):
            yield Aim("rand", f"random 4 KiB, {readers} reader{'s'[:readers > 1]}, `{image}`",
                      f"rand{readers}", image, bound, peers=FUSE, of=best)
    yield Aim("cold", "cold cache, `plain`", "cold", "plain", 0.9, peers=["raw"],
              of="the raw file itself")
    yield Aim("cold", "cold cache, `zlib`", "cold", "zlib", 2, peers=FUSE, of=best)
    yield Aim("first", "time to first byte, `plain`", "first", "plain", at_most=1,
              peers=FUSE, of="the fastest FUSE peer")
    yield Aim("first", "time to first byte, 1 TiB (`sparse1t`)", "first", "sparse1t", at_most=1.1,
              other=("first", "plain", [OURS]), of="our `plain`")
    yield Aim("first", "time to first byte, 1 TiB, cold", "first_cold", "sparse1t", at_most=1.1,
              other=("first_cold", "plain", [OURS]), of="our `plain`")
    yield Aim("seek", "time of a SEEK walk, `sparse1t`", "walk", "sparse1t", at_most=1,
              peers=FUSE, of="the fastest FUSE peer that tells holes")
    yield Aim("seek", "time of a SEEK walk, per extent", "walk_each", "sparse1t", at_most=1.5, peers=[BARE],
              of="a bare FUSE server's lseek")
    yield Aim("hole", "a hole read as zeros, `sparse1t`", "hole", "sparse1t", 1,
              other=("seq", "plain", [OURS]), of="our `plain`, warm")
    yield Aim("hole", "the same hole: read from the disk", "hole_io", "sparse1t", at_most=0, unit=" KiB")
    yield Aim("seq", "server CPU per GiB, `plain`", "cpu", "plain", at_most=1.2, peers=[BARE],
              of="a bare FUSE server's")
    yield Aim("memory", "memory, many readers of all images", "memory", "all", at_most=1,
              other=("memory_limit", "all", [OURS]), of="the cache limit + 2 MiB a thread")
    yield Aim("backup", "`now.raw` of a guest, `live=backup`", "backup", "plain", 0.9,
              peers=["nbdcopy"], of="nbdcopy on the same export")
    yield Aim("backup", "the same, only what is data", "backup_data", "plain", 0.9,
              other=("backup", "plain", ["nbdcopy"]), of="nbdcopy on the same export")
    for image in ("plain", "zlib"):
        yield Aim("flat", f"`now.qcow2` read to the end, `{image}`", "flat", image, 0.9,
                  other=("data", image, [OURS]), of="`now.raw`, what is data of it")
    yield Aim("upload", "upload of `now.qcow2`, `plain`", "upload", "plain", 0.9, peers=["curl"],
              of="curl sending a ready file")


AIMS = list(make_aims())

# Measured beside what the aims need, for the figures in the docs: the limits, and what else people use.
EXTRA = [
    *[("seq", "seq", "plain", p) for p in [*FUSE, "raw"]],
    *[("cp", "cp", image, p) for image in ("plain", "frag", "chain5", "zlib", "zstd")
      for p in ("qemu-img", "nbdcopy")],
    ("cp", "cp", "plain", "raw"),
    *[("rand", f"rand{n}", "plain", BARE) for n in (1, 8)],
    *[("cold", "cold", "plain", p) for p in FUSE],
    ("first", "first", "plain", BARE),
]

# Metrics that come along with another one, and groups that a script measures as a whole.
BY_OTHER = {"cores": "seq", "cpu": "seq", "hole_io": "hole", "walk_each": "walk",
            "memory_limit": "memory", "backup_data": "backup"}
CANNOT = {
    # No zstd, no subclusters, no snapshots; the backing file is left out, so the data is wrong.
    "qcowmount": {"zstd", "chain2", "chain5", "subcl", "snap3@s2"},
    # Its qcow2 driver has no option for internal snapshots.
    "qsd-fuse": {"snap3@s2"},
}


def make_plan(groups):
    """Each cell once; what is compared stands together, in the order of the aims."""
    cells = []
    for aim in AIMS:
        wanted = [(aim.metric, aim.image, [OURS, *aim.peers])]
        if aim.other:
            wanted.append(aim.other)
        for metric, image, programs in wanted:
            metric = BY_OTHER.get(metric, metric)
            cells += [(aim.group, metric, image, p) for p in programs]
    cells = [c for c in dict.fromkeys(cells + EXTRA) if c[2] not in CANNOT.get(c[3], ())]
    kinds = list(dict.fromkeys(c[:3] for c in cells))
    cells.sort(key=lambda c: kinds.index(c[:3]))
    return [c for g in GROUPS if g in groups for c in cells if c[0] == g]


class Rows:
    """Measurements: (group, metric, image, program) -> {run: value}."""

    def __init__(self, path):
        self.values, self.units = {}, {}
        with open(path, encoding="utf-8") as f:
            for line in f:
                run, *key, value, unit = line.rstrip("\n").split("\t")
                self.units[key[1]] = unit
                runs = self.values.setdefault(tuple(key), {})
                if value != "NA":
                    runs[int(run)] = float(value)

    def runs(self, *key):
        return self.values.get(key, {})

    def all(self, metric, image, program):
        """The values of all groups."""
        return [v for key, runs in self.values.items() if key[1:] == (metric, image, program)
                for v in runs.values()]

    def best(self, group, metric, image, programs):
        """The one program of these whose median is best; None if none was measured."""
        runs = {p: self.runs(group, metric, image, p).values() for p in programs}
        medians = {p: statistics.median(v) for p, v in runs.items() if v}
        if not medians:
            return None
        is_time = self.units[metric] in TIMES
        return (min if is_time else max)(medians, key=medians.get)

    def ratios(self, aim):
        """The values to judge, one a run, and the program that was chosen to compare with."""
        ours = self.runs(aim.group, aim.metric, aim.image, OURS)
        if not aim.against():
            return list(ours.values()), ""
        metric, image, programs = aim.against()
        program = self.best(aim.group, metric, image, programs)
        other = self.runs(aim.group, metric, image, program)
        both = [(ours[run], other[run]) for run in ours if other.get(run) and ours[run]]
        name = program if len(programs) > 1 else ""
        return [b / a if aim.is_faster else a / b for a, b in both], name


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def judge(aim, rows):
    """(measured, outcome, value): as words, and the median or None."""
    values, name = rows.ratios(aim)
    if not values:
        return "", "not measured", None
    middle = statistics.median(values)
    text = f"{number(middle)} ({number(min(values))} to {number(max(values))})"
    if name:
        text += f", {name}"
    return text, "met" if aim.is_met(middle) else "**missed**", middle


def table(rows, groups):
    lines = [("what", "aim", "measured (min to max)", "")]
    for aim in AIMS:
        if aim.group in groups:
            measured, outcome, _ = judge(aim, rows)
            lines.append((aim.what, aim.bound(), measured, outcome))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    lines.insert(1, tuple("-" * w for w in widths))
    return ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths)) + " |" for line in lines]


def medians(rows):
    yield "\t".join(["metric", "image", "program", "median", "min", "max", "runs", "unit"])
    for metric, image, program in dict.fromkeys(key[1:] for key in rows.values):
        all_runs = rows.all(metric, image, program)
        figures = [number(f(all_runs)) if all_runs else "NA" for f in (statistics.median, min, max)]
        yield "\t".join([metric, image, program, *figures, str(len(all_runs)), rows.units[metric]])


def main():
    verb, *rest = sys.argv[1:] or [""]
    if verb == "groups":
        print("\n".join(f"{name:11} {what}" for name, what in GROUPS.items()))
    elif verb == "plan":
        print("\n".join(" ".join(cell) for cell in make_plan(rest or GROUPS)))
    elif verb == "table" and rest:
        print("\n".join(table(Rows(rest[0]), rest[1:] or GROUPS)))
    elif verb == "medians" and rest:
        print("\n".join(medians(Rows(rest[0]))))
    else:
        sys.exit(f"usage: {os.path.basename(sys.argv[0])} groups | plan GROUP... | table ROWS | medians ROWS")


if __name__ == "__main__":
    main()
