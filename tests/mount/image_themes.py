# SPDX-License-Identifier: LGPL-2.1-or-later
"""What kinds of images there are. Each theme makes one with a Recipe and gives its name."""
import os
import struct

from image_recipe import HEADER_SIZE_OFF, KIB, MIB, TIB


def plain(r, **fixed):
    name, options = f"{r.tag}.qcow2", r.choose_options(**fixed)
    size = r.choose_size(options["cluster_size"])
    r.create(name, size, options)
    r.write(name, size, options, r.rng.randrange(3, 22))
    if r.chance(0.5):
        r.write(name, size, options, r.rng.randrange(3, 22))
    return name


def empty(r):
    name, options = f"{r.tag}.qcow2", r.choose_options()
    r.create(name, r.choose_size(options["cluster_size"]), options)
    return name


def tiny(r):
    name, options = f"{r.tag}.qcow2", r.choose_options()
    r.create(name, 512, options)
    if r.chance(0.8):
        r.write(name, 512, options, 2)
    return name


def odd_header_size(r):
    name = plain(r)
    with open(os.path.join(r.dir, name), "rb") as f:
        f.seek(HEADER_SIZE_OFF)
        size = struct.unpack(">Q", f.read(8))[0]
    if size > 1024:
        r.poke(name, HEADER_SIZE_OFF, struct.pack(">Q", size - r.rng.randrange(1, 512)))
    return name


def huge(r):
    options = r.choose_options(cluster_size=r.rng.choice([64 * KIB, 64 * KIB, 2 * MIB]))
    name, size = f"{r.tag}.qcow2", TIB + 512 * r.rng.randrange(-1000, 1000)
    r.create(name, size, options)
    r.write(name, size, options, r.rng.randrange(3, 8))
    return name


def preallocated(r, mode):
    return plain(r, preallocation=mode)


def data_file(r, is_raw, **fixed):
    data = f"parts/{r.tag}.data"
    if r.chance(0.3):
        data = os.path.join(r.dir, data)
    fixed["data_file"] = data
    if is_raw:
        fixed["data_file_raw"] = "on"
    elif r.chance(0.3):
        fixed["preallocation"] = r.rng.choice(["metadata", "falloc", "full"])
    return plain(r, **fixed)


def raw(r):
    name, size = f"{r.tag}.{r.rng.choice(['raw', 'img', 'dat'])}", r.choose_size(64 * KIB)
    r.create_raw(name, size)
    if r.chance(0.8):
        r.write(name, size, {}, r.rng.randrange(2, 14), fmt="raw")
    if r.chance(0.5):
        r.run("truncate", "-s", size + r.rng.randrange(1, 512), name)
    return name


def overlay(r, depth, **fixed):
    name = f"{r.tag}.qcow2"
    size, options = r.overlay(name, depth or r.rng.randrange(3, 6), **fixed)
    r.write(name, size, options, r.rng.randrange(0, 8))
    if r.chance(0.3):
        r.resize(name, size, options["cluster_size"])
    return name


def snapshots(r, **fixed):
    name, options = f"{r.tag}.qcow2", r.choose_options(compat="1.1", **fixed)
    if options.get("refcount_bits") == 1:
        options["refcount_bits"] = 16
    size = r.choose_size(options["cluster_size"])
    r.create(name, size, options)
    r.write(name, size, options, 3)
    r.snapshots.create(name)
    r.live(name, size, options, r.rng.randrange(4, 12))
    return name


def old_snapshots(r):
    name, options = f"{r.tag}.qcow2", r.choose_options(compat="0.10")
    size = r.choose_size(options["cluster_size"])
    r.create(name, size, options)
    r.live(name, size, options, r.rng.randrange(4, 12))
    return name


def overlay_snapshots(r):
    name = f"{r.tag}.qcow2"
    size, options = r.overlay(name, r.rng.randrange(1, 3))
    r.live(name, size, options, r.rng.randrange(3, 10))
    return name


def resized(r):
    name, options = f"{r.tag}.qcow2", r.choose_options()
    size = r.choose_size(options["cluster_size"])
    r.create(name, size, options)
    for _ in range(r.rng.randrange(1, 4)):
        r.write(name, size, options, r.rng.randrange(1, 6))
        size = r.resize(name, size, options["cluster_size"])
    return name


def rebased(r):
    name = overlay(r, r.rng.randrange(1, 3))
    other = f"parts/{r.tag}-other.raw"
    size = r.choose_size(64 * KIB)
    r.create_raw(other, size)
    r.write(other, size, {}, 4, fmt="raw")
    args = ["qemu-img", "rebase", "-q", "-f", "qcow2", "-F", "raw", "-b", other]
    if r.chance(0.6):
        args.insert(2, "-u")
    r.run(*args, name)
    return name


