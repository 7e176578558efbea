#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What is not served is refused with EOPNOTSUPP and a reason: encryption, unknown features, formats
# in dispute. Its neighbours are served all the same.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir "$T/images"
make_qcow2 "$T/images/good.qcow2"
for scheme in luks aes; do
    qemu-img create -q -f qcow2 --object secret,id=s,data=x \
        -o "encrypt.format=$scheme,encrypt.key-secret=s" "$T/images/$scheme.qcow2" 1M
done
qemu-img create -q -f qcow2 "$T/images/unknown.qcow2" 1M
qemu-img create -q -f qcow2 "$T/images/unnamed.qcow2" 1M
qemu-img create -q -f qcow2 "$T/images/version1.qcow2" 1M
truncate -s 1M "$T/images/not-qcow2.qcow2"
cp "$T/images/good.qcow2" "$T/images/disputed.img"
python3 - "$T/images" <<'PY'
import struct
import sys

d = sys.argv[1]


def poke(name, off, data):
    with open(f"{d}/{name}.qcow2", "r+b") as f:
        f.seek(off)
        f.write(data)


poke("version1", 4, struct.pack(">I", 1))
poke("unnamed", 72, struct.pack(">Q", 1 << 40))
poke("unknown", 72, struct.pack(">Q", 1 << 9))
# Gives bit 9 a name: takes over an entry of the feature name table (type 0 is "incompatible").
with open(f"{d}/unknown.qcow2", "r+b") as f:
    header = f.read(4096)
    at = header.index(struct.pack(">I", 0x6803F857)) + 8
    f.seek(at)
    f.write(bytes([0, 9]) + b"frobnication".ljust(46, b"\0"))
PY

mount_start "dir:$T/images"
refused() {
    assert_errno "$1" read "$MNT/$2/snapshots/now.raw" 0 1
    assert_log "$3" "refusal of $2"
}
refused EOPNOTSUPP luks.qcow2 'luks.qcow2.*encrypt'
refused EOPNOTSUPP aes.qcow2 'aes.qcow2.*encrypt'
refused EOPNOTSUPP unknown.qcow2 'unknown.qcow2.*frobnication'
refused EOPNOTSUPP unnamed.qcow2 'unnamed.qcow2.*40'
refused EOPNOTSUPP version1.qcow2 'version1.qcow2.*version'
refused EOPNOTSUPP disputed.img 'disputed.img.*format='
refused EIO not-qcow2.qcow2 'not-qcow2.qcow2'
assert_match "$(cat "$MNT/disputed.img/status")" 'format=' 'reason in status'
assert_match "$(cat "$MNT/unknown.qcow2/status")" frobnication 'reason in status'
assert_match "$(probe getxattr "$MNT/luks.qcow2/snapshots/now.raw" user.virtsnapfs.error)" \
    encrypt 'reason in the xattr'
# All names are listed, and the good one is served.
assert_eq "$(probe list "$MNT/disputed.img/snapshots")" now.raw 'files of a disputed image'
oracle "$T/images/good.qcow2" qcow2 "$T/good.raw"
assert_same_bytes "$MNT/good.qcow2/snapshots/now.raw" "$T/good.raw"
mount_stop

mount_start "dir:$T/images" -o format=qcow2
assert_same_bytes "$MNT/disputed.img/snapshots/now.raw" "$T/good.raw"
mount_stop
mount_start "dir:$T/images" -o format=raw
oracle "$T/images/disputed.img" raw "$T/as-raw.raw"
assert_same_bytes "$MNT/disputed.img/snapshots/now.raw" "$T/as-raw.raw"
mount_stop
