#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# live=overlay, and the guest goes away while the instant is open: destroyed and renamed, undefined,
# its disk detached, its memory saved. Each time what it wrote gets into the image, what others
# changed in the definition meanwhile stays, and no file is left.
. "$(dirname "$0")/../lib/host.sh"

mkdir "$T/disks"
for name in destroyed undefined detached saved; do
    make_qcow2 "$T/disks/$name.img" 8M
done
truncate -s 8M "$T/disks/detached-b.img"
scsi="<controller type='scsi' model='virtio-scsi'/><disk type='file'><driver name='qemu' type='raw'/>
    <source file='$T/disks/detached-b.img'/><target dev='sda' bus='scsi'/></disk>"
# With more said of the disk than its path.
domain_define destroyed "<disk type='file'><driver name='qemu' type='qcow2' discard='unmap'/>
    <source file='$T/disks/destroyed.img' startupPolicy='optional'/><target dev='vda' bus='virtio'/></disk>"
domain_define undefined "$(disk_xml "$T/disks/undefined.img" qcow2 vda)"
domain_define detached "$(disk_xml "$T/disks/detached.img" qcow2 vda)" "$scsi"
domain_define saved "$(disk_xml "$T/disks/saved.img" qcow2 vda)"

files=$(probe list "$T/disks")
declare -A fds
# open_instant DOMAIN: with 1 everywhere before the instant, and 2 at 4M after it.
open_instant() {
    local fd
    wait_for 20 state_is "$1" running || fail "$1 is not running"
    guest_io "$1" 0 'write -P 1 0 8M' flush
    exec {fd}<"$MNT/$1/snapshots/now.raw"
    fds[$1]=$fd
    guest_io "$1" 0 'write -P 2 4M 1M' flush
}
read_instant() {
    local fd=${fds[$1]}
    head -c 5M <&"$fd" | tail -c 1M | cmp - <(head -c 1M /dev/zero | tr '\0' '\1') ||
        fail "$1: the reader sees what was written after the instant"
}
release() {
    local fd=${fds[$1]}
    exec {fd}<&-
}
# has_pattern FILE FORMAT PATTERN OFFSET LEN
has_pattern() {
    qemu-io -r -f "$2" -c "read -P $3 $4 $5" "$1" >"$T/check" || fail "$(cat "$T/check")"
    ! grep -q 'verification failed' "$T/check" || fail "$1: $3 $4 $5: $(cat "$T/check")"
}
is_merged() {
    [[ $(probe list "$T/disks") != *"$1.img.virtsnapfs"* ]]
}
check_merged() {
    wait_for 30 is_merged "$1" || fail "$1: the overlay is left: $(probe list "$T/disks")"
    has_pattern "$T/disks/$1.img" qcow2 2 4M 1M
    has_pattern "$T/disks/$1.img" qcow2 1 5M 3M
}
mount_start qemu:///system -o live=overlay,linger=0

# Destroyed, renamed, and given more memory: the definition is as before but for those.
virsh start destroyed
virsh dumpxml --inactive destroyed >"$T/destroyed.xml"
open_instant destroyed
virsh destroy destroyed >/dev/null
virsh setmaxmem destroyed 40M --config
virsh domrename destroyed renamed >/dev/null
read_instant destroyed
release destroyed
check_merged destroyed
sed -e 's|<name>destroyed<|<name>renamed<|' \
    -e "s|<memory unit='KiB'>32768<|<memory unit='KiB'>40960<|" "$T/destroyed.xml" >"$T/wanted.xml"
diff "$T/wanted.xml" <(virsh dumpxml --inactive renamed) || fail 'renamed: another definition'

# Undefined when off: readers get ESTALE, and the files alone are left to say what is to be done.
virsh start undefined
open_instant undefined
virsh destroy undefined >/dev/null
virsh undefine undefined >/dev/null
release undefined
check_merged undefined

# A disk detached from the guest and from the definition while both go on.
virsh start detached
open_instant detached
virsh qemu-monitor-command detached --hmp \
    'qemu-io -d scsi0-0-0-0 "write -P 3 2M 1M"' >/dev/null
virsh detach-disk detached sda --live --config >/dev/null
is_detached() {
    ! virsh domblklist detached | grep -q sda
}
wait_for 20 is_detached || fail 'the disk cannot be detached'
read_instant detached
release detached
wait_for 30 is_merged detached-b || fail 'sda: the overlay is left'
has_pattern "$T/disks/detached-b.img" raw 3 2M 1M
wait_for 30 is_merged detached || fail 'vda: the overlay is left'

# Undefined while it runs: it goes with its QEMU.
open_instant detached
virsh undefine detached >/dev/null
virsh destroy detached >/dev/null
release detached
check_merged detached

# Saved: nothing is done before it runs again, and then it is merged.
virsh start saved
virsh dumpxml --inactive saved >"$T/saved.xml"
open_instant saved
virsh managedsave saved >/dev/null
read_instant saved
release saved
is_deferred() {
    grep -q deferred "$MNT/saved/status"
}
wait_for 20 is_deferred || fail "not deferred: $(cat "$MNT/saved/status")"
assert_match "$(probe list "$T/disks")" 'saved.img.virtsnapfs' 'the overlay of the saved guest'
virsh start saved
wait_for 30 is_merged saved || fail 'not merged after the restore'
domain_destroy saved
check_merged saved
diff "$T/saved.xml" <(virsh dumpxml --inactive saved) || fail 'saved: another definition'

assert_eq "$(probe list "$T/disks")" "$files" 'files beside the images'
mount_stop
