# SPDX-License-Identifier: LGPL-2.1-or-later
"""The libvirtd of the stress run: calls by virsh, restarts and kills, and somebody who starts it
again, as a service manager does."""
import os
import signal
import threading
import time

from world import Failure, is_alive, read_pid, run


class Libvirt:
    def __init__(self, world):
        self.world = world
        self.pid_file = world.path("libvirtd.pid")
        self.lock = threading.RLock()  # held while nobody is to end it
        self.is_ended_by_us = False

    def pid(self):
        return read_pid(self.pid_file)

    def is_up(self):
        return is_alive(self.pid())

    def virsh(self, *words):
        """(True, what it prints), or (False, its complaint)."""
        status, out, err = run("virsh", "-q", *words)
        return status == 0, (out if status == 0 else err).strip()

    def ask(self, *words):
        """The same where it cannot fail but while libvirtd is away: that is waited for."""
        for _ in range(60):
            is_done, text = self.virsh(*words)
            if is_done:
                return text
            self.world.sleep(0.5)
        raise Failure(f"virsh {' '.join(words)}: {text}")

    def start(self):
        status, _, err = run("/usr/sbin/libvirtd", "-d", "-p", self.pid_file, timeout=60)
        self.world.say(f"libvirtd started: {self.pid()}")
        if status != 0 and not self.is_up():
            raise Failure(f"libvirtd does not start: {err}")

    def stop(self, number):
        """Ends it; ensure_up() starts it again."""
        with self.lock:
            pid = self.pid()
            if not is_alive(pid):
                return
            name = {signal.SIGTERM: "terminated", signal.SIGKILL: "killed"}[number]
            self.world.disturb(f"libvirtd {name}")
            self.world.count(f"libvirtd {name}")
            self.is_ended_by_us = True
            os.kill(pid, number)
            deadline = time.time() + 30
            while is_alive(pid):
                # Within a call that QEMU does not answer it may not listen to SIGTERM.
                if time.time() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)

    def ensure_up(self):
        with self.lock:
            if self.is_up():
                return
            if not self.is_ended_by_us:
                # libvirt 9.0 dies of a commit that it lost sight of when it was killed.
                self.world.disturb("libvirtd died by itself")
                self.world.count("libvirtd died by itself")
            self.is_ended_by_us = False
            self.start()

    def disturb_forever(self):
        """A thread: ends it now and then, for a moment or for some seconds."""
        rng = self.world.random("libvirtd")
        while True:
            self.world.sleep(rng.uniform(8, 60))
            with self.world.changes:
                self.stop(rng.choice([signal.SIGTERM, signal.SIGKILL]))
                self.world.sleep(rng.choice([0, 0.5, 3]))
                self.ensure_up()

    def watch_forever(self):
        while True:
            self.world.sleep(0.5)
            self.ensure_up()
