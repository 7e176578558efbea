#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The promises of docs/SECURITY.md: each row of their table names a test, and each test, fuzz target,
case and page that it names is there.

  promises.py BUILD-FOLDER
"""
import json
import os
import re
import subprocess
import sys

PAGE = "docs/SECURITY.md"
METHODS = ["overlay", "backup", "copy", "managedsave", "internal", "cold-overlay"]


def read_tests(build):
    output = subprocess.run(["meson", "introspect", "--tests", build], check=True, capture_output=True)
    return {test["name"] for test in json.loads(output.stdout)}


def read_cases():
    """Names of functions of the unit tests, and faults of the matrix."""
    cases = set()
    for folder, _, names in os.walk("tests"):
        for name in names:
            if name.endswith((".c", ".sh")):
                with open(os.path.join(folder, name), encoding="utf-8") as f:
                    text = f.read()
                cases.update(re.findall(r"^static void ([a-z_0-9]+)\(", text, re.M))
                cases.update(re.findall(r"^([a-z_0-9]+)\(\) \{", text, re.M))
                cases.update(re.findall(r"^    ([a-z]+-[a-z]+)\) ", text, re.M))
    return cases


def read_rows():
    """What stands in the second cell of the table."""
    with open(PAGE, encoding="utf-8") as f:
        section = f.read().split("\n## What is promised\n")[1].split("\n## ")[0]
    for line in section.splitlines():
        cells = line.split("|")
        if len(cells) == 4 and not re.match(r"[ -]*$|.*tried by", cells[2]):
            yield cells[1].strip(), cells[2]


def find_faults(text, tests, cases):
    """Names in @text that are nowhere."""
    text = re.sub(r"\[[^]]*\]\(([^)#]*)[^)]*\)", r"`docs/\1`", text)
    targets = re.search(r"fuzz targets? ((?:`[a-z]+`[ ,]*)+)", text)
    found = 0
    for name in re.findall(r"`([^`]+)`", text):
        found += 1
        if "/" in name:
            is_there = os.path.exists(name)
        elif targets and f"`{name}`" in targets[1] and os.path.exists(f"tests/fuzz/{name}.c"):
            is_there = True
        elif name.endswith("_METHOD"):
            is_there = all(name.replace("METHOD", method) in tests for method in METHODS)
        else:
            is_there = name in tests or name in cases
        if not is_there:
            yield f"nothing is called '{name}'"
    if not found:
        yield "no test is named"


def main():
    tests, cases = read_tests(sys.argv[1]), read_cases()
    rows = list(read_rows())
    faults = [f"{PAGE}: '{promise[:50]}': {fault}"
              for promise, text in rows for fault in find_faults(text, tests, cases)]
    if not rows:
        faults.append(f"{PAGE}: no table of promises was found")
    print(*faults, f"{len(rows)} promises", sep="\n")
    return 1 if faults else 0


sys.exit(main())
