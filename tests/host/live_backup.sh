#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# live=backup: the disks of a running guest are read, as they were at the moment of open, over the
# NBD server of a backup job, while the guest writes on. XML and images stay as they are throughout,
# and nothing is left.
. "$(dirname "$0")/../lib/host.sh"
need qemu-nbd

mkdir "$T/disks" "$T/scratch"
chmod 777 "$T/scratch"
qemu-img create -q -f qcow2 "$T/disks/qcow2.img" 32M
truncate -s 32M "$T/disks/raw.img" "$T/disks/base.img" "$T/disks/net.img"
qemu-img create -q -f qcow2 -F raw -b "$T/disks/base.img" "$T/disks/chain.img"
qemu-img create -q -f qcow2 "$T/disks/two.img" 16M
qemu-nbd -t -f raw -k "$T/nbd" -x net --fork --pid-file "$T/nbd.pid" "$T/disks/net.img"
at_exit "kill \$(cat $T/nbd.pid)"
chmod 777 "$T/nbd"

domain_define qcow2 "$(disk_xml "$T/disks/qcow2.img" qcow2 vda)"
domain_define raw "$(disk_xml "$T/disks/raw.img" raw vda)"
domain_define chain "$(disk_xml "$T/disks/chain.img" qcow2 vda)" "$(disk_xml "$T/disks/two.img" qcow2 vdb)"
domain_define net "<disk type='network' device='disk'><driver name='qemu' type='raw'/>
    <source protocol='nbd' name='net'><host transport='unix' socket='$T/nbd'/></source>
    <target dev='vda' bus='virtio'/></disk>"
domains=(qcow2 raw chain net)
for domain in "${domains[@]}"; do
    virsh start "$domain"
done

no_instant() {
    wait_for 60 has_no_instants "$1" || fail "$1: the instant does not end"
}

# Whatever carries our mark, wherever a backup job puts things.
leftovers() {
    find "$T/disks" "$T/scratch" /var/lib/libvirt/qemu -name '*virtsnapfs-*'
}

assert_no_leftovers() {
    assert_eq "$(leftovers)" '' "$1: files left"
}

assert_xml_is_same() {
    diff "$T/live.xml" <(virsh dumpxml "$1") || fail "$1: $2: the live XML is another"
    diff "$T/inactive.xml" <(virsh dumpxml --inactive "$1") || fail "$1: $2: the inactive XML is another"
}

# check_bytes FILE SIZE [BYTE OFFSET LENGTH]...: in MiB; the rest is zeros.
check_bytes() {
    python3 - "$@" <<'PY'
import sys

path, size, *rest = sys.argv[1:]
wanted = bytearray(int(size) << 20)
for i in range(0, len(rest), 3):
    byte, at, n = (int(x) for x in rest[i:i + 3])
    wanted[at << 20:(at + n) << 20] = bytes([byte]) * (n << 20)
with open(path, "rb") as f:
    data = f.read()
if data != wanted:
    at = next((i for i, (a, b) in enumerate(zip(data, wanted)) if a != b), min(len(data), len(wanted)) - 1)
    sys.exit(f"{path}: {len(data)} bytes; byte {at} is {data[at]}, not {wanted[at]}")
PY
}

# first_hole FILE, as SEEK_HOLE tells; hole_end FILE OFFSET, as SEEK_DATA does.
first_hole() {
    python3 -c 'import os, sys; print(os.lseek(os.open(sys.argv[1], 0), 0, os.SEEK_HOLE))' "$1"
}
hole_end() {
    python3 -c 'import os, sys; print(os.lseek(os.open(sys.argv[1], 0), int(sys.argv[2]), os.SEEK_DATA))' \
        "$1" "$2"
}

