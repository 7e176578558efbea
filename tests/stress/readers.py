# SPDX-License-Identifier: LGPL-2.1-or-later
"""Readers of the tree: each judges what it read, and each error by what was going on just then."""
import calendar
import errno
import json
import os
import re
import shutil
import time

from domains import MIB
from world import QUIET_S, Failure, run

# What a program sees of a mount that ends under it.
OF_AN_END = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENOENT, errno.ESTALE,
             errno.EBUSY, errno.EINTR, errno.ENODATA}
# Of an instant that cannot be had, or is lost, since the domain or libvirtd changes.
OF_A_CHANGE = {errno.EIO, errno.ETIMEDOUT, errno.EOPNOTSUPP, errno.ESTALE, errno.ENODATA}
TEXTS = {os.strerror(number): number for number in errno.errorcode}


class Unreadable(Exception):
    """A program said so; .errno as its message has it."""

    def __init__(self, message):
        super().__init__(message)
        found = [number for text, number in TEXTS.items() if text in message]
        self.errno = found[0] if found else None


class Reader:
    """What one reader does, again and again."""

    def __init__(self, name, world, daemon, fixed, guests, pause_s):
        self.world, self.daemon, self.fixed, self.guests = world, daemon, fixed, guests
        self.pause_s = pause_s
        self.rng = world.random(name)
        self.folder = world.path("work", name)
        self.domain = self.snapshot = None
        self.generation = 0

    def read_forever(self):
        kinds = [(self.ranges, 8), (self.copy, 3), (self.tail, 2), (self.flat, 2),
                 (self.interrupted, 2), (self.instant, 6), (self.look, 3), (self.hold, 2)]
        acts, weights = zip(*kinds)
        os.mkdir(self.folder)
        while True:
            self.world.sleep(self.rng.expovariate(1 / self.pause_s))
            with self.world.readers:
                if self.daemon.ending_since is not None:
                    continue
                act = self.rng.choices(acts, weights)[0]
                try:
                    self.judge(act)
                except Failure as e:
                    self.world.note_fault(str(e))
            shutil.rmtree(self.folder)
            os.mkdir(self.folder)

    def judge(self, act):
        began = time.time()
        self.generation = self.daemon.generation
        self.domain, self.snapshot = None, "now"
        try:
            act()
            self.world.count(f"readers: {act.__name__}")
        except (OSError, Unreadable) as e:
            name = self.domain.name if self.domain else "the tree"
            self.world.say(f"{act.__name__} {name} {self.snapshot}: {e!r}")
            why = self.excuse(e.errno, began)
            if not why:
                raise Failure(f"{act.__name__} of {name}, {self.snapshot}: {e!r}, which nothing "
                              f"explains; mount {self.daemon.generation}, {self.daemon.options}"
                              f" {self.why_in_words()}") from None
            self.world.count_error(why, e.errno)

    def why_in_words(self):
        if not self.domain:
            return ""
        try:
            errors = self.daemon.status(self.domain.name)["errors"]
            return "; ".join(error["text"] for error in errors[-3:])
        except (OSError, ValueError) as e:
            return repr(e)

    # ---- which errors are allowed ----

    def excuse(self, number, began):
        """What explains the error, or None."""
        domain, since = self.domain, began - QUIET_S
        if self.daemon.ending_since is not None or self.generation != self.daemon.generation:
            return "as the mount ended" if number in OF_AN_END else None
        if not domain:
            return None
        if domain.kind == "come" and number in (errno.ENOENT, errno.ESTALE):
            return "as the domain came or went"
        if self.snapshot != "now":
            return None
        if number == errno.EBUSY:
            return "an older instant, another job, or recovery"
        if number == errno.EMFILE and self.daemon.options["max_open"] < 16:
            return "max_open="
        if number == errno.EOPNOTSUPP and self.is_refused():
            return "the method cannot do this domain"
        if domain.kind == "off" and self.daemon.options["cold"] == "lock":
            return None  # nothing but files is asked
        if number in OF_A_CHANGE and self.world.was_disturbed(since, domain.name):
            what = "libvirtd or the domain" if domain.kind != "off" else "libvirtd"
            return f"as {what} changed"
        return None

    def is_refused(self):
        """What the methods cannot do by themselves."""
        has_raw = any(form != "qcow2" for _, form, _ in self.domain.disks)
        is_transient = getattr(self.domain, "is_transient", False)
        options = self.daemon.options
        if self.domain.kind == "off":
            return options["cold"] == "internal" and has_raw
        return options["live"] == "managedsave" and (has_raw or is_transient) or \
            options["cold"] == "internal" and has_raw or is_transient

    # ---- what readers do ----

    def path_of(self, domain, name):
        return f"{self.daemon.mountpoint}/{domain.name}/snapshots/{name}"

    def choose(self):
        """A file of a domain with fixed content: its path and its bytes."""
        self.domain = self.rng.choice(self.fixed)
        self.snapshot, target = self.rng.choice(
            [key for key in self.domain.content for _ in range(3 if key[0] == "now" else 1)])
        path = self.path_of(self.domain, self.domain.file_name(self.snapshot, target))
        return path, target, self.domain.content[self.snapshot, target]

    def open(self, path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.world.count("opens")
        try:
            method = os.getxattr(fd, "user.virtsnapfs.method").decode()
            self.world.count(f"opens by {method}")
        except OSError:
            pass  # the instant is over
        return fd

    def check_bytes(self, found, wanted, off):
        self.world.count("bytes read", len(found))
        if found == wanted:
            return
        at = next((i for i, (a, b) in enumerate(zip(found, wanted)) if a != b),
                  min(len(found), len(wanted)))
        raise Failure(f"{self.domain.name}, {self.snapshot}: byte {off + at}: "
                      f"{found[at:at + 8].hex()}, wanted {wanted[at:at + 8].hex()} "
                      f"({len(found)} of {len(wanted)} bytes from {off} were read)")

    def read_ranges(self, fd, content, n):
        for _ in range(n):
            length = self.rng.choice([1, 511, 4096, 65536, 200001, MIB])
            off = self.rng.randrange(len(content) + 4096)
            self.check_bytes(read_piece(fd, length, off), content[off:off + length], off)

    def ranges(self):
        path, _, content = self.choose()
        fd = self.open(path)
        try:
            if os.fstat(fd).st_size != len(content):
                raise Failure(f"{path}: {os.fstat(fd).st_size} bytes, wanted {len(content)}")
            self.read_ranges(fd, content, self.rng.randrange(1, 20))
            hole = os.lseek(fd, self.rng.randrange(len(content)), os.SEEK_HOLE)
            if hole < len(content):
                data = self.next_data(fd, hole, len(content))
                self.check_bytes(content[hole:data], bytes(data - hole), hole)
        finally:
            os.close(fd)

    def next_data(self, fd, off, end):
        try:
            return os.lseek(fd, off, os.SEEK_DATA)
        except OSError as e:
            if e.errno != errno.ENXIO:
                raise
            return end

    def hold(self):
        """An open that outlives what happens to the domain meanwhile."""
        path, _, content = self.choose()
        fd = self.open(path)
        try:
            for _ in range(self.rng.randrange(2, 8)):
                self.read_ranges(fd, content, 2)
                self.world.sleep(self.rng.uniform(0.1, 2))
        finally:
            os.close(fd)

    def must_do(self, *command):
        status, out, err = run(*command, timeout=300)
        if status != 0:
            raise Unreadable(err)
        return out

    def copy(self):
        """All disks, by cp."""
        self.choose()
        targets = [key[1] for key in self.domain.content if key[0] == self.snapshot]
        names = [self.domain.file_name(self.snapshot, t) for t in targets]
        self.must_do("cp", *[self.path_of(self.domain, name) for name in names], self.folder)
        self.world.count("opens", len(names))
        for name, t in zip(names, targets):
            with open(f"{self.folder}/{name}", "rb") as f:
                self.check_bytes(f.read(), self.domain.content[self.snapshot, t][:], 0)

    def tail(self):
        path, _, content = self.choose()
        length = self.rng.randrange(1, 300000)
        output = f"{self.folder}/tail"
        self.must_do("sh", "-c", 'tail -c "$1" "$2" >"$3"', "-", str(length), path, output)
        self.world.count("opens")
        with open(output, "rb") as f:
            self.check_bytes(f.read(), content[len(content) - length:], len(content) - length)

    def flat(self):
        """The view as qcow2: sound, and of the same bytes."""
        _, target, _ = self.choose()
        path = self.path_of(self.domain, self.domain.file_name(self.snapshot, target, "qcow2"))
        copy = f"{self.folder}/flat.qcow2"
        self.must_do("cp", path, copy)
        self.world.count("opens")
        self.world.count("bytes read", os.stat(copy).st_size)
        self.compare(copy, self.domain.content_path(self.snapshot, target))

    def compare(self, copy, raw):
        for command in (["qemu-img", "check", "-q", "-f", "qcow2", copy],
                        ["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", copy, raw]):
            status, out, err = run(*command, timeout=300)
            if status != 0:
                raise Failure(f"{' '.join(command)}: {status}: {out} {err}")

    def interrupted(self):
        path, _, content = self.choose()
        seconds = self.rng.choice([0.01, 0.05, 0.2, 1])
        output = f"{self.folder}/piece"
        number = self.rng.choice(["INT", "TERM", "KILL"])
        status, _, err = run("timeout", "-s", number, str(seconds), "sh", "-c",
                             'exec head -c 65536 "$1" >"$2"', "-", path, output)
        self.world.count("opens")
        if status in (124, 137, -9):
            self.world.count("opens that were interrupted")
        elif status != 0:
            raise Unreadable(err)
        else:
            with open(output, "rb") as f:
                self.check_bytes(f.read(), content[:65536], 0)

    def look(self):
        """What a crawler does, and a person."""
        for name in os.listdir(self.daemon.mountpoint):
            self.domain = next((d for d in self.fixed + self.guests
                                if re.fullmatch(f"{d.name}(-renamed)?", name)), None)
            if not self.domain:
                raise Failure(f"a domain called '{name}' is listed")
            self.snapshot = "its folder"
            folder = f"{self.daemon.mountpoint}/{name}"
            for entry in os.scandir(f"{folder}/snapshots"):
                size = entry.stat().st_size
                if size != self.domain.size:
                    raise Failure(f"{entry.path}: {size} bytes, wanted {self.domain.size}")
            for file in ("status", "domain.xml", "upload"):
                with open(f"{folder}/{file}", encoding="utf-8") as f:
                    text = f.read()
                if file == "status":
                    json.loads(text)
        self.world.count("looks at the whole tree")

    def instant(self):
        """Both disks of a guest that writes, and perhaps as qcow2: of one moment."""
        self.domain = guest = self.rng.choice(self.guests)
        names = [f"{stem}.{self.rng.choice(['raw', 'raw', 'raw', 'qcow2'])}"
                 for stem in ("now", "now.vdb")]
        fds = []
        try:
            fds.append(self.open(self.path_of(guest, names[0])))
            opened = time.time()
            fds.append(self.open(self.path_of(guest, names[1])))
            taken = [os.getxattr(fd, "user.virtsnapfs.taken").decode() for fd in fds]
            method = os.getxattr(fds[0], "user.virtsnapfs.method").decode()
            self.world.sleep(self.rng.choice([0, 0, 1, 3]))
            copies = [self.save(fd, name) for fd, name in zip(fds, names)]
        finally:
            for fd in fds:
                os.close(fd)
        self.judge_instant(copies, taken, method, opened)

    def judge_instant(self, copies, taken, method, opened):
        if taken[0] != taken[1]:
            raise Failure(f"{self.domain.name}: two disks, held open at once, of two instants that "
                          f"both can be read: {taken}")
        # The time that is told is the one right before the moment was fixed.
        low, high = self.domain.bounds(seconds_of(taken[0]), opened)
        paths = [self.to_raw(copy) for copy in copies]
        last = self.domain.check_copies(paths, low, high)
        self.world.count(f"instants of guests checked, {method}")
        self.world.say(f"{self.domain.name} {method}: {low} <= {last} <= {high}")

    def save(self, fd, name):
        path = f"{self.folder}/{name}"
        with open(path, "wb") as f:
            off = 0
            while data := os.pread(fd, 300000, off):
                f.write(data)
                off += len(data)
        self.world.count("bytes read", off)
        return path

    def to_raw(self, path):
        if path.endswith(".raw"):
            return path
        status, out, err = run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path,
                               path + ".raw")
        if status != 0:
            raise Failure(f"{self.domain.name}: {path} cannot be read: {out} {err}")
        return path + ".raw"


def read_piece(fd, length, off):
    """All of it: where a later part fails, the kernel first gives what came before."""
    pieces = []
    while length and (data := os.pread(fd, length, off)):
        pieces.append(data)
        length, off = length - len(data), off + len(data)
    return b"".join(pieces)


def seconds_of(text):
    """An RFC 3339 time in UTC."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    parsed = time.strptime(whole, "%Y-%m-%dT%H:%M:%S")
    return calendar.timegm(parsed) + int(fraction or 0) / 1e9
