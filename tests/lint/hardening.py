#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs that users get are hardened: what meson.build asks for is there.

Looks at $VIRTSNAPFS_PLAIN, or at $VIRTSNAPFS if that has no sanitizer, and at the full one beside
it. What leaves no trace in a program is not looked for: -ftrivial-auto-var-init.
"""
import os
import re
import subprocess
import sys

# Calls of which at least these can be checked for the room at their target (_FORTIFY_SOURCE).
FORTIFIED = ["__memcpy_chk", "__snprintf_chk", "__vsnprintf_chk"]

# Far fewer than there are functions, far more than the start files bring along.
ENTRIES_MIN = 100


def read(*command):
    return subprocess.run(command, capture_output=True, check=True,
                          env={**os.environ, "LC_ALL": "C"}).stdout.decode()


def find_segment(segments, name):
    """Its flags, as "RWE"; None if there is none."""
    found = re.search(rf"^\s*{name}(?:\s+0x[0-9a-f]+){{5}}\s+([RWE ]+?)\s+0x", segments, re.M)
    return found and found.group(1).replace(" ", "")


def find_imports(program):
    symbols = read("readelf", "-W", "--dyn-syms", program)
    return set(re.findall(r" UND\s+([^\s@]+)", symbols))


def check_layout(program):
    """Yields what is wrong with segments and the dynamic section."""
    segments = read("readelf", "-lW", program)
    dynamic = read("readelf", "-dW", program)
    # Addresses that nobody knows beforehand.
    if not re.search(r"\(FLAGS_1\).*\bPIE\b", dynamic):
        yield "is at a fixed address: not linked with -pie"
    # Pages that would be written again to be loaded there.
    if "(TEXTREL)" in dynamic:
        yield "has text relocations: something was not compiled with -fPIE"
    # Pointers to functions of libraries are found first, and read-only then.
    if not re.search(r"\(FLAGS(_1)?\).*\b(BIND_)?NOW\b", dynamic):
        yield "binds lazily: not linked with -z now"
    if find_segment(segments, "GNU_RELRO") is None:
        yield "keeps its relocations writable: not linked with -z relro"
    if find_segment(segments, "GNU_STACK") != "RW":
        yield "has a stack that can be executed: not linked with -z noexecstack"
    for flags in re.findall(r"^\s*LOAD(?:\s+0x[0-9a-f]+){5}\s+([RWE ]+?)\s+0x", segments, re.M):
        if "W" in flags and "E" in flags:
            yield "has memory that can be written and executed"


def check_code(program):
    """Yields what is wrong with what the compiler made."""
    imports = find_imports(program)
    if "__stack_chk_fail" not in imports:
        yield "notices no overrun of the stack: not compiled with -fstack-protector-strong"
    missing = [name for name in FORTIFIED if name not in imports]
    if missing:
        yield f"calls no {', '.join(missing)}: not compiled with -D_FORTIFY_SOURCE"
    if not re.search(r"Machine:\s+.*X86-64", read("readelf", "-hW", program)):
        return
    code = read("objdump", "-d", "--no-show-raw-insn", "--section=.text", program)
    # Each of a large frame's pages is touched in turn, so that none is stepped over.
    if not re.search(r"\bsub +\$0x1000,%rsp", code):
        yield "takes large frames in one step: not compiled with -fstack-clash-protection"
    # An indirect call may lead to the begin of a function only, where the processor can do that.
    # (Whether the kernel is asked for it depends on a note that libc's start file must carry, too.)
    if len(re.findall(r"\bendbr64\b", code)) < ENTRIES_MIN:
        yield "begins its functions without endbr64: not compiled with -fcf-protection"


def find_program():
    plain = os.environ.get("VIRTSNAPFS_PLAIN")
    program = plain or os.environ["VIRTSNAPFS"]
    is_sanitized = re.search(r"lib(a|t|ub)san", read("ldd", program)) is not None
    return None if is_sanitized else program


def main():
    program = find_program()
    if not program:
        print("skipped: VIRTSNAPFS_PLAIN is not set, and VIRTSNAPFS has a sanitizer")
        return 77
    n_faults = 0
    for path in program, os.path.join(os.path.dirname(program), "full", "virtsnapfs"):
        for fault in (*check_layout(path), *check_code(path)):
            print(f"{path}: {fault}")
            n_faults += 1
    print(f"{n_faults} faults")
    return 1 if n_faults else 0


if __name__ == "__main__":
    sys.exit(main())
