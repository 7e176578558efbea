#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# live=overlay, and the file system of the image fills up behind our back: the commit leaves the guest
# on its overlay with all it wrote, and is done once there is room.
. "$(dirname "$0")/../lib/host.sh"

mkdir "$T/disks" "$T/scratch"
mount -t tmpfs -o size=300M,mode=755 tmpfs "$T/disks"
at_exit "umount -l '$T/disks'"
qemu-img create -q -f qcow2 "$T/disks/a.img" 32M
domain_define full "$(disk_xml "$T/disks/a.img" qcow2 vda)"
virsh start full
virsh dumpxml --inactive full >"$T/inactive.xml"
is_on_base() {
    [[ $(probe list "$T/scratch") != *virtsnapfs-* ]] && has_no_instants full
}

mount_start qemu:///system -o "live=overlay,linger=0,min_free=0,scratch=$T/scratch"
wait_for 20 state_is full running || fail 'not running'

# The base's file system is full when the commit needs it.
exec {fd}<"$MNT/full/snapshots/now.raw"
guest_io full 0 'write -P 1 0 4M' flush
kill -STOP "$PID" # it would merge while there is room
head -c 400M /dev/zero >"$T/disks/filler" 2>/dev/null || true
kill -CONT "$PID"
exec {fd}<&-
wait_for 60 grep -q 'still on the overlay' "$LOG" || fail 'the commit did not fail'
assert_match "$(virsh domblklist full)" "vda +$T/scratch/" 'source after the failed commit'
guest_io full 0 'read -P 1 0 4M'
rm "$T/disks/filler"
wait_for 60 is_on_base || fail "not merged with room: $(cat "$MNT/full/status")"
guest_io full 0 'read -P 1 0 4M'
domain_destroy full
diff "$T/inactive.xml" <(virsh dumpxml --inactive full) || fail 'another definition'
qemu-io -r -f qcow2 -c 'read -P 1 0 4M' "$T/disks/a.img" >"$T/check"
! grep -q 'verification failed' "$T/check" || fail "$(cat "$T/check")"
mount_stop
