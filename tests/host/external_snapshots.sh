#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# External snapshots that libvirt knows are listed next to the internal ones, with their time, and
# are the disk of that moment; while one is read, nobody can commit into what it froze.
. "$(dirname "$0")/../lib/host.sh"

mkdir "$T/disks"
D=$T/disks
make_qcow2 "$D/a.qcow2" 8M
truncate -s 4M "$D/b.raw"
make_qcow2 "$D/off.qcow2"
domain_define dom "$(disk_xml "$D/a.qcow2" qcow2 vda)" "$(disk_xml "$D/b.raw" raw vdb)"
domain_define off "$(disk_xml "$D/off.qcow2" qcow2 vda)"
virsh start dom

# snapshot DOMAIN NAME [ARGUMENT...]: an external one of the disks only.
snapshot() {
    virsh snapshot-create-as "$1" "$2" --disk-only "${@:3}" >/dev/null
}

# created DOMAIN NAME: seconds since 1970, as libvirt noted.
created() {
    virsh snapshot-dumpxml "$1" "$2" | sed -n 's,.*<creationTime>\(.*\)</creationTime>.*,\1,p'
}

files() {
    probe list "$MNT/$1/snapshots"
}

# Libvirt sends no event about snapshots; any other one has the domain read anew at once.
nudge() {
    virsh desc "$1" --config "$RANDOM" >/dev/null
}

files_are() {
    [[ $(files "$1") == "$2" ]]
}

# check_snapshot FILE DOMAIN NAME ORACLE: bytes, also past the page cache, and time.
check_snapshot() {
    local file=$MNT/$2/snapshots/$1
    assert_eq "$(stat -c %s "$file")" "$(stat -c %s "$4")" "size of $1"
    assert_eq "$(stat -c '%Y %Z' "$file")" "$(created "$2" "$3") $(created "$2" "$3")" "time of $1"
    assert_same_bytes "$file" "$4"
    dd "if=$file" of="$T/direct" bs=100k iflag=direct status=none
    assert_same_bytes "$T/direct" "$4"
}

xattr() {
    python3 -c 'import os, sys
print(os.getxattr(sys.argv[1], "user.virtsnapfs." + sys.argv[2]).decode())' "$1" "$2"
}

# Two snapshots, the second of vda only, and the guest writes before, between and after.
guest_io dom 0 'write -P 1 0 8M' flush
guest_io dom 1 'write -P 2 0 4M' flush
snapshot dom s1
guest_io dom 0 'write -P 3 1M 1M' flush
guest_io dom 1 'write -P 4 1M 1M' flush
snapshot dom s2 --diskspec vdb,snapshot=no
guest_io dom 0 'write -P 5 2M 1M' flush
guest_io dom 1 'write -P 6 2M 1M' flush
mount_start qemu:///system
assert_eq "$(files dom)" 'now.raw|now.vdb.raw|s1.raw|s1.vdb.raw|s2.raw' 'files'

# The frozen layers as QEMU reads them, and as they were written.
qemu-img convert -U -O raw "$D/a.qcow2" "$T/s1.vda"
cp "$D/b.raw" "$T/s1.vdb"
qemu-img convert -U -O raw "$D/a.s1" "$T/s2.vda"
python3 - "$T" <<'PY'
import sys

MIB = 1 << 20
wanted = {
    "s1.vda": b"\1" * (8 * MIB),
    "s1.vdb": b"\2" * (4 * MIB),
    "s2.vda": b"\1" * MIB + b"\3" * MIB + b"\1" * (6 * MIB),
}
for name, data in wanted.items():
    if open(f"{sys.argv[1]}/{name}", "rb").read() != data:
        sys.exit(f"{name} is not what the guest wrote")
PY
check_snapshot s1.raw dom s1 "$T/s1.vda"
check_snapshot s1.vdb.raw dom s1 "$T/s1.vdb"
check_snapshot s2.raw dom s2 "$T/s2.vda"
assert_errno ENOENT open "$MNT/dom/snapshots/s2.vdb.raw"
assert_eq "$(xattr "$MNT/dom/snapshots/s2.raw" method)" external method
assert_eq "$(xattr "$MNT/dom/snapshots/s2.raw" source)" "$D/a.s1" source
assert_match "$(xattr "$MNT/dom/snapshots/s2.raw" taken)" \
    "^$(date -u -d "@$(created dom s2)" +%Y-%m-%dT%H:%M:%S)" taken
ino=$(stat -c %i "$MNT/dom/snapshots/s1.vdb.raw")

exec {fd}<"$MNT/dom/snapshots/s1.vdb.raw"
assert_eq "$(status_value dom 's["snapshot_readers"][0]["snapshot"]')" s1 'the reader in status'
exec {fd}<&-

