#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# cold=internal: a snapshot in each image of a domain that is off; the domain can be started
# meanwhile, and afterwards is as it was, also after a kill at any point.
. "$(dirname "$0")/../lib/changer.sh"

M=$((1 << 20))
mkdir "$T/disks"
qemu-img create -q -f qcow2 "$T/disks/a.img" 32M
qemu-img create -q -f qcow2 "$T/disks/base.img" 16M
qemu-io -f qcow2 -c 'write -P 1 0 32M' "$T/disks/a.img" >/dev/null
qemu-io -f qcow2 -c 'write -P 2 0 16M' "$T/disks/base.img" >/dev/null
qemu-img create -q -f qcow2 -F qcow2 -b "$T/disks/base.img" "$T/disks/b.img"
make_qcow2 "$T/disks/read-only.img"
truncate -s 1M "$T/disks/raw.img" "$T/disks/floppy.img"
raw=$(disk_xml "$T/disks/raw.img" raw vdc)
# One disk that its definition keeps out of snapshots, and one that takes no part in them.
domain_define dom "$(disk_xml "$T/disks/a.img" qcow2 vda)" \
    "$(disk_xml "$T/disks/b.img" qcow2 vdb | sed "s/device=/snapshot='no' device=/")" \
    "$(disk_xml "$T/disks/read-only.img" qcow2 vdc '<readonly/>')"
virsh snapshot-create-as dom theirs --diskspec vda,snapshot=internal --diskspec vdb,snapshot=internal
virsh snapshot-create-as dom current --diskspec vda,snapshot=internal --diskspec vdb,snapshot=internal

# Reads the instant with another program than the one under test.
check_instant() {
    local image
    for image in a b; do
        qemu-img convert -U -l "snapshot.name=$(mark)" -f qcow2 -O raw "$T/disks/$image.img" "$T/$image.raw"
    done
    check_raw "$T/a.raw" "[(1,32*$M)]" "the first disk"
    check_raw "$T/b.raw" "[(2,16*$M)]" "the second disk"
}

is_in_no_image() {
    local image
    for image in "$T"/disks/*.img; do
        if qemu-img snapshot -U -l -f qcow2 "$image" 2>/dev/null | grep virtsnapfs; then
            return 1
        fi
    done
}

domain_note dom
changer_start internal dom
changer_wait made
check_instant
assert_eq "$(grep -c '^disk ' "$T/changer")" 2 'disks of the instant'
changer_end 0
domain_check dom
is_in_no_image || fail 'the snapshot is left'

# Started meanwhile, and still running at the end.
changer_start internal dom
changer_wait made
virsh start dom
guest_io dom 0 'write -P 3 0 32M' flush
guest_io dom 1 'write -P 4 0 16M' flush
check_instant
changer_end 0
is_in_no_image || fail 'the snapshot is left'
assert_eq "$(virsh domstate dom)" running 'state after an instant that was begun while off'
assert_eq "$(virsh snapshot-current --name dom)" current 'the current snapshot'
guest_io dom 0 'write -P 1 0 32M' flush
guest_io dom 1 'write -P 2 0 16M' flush
changer_refuses internal dom EBUSY 'is not shut off'

# With a managed-save image, which stays, and still fits.
virsh managedsave dom
changer_start internal dom
changer_wait made
check_instant
changer_end 0
assert_match "$(virsh dominfo dom)" 'Managed save: +yes' 'the managed-save image'
virsh start dom
assert_match "$(virsh domstate --reason dom)" 'running.*restored' 'how it was started'
domain_destroy dom
domain_note dom

# Killed at each step; what was made and not noted by libvirt is found as well.
for step in plan enter leave; do
    changer_start internal dom -w "$step"
    changer_wait waiting
    changer_kill
    changer_undo internal 0
    domain_check dom
    is_in_no_image || fail "the snapshot is left after a kill at '$step'"
    changer_undo internal 0
done
for state in off running; do
    changer_start internal dom
    changer_wait made
    virsh snapshot-delete --metadata dom "$(mark)"
    qemu-img snapshot -d "$(mark)" "$T/disks/b.img"
    if [[ $state == running ]]; then
        virsh start dom
    fi
    changer_end 0
    is_in_no_image || fail "a snapshot that libvirt did not know is left, $state"
    assert_eq "$(virsh snapshot-current --name dom)" current 'the current snapshot'
done
domain_destroy dom
domain_check dom

# Started in the last moment: no snapshot of a running domain is made.
changer_start internal dom -w enter
changer_wait waiting
virsh start dom
changer_go_on
changer_end 3
assert_match "$(<"$T/changer")" 'make: EBUSY: .*is running' 'a domain that was started'
is_in_no_image || fail 'a snapshot of a running domain'
domain_destroy dom

# libvirtd dies in the moment.
changer_start internal dom -w enter
changer_wait waiting
libvirtd_restart
changer_go_on
changer_end 3
domain_check dom
is_in_no_image || fail 'the snapshot is left'

# Somebody's overlay over the images: not while that is there.
changer_start internal dom
changer_wait made
virsh start dom
virsh snapshot-create-as dom over --disk-only --no-metadata \
    --diskspec vda,snapshot=external,file="$T/over" --diskspec vdb,snapshot=no
changer_end 5
assert_match "$(<"$T/changer")" 'undo: EAGAIN: .*virsh snapshot-delete dom virtsnapfs-' 'a deferred undo'
virsh blockcommit dom vda --shallow --active --pivot --delete --wait
changer_undo internal 0
is_in_no_image || fail 'the snapshot is left'
domain_destroy dom

# A domain that is gone keeps nobody from saying what is left in its images.
virsh dumpxml --inactive dom >"$T/dom.xml"
changer_start internal dom
changer_wait made
virsh undefine dom --snapshots-metadata
changer_end 4
assert_match "$(<"$T/changer")" 'undo: ESTALE: .*qemu-img snapshot -d virtsnapfs-' 'a domain that is gone'
for image in a b; do
    qemu-img snapshot -d "$(sed -n 3p "$T/notes")" "$T/disks/$image.img"
done
changer_undo internal 0

# Refused, with nothing changed.
domain_define raw "$(disk_xml "$T/disks/a.img" qcow2 vda)" "$raw"
changer_refuses internal raw EOPNOTSUPP "disk 'vdc' .*is raw, internal snapshots need qcow2"
domain_define floppy "$(disk_xml "$T/disks/a.img" qcow2 vda)" \
    "<disk type='file' device='floppy'><source file='$T/disks/floppy.img'/><target dev='fda' bus='fdc'/></disk>"
changer_refuses internal floppy EOPNOTSUPP "drive 'fda' .*keeps it from internal snapshots"
domain_define shared "$(disk_xml "$T/disks/a.img" qcow2 vda)" \
    "$(disk_xml "$T/disks/raw.img" raw vdc '<shareable/>')"
changer_refuses internal shared EOPNOTSUPP "disk 'vdc' .*it is shared"
# A reader that keeps writers away.
virsh define "$T/dom.xml" >/dev/null
hold_writers_off "$T/disks/b.img"
changer_start internal dom
changer_end 3
assert_match "$(<"$T/changer")" 'make: EBUSY: .*"write" lock' 'an image that somebody reads'
is_in_no_image || fail 'a snapshot in one of two images is left'
