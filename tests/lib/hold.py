#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Opens and reads files when it is told, for scripts in which either may hang.

    hold.py FILE...

Answers each line of standard input with one line, "OK" or the name of the errno:
    open N          the Nth file, which stays open to the end
    copy N TO       all of it, to another file
"""
import errno
import os
import sys

PIECE = 1 << 20


def copy(fd, to):
    with open(to, "wb") as out:
        off = 0
        while data := os.pread(fd, PIECE, off):
            off += len(data)
            out.write(data)


def obey(paths, fds, verb, idx, *rest):
    if verb == "open":
        fds[idx] = os.open(paths[int(idx)], os.O_RDONLY)
    elif verb == "copy":
        copy(fds[idx], *rest)
    else:
        sys.exit(f"what is '{verb}'?")


def main():
    fds = {}
    for line in sys.stdin:
        try:
            obey(sys.argv[1:], fds, *line.split())
            print("OK", flush=True)
        except OSError as e:
            is_unsupported = e.errno == errno.EOPNOTSUPP
            print("EOPNOTSUPP" if is_unsupported else errno.errorcode.get(e.errno, str(e)), flush=True)


if __name__ == "__main__":
    main()
