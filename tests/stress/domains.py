# SPDX-License-Identifier: LGPL-2.1-or-later
"""The domains of the stress run and what becomes of them meanwhile.

    off1 .. off3    never run; of fixed content
    on1, on2        sit in their BIOS, are started, stopped, suspended; of fixed content
    come1 .. come4  are defined, started, renamed, undefined; of fixed content; come4 is transient
    guest1, guest2  run a Linux that writes all the while (guests.py)

Fixed content is known beforehand, by qemu-img, for `now` and for each internal snapshot.
"""
import mmap
import os
import re
import time

from world import Failure, is_alive, must_run

MIB = 1 << 20
SIZE = 6 * MIB

# Of each disk: format, and what is done to it. "snapshots" makes s1 and s2.
DISKS = {
    "off1": [("qcow2", "backing compressed snapshots"), ("qcow2", "")],
    "off2": [("qcow2", "snapshots"), ("qcow2", "snapshots")],
    "off3": [("raw", "")],
    "on1": [("qcow2", "backing snapshots"), ("raw", "")],
    "on2": [("qcow2", "snapshots"), ("qcow2", "compressed snapshots")],
    "come1": [("qcow2", "snapshots")],
    "come2": [("raw", ""), ("qcow2", "")],
    "come3": [("qcow2", "compressed"), ("qcow2", "")],
    "come4": [("qcow2", "backing"), ("qcow2", "")],
}
FIXED = list(DISKS)


def disk_xml(path, form, target):
    return f"""<disk type='file' device='disk'><driver name='qemu' type='{form}'/>
        <source file='{path}'/><target dev='{target}' bus='virtio'/></disk>"""


