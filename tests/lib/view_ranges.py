# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a file has data, as lseek tells it."""
import errno
import os


class SeekError(Exception):
    pass


def seek_ranges(fd, size):
    """Data ranges [start, end) by SEEK_DATA and SEEK_HOLE; SeekError if these contradict."""
    ranges, off = [], 0
    while off < size:
        try:
            start = os.lseek(fd, off, os.SEEK_DATA)
        except OSError as e:
            if e.errno == errno.ENXIO:
                break
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        if not off <= start < end <= size:
            raise SeekError(f"SEEK_DATA from {off} gave {start}, SEEK_HOLE from there {end}")
        if ranges and ranges[-1][1] == start:
            raise SeekError(f"SEEK_HOLE gave {start}, but data goes on there")
        ranges.append([start, end])
        off = end
    return ranges
