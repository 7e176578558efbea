#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes random disk images with qemu-img and qemu-io, and records what they must read as.

    make_images.py DIR [--seed S] [--count N] [--first I] [--jobs J]

DIR/images holds the images (a source for dir:), DIR/images/parts what they refer to, DIR/oracle
what QEMU says they contain, DIR/record/NNNN.json the commands that made image NNNN and its
views. Image NNNN depends on S and NNNN only, so that one image can be made again alone:
--first NNNN --count 1.
"""
import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys

import image_oracle
from image_recipe import N_PATTERNS, Recipe, RecipeError
from image_themes import THEMES


def make_patterns(root, seed):
    """Files that qemu-io writes from: half of them can be compressed, half cannot."""
    os.makedirs(os.path.join(root, "patterns"), exist_ok=True)
    for i in range(N_PATTERNS):
        rng = random.Random(f"{seed}-pattern-{i}")
        length = rng.randrange(3000, 150000)
        data = rng.randbytes(length)
        if i % 2:
            data = b"".join(b"%d of %d: %x\n" % (n, i, n * n) for n in range(length // 10))
        with open(os.path.join(root, "patterns", str(i)), "wb") as f:
            f.write(data)


def make_image(job):
    root, seed, index = job
    recipe = Recipe(root, seed, index)
    label, theme = THEMES[index % len(THEMES)]
    record = {"index": index, "seed": seed, "theme": label, "name": None, "error": None,
              "unreadable": None, "views": []}
    try:
        record["name"] = theme(recipe)
        record["views"] = image_oracle.record_views(recipe, record["name"])
    except image_oracle.UnreadableError as e:
        record["name"], record["unreadable"] = f"{recipe.tag}.qcow2", str(e)
    except (RecipeError, image_oracle.OracleError, subprocess.SubprocessError) as e:
        record["error"] = str(e)
    record["commands"] = recipe.commands
    record["has_unwritten"] = recipe.has_unwritten
    with open(os.path.join(root, "record", f"{recipe.tag}.json"), "w", encoding="utf-8") as f:
        json.dump(record, f, indent=1)
    return record


def make_images(root, seed, count, first=0, jobs=2):
    """Makes the images and returns their records, in order."""
    root = os.path.abspath(root)
    for sub in ("images/parts", "oracle", "record"):
        os.makedirs(os.path.join(root, sub), exist_ok=True)
    make_patterns(root, seed)
    with multiprocessing.Pool(jobs) as pool:
        return pool.map(make_image, [(root, seed, first + i) for i in range(count)], chunksize=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=len(THEMES))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    failed = 0
    for record in make_images(args.dir, args.seed, args.count, args.first, args.jobs):
        outcome = record["error"] or record["unreadable"] or f"{len(record['views'])} views"
        print(f"{record['index']:04d} {record['theme']}: {outcome}")
        failed += bool(record["error"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