class Domain:
    """One of those with fixed content."""
    size = SIZE  # of each disk, in each snapshot

    def __init__(self, world, libvirt, name):
        self.world, self.libvirt, self.name = world, libvirt, name
        self.kind = re.match("[a-z]+", name)[0]
        self.disks = []      # (path, format, target)
        self.content = {}    # (snapshot, target) -> bytes

    @property
    def is_transient(self):
        return self.name == "come4"

    def images(self):
        return [path for path, _, _ in self.disks]

    def make(self, rng):
        for idx, (form, what) in enumerate(DISKS[self.name]):
            path = self.world.path("disks", f"{self.name}.{idx}")
            target = "vd" + "ab"[idx]
            self.disks.append((path, form, target))
            make_image(rng, path, form, what)
            self.learn(path, form, target, "snapshots" in what)

    def learn(self, path, form, target, has_snapshots):
        for snapshot in ["now"] + ["s1", "s2"] * has_snapshots:
            raw = self.world.path("content", f"{self.name}.{snapshot}.{target}")
            chosen = [] if snapshot == "now" else ["-l", f"snapshot.name={snapshot}"]
            must_run("qemu-img", "convert", "-f", form, *chosen, "-O", "raw", path, raw)
            with open(raw, "rb") as f:
                self.content[snapshot, target] = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)

    def content_path(self, snapshot, target):
        return self.world.path("content", f"{self.name}.{snapshot}.{target}")

    def file_name(self, snapshot, target, view="raw"):
        return f"{snapshot}{'' if target == 'vda' else '.' + target}.{view}"

    def xml(self):
        disks = "".join(disk_xml(*disk) for disk in self.disks)
        return f"""<domain type='qemu'><name>{self.name}</name><memory unit='MiB'>32</memory>
            <vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>
            <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{disks}
            <controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"""

    def write_xml(self):
        path = self.world.path("work", f"{self.name}.xml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(self.xml())
        return path

    def virsh(self, what, *words):
        """A change; it may fail, as libvirtd goes away and jobs are under way."""
        self.world.disturb(f"virsh {what}", self.name)
        is_done, text = self.libvirt.virsh(what, *(words or (self.name,)))
        self.world.count(f"virsh {what}" + ("" if is_done else ", refused"))
        if not is_done:
            self.world.say(f"virsh {what} {self.name}: {text}")
        # Readers may feel the end of it as well as its begin.
        self.world.disturb(f"virsh {what} done", self.name)
        return is_done

    def state(self):
        """As libvirt calls it, or "" if it does not answer or knows no such domain."""
        is_known, text = self.libvirt.virsh("domstate", self.name)
        return text if is_known else ""

    def qemus(self):
        """Processes that run this guest, whether libvirt knows of them or not."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    words = f.read().split(b"\0")
            except OSError:
                continue
            if any(word.startswith(f"guest={self.name},".encode()) for word in words) and \
                    any(self.world.folder.encode() in word for word in words):
                yield int(pid)

    def pull_the_plug(self):
        """QEMU is killed: for a guest that libvirt has lost sight of, also altogether: 9.0 cannot
        load what it wrote down itself as a commit ended (mirror job '')."""
        for pid in self.qemus():
            self.world.disturb("QEMU killed", self.name)
            self.world.count("QEMU killed, as libvirt had lost the guest")
            os.kill(pid, 9)
            while is_alive(pid):
                time.sleep(0.05)
        self.libvirt.virsh("destroy", self.name)


def make_image(rng, path, form, what):
    """Pieces of data, zeros and holes, at places that are the same with each seed."""
    raw = path + ".new"
    write_pieces(rng, raw, "w+b", 24)
    options = ["-c"] if "compressed" in what else []
    if "backing" in what:
        must_run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, path + ".base")
        must_run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", path + ".base",
                 path)
    else:
        must_run("qemu-img", "convert", "-f", "raw", "-O", form, *options, raw, path)
    os.unlink(raw)
    if "snapshots" not in what:
        return
    for name in ("s1", "s2"):
        must_run("qemu-img", "snapshot", "-c", name, path)
        commands = []
        for _ in range(6):
            length = rng.randrange(1, 5) * 64
            off = rng.randrange(SIZE // 65536 - 4) * 65536
            commands += ["-c", f"write -P {rng.randrange(1, 256)} {off} {length}k"]
        must_run("qemu-io", "-f", "qcow2", *commands, path)


def write_pieces(rng, path, mode, n):
    with open(path, mode) as f:
        f.truncate(SIZE)
        for _ in range(n):
            length = rng.choice([512, 4096, 65536, 150000])
            f.seek(rng.randrange((SIZE - length) // 512) * 512)
            is_random = rng.random() < 0.8
            f.write(rng.randbytes(length) if is_random else bytes([rng.randrange(256)]) * length)


# ---- what becomes of them ----

def switch_forever(world, domains, seconds):
    """A thread for on1, on2: started, stopped, suspended, as somebody likes."""
    rng = world.random("switch")
    while True:
        world.sleep(rng.uniform(*seconds))
        with world.changes:
            domain = rng.choice(domains)
            state = domain.state()
            if state == "running":
                domain.virsh(rng.choice(["destroy", "suspend", "reset", "suspend"]))
            elif state == "paused":
                domain.virsh(rng.choice(["resume", "destroy"]))
            elif state == "shut off":
                domain.virsh("start")


def come_and_go_forever(world, domains, seconds):
    """A thread for come1 .. come4: one step at a time of a life."""
    rng = world.random("come and go")
    while True:
        world.sleep(rng.uniform(*seconds))
        with world.changes:
            step(rng, rng.choice(domains))


def step(rng, domain):
    state = domain.state()
    if state == "running":
        if not domain.is_transient or rng.random() < 0.3:
            domain.virsh(rng.choice(["destroy", "suspend"]))
    elif state == "paused":
        domain.virsh(rng.choice(["destroy", "resume"]))
    elif state == "shut off":
        what = rng.choice(["start", "start", "start", "undefine", "domrename"])
        if what == "domrename":
            rename(domain)
        else:
            domain.virsh(what)
    elif domain.is_transient:
        domain.virsh("create", domain.write_xml())
    elif domain.libvirt.is_up():
        domain.virsh("define", domain.write_xml())


def rename(domain):
    """To another name; and back, after a while or at once."""
    old, new = domain.name, domain.name + "-renamed"
    if domain.virsh("domrename", old, new):
        domain.world.sleep(1)
        for _ in range(20):
            if domain.virsh("domrename", new, old):
                return
            domain.world.sleep(3)
        raise Failure(f"{new} cannot be renamed back to {old}")
