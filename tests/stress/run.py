#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The stress run; tests/host/stress.sh starts it, with a libvirtd and a Glance of its own.

    run.py --folder DIR --seconds N --seed N --readers N PROGRAM...

PROGRAM is mounted in rounds, one program and one set of methods after the other. Each round is
ended by SIGKILL, SIGTERM or umount; readers, uploads, changes of domains and kills of libvirtd go
on all the while. Something that nothing explains makes the run fail with status 1. What was done is
printed as a table.
"""
import argparse
import os
import random
import sys
import time
import traceback

import domains
import guests
from daemon import Daemon, Rounds
from judge import Judge
from libvirt import Libvirt
from readers import Reader
from uploads import Uploader
from world import STUCK_S, Failure, World, must_run, run

N_UPLOADERS = 2


class Stress:
    def __init__(self, args):
        self.args = args
        self.world = world = World(args.folder, args.seed)
        self.rng = world.random("rounds")
        self.libvirt = Libvirt(world)
        for name in ("disks", "content", "work", "state"):
            os.makedirs(world.path(name), exist_ok=True)
        self.fixed = [domains.Domain(world, self.libvirt, name) for name in domains.FIXED]
        self.guests = [guests.Guest(world, self.libvirt, name) for name in guests.GUESTS]
        self.daemon = Daemon(world, self.libvirt, args.programs)
        self.judge = Judge(world, self.libvirt, self.daemon, self.fixed + self.guests)
        self.uploaders = [Uploader(f"uploader{i}", world, self.daemon, self.fixed + self.guests,
                                   (2, 8)) for i in range(N_UPLOADERS)]
        self.rounds = Rounds(self.rng)
        self.was_killed = False

    # ---- begin ----

    def prepare(self):
        for domain in self.guests + self.fixed:
            # Alike in each run, whatever the seed: one that was seen to fail is there again.
            domain.make(random.Random(domain.name))
            if not domain.is_transient:
                must_run("virsh", "-q", "define", domain.write_xml())
            if domain.kind == "guest":
                must_run("virsh", "-q", "start", domain.name)
                self.world.start(f"asks {domain.name}", domain.watch_forever)
        for guest in self.guests:
            guest.wait_answer()
        self.judge.learn()

    def start_all(self):
        world = self.world
        for i in range(self.args.readers):
            reader = Reader(f"reader{i}", world, self.daemon, self.fixed, self.guests,
                            self.args.readers / 16)
            world.start(f"reader{i}", reader.read_forever)
        for uploader in self.uploaders:
            world.start(uploader.name, uploader.upload_forever)
        for guest in self.guests:
            world.start(f"upsets {guest.name}", guest.upset_forever, (4, 25))
        world.start("switches", domains.switch_forever, world, self.of_kind("on"), (1, 6))
        world.start("comes and goes", domains.come_and_go_forever, world, self.of_kind("come"),
                    (0.5, 4))
        world.start("ends libvirtd", self.libvirt.disturb_forever)
        world.start("keeps libvirtd", self.libvirt.watch_forever)

    def of_kind(self, kind):
        return [domain for domain in self.fixed if domain.kind == kind]

    # ---- rounds ----

    def go(self):
        self.prepare()
        self.daemon.start(self.rounds.options())
        self.start_all()
        self.deadline = self.world.now() + self.args.seconds
        while True:
            is_last = self.round()
            if is_last:
                break
        self.world.sleep(0)

    def round(self):
        """One mount to its end, and the next one; True if there is no next one."""
        mean = min(max(self.args.seconds / 6, 7), 40)
        left = self.deadline - self.world.now()
        self.world.sleep(max(min(self.rng.uniform(0.5, 1.5) * mean, left), 0))
        is_last = self.world.now() >= self.deadline
        how = self.rng.choice(["kill", "kill", "terminate", "unmount"])
        then = self.rng.choice(["judge", "go on"])
        self.world.say(f"round ends: {how}, then {then}{' (the last one)' if is_last else ''}")
        if is_last:
            self.end()
        elif how == "kill":
            self.daemon.kill()
            self.was_killed = True
            if then == "judge":
                with self.world.all_is_quiet():
                    self.look(may_be_left=True)
        elif how == "terminate":
            self.daemon.terminate()
            with self.world.all_is_quiet():
                self.look(may_be_left=False)
        else:
            with self.world.all_is_quiet():
                self.unmount()
        if not is_last:
            self.daemon.start(self.rounds.options())
        return is_last

    def unmount(self):
        """An orderly end, with a look at what is open before."""
        self.settle_mount()
        self.daemon.check_descriptors()
        self.daemon.unmount()
        self.look(may_be_left=False)

    def settle_mount(self):
        """Nobody reads any more: all instants end, and what an earlier mount left is put back."""
        # What libvirt has lost sight of is not settled however long one waits.
        deadline = time.time() + (30 if self.judge.has_lost_libvirtd() else STUCK_S / 4)
        self.judge.bring_up(self.guests)
        while time.time() < deadline:
            open_ones = {}
            for name in os.listdir(self.daemon.mountpoint):
                status = self.daemon.status(name)
                if status["instants"] or status["leftovers"]:
                    open_ones[name] = status["instants"] + status["leftovers"]
            if not open_ones:
                return
            self.world.sleep(0.3)
        self.world.say(f"does not settle: {open_ones}")
        if not self.judge.has_lost_libvirtd():
            raise Failure(f"without a reader, and yet open or left: {open_ones}")

    def look(self, may_be_left):
        self.judge.settle(self.guests, may_be_left)
        self.uploaders[0].sweep(self.was_killed)
        self.was_killed = False

    # ---- end ----

    def end(self):
        """All is as it was, and nothing that a guest ever synced is lost."""
        with self.world.all_is_quiet():
            self.unmount()
            for guest in self.guests:
                guest.wait_answer()
                guest.virsh("destroy")
            for domain in self.fixed:
                if domain.kind != "off":
                    domain.virsh("destroy")
            self.judge_images()
            self.world.has_ended.set()

    def judge_images(self):
        for domain in self.fixed:
            for path, form, target in domain.disks:
                for snapshot in {snapshot for snapshot, t in domain.content if t == target}:
                    chosen = [] if snapshot == "now" else ["-l", f"snapshot.name={snapshot}"]
                    raw = self.world.path("work", "end.raw")
                    must_run("qemu-img", "convert", "-f", form, *chosen, "-O", "raw", path, raw)
                    with open(raw, "rb") as f:
                        if f.read() != domain.content[snapshot, target][:]:
                            raise Failure(f"{path}, {snapshot}: another content at the end")
                self.check_image(path, form)
        for guest in self.guests:
            paths = []
            for path, form, target in guest.disks:
                self.check_image(path, form)
                raw = self.world.path("work", f"end.{target}.raw")
                must_run("qemu-img", "convert", "-f", form, "-O", "raw", path, raw)
                paths.append(raw)
            last = guest.check_copies(paths, guest.floor, None)
            self.world.count("blocks that guests synced and still have", last)

    def check_image(self, path, form):
        if form == "qcow2":
            status, out, err = run("qemu-img", "check", "-f", form, path)
            # 3: clusters that nobody uses, as QEMU leaves them when it is killed.
            if status not in (0, 3):
                raise Failure(f"{path}: {out} {err}")
            if "bitmaps" in must_run("qemu-img", "info", path):
                raise Failure(f"{path}: has a bitmap")

    # ---- what it was ----

    def table(self):
        world = self.world
        print(f"== seed {world.seed}: {world.now() - world.began:.0f} s, "
              f"{self.args.readers} readers, {self.daemon.generation} mounts, "
              f"{len(self.fixed) + len(self.guests)} domains")
        for name, n in sorted(world.counts.items()):
            print(f"{n:>14,}  {name}")
        print("== errors that readers saw")
        for name, n in sorted(world.errors.items()):
            print(f"{n:>14,}  {name}")
        print("== lines logged")
        for name, n in self.daemon.lines.most_common(60):
            print(f"{n:>14,}  {name}")
        if self.daemon.high_water_kib:
            print(f"== memory at most {self.daemon.high_water_kib} KiB")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--readers", type=int, default=64)
    parser.add_argument("programs", nargs="+")
    stress = Stress(parser.parse_args())
    world = stress.world
    try:
        stress.go()
    except SystemExit:
        pass  # a thread has found a fault
    except Failure as e:
        world.fault(str(e))
    except Exception:
        world.fault(traceback.format_exc())
    world.has_ended.set()
    for thread in world.threads:
        thread.join(5)
    stress.table()
    for fault in world.faults:
        print(f"FAULT: {fault}")
    sys.stdout.flush()
    os._exit(1 if world.faults else 0)


if __name__ == "__main__":
    main()