def committed(r):
    name = f"{r.tag}.qcow2"
    size, options = r.overlay(name, r.rng.randrange(1, 4))
    r.write(name, size, options, 5)
    if r.chance(0.5):
        r.snapshots.create(name)
    args = ["qemu-img", "commit", "-q", "-f", "qcow2"]
    if r.chance(0.3):
        args.append("-d")
    if r.run(*args, name, may_refuse=True):
        r.snapshots.forget_content()
    if r.chance(0.6):
        r.write(name, size, options, 3)
    return name


def dirty(r):
    options = r.choose_options(lazy_refcounts="on")
    name, size = f"{r.tag}.qcow2", r.choose_size(options["cluster_size"])
    r.create(name, size, options)
    r.write(name, size, options, 4)
    r.abort_writer(name, size)
    return name


def corrupt(r):
    name = plain(r, compat="1.1")
    r.set_corrupt_bit(name)
    return name


def bitmaps(r):
    name, options = f"{r.tag}.qcow2", r.choose_options(compat="1.1")
    size = r.choose_size(options["cluster_size"])
    r.create(name, size, options)
    r.write(name, size, options, 3)
    granularity = [] if r.chance(0.5) else ["-g", str(r.rng.choice([512, 4096, 65536]))]
    r.run("qemu-img", "bitmap", "--add", *granularity, name, "changed", may_refuse=True)
    r.write(name, size, options, 5)
    return name


def converted(r):
    source, name = f"parts/{r.tag}-source.raw", f"{r.tag}.qcow2"
    size, options = r.choose_size(64 * KIB), r.choose_options()
    r.create_raw(source, size)
    r.write(source, size, {}, r.rng.randrange(2, 12), fmt="raw")
    r.run("qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o",
          ",".join(f"{k}={v}" for k, v in options.items()), source, name)
    return name


def amended(r):
    # (Not the width of refcounts: that takes qemu-img minutes, and no reader looks at them.)
    options = r.choose_options()
    name, size = f"{r.tag}.qcow2", r.choose_size(options["cluster_size"])
    r.create(name, size, options)
    r.write(name, size, options, 5)
    for _ in range(2):
        change = r.rng.choice(["compat=0.10", "compat=0.10", "compat=1.1", "lazy_refcounts=on",
                               "lazy_refcounts=off"])
        r.run("qemu-img", "amend", "-q", "-f", "qcow2", "-o", change, name, may_refuse=True)
        # What amend left of the format is not known here: only what every version can do.
        r.write(name, size, {**options, "compat": "0.10"}, 2)
    return name


THEMES = [
    ("plain", plain), ("version 2", lambda r: plain(r, compat="0.10")),
    ("chain of 1", lambda r: overlay(r, 1)), ("snapshots", snapshots),
    ("subclusters", lambda r: plain(r, extended_l2="on")), ("resized", resized),
    ("zstd", lambda r: plain(r, compression_type="zstd")),
    ("deep chain", lambda r: overlay(r, None)), ("converted", converted),
    ("512-byte clusters", lambda r: plain(r, cluster_size=512)),
    ("2 MiB clusters", lambda r: plain(r, cluster_size=2 * MIB)), ("raw", raw),
    ("preallocated metadata", lambda r: preallocated(r, "metadata")),
    ("preallocated falloc", lambda r: preallocated(r, "falloc")),
    ("preallocated full", lambda r: preallocated(r, "full")),
    ("data file", lambda r: data_file(r, False)), ("raw data file", lambda r: data_file(r, True)),
    ("data file with subclusters", lambda r: data_file(r, False, extended_l2="on")),
    ("overlay with subclusters", lambda r: overlay(r, 1, extended_l2="on")),
    ("preallocated overlay", lambda r: overlay(r, 1, extended_l2="on", preallocation="metadata")),
    ("snapshots of subclusters", lambda r: snapshots(r, extended_l2="on")),
    ("version 2 snapshots", old_snapshots), ("snapshots of an overlay", overlay_snapshots),
    ("version 2 overlay", lambda r: overlay(r, 2, compat="0.10")),
    ("odd size in the header", odd_header_size), ("tiny", tiny), ("huge", huge), ("empty", empty),
    ("rebased", rebased), ("committed", committed), ("dirty", dirty), ("corrupt", corrupt),
    ("bitmaps", bitmaps), ("amended", amended),
    ("subclusters of 4 KiB", lambda r: plain(r, extended_l2="on", cluster_size=128 * KIB)),
    ("refcount bits", lambda r: plain(r, refcount_bits=r.rng.choice([1, 2, 4, 8, 32, 64]))),
]