# A foreign commit into a frozen layer: the one of s1 becomes that of s2 by it.
commit() {
    virsh blockcommit dom vda --top "$D/a.s1" --base "$D/a.qcow2" --wait >"$T/commit" 2>&1
}
for name in s1 s2; do
    exec {fd}<"$MNT/dom/snapshots/$name.raw"
    head -c 1 <&"$fd" >/dev/null
    if commit; then
        fail "a commit into the layers of $name while that is read"
    fi
    grep -q 'lock' "$T/commit" || fail "the commit fails for another reason: $(cat "$T/commit")"
    cmp "/proc/self/fd/$fd" "$T/$name.vda" || fail "$name after the commit that failed"
    exec {fd}<&-
    has_no_readers() {
        [[ $(status_value dom 'len(s["snapshot_readers"])') == 0 ]]
    }
    wait_for 20 has_no_readers || fail 'a reader stays in status'
done
commit || fail "the commit is still refused: $(cat "$T/commit")"
wait_for 20 files_are dom 'now.raw|now.vdb.raw|s1.vdb.raw' ||
    fail "after the commit of vda there are $(files dom)"
assert_errno ENOENT open "$MNT/dom/snapshots/s1.raw"
assert_errno ENOENT open "$MNT/dom/snapshots/s2.raw"
check_snapshot s1.vdb.raw dom s1 "$T/s1.vdb"

# One more, which is seen when all domains are read again, once a minute.
snapshot dom s3
qemu-img convert -U -O raw "$D/a.s2" "$T/s3.vda"
wait_for 90 files_are dom 'now.raw|now.vdb.raw|s1.vdb.raw|s3.raw|s3.vdb.raw' ||
    fail "after a third snapshot there are $(files dom)"
check_snapshot s3.raw dom s3 "$T/s3.vda"
exec {fd}<"$MNT/dom/snapshots/s3.raw"

# The domain is off, and its XML names other files; an internal snapshot has the same name.
domain_destroy dom
wait_for 20 state_is dom 'shut off' || fail 'dom is not shut off'
cmp "/proc/self/fd/$fd" "$T/s3.vda" || fail 's3 of the domain that was shut off'
exec {fd}<&-
check_snapshot s1.vdb.raw dom s1 "$T/s1.vdb"
check_snapshot s3.raw dom s3 "$T/s3.vda"
qemu-img snapshot -c s3 "$D/a.s3"
oracle "$D/a.s3" qcow2 "$T/s3.internal"
wait_for 20 files_are dom 'now.raw|now.vdb.raw|s1.vdb.raw|s3.raw|s3.vdb.raw|s3@external.raw' ||
    fail "beside an internal s3 there are $(files dom)"
assert_same_bytes "$MNT/dom/snapshots/s3.raw" "$T/s3.internal"
check_snapshot s3@external.raw dom s3 "$T/s3.vda"
virsh start dom
wait_for 20 state_is dom running || fail 'dom is not running'
check_snapshot s3@external.raw dom s3 "$T/s3.vda"
domain_destroy dom

# Snapshots of a domain that is off: its XML names the top layer only. The disk grows meanwhile.
oracle "$D/off.qcow2" qcow2 "$T/o1"
snapshot off o1
qemu-img resize -q -f qcow2 "$D/off.o1" 6M
qemu-io -f qcow2 -c 'write -P 7 3M 2M' "$D/off.o1" >/dev/null
oracle "$D/off.o1" qcow2 "$T/o2"
snapshot off o2
nudge off
wait_for 20 files_are off 'now.raw|o1.raw|o2.raw' || fail "of the domain that is off: $(files off)"
check_snapshot o1.raw off o1 "$T/o1"
check_snapshot o2.raw off o2 "$T/o2"
exec {fd}<"$MNT/off/snapshots/o1.raw"
if qemu-img commit -q -b "$D/off.qcow2" "$D/off.o1" 2>"$T/commit"; then
    fail 'qemu-img commits into a layer that is read'
fi
exec {fd}<&-
virsh snapshot-delete off o2 --metadata >/dev/null
nudge off
wait_for 20 files_are off 'now.raw|o1.raw' || fail "after the deletion of o2: $(files off)"
mount_stop

# The numbers are the same after a remount. While an instant of our own is over the chain, what
# rests below stays where it is, and it can be read meanwhile.
virsh start off
mount_start qemu:///system -o live=overlay,linger=0
assert_eq "$(stat -c %i "$MNT/dom/snapshots/s1.vdb.raw")" "$ino" 'inode number after a remount'
wait_for 20 state_is off running || fail 'off is not running'
exec {now}<"$MNT/off/snapshots/now.raw"
exec {fd}<"$MNT/off/snapshots/o1.raw"
nudge off
assert_eq "$(files off)" 'now.raw|o1.raw' 'files during an instant'
check_snapshot o1.raw off o1 "$T/o1"
guest_io off 0 'write -P 8 0 1M' flush
exec {now}<&-
wait_for 60 has_no_instants off || fail 'off: the instant does not end under a reader of o1'
cmp "/proc/self/fd/$fd" "$T/o1" || fail 'o1 after the instant'
exec {fd}<&-
check_snapshot o1.raw off o1 "$T/o1"
assert_eq "$(ls "$D")" "$(printf '%s\n' a.qcow2 a.s1 a.s2 a.s3 b.raw b.s1 b.s3 off.o1 off.o2 off.qcow2)" \
    'files beside the images'
domain_destroy off
mount_stop
