#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# libvirtd killed, restarted and frozen: open readers go on, listings come from memory at once, and
# the tree is true again once libvirtd is back.
. "$(dirname "$0")/../lib/host.sh"

make_qcow2 "$T/a.qcow2"
oracle "$T/a.qcow2" qcow2 "$T/a.raw"
make_qcow2 "$T/b.qcow2"
qemu-img snapshot -c s1 "$T/b.qcow2"
domain_define off "$(disk_xml "$T/a.qcow2" qcow2 vda)"
domain_define on "$(disk_xml "$T/b.qcow2" qcow2 vda)"
virsh start on
mount_start qemu:///system -o timeout=$((5 * DEADLINE_FACTOR))
wait_for 20 state_is on running || fail 'not running'

exec {now}<"$MNT/off/snapshots/now.raw"
exec {snapshot}<"$MNT/on/snapshots/s1.raw"
read_piece() {
    local found wanted
    found=$(dd bs=4096 count=8 iflag=direct <&"$1" 2>/dev/null | sha256sum)
    wanted=$(dd if="$T/a.raw" bs=4096 skip="$2" count=8 2>/dev/null | sha256sum)
    assert_eq "$found" "$wanted" "piece $2 of the reader"
}
read_piece "$now" 0
read_piece "$snapshot" 0

kill -KILL "$LIBVIRTD_PID"
wait_for 20 is_gone_or_zombie "$LIBVIRTD_PID"
read_piece "$now" 8
read_piece "$snapshot" 8
assert_eq "$(probe list "$MNT")" 'off|on' 'listing without libvirtd'
assert_eq "$(probe list "$MNT/off/snapshots")" now.raw 'files without libvirtd'
assert_same_bytes "$MNT/on/snapshots/s1.raw" "$T/a.raw"

# Back, and while it was away nothing was seen of what happened: catch up.
libvirtd_start
domain_define new "$(disk_xml "$T/b.qcow2" qcow2 vda)"
domain_destroy on
wait_for 60 is_listed new || fail 'the tree does not follow after a restart'
wait_for 20 state_is on 'shut off' || fail 'the state is not true after a restart'
virsh undefine new
wait_for 20 is_not_listed new || fail 'events do not come after a restart'
read_piece "$now" 16
read_piece "$snapshot" 16

# Frozen: nothing that lists or reads waits for it.
kill -STOP "$LIBVIRTD_PID"
at_exit "kill -CONT $LIBVIRTD_PID 2>/dev/null"
for _ in 1 2 3; do
    timeout $((5 * DEADLINE_FACTOR)) ls -lR "$MNT" >"$T/ls" || fail "ls hangs: $(cat "$T/ls")"
done
timeout $((5 * DEADLINE_FACTOR)) cat "$MNT/off/status" "$MNT/off/domain.xml" >/dev/null || fail 'status hangs'
timeout $((5 * DEADLINE_FACTOR)) cmp "$MNT/on/snapshots/s1.raw" "$T/a.raw" || fail 'a snapshot hangs'
read_piece "$now" 24
# Until it is given up, and beyond that.
sleep $((5 * DEADLINE_FACTOR + 4))
timeout $((5 * DEADLINE_FACTOR)) ls -lR "$MNT" >/dev/null || fail 'ls hangs'
kill -CONT "$LIBVIRTD_PID"
domain_define late "$(disk_xml "$T/b.qcow2" qcow2 vda)"
wait_for 60 is_listed late || fail 'the tree does not follow after a freeze'
exec {now}<&- {snapshot}<&-
mount_stop

# Not there at all when a mount ends.
mount_start qemu:///system -o timeout=$((5 * DEADLINE_FACTOR))
kill -KILL "$LIBVIRTD_PID"
wait_for 20 is_gone_or_zombie "$LIBVIRTD_PID"
probe list "$MNT" >/dev/null
mount_stop
