#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shows a run of the benchmark.

    figures.py plot ROWS                     medians as bars, the range as a line: SVG
    figures.py docs ROWS FOLDER RUNS SCALE   into FOLDER/speed.md, between its two marks, and FOLDER/speed.svg

ROWS: see aims.py.
"""
import datetime
import html
import os
import platform
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
import aims  # noqa: E402

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

SERVERS = [aims.OURS, aims.BARE, aims.HP, *aims.FUSE]
COPIERS = [aims.OURS, *aims.FUSE, "qemu-img", aims.FAST, "nbdcopy", "raw"]
# Title, metric, image, programs; or our own figures over several images.
PANELS = [
    ("Sequential read, warm, plain (MB/s)", "seq", ["plain"], SERVERS),
    ("virtsnapfs over other images (MB/s)", "seq",
     ["plain", "chain2", "chain5", "frag", "snap3@s2", "c2m", "subcl"], [aims.OURS]),
    ("zlib read to the end (MB/s)", "seq", ["zlib"], SERVERS),
    ("zstd read to the end (MB/s)", "seq", ["zstd"], SERVERS),
    ("cp to a local file, plain (s, less is better)", "cp", ["plain"], COPIERS),
    ("cp to a local file, zlib (s, less is better)", "cp", ["zlib"], COPIERS),
    ("Random 4 KiB, 1 reader, plain (IOPS)", "rand1", ["plain"], SERVERS),
    ("Random 4 KiB, 8 readers, plain (IOPS)", "rand8", ["plain"], SERVERS),
    ("Cold cache, plain (MB/s)", "cold", ["plain"], [*SERVERS, "raw"]),
    ("Start to first byte, plain (ms, less is better)", "first", ["plain"], SERVERS),
]

WIDTH, LEFT, RIGHT, BAR, GAP, TITLE = 460, 120, 60, 16, 4, 26
OUR_COLOUR, OTHER_COLOUR, LIMIT_COLOUR = "#1f6fb2", "#b0b7bf", "#d9c89b"
LIMITS = {aims.BARE, aims.HP, "raw"}


def bars(rows, panel):
    """(label, program, median, min, max) of what was measured for a panel."""
    _, metric, images, programs = panel
    for image in images:
        for program in programs:
            values = rows.all(metric, image, program)
            if values:
                label = image if len(images) > 1 else program
                yield label, program, statistics.median(values), min(values), max(values)


def draw_panel(rows, panel, left, top):
    """SVG elements, and the height they take."""
    found = list(bars(rows, panel))
    if not found:
        return [], 0
    scale = (WIDTH - LEFT - RIGHT) / max(bar[4] for bar in found)
    out = [f'<text x="{left}" y="{top + 14}" font-weight="bold">{html.escape(panel[0])}</text>']
    y = top + TITLE
    for label, program, middle, low, high in found:
        colour = OUR_COLOUR if program == aims.OURS else \
            LIMIT_COLOUR if program in LIMITS else OTHER_COLOUR
        zero, at = left + LEFT, y + BAR / 2
        out += [
            f'<text x="{zero - 6}" y="{y + 12}" text-anchor="end">{html.escape(label)}</text>',
            f'<rect x="{zero}" y="{y}" width="{middle * scale:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<path d="M{zero + low * scale:.1f} {at}H{zero + high * scale:.1f}" stroke="#333"/>',
            f'<text x="{zero + high * scale + 5:.1f}" y="{y + 12}">{aims.number(middle)}</text>',
        ]
        y += BAR + GAP
    return out, y - top + 14


def plot(rows):
    """Two columns of panels."""
    out, top = [], 10
    for pair in zip(PANELS[::2], PANELS[1::2]):
        drawn = [draw_panel(rows, panel, 10 + i * (WIDTH + 20), top) for i, panel in enumerate(pair)]
        out += drawn[0][0] + drawn[1][0]
        top += max(drawn[0][1], drawn[1][1])
    width = 2 * WIDTH + 40
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" '
        f'viewBox="0 0 {width} {top}" font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{width}" height="{top}" fill="#fff"/>', *out, "</svg>", ""])


def first_line(*argv):
    """Of what a program says, on either stream; empty if it is not there."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    return next(iter((done.stdout + done.stderr).strip().splitlines()), "")


