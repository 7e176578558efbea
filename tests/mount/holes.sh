#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# SEEK_DATA and SEEK_HOLE, st_blocks, and the end of the file.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir "$T/images"
cd "$T/images"
qemu-img create -q -f qcow2 empty.qcow2 1M
qemu-img create -q -f qcow2 hole-at-end.qcow2 1M
qemu-io -f qcow2 -c 'write 0 100k' hole-at-end.qcow2 >/dev/null
qemu-img create -q -f qcow2 data-at-end.qcow2 1000k
qemu-io -f qcow2 -c 'write 999k 1k' data-at-end.qcow2 >/dev/null
qemu-img create -q -f qcow2 zeroed.qcow2 1M
qemu-io -f qcow2 -c 'write 0 1M' -c 'write -z 128k 64k' -c 'write -z -u 512k 64k' \
    zeroed.qcow2 >/dev/null
qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=64k sub.qcow2 1M
qemu-io -f qcow2 -c 'write 66k 2k' sub.qcow2 >/dev/null
qemu-img create -q -f qcow2 full.qcow2 1M
qemu-io -f qcow2 -c 'write 0 1M' full.qcow2 >/dev/null
truncate -s 1M hole.raw
dd if=/dev/urandom of=part.raw bs=4096 count=2 seek=4 status=none
truncate -s 100000 part.raw
cd "$T"
mount_start "dir:$T/images"

check_ranges() {
    assert_eq "$(probe ranges "$MNT/$1/snapshots/now.raw")" "$2" "data of $1"
}
check_ranges empty.qcow2 none
check_ranges hole-at-end.qcow2 0-131072
check_ranges data-at-end.qcow2 983040-1024000
check_ranges zeroed.qcow2 '0-131072 196608-524288 589824-1048576'
check_ranges sub.qcow2 67584-69632
check_ranges full.qcow2 0-1048576
check_ranges hole.raw none
check_ranges part.raw 16384-24576

empty=$MNT/empty.qcow2/snapshots/now.raw
assert_errno ENXIO seek "$empty" data 0
assert_errno 0 seek "$empty" hole 0
for off in 1048576 1048577; do
    assert_errno ENXIO seek "$MNT/full.qcow2/snapshots/now.raw" data $off
    assert_errno ENXIO seek "$MNT/full.qcow2/snapshots/now.raw" hole $off
done
assert_errno 1048576 seek "$MNT/full.qcow2/snapshots/now.raw" hole 5
assert_errno ENXIO seek "$MNT/hole-at-end.qcow2/snapshots/now.raw" data 131072
assert_errno 131072 seek "$MNT/hole-at-end.qcow2/snapshots/now.raw" hole 77
assert_errno 68000 seek "$MNT/sub.qcow2/snapshots/now.raw" data 68000

assert_errno '0 bytes' read "$empty" 1048576 10
assert_errno '1 bytes' read "$empty" 1048575 10
# 100000 bytes of raw are 196 sectors to a guest; the rest of the last one reads as zeros.
assert_eq "$(stat -c %s "$MNT/part.raw/snapshots/now.raw")" 100352 'size of a raw file of odd size'

blocks() {
    stat -c %b "$MNT/$1/snapshots/now.raw"
}
for image in hole-at-end.qcow2 data-at-end.qcow2 zeroed.qcow2 sub.qcow2 part.raw; do
    b=$(blocks $image) size=$(stat -c %s "$MNT/$image/snapshots/now.raw")
    ((b > 0 && b < size / 512)) || fail "st_blocks of $image: $b of $((size / 512))"
done
(($(blocks full.qcow2) > 0)) || fail 'st_blocks of a full image'

# tar -S and cp make holes of holes.
cp "$MNT/hole-at-end.qcow2/snapshots/now.raw" "$T/copy.raw"
kib=$(du -k "$T/copy.raw" | cut -f1)
((kib >= 100 && kib <= 128)) || fail "cp wrote $kib KiB"
assert_same_bytes "$T/copy.raw" "$MNT/hole-at-end.qcow2/snapshots/now.raw"
mount_stop