mount_start qemu:///system -o "live=backup,linger=0,scratch=$T/scratch"
for domain in "${domains[@]}"; do
    wait_for 20 state_is "$domain" running || fail "$domain is not running"
    now=$MNT/$domain/snapshots/now.raw
    guest_io "$domain" 0 'write -P 1 0 4M' 'write -P 2 20M 1M' flush
    [[ $domain != chain ]] || guest_io chain 1 'write -P 3 1M 1M' flush
    virsh dumpxml "$domain" >"$T/live.xml"
    virsh dumpxml --inactive "$domain" >"$T/inactive.xml"
    assert_eq "$(stat -c %s "$now")" $((32 << 20)) "$domain: size before"
    mtime=$(stat -c %y "$now")

    # Laid out before the guest fills holes, which the hypervisor's map may show.
    flat=${now%.raw}.qcow2
    exec {fd}<"$now" {flat_fd}<"$flat"
    flat_size=$(stat -c %s "$flat")
    assert_eq "$(status_value "$domain" 's["instants"][0]["method"]')" backup method
    assert_eq "$(stat -c %y "$now")" "$mtime" "$domain: mtime of the instant"
    assert_xml_is_same "$domain" 'during the backup'
    guest_io "$domain" 0 'write -P 9 0 8M' 'write -P 9 31M 1M' flush
    if [[ $domain == chain ]]; then
        # The second disk is of the same moment.
        guest_io chain 1 'write -P 9 0 8M' flush
        check_bytes "$MNT/chain/snapshots/now.vdb.raw" 16 3 1 1
    fi
    check_bytes "$now" 32 1 0 4 2 20 1
    assert_eq "$(first_hole "$now")" $((4 << 20)) "$domain: first hole"
    assert_eq "$(hole_end "$now" $((4 << 20)))" $((20 << 20)) "$domain: end of the hole"
    # 5 MiB of data in one L2 table.
    assert_eq "$flat_size" $(((5 + 80) * 65536)) "$domain: size of now.qcow2"
    assert_flat_is_same "$domain"
    assert_eq "$(stat -c %s "$flat")" "$flat_size" "$domain: size of now.qcow2 afterwards"
    exec {fd}<&- {flat_fd}<&-
    no_instant "$domain"
    assert_xml_is_same "$domain" 'after the backup'
    assert_no_leftovers "$domain"
    assert_eq "$(virsh domstate "$domain")" running state
    # The next instant has what was written meanwhile.
    exec {fd}<"$now"
    check_bytes "$now" 32 9 0 8 2 20 1 9 31 1
    exec {fd}<&-
    no_instant "$domain"
done
# Who compares times sees that the network disk may have changed; else they stand still.
mtime=$(stat -c %y "$MNT/net/snapshots/now.raw")
assert_eq "$(stat -c %y "$MNT/net/snapshots/now.raw")" "$mtime" 'mtime while nothing happens'
cp "$MNT/net/snapshots/now.raw" "$T/copy"
no_instant net
[[ $(stat -c %y "$MNT/net/snapshots/now.raw") != "$mtime" ]] || fail 'mtime after an instant is the old one'

# A paused guest stays paused.
virsh suspend raw
wait_for 20 state_is raw paused || fail 'not paused'
check_bytes "$MNT/raw/snapshots/now.raw" 32 9 0 8 2 20 1 9 31 1
no_instant raw
assert_eq "$(virsh domstate raw)" paused 'state of a paused guest'
virsh resume raw

# Another's backup job: refused at once, and left alone.
echo "<domainbackup mode='pull'><server transport='unix' socket='/var/lib/libvirt/qemu/foreign'/>
    <disks><disk name='vda' backup='yes' type='file'><driver type='qcow2'/>
    <scratch file='$T/scratch/foreign'/></disk></disks></domainbackup>" >"$T/backup.xml"
virsh backup-begin qcow2 "$T/backup.xml" >/dev/null
if head -c 1 "$MNT/qcow2/snapshots/now.raw" 2>"$T/error"; then
    fail 'opened beside a foreign backup job'
fi
grep -q 'Device or resource busy' "$T/error" || fail "foreign job: $(cat "$T/error")"
virsh backup-dumpxml qcow2 | grep -q foreign || fail 'the foreign job is gone'
virsh domjobabort qcow2
wait_for 20 bash -c "! test -e $T/scratch/foreign" || fail 'the foreign job does not end'

# A guest that ends under a reader.
exec {fd}<"$MNT/qcow2/snapshots/now.raw"
head -c 512 <&"$fd" >/dev/null
domain_destroy qcow2
if cat <&"$fd" >/dev/null 2>"$T/error"; then
    fail 'read on after the guest had ended'
fi
grep -q 'Input/output error' "$T/error" || fail "guest ended: $(cat "$T/error")"
exec {fd}<&-
no_instant qcow2
assert_no_leftovers 'guest ended'

# libvirtd dies and comes back under a reader, who does not notice.
exec {fd}<"$MNT/raw/snapshots/now.raw"
kill -KILL "$LIBVIRTD_PID"
check_bytes "$MNT/raw/snapshots/now.raw" 32 9 0 8 2 20 1 9 31 1
libvirtd_start
exec {fd}<&-
no_instant raw
assert_no_leftovers 'libvirtd lost'
mount_stop

# Without a scratch folder: beside the image; a network disk has no such place.
mount_start qemu:///system -o live=backup,linger=600
wait_for 20 state_is chain running || fail 'not running'
exec {fd}<"$MNT/chain/snapshots/now.raw"
assert_eq "$(find "$T/disks" -name '*.virtsnapfs-*.scratch' | wc -l)" 2 'scratch files beside the images'
if head -c 1 "$MNT/net/snapshots/now.raw" 2>"$T/error"; then
    fail 'a network disk was opened without scratch='
fi
grep -q 'not supported' "$T/error" || fail "network disk: $(cat "$T/error")"
# Ending with a reader ends the job as well.
head -c 1 <&"$fd" >/dev/null
kill -TERM "$PID"
mount_wait_end 0
exec {fd}<&-
assert_no_leftovers SIGTERM
for domain in raw chain net; do
    virsh domjobinfo "$domain" | grep -q None || fail "$domain has a job"
    domain_destroy "$domain"
done
