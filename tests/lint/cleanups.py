# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which leaks clang 14 reports because it does not know __attribute__((cleanup)).

Such a leak is none if at its place a variable of that function holds the memory and is declared
with a cleanup, and nothing in between took the memory out of the variable. Whatever cannot be
told so for sure is left as a finding.
"""
import functools
import re

POINTED = re.compile(r"pointed to by '[&*(]*(\w+)")
ALLOCATED = re.compile(r"Memory is allocated|Returned allocated memory")
NESTED = re.compile(r"\([^()]*\)|\{[^{}]*\}|\[[^][]*\]")
OWNER = re.compile(r"\b(?:auto_\w+|__attribute__\(\(cleanup\(\w+\)\)\))\s+([^;]*);")


@functools.cache
def read_lines(path):
    with open(path, encoding="utf-8") as f:
        return f.read().split("\n")


def find_function(path, line):
    """The first and the last line of the body around a line, or None."""
    lines = read_lines(path)
    first = next((n for n in range(line, 0, -1) if lines[n - 1] == "{"), None)
    last = next((n for n in range(line, len(lines) + 1) if lines[n - 1] == "}"), None)
    if not first or not last or "}" in lines[first:line - 1]:
        return None
    return first, last


def find_owners(text):
    """Names of the variables that a cleanup empties."""
    owners = set()
    for declaration in OWNER.findall(text):
        n = 1
        while n > 0:
            declaration, n = NESTED.subn("", declaration)
        for part in declaration.split(","):
            name = re.findall(r"\w+", part.split("=")[0])
            owners.update(name[-1:])
    return owners


def read_statement(path, line):
    """From this line to the end of its statement; with what is before it, of a longer one."""
    lines = read_lines(path)
    first = last = line
    while first > 1 and not re.search(r"[;{}:]\s*(/\*.*)?$|^\s*$|\*/$", lines[first - 2]):
        first -= 1
    while last < len(lines) and not re.search(r"[;{}]\s*(/\*.*)?$", lines[last - 1]):
        last += 1
    return "\n".join(lines[first - 1:last])


def fills(name, statement):
    """Whether a statement gives a variable, or a part of it, something to hold."""
    return re.search(rf"\b{name}\b(?:(?:\.|->)\w+|\[[^]]*\])*\s*=[^=]|&{name}\b", statement)


def gets(name, other, text):
    """Whether a variable is given something of another one."""
    return re.search(rf"\b{name}\b[^;=]*=[^=;][^;]*\b{other}\b", text)


def is_cleaned(path, line, text, notes):
    """For a leak at a line; notes: (path, line, text) on the way to it."""
    function = find_function(path, line)
    if not function:
        return False
    # Where the memory comes into this function.
    sources = [n for note_path, n, note in notes if note_path == path and
               function[0] < n < function[1] and ALLOCATED.search(note)]
    if not sources:
        return False
    lines = read_lines(path)
    before = "\n".join(lines[function[0]:line])
    between = "\n".join(lines[sources[-1]:line])
    statement = read_statement(path, sources[-1])
    match = POINTED.search(text)
    name = match.group(1) if match else None
    for owner in find_owners(before):
        # (What a return takes is on a path that ends there.)
        if re.search(rf"\btake_\w+\(&?{owner}\b", re.sub(r"\breturn\b[^;]*;", "", between)):
            continue
        if fills(owner, statement) and (name in (None, owner) or gets(name, owner, before)):
            return True
        if name and gets(owner, name, statement + between):
            return True
    return False