def describe_machine():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        models = [line.split(":")[1].strip() for line in f if line.startswith("model name")]
    with open("/proc/meminfo", encoding="utf-8") as f:
        kib = int(f.readline().split()[1])
    with open("/etc/os-release", encoding="utf-8") as f:
        system = dict(line.rstrip().split("=", 1) for line in f if "=" in line)["PRETTY_NAME"]
    model = models[0] if models else platform.machine()
    return (f"{os.cpu_count()} CPUs ({model}), {kib / (1 << 20):.0f} GiB of memory, "
            f"Linux {platform.release()}, {system.strip(chr(34))}")


def package_version(package):
    return first_line("dpkg-query", "-W", "-f", "${Version}", package) or "?"


def describe_programs():
    packages = [("QEMU", "qemu-utils"), ("libnbd", "libnbd-bin"), ("libqcow", "libqcow-utils"),
                ("libfuse", "libfuse3-3"), ("libvirt", "libvirt-daemon"), ("fio", "fio")]
    commit = first_line("git", "-C", os.path.dirname(os.path.abspath(__file__)), "describe",
                        "--always", "--dirty")
    return ", ".join([f"virtsnapfs of commit {commit}" if commit else "virtsnapfs",
                      *(f"{name} {package_version(package)}" for name, package in packages)])


def value_table(rows, metric, title):
    """Programs by images; a dash is what cannot be or was not measured."""
    keys = [key[1:] for key in rows.values if key[1] == metric]
    images = list(dict.fromkeys(image for _, image, _ in keys))
    yield f"| {title} | " + " | ".join(images) + " |"
    yield "|---" * (len(images) + 1) + "|"
    for program in dict.fromkeys(program for _, _, program in keys):
        cells = []
        for image in images:
            values = rows.all(metric, image, program)
            cells.append(aims.number(statistics.median(values)) if values else "-")
        yield f"| {program} | " + " | ".join(cells) + " |"
    yield ""


def docs_block(rows, runs, scale):
    yield f"{datetime.date.today().isoformat()}. {describe_machine()}."
    yield f"{describe_programs()}."
    yield f"Images of {8 / scale:g} GiB (`--scale {scale}`), medians of {runs} runs."
    yield ""
    yield from aims.table(rows, aims.GROUPS)
    yield ""
    yield "![Medians as bars, smallest and largest as a line](speed.svg)"
    yield ""
    yield "Blue: virtsnapfs. Yellow: limits, which read a raw file. The line is the range of all runs."
    yield ""
    for metric, title in (("seq", "sequential read, MB/s"), ("cpu", "server CPU, s/GiB"),
                          ("peak", "memory of the server, MiB"), ("cp", "`cp` or copy, s"),
                          ("rand1", "random 4 KiB, 1 reader, IOPS"),
                          ("rand8", "random 4 KiB, 8 readers, IOPS"),
                          ("cold", "cold cache, MB/s"), ("first", "start to first byte, ms"),
                          ("first_cold", "the same, cold cache, ms"),
                          ("walk", "SEEK walk, ms")):
        if any(key[1] == metric for key in rows.values):
            yield from value_table(rows, metric, title)


def write_docs(rows, folder, runs, scale):
    page = os.path.join(folder, "speed.md")
    with open(page, encoding="utf-8") as f:
        before, rest = f.read().split(BEGIN + "\n")
    after = rest.split(END)[1]
    with open(page, "w", encoding="utf-8") as f:
        f.write("\n".join([before + BEGIN, *docs_block(rows, runs, scale), END]) + after)
    with open(os.path.join(folder, "speed.svg"), "w", encoding="utf-8") as f:
        f.write(plot(rows))


def main():
    verb, *rest = sys.argv[1:] or [""]
    if verb == "plot" and rest:
        print(plot(aims.Rows(rest[0])), end="")
    elif verb == "docs" and len(rest) == 4:
        write_docs(aims.Rows(rest[0]), rest[1], int(rest[2]), int(rest[3]))
    else:
        sys.exit("usage: figures.py plot ROWS | docs ROWS FOLDER RUNS SCALE")


if __name__ == "__main__":
    main()
