#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether a program gives an image's right bytes, without reading all of them.

    sample.py choose IMAGE N          N offsets into the image's disk, half of them into its data
    sample.py sum FILE OFFSETS        SHA-256 of the 64 KiB at each of the offsets
    sample.py hole IMAGE MAX          the longest hole, without its ends: offset, and length or MAX
    sample.py extents IMAGE           number of data extents

IMAGE is a qcow2 image, which QEMU looks at; FILE anything that can be read.
"""
import hashlib
import json
import os
import random
import subprocess
import sys

LEN = 65536
SECTOR = 512
# Farther than readahead looks beyond what is read.
MARGIN = 16 << 20


def read_map(image):
    """QEMU's: (offset, length, is data), neighbours of one kind as one."""
    out = subprocess.run(["qemu-img", "map", "-f", "qcow2", "--output=json", image],
                         capture_output=True, check=True, timeout=600).stdout
    merged = []
    for e in json.loads(out):
        if merged and merged[-1][2] == e["data"]:
            merged[-1][1] += e["length"]
        else:
            merged.append([e["start"], e["length"], e["data"]])
    return merged


def choose(image, count):
    """Offsets are multiples of a sector only: they lie across clusters."""
    extents = read_map(image)
    data = [(start, n) for start, n, is_data in extents if is_data]
    size = sum(extents[-1][:2])
    rng = random.Random(5)
    for _ in range(count // 2):
        start, n = rng.choices(data, [n for _, n in data])[0]
        yield start + rng.randrange(n // SECTOR) * SECTOR
        yield rng.randrange(size // SECTOR) * SECTOR


def digest(path, offsets):
    state = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY)
    for offset in offsets:
        data = b""
        while len(data) < LEN and (part := os.pread(fd, LEN - len(data), offset + len(data))):
            data += part
        state.update(data)
    os.close(fd)
    return state.hexdigest()


def main():
    verb, path, *rest = sys.argv[1:]
    if verb == "choose":
        print("\n".join(map(str, choose(path, int(rest[0])))))
    elif verb == "sum":
        with open(rest[0], encoding="ascii") as f:
            print(digest(path, [int(line) for line in f]))
    elif verb == "hole":
        n, start = max((n, start) for start, n, is_data in read_map(path) if not is_data)
        print(start + MARGIN, min(n - 2 * MARGIN, int(rest[0])))
    elif verb == "extents":
        print(sum(is_data for _, _, is_data in read_map(path)))


if __name__ == "__main__":
    main()
