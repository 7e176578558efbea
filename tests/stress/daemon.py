# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program under test: mounted with one set of options after the other, ended in different ways,
and what is to be seen of it from outside: status, memory, descriptors, log."""
import collections
import json
import os
import re
import signal
import subprocess
import time

import logged
from world import STUCK_S, Failure, run

LIVE = ["overlay", "backup", "copy", "managedsave", "auto"]
COLD = ["lock", "internal", "overlay"]
MEMORY_MAX_KIB = 128 * 1024  # of a program without sanitizers, cache=16M and 64 readers


class Rounds:
    """Options for one mount after the other: each method comes once before one comes again."""

    def __init__(self, rng):
        self.rng = rng
        self.left = {"live": [], "cold": []}

    def pick(self, key, values):
        if not self.left[key]:
            self.left[key] = self.rng.sample(values, len(values))
        return self.left[key].pop()

    def options(self):
        return {"live": self.pick("live", LIVE), "cold": self.pick("cold", COLD),
                "quiesce": self.rng.choice(["try", "try", "never"]),
                "linger": self.rng.choice([0, 1, 5]), "join": self.rng.choice([2, 10, 60]),
                "max_open": self.rng.choice([8, 16, 16]), "cache": "16M", "timeout": 60,
                "min_free": "1M"}


class Daemon:
    def __init__(self, world, libvirt, programs):
        self.world, self.libvirt, self.programs = world, libvirt, programs
        self.mountpoint = world.path("mnt")
        os.mkdir(self.mountpoint)
        self.generation = 0
        self.process, self.options, self.log, self.is_plain = None, {}, "", False
        self.ending_since = None  # None: it is served
        self.lines = collections.Counter()
        self.high_water_kib = 0

    # ---- begin and end ----

    def start(self, options):
        self.generation += 1
        self.options = options
        self.log = self.world.path(f"log.mount.{self.generation}")
        program = self.programs[self.generation % len(self.programs)]
        self.is_plain = len(self.programs) > 1 and program == self.programs[0]
        text = ",".join(f"{key}={value}" for key, value in options.items())
        self.world.say(f"mount {self.generation}: {program} -o {text}")
        with self.libvirt.lock, open(self.log, "ab") as log:
            self.libvirt.ensure_up()
            self.process = subprocess.Popen(
                [program, "-f", "-o", f"state={self.world.path('state')},{text}", "qemu:///system",
                 self.mountpoint], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self.wait_ready()
        self.ending_since = None
        self.world.count(f"mounts with live={options['live']}")
        self.world.count(f"mounts with cold={options['cold']}")

    def wait_ready(self):
        def is_serving():
            if self.process.poll() is not None:
                raise Failure(f"virtsnapfs ended at once ({self.process.returncode}): "
                              f"{self.tail()}")
            try:
                return os.stat(self.mountpoint).st_dev != os.stat(self.world.folder).st_dev
            except OSError:
                return False
        self.world.wait_for(120, "a mount", is_serving)

    def kill(self):
        self.finish("killed", lambda: os.kill(self.process.pid, signal.SIGKILL), -signal.SIGKILL)

    def terminate(self):
        self.finish("terminated", lambda: os.kill(self.process.pid, signal.SIGTERM), 0)

    def unmount(self):
        def unmount():
            # Somebody outside, such as a shell in a folder, may be slow to leave.
            self.world.wait_for(30, "umount", lambda: run("umount", self.mountpoint)[0] == 0)
        self.finish("unmounted", unmount, 0)

    def finish(self, how, act, wanted):
        self.note_memory()
        self.world.disturb(f"mount {how}")
        self.world.count(f"mounts {how}")
        self.ending_since = time.time()
        act()
        try:
            status = self.process.wait(STUCK_S)
        except subprocess.TimeoutExpired:
            stacks = run("gdb", "-p", str(self.process.pid), "-batch", "-ex",
                         "thread apply all bt 12")[1]
            with open(self.world.path("log.stacks"), "w", encoding="utf-8") as f:
                f.write(stacks)
            raise Failure(f"virtsnapfs does not end when {how}") from None
        if status != wanted:
            raise Failure(f"virtsnapfs was {how} and ended with {status}: {self.tail()}")
        if wanted == 0:
            self.world.wait_for(10, "the end of the mount", lambda: not self.is_fuse())
        self.read_log()

    def is_fuse(self):
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            return any(f" {self.mountpoint} " in line for line in f)

    def recover(self):
        """virtsnapfs --recover; its exit status."""
        log = self.world.path(f"log.recover.{self.generation}")
        status, out, err = run(self.programs[-1], "--recover", "-o",
                               f"state={self.world.path('state')}", "qemu:///system",
                               timeout=STUCK_S)
        with open(log, "a", encoding="utf-8") as f:
            f.write(out + err)
        self.world.count("runs of --recover")
        self.world.say(f"--recover: {status}")
        if status not in (0, 5):
            raise Failure(f"--recover ended with {status}: {err[-2000:]}")
        self.judge_lines(err.splitlines(), log)
        return status

    # ---- from outside ----

    def status(self, domain):
        with open(f"{self.mountpoint}/{domain}/status", encoding="utf-8") as f:
            return json.load(f)

    def note_memory(self):
        try:
            with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
                found = re.search(r"VmHWM:\s*(\d+)", f.read())
        except OSError:
            return
        if not found:
            return
        kib = int(found[1])
        self.world.say(f"memory at most {kib} KiB")
        if self.is_plain:
            self.high_water_kib = max(kib, self.high_water_kib)
            if kib > MEMORY_MAX_KIB:
                raise Failure(f"mount {self.generation} had {kib} KiB of memory")

    def descriptors(self):
        """What the program has open, but for those that each FUSE thread has."""
        folder = f"/proc/{self.process.pid}/fd"
        found = []
        for name in os.listdir(folder):
            try:
                found.append(os.readlink(f"{folder}/{name}"))
            except OSError:
                pass
        return [path for path in found if path != "/dev/fuse"]

    def check_descriptors(self):
        """Nobody reads: no image is open, and little else."""
        def is_idle():
            held = self.descriptors()
            return len(held) < 40 and not any(self.world.path("disks") in path for path in held)
        try:
            self.world.wait_for(60, "", is_idle)
        except Failure:
            raise Failure(f"descriptors without a reader: {self.descriptors()}") from None
        self.world.say(f"descriptors when idle: {len(self.descriptors())}")

    def tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return " / ".join(f.read().splitlines()[-5:])

    # ---- its log ----

    def read_log(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            self.judge_lines(f.read().splitlines(), self.log)

    def judge_lines(self, lines, where):
        where = os.path.basename(where)
        self.lines.update(logged.shape_of(line) for line in lines)
        for line in lines:
            if logged.SANITIZER.search(line):
                raise Failure(f"{where}: {line}")
        unexpected = [line for line in lines if not logged.is_expected(line)]
        if unexpected:
            self.world.note_fault(f"{where}: {len(unexpected)} lines that nothing explains, as "
                                  f"'{unexpected[0]}'")
