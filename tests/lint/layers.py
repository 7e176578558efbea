#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may include whom: the project's layers, and the one home of each foreign header."""
import os
import re
import subprocess
import sys

# Folder or file (without .c, .h), longest match counts -> what it may include besides itself.
LAYERS = {
    "qcow/base": [],
    "qcow": ["qcow/base"],
    "fs/log": ["qcow/base"],
    "fs/options": ["qcow/base", "fs/option"],
    "fs/option": ["qcow/base", "fs/options"],
    "fs/cloud": ["qcow/base", "fs/log", "fs/glance"],
    "fs/confine": ["qcow/base", "fs/cloud", "fs/daemon", "fs/options", "fs/fuse/attach.h",
                   "fs/fuse/mountpoint.h", "fs/host/libvirt.h", "fs/host/qemu_img.h", "fs/sandbox"],
    "fs/daemon": ["qcow/base", "fs/log"],
    "fs/helper": ["qcow/base", "fs/options", "fs/host/libvirt.h"],
    "fs/notify": ["qcow/base", "fs/log"],
    "fs/signals": ["qcow/base", "fs/log"],
    "fs/state": ["qcow/base"],
    "fs/alive": ["qcow/base", "fs/state"],
    "fs/sandbox": ["qcow/base", "fs/log", "fs/state"],
    "fs/host": ["qcow/base", "qcow/qcow.h", "fs/log", "fs/sandbox/broker.h"],
    "fs/session": ["qcow/base", "qcow/qcow.h", "qcow/flatten.h", "fs/json.h", "fs/log", "fs/state",
                   "fs/host/host.h", "fs/host/domain.h", "fs/host/file.h", "fs/host/change.h",
                   "fs/host/qemulock.h", "fs/sandbox/sandbox.h"],
    "fs/columns": ["qcow/base"],
    "fs/json": ["qcow/base"],
    "fs/glance": ["qcow/base", "fs/log", "fs/columns.h"],
    "fs/fuse": ["qcow/base", "qcow/qcow.h", "fs/log", "fs/host/host.h", "fs/host/domain.h",
                "fs/host/hardware.h", "fs/session", "fs/glance/upload.h",
                "fs/sandbox/broker.h"],
    "fs/report": ["qcow/base", "fs/columns.h", "fs/json.h"],
    "fs/errand": ["qcow/base", "fs/log", "fs/alive", "fs/options", "fs/report/report.h",
                  "fs/fuse/mountpoint.h", "fs/session/journal.h"],
    "fs/full": ["qcow/base", "fs/options"],
    "fs/lean": ["qcow/base", "fs/full", "fs/options", "fs/glance/config.h"],
    "fs/absent": ["qcow/base", "fs/host", "fs/session", "fs/glance", "fs/sandbox/broker.h"],
    "fs/main": [""],
    "tests": [""],
}

# Foreign header -> the folders or files it may be included from.
HOMES = {
    r"fuse_lowlevel\.h|fuse\.h|fuse3/.*|fuse_.*\.h": ["fs/fuse", "fs/main", "tests/unit/fuse",
                                                         "tests/bench/bare"],
    r"libvirt/.*": ["fs/host", "tests/unit/host", "tests/lib/killer"],
    r"libxml/.*": ["fs/host", "tests/unit/host"],
    r"jansson\.h": ["fs/json", "fs/session", "fs/glance", "fs/report", "tests"],
    r"curl/.*": ["fs/glance"],
    r"yaml\.h": ["fs/glance/yaml"],
    r"libnbd\.h": ["fs/session/nbd"],
    r"openssl/.*": ["fs/glance", "tests"],
    r"nettle/.*": ["fs/state", "fs/session/catalog"],
    r"zlib\.h|zstd\.h|libdeflate\.h": ["qcow/inflate", "tests"],
    r"seccomp\.h|linux/seccomp\.h": ["fs/sandbox", "tests/unit/sandbox"],
    r"syslog\.h": ["fs/log"],
    r"cmocka\.h": ["tests"],
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def is_in(path, place):
    """True for the place itself (file, file without suffix) and all below it."""
    stem = os.path.splitext(path)[0]
    return place == "" or path == place or stem == place or path.startswith(place + "/") or \
        stem.startswith(place + "/")


def layer_of(path):
    places = [p for p in LAYERS if is_in(path, p)]
    return max(places, key=len) if places else None


def check(path, text):
    """Yields what is wrong with the includes of one file."""
    layer = layer_of(path)
    if layer is None:
        yield "belongs to no layer that this test knows"
        return
    for kind, name in INCLUDE.findall(text):
        if kind == "<":
            for pattern, homes in HOMES.items():
                if re.fullmatch(pattern, name) and not any(is_in(path, h) for h in homes):
                    yield f"includes <{name}>, whose home is {' or '.join(homes)}"
            continue
        if not os.path.exists(name):
            yield f'includes "{name}", which is not a path from the root'
        if name.endswith("_internal.h"):
            owner = name[:-len("_internal.h")]
            is_family = os.path.dirname(path) == os.path.dirname(name)
            if not is_family and not path.startswith("tests/"):
                yield f'includes "{name}", which is for {owner}.c and its test'
        if layer_of(name) != layer and not any(is_in(name, p) for p in LAYERS[layer]):
            yield f'includes "{name}", which {layer} may not'


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    files = subprocess.run(["tests/lint/files.sh"], capture_output=True, check=True)
    n_faults = n_files = 0
    for path in sorted(files.stdout.decode().split("\0")):
        if not path.endswith((".c", ".h")):
            continue
        n_files += 1
        with open(path, encoding="utf-8") as f:
            for fault in check(path, f.read()):
                print(f"{path}: {fault}")
                n_faults += 1
    print(f"{n_files} files, {n_faults} faults")
    return 1 if n_faults or not n_files else 0


if __name__ == "__main__":
    sys.exit(main())
