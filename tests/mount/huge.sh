#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# 1 TiB with 1 GiB of scattered data: quick to open, cp copies only the data, as one qcow2 file it has
# the size of its data and tables, and the server's memory stays under 100 MiB. Memory is measured on a program without sanitizers:
# VIRTSNAPFS_PLAIN, or VIRTSNAPFS if that is one.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

: "${VIRTSNAPFS_PLAIN:=$VIRTSNAPFS}"
if [[ $(ldd "$VIRTSNAPFS_PLAIN") =~ lib(a|t)san ]]; then
    skip 'VIRTSNAPFS_PLAIN is not set, and VIRTSNAPFS has a sanitizer'
fi
VIRTSNAPFS=$VIRTSNAPFS_PLAIN
MIB=$((1 << 20)) N_EXTENTS=512

# Extent i lies at i * 2 GiB and a bit, and is written by one process.
mkdir "$T/images"
qemu-img create -q -f qcow2 "$T/images/huge.qcow2" 1T
offsets=$(for ((i = 0; i < N_EXTENTS; i++)); do
    echo $((i * 2048 * MIB + i * 65536))
done)
for off in $offsets; do
    echo "write -P $((off / 65536 % 255 + 1)) $off $((2 * MIB))"
done | qemu-io -t unsafe -f qcow2 "$T/images/huge.qcow2" >/dev/null

mount_start "dir:$T/images"
now=$MNT/huge.qcow2/snapshots/now.raw
assert_eq "$(stat -c %s "$now")" $((1 << 40)) size
begin=$(date +%s%N)
head -c 1 "$now" >"$T/first"
echo "open to first byte: $((($(date +%s%N) - begin) / 1000)) us"

begin=$(date +%s%N)
cp "$now" "$T/copy.raw"
echo "cp: $((($(date +%s%N) - begin) / 1000000)) ms"
assert_eq "$(stat -c %s "$T/copy.raw")" $((1 << 40)) 'size of the copy'
copied=$(du -m "$T/copy.raw" | cut -f1)
((copied >= 1024 && copied <= 1024 + 16)) || fail "cp wrote $copied MiB for 1024 MiB of data"
assert_eq "$(probe ranges "$T/copy.raw")" "$(probe ranges "$now")" 'data of the copy'
python3 - "$T/copy.raw" "$offsets" <<'PY'
import sys

with open(sys.argv[1], "rb") as f:
    for off in map(int, sys.argv[2].split()):
        f.seek(off)
        if f.read(2 << 20) != bytes([off // 65536 % 255 + 1]) * (2 << 20):
            sys.exit(f"wrong bytes at {off}")
PY

# Every table once more, each with a piece of data, by three readers at a time.
readers=()
for reader in 0 1 2; do
    (for ((i = reader; i < N_EXTENTS; i += 3)); do
        dd "if=$now" of=/dev/null bs=64K skip=$((i * 32768 + i)) count=16 status=none
    done) &
    readers+=($!)
done
wait "${readers[@]}"
# 512 extents of 2 MiB in 512 L2 tables, and 4 clusters of header, L1 table and refcounts.
flat=$MNT/huge.qcow2/snapshots/now.qcow2
exec {keep}<"$flat"
assert_eq "$(stat -L -c %s "/proc/self/fd/$keep")" $(((4 + N_EXTENTS * (1 + 32)) * 65536)) 'flat size'
qemu-img check -q -f qcow2 "$flat" || fail 'qemu-img check'
qemu-img compare -q -f qcow2 -F raw "$flat" "$T/copy.raw" || fail 'the flat disk differs'
exec {keep}<&-
peak=$(awk '/VmHWM/ {print $2}' "/proc/$PID/status")
echo "peak memory of the server: $((peak / 1024)) MiB"
((peak < 100 * 1024)) || fail "the server used $peak KiB"
mount_stop
