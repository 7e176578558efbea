#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A Linux guest writes numbered blocks to two disks in turn, each synced before the next one. Each
# copy of both disks holds every block up to one number that was reached between the call and the
# return of open, and none from later; and the guest has lost nothing.
. "$(dirname "$0")/../lib/guest.sh"

qemu-img create -q -f qcow2 "$T/a.qcow2" 64M
truncate -s 64M "$T/b.raw"
guest_define blocks blocks "$(disk_xml "$T/a.qcow2" qcow2 vda)" "$(disk_xml "$T/b.raw" raw vdb)"
guest_start blocks
virsh dumpxml blocks >"$T/live.xml"
virsh dumpxml --inactive blocks >"$T/inactive.xml"

mount_start qemu:///system -o live=overlay,linger=0
wait_for 20 state_is blocks running || fail 'not running'
snapshots=$MNT/blocks/snapshots

# Each disk has 256 places, so that by now the guest is in its second round or further.
has_written() {
    (($(guest_progress blocks synced) > $1))
}
wait_for 60 has_written 600 || fail 'the guest is slow'
guest_reset_gap blocks
sleep 2
echo "longest gap between two synced writes without us: $(guest_progress blocks gap_us) us"

for turn in 1 2 3 4; do
    guest_reset_gap blocks
    before=$(guest_progress blocks synced)
    exec {vda}<"$snapshots/now.raw" {vdb}<"$snapshots/now.vdb.raw"
    after=$(guest_progress blocks started)
    # The guest writes over all of its places before they are read.
    wait_for 60 has_written $((after + 600)) || fail 'the guest is slow on overlays'
    cp --sparse=always "/dev/fd/$vda" "$T/copy.a"
    cp --sparse=always "/dev/fd/$vdb" "$T/copy.b"
    last=$(check_blocks --after "$before" --before "$after" "$T/copy.a" "$T/copy.b")
    exec {vda}<&- {vdb}<&-
    wait_for 60 has_no_instants blocks || fail 'the instant does not end'
    echo "turn $turn: $before <= $last <= $after," \
        "longest gap $(guest_progress blocks gap_us) us from open to the end of the merge"
done

diff "$T/live.xml" <(virsh dumpxml blocks) || fail 'the live XML is another'
diff "$T/inactive.xml" <(virsh dumpxml --inactive blocks) || fail 'the inactive XML is another'
assert_eq "$(find "$T" -maxdepth 1 -name '*.overlay')" '' overlays
mount_stop

# What was synced is there, and none of what was read above was a copy of a guest that stood still.
last=$(guest_progress blocks synced)
domain_destroy blocks
oracle "$T/a.qcow2" qcow2 "$T/end.a"
check_blocks --after "$last" "$T/end.a" "$T/b.raw" >/dev/null
