#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Snapshots deleted under their readers by a running guest with cache=none, while it writes so that
# their clusters are used again at once: a reader gets the right bytes or ESTALE, never others.
. "$(dirname "$0")/../lib/host.sh"

# All clusters of snapshot i hold the byte i + 1.
N=${DELETED_SNAPSHOTS:-12}
SIZE=$((16 << 20))
qemu-img create -q -f qcow2 "$T/a.qcow2" $SIZE
domain_define dom "$(disk_xml "$T/a.qcow2" qcow2 vda '' "cache='none' discard='unmap'")"
virsh start dom
mount_start qemu:///system -o cache=1M

cat >"$T/reader.py" <<'PY'
"""Reads a snapshot past the page cache until it is gone; ends with what it saw."""
import errno
import os
import random
import sys

path, wanted, ready = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rng = random.Random(wanted)
fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
size = os.fstat(fd).st_size
n = 0
while True:
    off, length = rng.randrange(size), rng.choice([1, 512, 4096, 65536, 1 << 20])
    try:
        data = os.pread(fd, length, off)
    except OSError as e:
        if e.errno != errno.ESTALE:
            sys.exit(f"{path}: {e}")
        break
    if data.count(wanted) != len(data) or not data:
        sys.exit(f"{path}: read of {length} at {off} gave bytes of somebody else's: "
                 f"{sorted(set(data))}, wanted {wanted}")
    n += 1
    if n == 20:
        open(ready, "w").close()
# Gone is gone.
for _ in range(5):
    try:
        os.pread(fd, 4096, rng.randrange(size))
        sys.exit(f"{path}: bytes after ESTALE")
    except OSError as e:
        if e.errno != errno.ESTALE:
            sys.exit(f"{path}: {e}")
print(f"{n} reads")
PY

for ((i = 0; i < N; i++)); do
    byte=$((i % 250 + 1))
    guest_io dom 0 "write -P $byte 0 $SIZE" flush
    virsh qemu-monitor-command dom '{"execute": "blockdev-snapshot-internal-sync",
        "arguments": {"device": "libvirt-1-format", "name": "snap'$i'"}}' >"$T/qmp"
    grep -q '"return"' "$T/qmp" || fail "snapshot: $(cat "$T/qmp")"
    readers=()
    for reader in 1 2 3; do
        rm -f "$T/ready.$reader"
        python3 "$T/reader.py" "$MNT/dom/snapshots/snap$i.raw" $byte "$T/ready.$reader" &
        readers+=($!)
    done
    for reader in 1 2 3; do
        wait_for 30 test -e "$T/ready.$reader" || fail 'a reader does not get on'
    done
    # Copies of all clusters now; the deletion frees the old ones; the writes take these again.
    guest_io dom 0 "write -P 255 0 $SIZE"
    virsh qemu-monitor-command dom '{"execute": "blockdev-snapshot-delete-internal-sync",
        "arguments": {"device": "libvirt-1-format", "name": "snap'$i'"}}' >"$T/qmp"
    grep -q '"return"' "$T/qmp" || fail "deletion: $(cat "$T/qmp")"
    guest_io dom 0 "discard 0 $SIZE" "write -P 254 0 $SIZE" flush
    for reader in "${readers[@]}"; do
        wait_for 30 is_gone_or_zombie "$reader" || fail 'a reader does not notice the deletion'
        wait "$reader" || fail 'a reader saw what it must not see'
    done
done
domain_destroy dom
mount_stop
