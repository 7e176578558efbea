#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The diagrams of docs/diagrams say what the code does, and the pictures what their texts say.

- Each `.svg` has the words and the arrows that its `.dot` has (where things stand is left to dot,
  whose versions differ).
- instant.dot has the moves that allowed_moves of fs/session/session.c has, no more and no less.
- read.dot names functions that are defined in the folder of their column.
"""

import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs/diagrams"
SVG = "{http://www.w3.org/2000/svg}"
faults = []


def words(svg):
    """What an SVG shows: titles of nodes and arrows, and all text."""
    root = ET.fromstring(svg)
    return sorted(f"{e.tag.removeprefix(SVG)}: {e.text}" for e in root.iter()
                  if e.tag in (SVG + "title", SVG + "text"))


def check_drawn(dot):
    drawn = subprocess.run(["dot", "-Tsvg", dot], check=True, capture_output=True, timeout=60).stdout
    if words(drawn) != words(dot.with_suffix(".svg").read_bytes()):
        faults.append(f"{dot.name}: the picture is older than its text: run docs/diagrams/draw")


def check_moves():
    source = (ROOT / "fs/session/session.c").read_text()
    table = re.search(r"allowed_moves\[\] = \{(.*?)\n\};", source, re.S)[1]
    code = {(start, end) for start, ends in re.findall(r"\[SESSION_(\w+)\]\s*=\s*([^,]*),", table)
            for end in re.findall(r"MOVE\(SESSION_(\w+)\)", ends)}
    text = (FOLDER / "instant.dot").read_text()
    drawn = set(re.findall(r"^    ([A-Z]+) -> ([A-Z]+)", text, re.M))
    if not code:
        faults.append("fs/session/session.c: no allowed_moves")
    for move in sorted(code ^ drawn):
        where = "only in session.c" if move in code else "only in instant.dot"
        faults.append(f"instant.dot: {move[0]} -> {move[1]} is {where}")


def check_functions():
    text = (FOLDER / "read.dot").read_text()
    columns = {float(x): folder.split("\\n")[0] for x, folder in
               re.findall(r'pos="([\d.]+),310!".*label="([^"]*)"', text)}
    found = 0
    for x, names in re.findall(r'pos="([-\d.]+),.*face="Courier">([^<]*)<', text):
        folder = columns[min(columns, key=lambda column: abs(column - float(x)))]
        code = "".join(p.read_text() for p in sorted((ROOT / folder).glob("*.c")))
        for name in names.split(", "):
            found += 1
            if not re.search(rf"^([a-z].*[ *])?{name}\(", code, re.M):
                faults.append(f"read.dot: no function {name} in {folder}")
    if not found:
        faults.append("read.dot: no functions")


for path in sorted(FOLDER.glob("*.dot")):
    check_drawn(path)
check_moves()
check_functions()
print("\n".join(faults))
sys.exit(bool(faults))
