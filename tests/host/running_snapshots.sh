#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Internal snapshots of a running domain, with and without its memory, can be read while the guest
# writes, and are equal to what its disk was.
. "$(dirname "$0")/../lib/host.sh"

for format in "cache='none'" "cache='writeback'"; do
    name=dom-${format:7:4}
    make_qcow2 "$T/$name.qcow2"
    qemu-img snapshot -c cold "$T/$name.qcow2"
    oracle "$T/$name.qcow2" qcow2 "$T/$name.cold"
    domain_define "$name" "$(disk_xml "$T/$name.qcow2" qcow2 vda '' "$format")"
    virsh start "$name"
done
mount_start qemu:///system

for name in dom-none dom-writ; do
    image=$T/$name.qcow2
    guest_io "$name" 0 'write -P 0x11 0 200k' 'write -P 0x12 3M 100k'
    virsh snapshot-create-as "$name" warm >/dev/null
    # QEMU has the same disk stopped in the snapshot; a copy of the image reverted is the oracle.
    cp "$image" "$T/copy.qcow2"
    qemu-img snapshot -a warm "$T/copy.qcow2"
    oracle "$T/copy.qcow2" qcow2 "$T/$name.warm"
    assert_eq "$(od -An -tx1 -N1 "$T/$name.warm" | tr -d ' ')" 11 'the oracle has the write'
    # The guest goes on: new clusters in place of the ones that the snapshots hold.
    guest_io "$name" 0 'write -P 0x21 0 1M' 'write -P 0x22 3M 100k' 'discard 2100k 500k' flush

    snapshots=$MNT/$name/snapshots
    assert_eq "$(probe list "$snapshots")" 'cold.raw|now.raw|warm.raw' 'files'
    # The memory that libvirt saved lies behind the disk's end and does not show.
    assert_eq "$(stat -c %s "$snapshots/warm.raw")" 4194304 'size'
    for snapshot in cold warm; do
        assert_same_bytes "$snapshots/$snapshot.raw" "$T/$name.$snapshot"
        dd "if=$snapshots/$snapshot.raw" of="$T/direct" bs=100k iflag=direct status=none
        assert_same_bytes "$T/direct" "$T/$name.$snapshot"
    done
done

# A snapshot more, and one less, while it runs.
virsh snapshot-create-as dom-none later >/dev/null
has_file() {
    probe list "$MNT/dom-none/snapshots" | tr '|' '\n' | grep -qx "$1"
}
has_no_file() {
    ! has_file "$1"
}
wait_for 10 has_file later.raw || fail 'a new snapshot is not listed'
virsh snapshot-delete dom-none later
wait_for 10 has_no_file later.raw || fail 'a deleted snapshot is still listed'
for name in dom-none dom-writ; do
    domain_destroy $name
done
mount_stop
