#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A damaged image gives EIO on its own files, and a log line that says which table, where, and what.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir "$T/images"
make_qcow2 "$T/images/good.qcow2"
qemu-img snapshot -c s1 "$T/images/good.qcow2"
python3 - "$T/images" >"$T/cases" <<'PY'
import shutil
import struct
import sys

d = sys.argv[1]
good = open(f"{d}/good.qcow2", "rb").read()


def be(fmt, off):
    return struct.unpack_from(fmt, good, off)[0]


L1 = be(">Q", 40)
L2 = be(">Q", L1) & 0x00FFFFFFFFFFFE00
REFTABLE, SNAPSHOTS = be(">Q", 48), be(">Q", 64)
CLUSTER = 1 << be(">I", 20)
N_DATA = next(i for i in range(CLUSTER // 8) if be(">Q", L2 + 8 * i))


def make(name, *pokes, cut=None, say=""):
    """An image with damage; @say is what the log line must hold besides the name."""
    data = bytearray(good)
    for off, fmt, value in pokes:
        struct.pack_into(fmt, data, off, value)
    with open(f"{d}/{name}.qcow2", "wb") as f:
        f.write(data[:cut])
    print(name, say)


BEYOND = len(good) // CLUSTER * CLUSTER + 4096 * CLUSTER
make("l1-unaligned", (L1, ">Q", (L2 + 512) | 1 << 63), say=f"{L2 + 512:#x}")
make("l1-beyond", (L1, ">Q", BEYOND | 1 << 63), say=f"{BEYOND:#x}")
make("l2-unaligned", (L2 + 8 * N_DATA, ">Q", (CLUSTER * 5 + 512) | 1 << 63),
     say=f"{CLUSTER * 5 + 512:#x}")
make("compressed-garbage", (L2 + 8 * N_DATA, ">Q", 1 << 62 | 7 << 54 | L1), say="ompress")
make("l1-table-beyond", (40, ">Q", BEYOND), say=f"{BEYOND:#x}")
make("l1-table-unaligned", (40, ">Q", L1 + 8), say=f"{L1 + 8:#x}")
make("l1-huge", (36, ">I", 0xFFFFFFFF), say="4294967295|0xffffffff")
make("l1-short", (36, ">I", 0), say="")
make("cluster-bits-small", (20, ">I", 8), say="8")
make("cluster-bits-large", (20, ">I", 22), say="22")
make("no-refcount-table", (56, ">I", 0), say="")
make("refcount-order", (96, ">I", 7), say="7")
make("header-length", (100, ">I", 0xFFFFFFF0), say="4294967280|0xfffffff0")
make("crypt-method", (32, ">I", 77), say="77")
make("snapshots-many", (60, ">I", 65537), say="65537|0x10001")
make("snapshots-beyond", (64, ">Q", BEYOND), say=f"{BEYOND:#x}")
make("size-huge", (24, ">Q", 1 << 63), say="")
make("backing-name-long", (8, ">Q", CLUSTER - 1024), (16, ">I", 1024), say="1024|0x400")
make("backing-name-beyond", (8, ">Q", CLUSTER - 10), (16, ">I", 11), say=f"{CLUSTER - 10:#x}")
make("extension-beyond", (112 + 4, ">I", CLUSTER), say=f"{CLUSTER}|{CLUSTER:#x}")
make("cut-in-header", cut=50, say="50|0x32")
make("cut-in-l1", cut=L1 + 4, say=f"{L1:#x}")
PY

mount_start "dir:$T/images"
while read -r name say; do
    found=$(probe read "$MNT/$name.qcow2/snapshots/now.raw" 0 65536)
    wanted=EIO
    [[ $name == crypt-method ]] && wanted=EOPNOTSUPP
    assert_eq "$found" "$wanted" "read of $name"
    assert_log "$name.qcow2.*($say)" "damage of $name"
done <"$T/cases"

# The rest goes on, and so do the sound parts of an image whose damage lies elsewhere.
oracle "$T/images/good.qcow2" qcow2 "$T/good.raw"
assert_same_bytes "$MNT/good.qcow2/snapshots/now.raw" "$T/good.raw"
assert_same_bytes "$MNT/good.qcow2/snapshots/s1.raw" "$T/good.raw"
cmp -n 65536 -i 1M "$MNT/l2-unaligned.qcow2/snapshots/now.raw" "$T/good.raw" ||
    fail 'sound clusters of a damaged image'
ls -lR "$MNT" >/dev/null 2>&1 || true
assert_eq "$(probe list "$MNT")" "$(probe list "$T/images")" 'domains listed'

# Data clusters beyond the end of a cut file read as zeros, as they do in QEMU.
make_qcow2 "$T/images/cut-in-data.qcow2"
truncate -s -200K "$T/images/cut-in-data.qcow2"
oracle "$T/images/cut-in-data.qcow2" qcow2 "$T/cut.raw"
assert_same_bytes "$MNT/cut-in-data.qcow2/snapshots/now.raw" "$T/cut.raw"
# A backing file that is gone: EIO for the overlay.
truncate -s 1M "$T/images/base.raw"
qemu-img create -q -f qcow2 -F raw -b base.raw "$T/images/orphan.qcow2"
rm "$T/images/base.raw"
assert_errno EIO read "$MNT/orphan.qcow2/snapshots/now.raw" 0 1
assert_log 'base.raw' 'lost backing file'
# An image cut under an open reader: an error or zeros as above, and the program lives on.
cp "$T/images/good.qcow2" "$T/images/cut-later.qcow2"
exec {fd}<"$MNT/cut-later.qcow2/snapshots/now.raw"
truncate -s 100 "$T/images/cut-later.qcow2"
cat <&"$fd" >/dev/null 2>&1 || true
exec {fd}<&-
assert_same_bytes "$MNT/good.qcow2/snapshots/now.raw" "$T/good.raw"
mount_stop
