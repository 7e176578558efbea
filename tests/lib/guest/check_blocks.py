#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Judges raw copies of all disks of a guest in the mode "blocks" (writer.c), taken at one instant.

    check_blocks.py [--after N] [--before N] DISK...

Block after block was synced before the next one was begun, on the disks in turn. So a copy of one
instant holds every block up to some number S in its place, whole, and none that came later; and
that over all disks. Prints S. --after and --before: S has to be at least, and at most, that.
"""
import argparse
import struct
import sys
import zlib

BLOCK_SIZE = 4096
MAGIC = 0x6b636f6c42747367
HEADER = struct.Struct("<5Q")  # magic, number, disk, number of disks, slots a disk
CHECKSUM = struct.Struct("<Q")


def read_block(raw, where, faults):
    """The header's fields after the magic, or None for a block that was never written."""
    if not raw.strip(b"\0"):
        return None
    magic, *fields = HEADER.unpack_from(raw)
    if magic != MAGIC or CHECKSUM.unpack_from(raw, BLOCK_SIZE - 8)[0] != zlib.crc32(raw[:-8]):
        faults.append(f"{where}: torn or foreign block, begins with {raw[:24].hex()}")
        return None
    return fields


def read_disk(path, idx, n_disks, faults):
    """Numbers by slot, 0 for a slot that was never written; and the number of slots."""
    numbers, n_slots = [], 0
    with open(path, "rb", buffering=1 << 20) as disk:
        while not n_slots or len(numbers) < n_slots:
            raw = disk.read(BLOCK_SIZE)
            if len(raw) < BLOCK_SIZE:
                break
            where = f"{path} slot {len(numbers)}"
            fields = read_block(raw, where, faults)
            if fields and (fields[1] != idx or fields[2] != n_disks):
                faults.append(f"{where}: block of disk {fields[1]} of {fields[2]}, "
                              f"wanted {idx} of {n_disks}")
            if fields:
                n_slots = fields[3]
            numbers.append(fields[0] if fields else 0)
    return numbers[:n_slots], n_slots


def wanted_number(last, disk, slot, n_disks, n_slots):
    """The highest number up to @last that belongs into the slot, or 0."""
    first = slot * n_disks + disk + 1
    lap = n_disks * n_slots
    return 0 if last < first else last - (last - first) % lap


def check(paths, faults):
    disks = [read_disk(path, idx, len(paths), faults) for idx, path in enumerate(paths)]
    last = max((max(numbers, default=0) for numbers, _ in disks), default=0)
    for idx, (numbers, n_slots) in enumerate(disks):
        for slot, number in enumerate(numbers):
            wanted = wanted_number(last, idx, slot, len(paths), n_slots)
            if number != wanted:
                kind = "missing" if number < wanted else "from later"
                faults.append(f"{paths[idx]} slot {slot}: {kind}: number {number}, "
                              f"wanted {wanted} as the copy ends with {last}")
    return last


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--after", type=int, default=1)
    parser.add_argument("--before", type=int)
    parser.add_argument("disks", nargs="+")
    args = parser.parse_args()
    faults = []
    last = check(args.disks, faults)
    if last < args.after:
        faults.append(f"the copy ends with {last}, but {args.after} was synced before")
    if args.before is not None and last > args.before:
        faults.append(f"the copy ends with {last}, but only {args.before} was begun by then")
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(f"{len(faults)} faults in {' '.join(args.disks)}")
    print(last)


if __name__ == "__main__":
    main()
