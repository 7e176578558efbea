# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests that run a Linux and write numbered blocks to both disks all the while, checking what they
go over (lib/guest/writer.c). Somebody asks them every second how far they are."""
import os
import re
import socket
import sys
import time

from domains import MIB, Domain, disk_xml
from world import Failure, must_run

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib", "guest"))
import check_blocks  # noqa: E402

GUESTS = {"guest1": ["qcow2", "raw"], "guest2": ["qcow2", "qcow2"]}
SLOTS = 48
SIZE = 2 * MIB
ASK_S = 20  # for an answer of an emulated guest


class Guest(Domain):
    size = SIZE

    def __init__(self, world, libvirt, name):
        super().__init__(world, libvirt, name)
        self.line = world.path("guest", name)
        self.serial_log = world.path(f"log.{name}")
        self.samples = []  # (asked, answered, started, synced)
        self.floor = 0     # synced at some time: never to be lost
        self.n_asked = 0

    def make(self, rng):
        for idx, form in enumerate(GUESTS[self.name]):
            path = self.world.path("disks", f"{self.name}.{idx}")
            must_run("qemu-img", "create", "-q", "-f", form, path, str(SIZE))
            self.disks.append((path, form, "vd" + "ab"[idx]))

    def xml(self):
        disks = "".join(disk_xml(*disk) for disk in self.disks)
        folder = self.world.path("guest")
        return f"""<domain type='qemu'><name>{self.name}</name><memory unit='MiB'>160</memory>
            <vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type>
            <kernel>{folder}/vmlinuz</kernel><initrd>{folder}/initramfs</initrd>
            <cmdline>console=ttyS0 quiet panic=-1 no_timer_check guest.mode=blocks
                guest.slots={SLOTS} guest.pause_us=20000</cmdline></os>
            <features><acpi/></features><on_reboot>destroy</on_reboot>
            <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{disks}
            <serial type='file'><source path='{self.serial_log}' append='on'/>
                <target port='0'/></serial>
            <serial type='unix'><source mode='bind' path='{self.line}'/><target port='1'/></serial>
            <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
            <controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"""

    # ---- how far it is ----

    def ask(self):
        """(started, synced), or None if it does not answer: off, suspended, being saved."""
        self.n_asked += 1
        token = f"asked-{self.n_asked}-"
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(ASK_S)
                line.connect(self.line)
                line.sendall(f"echo {token}; writer ask\n".encode())
                return self.read_answer(line, token)
        except OSError:
            return None

    def read_answer(self, line, token):
        # Answers to earlier questions may come first.
        pattern = re.compile(rf"{token}\s+started (\d+) synced (\d+) ".encode())
        answer, deadline = b"", time.time() + ASK_S
        while time.time() < deadline:
            more = line.recv(4096)
            if not more:
                return None
            answer += more
            found = pattern.search(answer)
            if found:
                return int(found[1]), int(found[2])
        return None

    def sample(self):
        asked = time.time()
        answer = self.ask()
        self.check_serial_log()
        if answer is None or not answer[1]:
            return False
        started, synced = answer
        if started < self.floor:
            raise Failure(f"{self.name}: goes on with {started}, but {self.floor} was synced")
        self.floor = max(self.floor, synced)
        self.samples.append((asked, time.time(), started, synced))
        self.world.count("answers of guests")
        return True

    def watch_forever(self):
        while True:
            self.sample()
            self.world.sleep(1)

    def check_serial_log(self):
        try:
            with open(self.serial_log, encoding="utf-8", errors="replace") as f:
                text = f.read()
        except OSError:
            return
        found = re.search(r".*(writer: (?!synced|\d+ disks)|Kernel panic|I/O error).*", text)
        if found:
            raise Failure(f"{self.name} says: {found[0].strip()}")

    def bounds(self, after, before):
        """What a copy of a moment between these may end with: at least what was synced at the
        first, at most what was begun by the second."""
        low = max((s[3] for s in self.samples if s[1] < after), default=0)
        high = min((s[2] for s in self.samples if s[0] > before), default=None)
        return low, high

    def check_copies(self, paths, low, high):
        faults = []
        last = check_blocks.check(paths, faults)
        if last < low:
            faults.append(f"ends with {last}, but {low} was synced before")
        if high is not None and last > high:
            faults.append(f"ends with {last}, but only {high} was begun by then")
        if faults:
            raise Failure(f"{self.name}: a copy is of no moment: {faults[:5]}")
        return last

    def check_one_copy(self, path, idx):
        """A copy of one disk alone: all blocks up to some number in their places."""
        faults = []
        numbers, n_slots = check_blocks.read_disk(path, idx, len(self.disks), faults)
        last = max(numbers, default=0)
        for slot, number in enumerate(numbers):
            wanted = check_blocks.wanted_number(last, idx, slot, len(self.disks), n_slots)
            if number != wanted:
                faults.append(f"slot {slot}: {number}, wanted {wanted}")
        if faults or not last:
            raise Failure(f"{self.name}: a copy of disk {idx} is of no moment: {faults[:5]}")

    # ---- what becomes of it ----

    def ensure_up(self):
        """It runs, if libvirt can bring it to that: what was saved is restored."""
        for _ in range(60):
            state = self.state()
            if state == "running":
                return True
            self.virsh({"paused": "resume"}.get(state, "start"))
            self.world.sleep(1)
        return False

    def wait_answer(self, seconds=240):
        """It is up and writes."""
        since = time.time()
        self.world.wait_for(seconds, f"{self.name} writes",
                            lambda: any(s[0] > since for s in self.samples[-3:]) or
                            not self.world.sleep(0.5) and False)

    def upset_forever(self, seconds):
        """A thread: what happens to guests."""
        rng = self.world.random(f"upset {self.name}")
        while True:
            self.world.sleep(rng.uniform(*seconds))
            with self.world.changes:
                what = rng.choice(["suspend", "destroy", "shutdown", "managedsave", "reset"])
                if not self.virsh(what):
                    continue
                if what == "shutdown":
                    self.wait_off(40)
                self.world.sleep(rng.uniform(0, 2) if what == "suspend" else rng.uniform(0, 8))
                self.ensure_up()

    def wait_off(self, seconds):
        for _ in range(seconds):
            if self.state() == "shut off":
                return
            self.world.sleep(1)
