#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The other end of faulty.c: says what is to fail in a program that runs with it.

    faulty.py FILE new                  makes the file, with nothing to fail
    faulty.py FILE NAME [VALUE]         sets a number, or prints it
"""
import mmap
import struct
import sys

NAMES = ["until_alloc_fails", "n_failed_allocs", "n_allocs", "until_thread_fails",
         "n_failed_threads", "clock_ahead_s", "stays_failing", "unused"]


class Faulty:
    def __init__(self, path):
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 8 * len(NAMES))

    def __getitem__(self, name):
        return struct.unpack_from("=q", self.map, 8 * NAMES.index(name))[0]

    def __setitem__(self, name, value):
        struct.pack_into("=q", self.map, 8 * NAMES.index(name), value)


def make(path):
    with open(path, "wb") as f:
        f.write(bytes(8 * len(NAMES)))
    faulty = Faulty(path)
    faulty["until_alloc_fails"] = faulty["until_thread_fails"] = -1


def main():
    path, name, *value = sys.argv[1:]
    if name == "new":
        make(path)
    elif value:
        Faulty(path)[name] = int(value[0])
    else:
        print(Faulty(path)[name])


if __name__ == "__main__":
    main()
