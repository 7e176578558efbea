# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compares one file of a mount with what QEMU said it contains: size, times, holes, bytes."""
import errno
import os
import random
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from view_ranges import SeekError, seek_ranges  # noqa: E402

SMALL = 64 << 20  # files up to here are read whole, holes and all
CHUNK = 1 << 20
N_RANDOM_READS = 24


class Difference(Exception):
    pass


def overlaps(ranges, others, size):
    """Union of both lists of ranges, cut to @size: all that has to be compared byte by byte."""
    union = []
    for start, end in sorted([*map(tuple, ranges), *map(tuple, others)]):
        end = min(end, size)
        if union and start <= union[-1][1]:
            union[-1][1] = max(union[-1][1], end)
        elif start < end:
            union.append([start, end])
    return union


def check_holds(ranges, wanted):
    """Raises Difference if some of the @wanted ranges are not in @ranges."""
    for start, end in wanted:
        if not any(s <= start and end <= e for s, e in ranges):
            raise Difference(f"no data at {start}..{end}, where QEMU has some")


def check_bytes(got, wanted, off):
    if got == wanted:
        return
    if len(got) != len(wanted):
        raise Difference(f"read at {off} gave {len(got)} bytes, wanted {len(wanted)}")
    at = next(i for i, (a, b) in enumerate(zip(got, wanted)) if a != b)
    raise Difference(f"byte {off + at} is {got[at]:#04x}, QEMU has {wanted[at]:#04x} "
                     f"(read of {len(got)} bytes at {off})")


def check_stat(st, view):
    if not stat.S_ISREG(st.st_mode) or stat.S_IMODE(st.st_mode) != 0o400 or st.st_nlink != 1:
        raise Difference(f"mode {st.st_mode:#o}, {st.st_nlink} links")
    if st.st_size != view["size"]:
        raise Difference(f"st_size {st.st_size}, QEMU has {view['size']}")
    for name in ("st_mtime_ns", "st_ctime_ns", "st_atime_ns"):
        if getattr(st, name) != view["mtime_ns"]:
            raise Difference(f"{name} {getattr(st, name)}, wanted {view['mtime_ns']}")
    n_data = sum(end - start for start, end in view["data"])
    n_sectors = view["size"] // 512
    if st.st_blocks == 0 and n_data:
        raise Difference(f"st_blocks 0, but {n_data} bytes of data")
    is_full = view["has_unwritten"] or n_data >= view["size"] or n_sectors <= 1
    if st.st_blocks > n_sectors or (st.st_blocks == n_sectors and not is_full):
        raise Difference(f"st_blocks {st.st_blocks}, but only {n_data} bytes of data")


def check_end(fd, size):
    for off in (size, size + 1):
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            try:
                raise Difference(f"lseek({off}, {whence}) gave {os.lseek(fd, off, whence)}")
            except OSError as e:
                if e.errno != errno.ENXIO:
                    raise
    if os.pread(fd, 100, size) or os.pread(fd, 100, size + 12345):
        raise Difference("read past the end gave bytes")


def random_spots(rng, size, ranges):
    """Offsets and lengths of any alignment, most of them at or near data."""
    for _ in range(N_RANDOM_READS):
        near = rng.choice(ranges) if ranges and rng.random() < 0.8 else [0, size]
        off = rng.choice([near[0], near[1], rng.randrange(near[0], near[1])])
        off = max(0, min(size - 1, off + rng.randrange(-700, 700)))
        yield off, rng.choice([1, 511, 512, 4096, rng.randrange(1, 70000),
                               rng.randrange(1, 1200000)])


def check_view(path, oracle_path, view, seed):
    """Raises Difference, or OSError where the mount gives an error; the bytes compared."""
    rng = random.Random(f"{seed}-{path}")
    before = os.stat(path)
    check_stat(before, view)
    fds = [os.open(path, os.O_RDONLY | os.O_CLOEXEC), os.open(oracle_path, os.O_RDONLY)]
    try:
        # Past the page cache, so that odd offsets and lengths reach the server as they are.
        fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT))
        fd, oracle, direct = fds
        check_stat(os.fstat(fd), view)
        size = view["size"]
        try:
            ranges = seek_ranges(fd, size)
        except SeekError as e:
            raise Difference(str(e)) from e
        wanted = [[start, min(end, size)] for start, end in view["data"]]
        if view["has_unwritten"]:
            check_holds(ranges, wanted)
        elif ranges != wanted:
            raise Difference(f"holes: data at {first_difference(ranges, wanted)}")
        n = 0
        # Random reads come first, while nothing is cached.
        for off, length in random_spots(rng, size, ranges):
            how = direct if rng.random() < 0.5 else fd
            check_bytes(os.pread(how, length, off), os.pread(oracle, length, off), off)
            n += length
        whole = [[0, size]] if size <= SMALL else ranges
        for start, end in overlaps(whole, seek_ranges(oracle, size), size):
            for off in range(start, end, CHUNK):
                length = min(CHUNK, end - off)
                check_bytes(os.pread(fd, length, off), os.pread(oracle, length, off), off)
                n += length
        check_end(fd, size)
    finally:
        for fd in fds:
            os.close(fd)
    after = os.stat(path)
    if (before.st_ino, before.st_blocks) != (after.st_ino, after.st_blocks):
        raise Difference(f"inode or blocks moved while reading: {before} {after}")
    return n


def check_flat(path, oracle_path):
    """Raises Difference unless QEMU finds a sound image there with the bytes of the oracle."""
    for argv in (["check", "-q", "-f", "qcow2", path],
                 ["compare", "-q", "-f", "qcow2", "-F", "raw", path, oracle_path]):
        done = subprocess.run(["qemu-img", *argv], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True)
        if done.returncode != 0:
            raise Difference(f"qemu-img {argv[0]}: status {done.returncode}, "
                             f"{(done.stdout + done.stderr).strip()}")


def first_difference(got, wanted):
    for g, w in zip(got, wanted):
        if g != w:
            return f"{g[0]}..{g[1]}, QEMU has {w[0]}..{w[1]}"
    rest = got[len(wanted):] or wanted[len(got):]
    return f"{rest[0][0]}..{rest[0][1]} {'only here' if len(got) > len(wanted) else 'is missing'}"
