# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the domains are as they were: definitions, chains, files, jobs, snapshots, journal."""
import json
import os
import re
import signal

from world import Failure, run


class Judge:
    def __init__(self, world, libvirt, daemon, domains):
        self.world, self.libvirt, self.daemon, self.domains = world, libvirt, daemon, domains
        self.since_clean = 0.0
        self.wanted = {}

    def learn(self):
        """How it all is before anything is done."""
        self.files = sorted(os.listdir(self.world.path("disks")))
        answers = self.ask()
        self.wanted = {domain.name: self.describe(domain, answers[domain.name, 5])
                       for domain in self.domains}

    def describe(self, domain, xml):
        """What stays the same, whatever becomes of the domain."""
        if domain.kind == "come":
            xml = ""  # with another UUID each time
        # (The numbers of internal snapshots grow.)
        listed = [" ".join(line.split()[1:2]) for path, form, _ in domain.disks if form == "qcow2"
                  for line in run("qemu-img", "snapshot", "-U", "-l", path)[1].splitlines()[2:]]
        return {"definition": xml, "internal snapshots": listed}

    def leftovers(self):
        """What is there that should not be; and the names of the domains concerned."""
        found, names = [], set()

        def add(text, domain=None):
            found.append(text)
            if domain:
                names.add(domain.name)
        answers = self.ask()
        extra = sorted(set(os.listdir(self.world.path("disks"))) - set(self.files))
        for file in extra:
            domain = next((d for d in self.domains if file.startswith(d.name + ".")), None)
            add(f"file {file}", domain)
        for file in set(self.files) - set(os.listdir(self.world.path("disks"))):
            add(f"no file {file}")
        for folder in ("/run/libvirt", "/var/lib/libvirt", self.world.path("state")):
            for where, _, files in os.walk(folder):
                for file in files:
                    if "virtsnapfs-" in file:
                        add(f"file {where}/{file}", self.domain_of_note(f"{where}/{file}"))
        for domain in self.domains:
            for text in self.look_at(domain, answers):
                add(f"{domain.name}: {text}", domain)
        return found, names

    def domain_of_note(self, path):
        """The domain that an entry of the journal is about; None for other files."""
        try:
            with open(path, encoding="utf-8") as f:
                name = json.load(f)["domain"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return next((domain for domain in self.domains if domain.name == name), None)

    QUESTIONS = ("domblklist {0}", "blockjob {0} vda --raw", "blockjob {0} vdb --raw",
                 "domjobinfo {0}", "snapshot-list {0} --name", "dumpxml --inactive {0}")

    def ask(self):
        """What virsh says to all questions about all domains; one call is quicker."""
        script = "".join(f"echo @@{domain.name}@{i}@; {question.format(domain.name)}; "
                         for domain in self.domains for i, question in enumerate(self.QUESTIONS))
        for _ in range(30):
            out = run("virsh", "-q", script + "echo @@end@@", timeout=300)[1]
            found = re.findall(r"@@([^@]+)@(\d)@(.*?)(?=@@)", out, re.S)
            if len(found) == len(self.domains) * len(self.QUESTIONS) and self.libvirt.is_up():
                break
            self.world.sleep(1)
            self.libvirt.ensure_up()
        else:
            raise Failure(f"libvirtd does not answer: {out}")
        return {(name, int(number)): text.strip() for name, number, text in found}

    def look_at(self, domain, answers):
        disks, job_a, job_b, job, snapshots, xml = (answers[domain.name, i] for i in range(6))
        if not disks:
            return  # not defined
        used = sorted(line.split()[-1] for line in disks.splitlines())
        if used != sorted(domain.images()):
            yield f"its disks are {used}"
        for target, text in (("vda", job_a), ("vdb", job_b)):
            if text:
                yield f"a job on {target}: {' '.join(text.split())}"
        if re.search(r"Job type:\s+(?!None|Completed)\w", job):
            yield f"a job: {' '.join(job.split())}"
        if snapshots:
            yield f"snapshots {snapshots.split()}"
        found = self.describe(domain, xml)
        for key, value in self.wanted[domain.name].items():
            if found[key] != value:
                yield f"its {key}: {found[key]}, wanted {value}"

    # ---- putting right what may be left ----

    def bring_up(self, guests):
        """Memory that is saved on an overlay is restored, or nothing can be merged."""
        return [guest for guest in guests if not guest.ensure_up()]

    def has_lost_libvirtd(self):
        """It was ended since all was well."""
        return self.world.was_disturbed(self.since_clean, None,
                                        ("libvirtd terminated", "libvirtd killed",
                                         "libvirtd died by itself"))

    def settle(self, guests, may_be_left):
        """No daemon runs. If something may be left, --recover takes it away; what libvirt 9.0 has
        lost sight of, since it was killed itself, first needs the guest to go off
        (docs/methods.md)."""
        self.libvirt.ensure_up()
        stuck = self.bring_up(guests)
        found, names = self.leftovers()
        lost = self.has_lost_libvirtd()
        if found and not may_be_left and not lost:
            raise Failure(f"left after an orderly end: {found}")
        self.world.say(f"before --recover: {found}, not up: {[g.name for g in stuck]}")
        status = self.daemon.recover() if found or may_be_left else 0
        found, names = self.leftovers()
        if found or status or stuck:
            if not lost:
                raise Failure(f"left after --recover (status {status}): {found}, not up: "
                              f"{[guest.name for guest in stuck]}")
            self.power_cycle([d for d in self.domains if d.name in names or d in stuck], guests)
        self.world.count("times all was compared with the beginning")
        self.since_clean = self.world.now()

    def power_cycle(self, lost, guests):
        self.world.say(f"libvirt has lost sight of {[domain.name for domain in lost]}")
        for domain in lost:
            domain.pull_the_plug()
        self.libvirt.stop(signal.SIGKILL)
        self.libvirt.ensure_up()
        status = self.daemon.recover()
        stuck = self.bring_up(guests)
        found, _ = self.leftovers()
        if status or found or stuck:
            raise Failure(f"left after --recover (status {status}), with libvirtd and the guest "
                          f"started anew: {found}, not up: {[guest.name for guest in stuck]}")
