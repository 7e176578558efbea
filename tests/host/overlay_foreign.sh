#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# live=overlay where others act on the same disk: a snapshot of theirs over our overlay, known to
# libvirt or not; an internal one inside it; a job; a lock on the base; a place QEMU cannot reach.
. "$(dirname "$0")/../lib/host.sh"

mkdir "$T/disks" "$T/closed"
make_qcow2 "$T/disks/a.img" 8M
domain_define guest "$(disk_xml "$T/disks/a.img" qcow2 vda)"
virsh start guest
virsh dumpxml --inactive guest >"$T/inactive.xml"
files=$(probe list "$T/disks")
now=$T/mnt.1/guest/snapshots/now.raw
is_merged() {
    [[ $(probe list "$T/disks") != *virtsnapfs-* ]]
}
is_back() {
    [[ $(probe list "$T/disks") == "$files" ]]
}
status_has() {
    grep -q -- "$1" "$MNT/guest/status"
}
has_pattern() {
    guest_io guest 0 "read -P $1 $2 $3"
}
mount_start qemu:///system -o live=overlay,linger=0
wait_for 20 state_is guest running || fail 'not running'
guest_io guest 0 'write -P 1 0 8M' flush

# Another job: the open fails at once, and nothing was changed.
virsh blockcopy guest vda --dest "$T/copy.img" --transient-job --format raw --wait >/dev/null
assert_errno EBUSY open "$now"
virsh blockjob guest vda --abort
rm "$T/copy.img"
assert_eq "$(probe list "$T/disks")" "$files" 'files after the refusal'

# A snapshot of theirs over the overlay, of which libvirt keeps nothing: ours is merged below it.
exec {fd}<"$now"
guest_io guest 0 'write -P 2 1M 1M' flush
virsh snapshot-create-as guest theirs --disk-only --no-metadata \
    --diskspec "vda,file=$T/disks/theirs.img" >/dev/null
guest_io guest 0 'write -P 3 2M 1M' flush
exec {fd}<&-
wait_for 60 is_merged || fail "not merged below theirs: $(cat "$MNT/guest/status")"
assert_match "$(virsh domblklist guest)" "vda +$T/disks/theirs.img" 'source'
has_pattern 2 1M 1M
has_pattern 3 2M 1M
virsh blockcommit guest vda --active --pivot --delete >/dev/null
assert_eq "$(probe list "$T/disks")" "$files" 'files after their commit'
diff "$T/inactive.xml" <(virsh dumpxml --inactive guest) || fail 'another definition'

# One that libvirt keeps, and which names our overlay: that is for its owner to decide.
wait_for 20 has_no_instants guest || fail 'the instant does not end'
exec {fd}<"$now"
virsh snapshot-create-as guest kept --disk-only --diskspec "vda,file=$T/disks/kept.img" >/dev/null
guest_io guest 0 'write -P 4 3M 1M' flush
exec {fd}<&-
wait_for 60 status_has "snapshot 'kept' was made meanwhile" || fail "$(cat "$MNT/guest/status")"
if is_merged; then
    fail 'the overlay that a snapshot needs was merged'
fi
virsh snapshot-delete guest kept --metadata >/dev/null
wait_for 60 is_merged || fail "not merged after the snapshot was given up: $(cat "$MNT/guest/status")"
virsh blockcommit guest vda --active --pivot --delete >/dev/null
has_pattern 4 3M 1M
assert_eq "$(probe list "$T/disks")" "$files" 'files after the second commit'

# A lock on the base: the commit waits for it.
wait_for 20 has_no_instants guest || fail 'the instant does not end'
exec {fd}<"$now"
guest_io guest 0 'write -P 5 4M 1M' flush
(sleep 4) | qemu-io -r -f qcow2 "$T/disks/a.img" >/dev/null &
reader=$!
exec {fd}<&-
wait_for 60 is_back || fail "not merged after the lock: $(cat "$MNT/guest/status")"
wait "$reader"
has_pattern 5 4M 1M
mount_stop

# A place that QEMU's user does not get to.
chmod 700 "$T/closed"
mount_start qemu:///system -o "live=overlay,scratch=$T/closed"
wait_for 20 state_is guest running || fail 'not running'
assert_errno EACCES open "$MNT/guest/snapshots/now.raw"
assert_log "may not search directory '$T/closed'" 'the reason'
mount_stop
domain_destroy guest
diff "$T/inactive.xml" <(virsh dumpxml --inactive guest) || fail 'another definition at the end'
