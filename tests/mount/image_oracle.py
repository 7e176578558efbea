# SPDX-License-Identifier: LGPL-2.1-or-later
"""What QEMU says of an image: the bytes and the map of the disk and of each internal snapshot.

A snapshot's bytes are taken down when the snapshot is made. `qemu-img convert -l` does not serve:
it cuts a snapshot to the disk's present size. At the end each snapshot is looked at again, by a
revert on a copy, and both must agree.
"""
import filecmp
import json
import os
import shutil
import struct
import subprocess

SNAPSHOT_NAMES = ["s1", "nightly", "with space", "übung", "now", "a/b", ".hidden", "50%", "x@2",
                  "tab\there", "s1", "end."]


class OracleError(Exception):
    pass


class UnreadableError(Exception):
    """QEMU damaged the image while making it: rare, and met with clusters of 512 bytes."""


def _output(argv, cwd):
    r = subprocess.run(argv, cwd=cwd, capture_output=True, stdin=subprocess.DEVNULL, timeout=300,
                       check=False)
    if r.returncode:
        text = f"{' '.join(argv)}: {r.stderr.decode(errors='replace').strip()}"
        if "error while reading" in text:
            raise UnreadableError(text)
        raise OracleError(text)
    return r.stdout


def _format_of(name):
    return "qcow2" if name.endswith(".qcow2") else "raw"


def take_bytes(recipe, name, target):
    _output(["qemu-img", "convert", "-f", _format_of(name), "-O", "raw", "-t", "unsafe", name,
             target], recipe.dir)


def take_map(recipe, name):
    """Ranges [start, end) that QEMU calls data, merged."""
    text = _output(["qemu-img", "map", "--output=json", "-f", _format_of(name), name], recipe.dir)
    data = []
    for extent in json.loads(text):
        start, end = extent["start"], extent["start"] + extent["length"]
        if not extent["data"]:
            continue
        if data and data[-1][1] == start:
            data[-1][1] = end
        else:
            data.append([start, end])
    return data


def take_info(recipe, name):
    return json.loads(_output(["qemu-img", "info", "-f", _format_of(name), "--output=json", name],
                              recipe.dir))


class SnapshotKeeper:
    """The internal snapshots of a recipe's image, each with its oracle."""

    def __init__(self, recipe):
        self.recipe = recipe
        # id -> {"name", "oracle", "data", "size"}; oracle is None when not known any more
        self.taken = {}

    def _list(self, name):
        return take_info(self.recipe, name).get("snapshots", [])

    def create(self, name):
        r = self.recipe
        if len(self.taken) >= 4:
            return
        before = {s["id"] for s in self._list(name)}
        snapshot = r.rng.choice(SNAPSHOT_NAMES)
        if not r.run("qemu-img", "snapshot", "-c", snapshot, name, may_refuse=True):
            return
        new = [s["id"] for s in self._list(name) if s["id"] not in before]
        if len(new) != 1:
            raise OracleError(f"{name}: new snapshots {new}")
        oracle = f"{r.tag}.{new[0]}.{len(r.commands)}.raw"
        path = os.path.join(r.root, "oracle", oracle)
        take_bytes(r, name, path)
        self.taken[new[0]] = {"name": snapshot, "oracle": oracle, "data": take_map(r, name),
                              "size": os.path.getsize(path)}

    def _pick(self):
        return self.recipe.rng.choice(sorted(self.taken)) if self.taken else None

    def apply(self, name, size):
        """Reverts to a random snapshot; the disk's size afterwards."""
        snapshot = self._pick()
        if snapshot and self.recipe.run("qemu-img", "snapshot", "-a", snapshot, name,
                                        may_refuse=True):
            return take_info(self.recipe, name)["virtual-size"]
        return size

    def delete(self, name):
        """Deletes a random snapshot: by name, so only where that says which one."""
        snapshot = self._pick()
        names = [t["name"] for t in self.taken.values()]
        if snapshot and names.count(self.taken[snapshot]["name"]) == 1:
            self.recipe.run("qemu-img", "snapshot", "-d", self.taken[snapshot]["name"], name)
            del self.taken[snapshot]

    def forget_content(self):
        """What lies below the image changed: the snapshots read differently from now on."""
        for taken in self.taken.values():
            taken["oracle"] = None

    def views(self, name):
        views, used = [], set()
        for entry in self._list(name):
            taken = self.taken[entry["id"]]
            again = self._revert_copy(name, entry["id"])
            # (A view without an oracle has a name and no known content.)
            if taken["oracle"] and again:
                check_agreement(self.recipe, entry, taken, again)
            shown = show_name(entry["name"], entry["id"], used)
            views.append({**(again or taken), "file": shown + ".raw", "snapshot": entry["name"],
                          "mtime_ns": entry["date-sec"] * 10**9 + entry["date-nsec"]})
        return views

    def _revert_copy(self, name, snapshot):
        """Oracle of a snapshot from a copy of the image, or None where QEMU refuses the revert."""
        r = self.recipe
        copy = f"{r.tag}-copy.qcow2"
        path = os.path.join(r.dir, copy)
        try:
            shutil.copyfile(os.path.join(r.dir, name), path)
            clear_corrupt_bit(path)
            try:
                _output(["qemu-img", "snapshot", "-a", snapshot, copy], r.dir)
            except OracleError:
                return None
            oracle = f"{r.tag}.{snapshot}.again.raw"
            target = os.path.join(r.root, "oracle", oracle)
            take_bytes(r, copy, target)
            return {"oracle": oracle, "data": take_map(r, copy), "size": os.path.getsize(target)}
        finally:
            if os.path.exists(path):
                os.unlink(path)


def clear_corrupt_bit(path):
    with open(path, "r+b") as f:
        header = f.read(80)
        if struct.unpack(">I", header[4:8])[0] >= 3:
            bits = struct.unpack(">Q", header[72:80])[0]
            f.seek(72)
            f.write(struct.pack(">Q", bits & ~2))


def check_agreement(recipe, entry, taken, again):
    oracle = os.path.join(recipe.root, "oracle")
    is_same_map = recipe.has_unwritten or taken["data"] == again["data"]
    if taken["size"] != again["size"] or not is_same_map or not filecmp.cmp(
            os.path.join(oracle, taken["oracle"]), os.path.join(oracle, again["oracle"]), False):
        raise OracleError(f"QEMU contradicts itself over snapshot {entry['id']}: {taken} {again}")


def escape_name(name):
    """The contract's escapes (section 3), but for what only several disks need."""
    shown = "".join(f"%{b:02X}" if b in b"/%@" or b < 0x20 or b == 0x7f else chr(b)
                    for b in name.encode())
    if shown.startswith("."):
        shown = "%2E" + shown[1:]
    return "%6Eow" if shown == "now" else shown.encode("latin-1").decode()


def show_name(name, snapshot_id, used):
    shown = escape_name(name)
    if shown in used:
        shown += "@" + snapshot_id
    used.add(shown)
    return shown


def record_views(recipe, name):
    """All that can be read of the image: [{file, oracle, size, data, mtime_ns}]."""
    views = recipe.snapshots.views(name)
    oracle = f"{recipe.tag}.now.raw"
    path = os.path.join(recipe.root, "oracle", oracle)
    take_bytes(recipe, name, path)
    views.insert(0, {"file": "now.raw", "oracle": oracle, "data": take_map(recipe, name),
                     "size": os.path.getsize(path),
                     "mtime_ns": os.stat(os.path.join(recipe.dir, name)).st_mtime_ns})
    return views
