# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all parts of the stress run share: the seed, the event log, the counts, the disturbances
that are under way, and two gates at which work can be held up."""
import collections
import contextlib
import errno
import os
import random
import subprocess
import threading
import time
import traceback

STUCK_S = 400  # nothing that is asked of the mount or of libvirt takes longer
FAULTS_MAX = 12
QUIET_S = 90   # a disturbance may be felt for so long


class Failure(Exception):
    """Something is not as it was promised: the run ends."""


class Gate:
    """Work goes through it (with gate: ...) but while it is shut; shut() waits for what is in."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.changed = threading.Condition()
        self.is_shut = False
        self.inside = {}

    def __enter__(self):
        with self.changed:
            while self.is_shut:
                self.world.check()
                self.changed.wait(1)
            self.world.check()
            self.inside[threading.get_ident()] = (threading.current_thread().name, time.time())

    def __exit__(self, *_):
        with self.changed:
            del self.inside[threading.get_ident()]
            self.changed.notify_all()

    def shut(self):
        deadline = time.time() + STUCK_S
        with self.changed:
            self.is_shut = True
            while self.inside:
                self.world.check()
                if time.time() > deadline:
                    raise Failure(f"{self.name}: still busy after {STUCK_S} s: "
                                  f"{sorted(self.inside.values())}")
                self.changed.wait(1)

    def open(self):
        with self.changed:
            self.is_shut = False
            self.changed.notify_all()


class World:
    def __init__(self, folder, seed):
        self.folder, self.seed = folder, seed
        self.began = time.time()
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.errors = collections.Counter()
        self.faults = []
        self.disturbances = []
        self.has_ended = threading.Event()
        self.readers, self.changes = Gate(self, "readers"), Gate(self, "changes")
        self.log = open(self.path("log.events"), "a", encoding="utf-8", buffering=1)
        self.threads = []

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def random(self, role):
        """Numbers of its own for each part, so that they do not depend on who comes first."""
        return random.Random(f"{self.seed}/{role}")

    @staticmethod
    def now():
        return time.time()

    def say(self, text):
        name = threading.current_thread().name
        self.log.write(f"{time.time() - self.began:9.3f} {name}: {text}\n")

    def count(self, name, n=1):
        with self.lock:
            self.counts[name] += n

    def count_error(self, what, number):
        with self.lock:
            self.errors[f"{what}: {errno.errorcode.get(number, number)}"] += 1

    def note_fault(self, text):
        """The run fails, but goes on for now: what comes next may tell more."""
        with self.lock:
            self.faults.append(f"{time.time() - self.began:.3f} s, "
                               f"{threading.current_thread().name}: {text}")
            is_enough = len(self.faults) >= FAULTS_MAX
        self.say(f"FAULT: {text}")
        if is_enough:
            self.has_ended.set()

    def fault(self, text):
        self.note_fault(text)
        self.has_ended.set()

    def check(self):
        """Ends the thread when the run has ended."""
        if self.has_ended.is_set():
            raise SystemExit

    def sleep(self, seconds):
        self.has_ended.wait(seconds)
        self.check()

    def disturb(self, what, domain=None):
        """What follows may be felt by readers of the domain, or of all."""
        self.say(f"{what} {domain or ''}")
        with self.lock:
            self.disturbances.append((time.time(), what, domain))

    def was_disturbed(self, since, domain, kinds=None):
        with self.lock:
            return any(when > since and place in (None, domain) and (not kinds or what in kinds)
                       for when, what, place in self.disturbances)

    def wait_for(self, seconds, what, condition):
        deadline = time.time() + seconds
        while not condition():
            if time.time() > deadline:
                raise Failure(f"after {seconds} s not yet: {what}")
            self.sleep(0.1)

    def start(self, name, work, *args):
        """A thread; whatever it does not expect is a fault of the run."""
        def run():
            try:
                work(*args)
            except Failure as e:
                self.fault(str(e))
            except Exception:
                self.fault(traceback.format_exc())
        thread = threading.Thread(target=run, name=name, daemon=True)
        self.threads.append(thread)
        thread.start()

    @contextlib.contextmanager
    def all_is_quiet(self):
        """Nobody reads and nobody changes a domain."""
        self.changes.shut()
        self.readers.shut()
        yield
        self.readers.open()
        self.changes.open()


def run(*command, timeout=120, **options):
    """A program to its end: (status, standard output, standard error)."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              timeout=timeout, start_new_session=True, **options)
    except subprocess.TimeoutExpired as e:
        return 124, "", f"{command[0]} took more than {e.timeout} s"
    return (done.returncode, done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"))


def must_run(*command, **options):
    status, out, err = run(*command, **options)
    if status != 0:
        raise Failure(f"{' '.join(command)}: status {status}: {err.strip()}")
    return out


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def read_pid(path):
    try:
        with open(path, encoding="ascii") as f:
            return int(f.read())
    except (OSError, ValueError):
        return 0
