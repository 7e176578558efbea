# SPDX-License-Identifier: LGPL-2.1-or-later
"""The steps that a random image is made of: each one or a few commands of qemu-img or qemu-io."""
import os
import random
import shlex
import struct
import subprocess

import image_oracle

KIB, MIB, TIB = 1 << 10, 1 << 20, 1 << 40
HEADER_SIZE_OFF, HEADER_INCOMPATIBLE_OFF = 24, 72
INCOMPATIBLE_CORRUPT = 1 << 1
N_PATTERNS = 8

# What QEMU may answer when a recipe asks for what an image cannot do: the recipe goes on.
REFUSALS = (
    "Can't resize",
    "does not support",
    "not supported",
    "refcount_bits",
    "refcount entry",
    "compatibility level",
    "cannot be downgraded",
    "Could not create snapshot",
    "Could not apply snapshot",
    "Cannot downgrade",
    "requires",
    "Invalid argument",
    "bitmap",
    "Could not change",
)


class RecipeError(Exception):
    pass


class Recipe:
    """One image and the commands that make it."""

    def __init__(self, root, seed, index):
        self.root, self.seed, self.index = root, seed, index
        self.tag = f"{index:04d}"
        self.dir = os.path.join(root, "images")
        self.rng = random.Random(f"{seed}-{index}")
        self.commands = []
        # Some raw layer has blocks that were allocated and never written: lseek calls them data
        # once something has read them into the page cache.
        self.has_unwritten = False
        self.may_leave_unwritten = self.rng.random() < 0.3
        self.snapshots = image_oracle.SnapshotKeeper(self)

    # Running commands

    def run(self, *argv, may_refuse=False):
        """Runs a command in the image folder; False if it was refused for a known reason."""
        argv = [str(a) for a in argv]
        self.commands.append(shlex.join(argv))
        r = subprocess.run(argv, cwd=self.dir, capture_output=True, text=True, errors="replace",
                           stdin=subprocess.DEVNULL, timeout=300, check=False)
        if r.returncode == 0:
            return True
        text = r.stderr + r.stdout
        # QEMU refuses compressed writes over allocated clusters.
        n_compressed = sum(a.startswith("write -c") for a in argv)
        if argv[0] == "qemu-io" and text.count("failed: Input/output error") <= n_compressed:
            return True
        if may_refuse and any(s in text for s in REFUSALS):
            self.commands[-1] += "  # refused"
            return False
        raise RecipeError(f"{self.commands[-1]}: status {r.returncode}: {text.strip()}")

    def poke(self, name, offset, data):
        self.commands.append(f"# poke {name} at {offset}: {data.hex()}")
        with open(os.path.join(self.dir, name), "r+b") as f:
            f.seek(offset)
            f.write(data)

    def chance(self, probability):
        return self.rng.random() < probability

    # Choosing

    def choose_options(self, **fixed):
        """Creation options that go together; @fixed are given and not changed."""
        rng, o = self.rng, dict(fixed)
        if "cluster_size" not in o:
            least = 16 * KIB if o.get("extended_l2") else 512
            sizes = [512, KIB, 2 * KIB, 4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB, 64 * KIB,
                     64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB, 2 * MIB]
            o["cluster_size"] = rng.choice([s for s in sizes if s >= least])
        modern_only = {"extended_l2", "compression_type", "lazy_refcounts", "refcount_bits",
                       "data_file"}
        if "compat" not in o:
            o["compat"] = "1.1" if modern_only & set(o) or self.chance(0.85) else "0.10"
        if o["compat"] == "1.1":
            if "extended_l2" not in o and o["cluster_size"] >= 16 * KIB and self.chance(0.2):
                o["extended_l2"] = "on"
            if "data_file" not in o and "compression_type" not in o and self.chance(0.35):
                o["compression_type"] = rng.choice(["zstd", "zstd", "zlib"])
            if "lazy_refcounts" not in o and self.chance(0.15):
                o["lazy_refcounts"] = "on"
            if "refcount_bits" not in o and self.chance(0.15):
                o["refcount_bits"] = rng.choice([1, 2, 4, 8, 16, 32, 64])
        return o

    def choose_size(self, cluster_size):
        limit = MIB if cluster_size <= 4 * KIB else max(4 * MIB, 5 * cluster_size)
        size = self.rng.randrange(512, limit)
        kind = self.rng.random()
        if kind < 0.4:
            return max(cluster_size, size // cluster_size * cluster_size)
        return max(512, size // 512 * 512)

    def choose_range(self, size, cluster_size):
        """A guest range, often at or near the bounds of clusters."""
        rng = self.rng
        off = rng.randrange(0, size)
        kind = rng.random()
        if kind < 0.1:
            off = 0
        elif kind < 0.4:
            off = off // cluster_size * cluster_size
        elif kind < 0.6:
            off = max(0, min(size - 1, off // cluster_size * cluster_size + rng.choice([-1, 1])))
        elif kind < 0.7:
            off = max(0, size - rng.randrange(1, 2 * cluster_size))
        length = rng.choice([rng.randrange(1, 5000), cluster_size, rng.randrange(1, 3 * cluster_size),
                             cluster_size * rng.randrange(1, 5)])
        return off, max(1, min(length, size - off, 3 * MIB))

    # Building blocks

    def create(self, name, size, options, backing=None, backing_format=None):
        args = ["qemu-img", "create", "-q", "-f", "qcow2"]
        options = dict(options)
        # QEMU has preallocation over a backing file for subclusters only.
        if backing and not options.get("extended_l2"):
            options.pop("preallocation", None)
        if backing:
            args += ["-b", backing, "-F", backing_format]
        args += ["-o", ",".join(f"{k}={v}" for k, v in options.items()), name, size]
        self.run(*args)

    def create_raw(self, name, size, is_odd=False):
        self.run("qemu-img", "create", "-q", "-f", "raw", name, size)
        if is_odd:
            self.run("truncate", "-s", size + self.rng.randrange(1, 512), name)

    def write(self, name, size, options, n, fmt="qcow2"):
        """One qemu-io process with @n random writes, zero writes and discards."""
        rng, cluster_size = self.rng, options.get("cluster_size", 64 * KIB)
        may_compress = fmt == "qcow2" and "data_file" not in options
        may_zero = options.get("compat", "1.1") == "1.1"
        args = ["qemu-io", "-t", "unsafe", "-f", fmt]
        must_unmap = fmt == "raw" and not self.may_leave_unwritten
        if self.chance(0.8) or must_unmap:
            args += ["-d", "unmap"]
        for _ in range(n):
            off, length = self.choose_range(size, cluster_size)
            pattern = f"../patterns/{rng.randrange(N_PATTERNS)}"
            kind = rng.random()
            if kind < 0.2 and may_compress:
                off = off // cluster_size * cluster_size
                length = max(1, length // cluster_size) * cluster_size
                length = min(length, size - off)
                args += ["-c", f"write -c -s {pattern} {off} {length}"]
            elif kind < 0.3 and may_zero and not must_unmap:
                args += ["-c", f"write -z {off} {length}"]
                self.has_unwritten |= fmt == "raw"
            elif kind < 0.4 and may_zero:
                args += ["-c", f"write -z -u {off} {length}"]
                self.has_unwritten |= fmt == "raw" and "-d" not in args
            elif kind < 0.5:
                args += ["-c", f"discard {off} {length}"]
            elif kind < 0.55:
                args += ["-c", f"write -P {rng.randrange(256)} {off} {length}"]
            else:
                args += ["-c", f"write -s {pattern} {off} {length}"]
        self.run(*args, name)

    def abort_writer(self, name, size):
        """Leaves the dirty bit set, as a killed QEMU does on an image with lazy refcounts."""
        off, length = self.choose_range(size, 64 * KIB)
        script = shlex.join(["qemu-io", "-t", "unsafe", "-f", "qcow2",
                             "-c", f"write -s ../patterns/1 {off} {length}", "-c", "flush",
                             "-c", "abort", name])
        self.run("bash", "-c", f"ulimit -c 0; ( {script} ); true")

    def set_corrupt_bit(self, name):
        path = os.path.join(self.dir, name)
        with open(path, "rb") as f:
            f.seek(HEADER_INCOMPATIBLE_OFF)
            bits = struct.unpack(">Q", f.read(8))[0]
        self.poke(name, HEADER_INCOMPATIBLE_OFF, struct.pack(">Q", bits | INCOMPATIBLE_CORRUPT))

    def resize(self, name, size, cluster_size):
        new = self.choose_size(cluster_size)
        if new == size:
            return size
        args = ["qemu-img", "resize", "-q", "-f", "qcow2"]
        if new < size:
            args.append("--shrink")
        return new if self.run(*args, name, new, may_refuse=True) else size

    def live(self, name, size, options, steps):
        """A life of writes, snapshots, reverts and resizes; the size at its end."""
        may_snapshot = "data_file" not in options and options.get("refcount_bits", 16) != 1
        for _ in range(steps):
            kind = self.rng.random()
            if kind < 0.45 or not may_snapshot:
                self.write(name, size, options, self.rng.randrange(1, 7))
            elif kind < 0.7:
                self.snapshots.create(name)
            elif kind < 0.78:
                size = self.snapshots.apply(name, size)
            elif kind < 0.83:
                self.snapshots.delete(name)
            else:
                size = self.resize(name, size, options["cluster_size"])
        return size

    # Chains

    def backing_chain(self, depth):
        """Makes @depth layers in parts/; name (as the image refers to it) and format of the top."""
        previous = previous_format = None
        for layer in range(depth):
            name = f"parts/{self.tag}-l{layer}"
            if previous is None and self.chance(0.5):
                name, previous_format = name + ".raw", "raw"
                size = self.choose_size(64 * KIB)
                self.create_raw(name, size)
                self.write(name, size, {}, self.rng.randrange(2, 14), fmt="raw")
                if self.chance(0.4):
                    self.run("truncate", "-s", size + self.rng.randrange(1, 512), name)
            else:
                name += ".qcow2"
                options = self.choose_options()
                size = self.choose_size(options["cluster_size"])
                self.create(name, size, options, previous, previous_format)
                self.write(name, size, options, self.rng.randrange(2, 14))
                previous_format = "qcow2"
            previous = self.refer(name, os.path.dirname(name))
        return previous, previous_format

    def refer(self, name, from_dir):
        """A reference as it goes into the next layer: relative to that layer's folder, or not."""
        if self.chance(0.25):
            return os.path.join(self.dir, name)
        return os.path.relpath(name, from_dir or ".")

    def overlay(self, name, depth, **fixed):
        reference, fmt = self.backing_chain(depth)
        if not os.path.isabs(reference):
            reference = os.path.join("parts", reference)
        options = self.choose_options(**fixed)
        size = self.choose_size(options["cluster_size"])
        self.create(name, size, options, reference, fmt)
        return size, options
