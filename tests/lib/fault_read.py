#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads a file in pieces, past the page cache, and says what came of it. A piece that is read must
have the right bytes, whatever happens to the others.

    fault_read.py FILE ORACLE...   FILE is a path, or the number of a descriptor that was handed on;
                                   READ_TIMES in the environment: so many times over

Prints "OK", or the names of all errnos that there were ("EIO", "EIO+ESTALE"; with "open:" if that
was the open's), then how many pieces failed, of how many. With several oracles each piece must be
one of theirs. Exit status 1: bytes that are in no oracle.
"""
import errno
import fcntl
import mmap
import os
import sys

PIECE = 64 << 10


def main():
    name, *oracles = sys.argv[1:]
    right = []
    for path in oracles:
        with open(path, "rb") as f:
            right.append(f.read())
    size = max(len(data) for data in right)
    n_pieces = (size + PIECE - 1) // PIECE
    if name.isdigit():
        fd = int(name)
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)
    else:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECT)
        except OSError as e:
            print(f"open:{errno.errorcode[e.errno]} {n_pieces} of {n_pieces}")
            return
    failures, n_failed = set(), 0
    buffer = mmap.mmap(-1, PIECE)
    for off in list(range(0, size, PIECE)) * int(os.environ.get("READ_TIMES", 1)):
        try:
            n = os.preadv(fd, [buffer], off)
        except OSError as e:
            failures.add(errno.errorcode[e.errno])
            n_failed += 1
            continue
        got = buffer[:n]
        if not any(got == data[off:off + PIECE] for data in right):
            bad = next((i for i in range(n) if got[i:i + 1] != right[0][off + i:off + i + 1]), n)
            sys.exit(f"{name}: {n} bytes at {off}, the wrong one at {off + bad}")
    print("+".join(sorted(failures)) or "OK", n_failed, "of", n_pieces)


if __name__ == "__main__":
    main()
