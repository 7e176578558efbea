#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Uses a mount again and again while its program runs out of something, each time a bit later.

    fault_shortage.py MNT RANDOM PID FAULTY KIND REGEX MAX STEP

KIND: memory (allocation N fails, for N = 0, STEP, 2 STEP ... until none is reached any more), and
once more with all of them failing from there on; mounts (the latter, while something else is
mounted); descriptors (only N more); threads (only N more); address_space (only N MiB more).
Whatever fails must fail with an errno that says so; what succeeds must be right; and with enough of
it again everything must be.
"""
import errno
import itertools
import json
import os
import resource
import subprocess
import sys
import time

import faulty as faulty_module

mnt, random_path, pid, control, kind, _, _, step = sys.argv[1:]
pid, step = int(pid), int(step)
faulty = faulty_module.Faulty(control)
RANDOM = open(random_path, "rb").read()
ROOT = ["disputed.img", "over.qcow2", "packed.qcow2", "raw.img"]
NAMES = {"packed.qcow2": ["now.raw", "s1.raw"]}
ALLOWED = {
    "memory": {errno.ENOMEM, errno.EIO},
    "mounts": set(),
    "address_space": {errno.ENOMEM, errno.EIO},
    "descriptors": {errno.EMFILE},
    "threads": {errno.ENOMEM, errno.EAGAIN},
}[kind]


class Wrong(Exception):
    pass


def expect(what, found, wanted):
    if found != wanted:
        raise Wrong(f"{what}: {str(found)[:200]}, wanted {str(wanted)[:200]}")


def read_all(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        data = b""
        while piece := os.pread(fd, 256 << 10, len(data)):
            data += piece
        if os.lseek(fd, 0, os.SEEK_HOLE) != len(RANDOM):
            raise Wrong(f"{path}: a hole")
    finally:
        os.close(fd)
    return data


def check_disputed(path):
    try:
        data = read_all(path)
    except OSError as e:
        if e.errno == errno.EOPNOTSUPP:
            return
        raise
    raise Wrong(f"{path}: {len(data)} bytes of a file that is refused")


def check_status(domain):
    with open(f"{mnt}/{domain}/status", encoding="utf-8") as f:
        expect(domain, json.load(f)["name"], domain)


def check_flat(path):
    with open(path, "rb", buffering=0) as f:
        expect(path, f.read(4), b"QFI\xfb")


def steps():
    """What programs do, as (name, function)."""
    yield "ls", lambda: expect("ls", sorted(os.listdir(mnt)), ROOT)
    for domain in ROOT:
        folder = f"{mnt}/{domain}/snapshots"
        if domain == "disputed.img":
            yield f"cat {domain}", lambda folder=folder: check_disputed(f"{folder}/now.raw")
            continue
        names = NAMES.get(domain, ["now.raw"])
        yield f"ls {domain}", lambda folder=folder, names=names: expect(
            folder, sorted(os.listdir(folder)), names)
        for name in names:
            path = f"{folder}/{name}"
            yield f"stat {path}", lambda path=path: expect(
                path, os.stat(path).st_size, len(RANDOM))
            yield f"cat {path}", lambda path=path: expect(path, read_all(path), RANDOM)
        flat = f"{folder}/now.qcow2"
        yield f"flat {flat}", lambda flat=flat: check_flat(flat)
        yield f"status {domain}", lambda domain=domain: check_status(domain)


def use(may_fail, n):
    """Returns how many steps failed."""
    n_failed = 0
    for name, step_function in steps():
        try:
            step_function()
        except OSError as e:
            if not may_fail or e.errno not in ALLOWED:
                raise Wrong(f"{kind} {n}: {name}: {e}") from e
            n_failed += 1
        except json.JSONDecodeError as e:
            raise Wrong(f"{kind} {n}: {name}: {e}") from e
    return n_failed


def begin(n):
    if kind == "memory":
        faulty["until_alloc_fails"] = n
    elif kind == "threads":
        faulty["until_thread_fails"] = n
    elif kind == "descriptors":
        used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
        limit = [fd for fd in range(len(used) + n + 1) if fd not in used][n]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, HARD))
    else:
        with open(f"/proc/{pid}/statm", encoding="ascii") as f:
            used = int(f.read().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (used + n * 256 * 1024, HARD))


def end():
    """Returns whether the shortage was there at all."""
    if kind in ("memory", "mounts"):
        faulty["until_alloc_fails"] = -1
        n = faulty["n_failed_allocs"]
        faulty["n_failed_allocs"] = 0
        return n
    if kind == "threads":
        faulty["until_thread_fails"] = -1
        n = faulty["n_failed_threads"]
        faulty["n_failed_threads"] = 0
        return n
    resource.prlimit(pid, LIMIT, (HARD, HARD))
    return None


LIMIT = resource.RLIMIT_AS if kind == "address_space" else resource.RLIMIT_NOFILE
_, HARD = resource.prlimit(pid, LIMIT)


def wait_idle():
    """Until the program has allocated nothing for a while."""
    seen, quiet_since = None, time.monotonic()
    while time.monotonic() < quiet_since + 0.05:
        if seen != (seen := faulty["n_allocs"]):
            quiet_since = time.monotonic()
        time.sleep(0.005)


def mount_others():
    """The program looks at the table of mounts whenever it changes: what it cannot read is not gone."""
    other = f"{os.path.dirname(control)}/other"
    os.mkdir(other)
    faulty["stays_failing"] = 1
    for n in itertools.count(0, step):
        faulty["until_alloc_fails"] = n
        subprocess.run(["mount", "-t", "tmpfs", "none", other], check=True)
        wait_idle()
        was_short = end()
        subprocess.run(["umount", other], check=True)
        wait_idle()
        expect("ls", sorted(os.listdir(mnt)), ROOT)
        if was_short == 0:
            break
    os.rmdir(other)
    return n, n // step


def recover(n):
    """All is well again, at the latest when what failed is looked at anew."""
    deadline = time.monotonic() + 20
    while True:
        try:
            use(False, n)
            return
        except Wrong:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def run(stays):
    faulty["stays_failing"] = stays
    total = 0
    for n in itertools.count(0, step):
        begin(n)
        n_failed = use(True, n)
        was_short = end()
        total += n_failed
        if was_short == 0 or (was_short is None and n_failed == 0):
            return n, total
        recover(n)


try:
    recover("before")
    for stays in (0, 1) if kind == "memory" else (0,):
        last, total = mount_others() if kind == "mounts" else run(stays)
        print(f"{kind}{' from there on' if stays else ''}: up to {last} in steps of {step}: {total} calls failed")
        if total == 0:
            raise Wrong(f"{kind}: nothing ever failed")
except Wrong as e:
    sys.exit(f"FAILED: {e}")
