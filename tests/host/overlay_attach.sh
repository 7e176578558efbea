#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks that are attached, or exchanged, right before libvirt puts overlays over all disks: it puts
# one over a disk that it was not told of, too, beside its image and under a name of its own. The
# open is refused then, no such overlay stays, and what was written to it is kept.
. "$(dirname "$0")/../lib/host.sh"
: "${KILLER:?is not set: run this by meson test}"
# Of a program with the sanitizer in it: the preload comes before it.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0

mkdir "$T/disks"
for name in a b c d; do
    make_qcow2 "$T/disks/$name.img" 16M
done
# A disk of that controller can be attached without the help of a guest.
domain_define guest "$(disk_xml "$T/disks/a.img" qcow2 vda)" "$(disk_xml "$T/disks/b.img" qcow2 vdb)" \
    "<controller type='scsi' model='virtio-scsi'/>"

# serve OPTION: without the program's sandbox, since it is to signal itself.
PROGRAM=$VIRTSNAPFS
serve() {
    VIRTSNAPFS="env LD_PRELOAD=$KILLER KILL_ORDER=$T/order $PROGRAM" \
        mount_start qemu:///system -o "sandbox=no,$1,linger=0"
    echo "$PID" >"$T/program.pid"
    wait_for 20 state_is guest "$2" || fail "not $2"
}

# At the next call of virDomainSnapshotCreateXML, before or after it, the program gets a signal.
order() {
    echo "virDomainSnapshotCreateXML $1 $2 $T/program.pid" >"$T/order.new"
    mv "$T/order.new" "$T/order"
}
is_stopped() {
    [[ $(sed 's/.*) //; s/ .*//' "/proc/$PID/stat") == T ]]
}

# open_stopped: an open that is held up right before the call.
open_stopped() {
    order before 19
    probe open "$MNT/guest/snapshots/now.raw" >"$T/opened" &
    OPENER=$!
    wait_for 20 is_stopped || fail 'the program does not stop'
}
go_on() {
    kill -CONT "$PID"
    wait "$OPENER" || true
}

count_overlays() {
    virsh domblklist "$@" guest | grep -c 'virtsnapfs-[0-9a-f]*\.overlay$' || true
}
is_clean() {
    [[ $(count_overlays) == 0 && $(count_overlays --inactive) == 0 ]] &&
        [[ -z $(find "$T/disks" -name '*virtsnapfs-*') ]] &&
        [[ -z $(find "$T/state/journal" -type f ! -name lock) ]]
}
assert_clean() {
    wait_for 60 is_clean || fail "$1: an overlay is left:
$(virsh domblklist guest; find "$T/disks" "$T/state"; cat "$LOG")"
}

attach_live() {
    virsh attach-disk guest "$T/disks/c.img" sdc --subdriver qcow2 --targetbus scsi --live --config >/dev/null
}

echo '--- attached to a domain that is off'
serve cold=overlay 'shut off'
open_stopped
virsh attach-disk guest "$T/disks/c.img" vdc --subdriver qcow2 --config >/dev/null
go_on
assert_eq "$(<"$T/opened")" EBUSY 'open'
assert_clean 'attached, off'
virsh domblklist guest | grep -q "vdc *$T/disks/c.img" || fail 'the disk is another'

echo '--- exchanged in a domain that is off'
open_stopped
virsh detach-disk guest vdb --config >/dev/null
virsh attach-disk guest "$T/disks/d.img" vdb --subdriver qcow2 --config >/dev/null
go_on
assert_eq "$(<"$T/opened")" EBUSY 'open of an exchanged disk'
assert_clean 'exchanged, off'
virsh domblklist guest | grep -q "vdb *$T/disks/d.img" || fail 'the exchanged disk is another'
mount_stop

echo '--- attached to a guest that runs'
virsh detach-disk guest vdc --config >/dev/null
virsh start guest
serve live=overlay running
open_stopped
attach_live
go_on
assert_eq "$(<"$T/opened")" EBUSY 'open of a running guest'
assert_clean 'attached, running'
virsh domblklist guest | grep -q "sdc *$T/disks/c.img" || fail 'the attached disk is another'
mount_stop

echo '--- and the program killed right after the call'
virsh destroy guest >/dev/null
virsh detach-disk guest sdc --config >/dev/null
virsh start guest
serve live=overlay running
open_stopped
attach_live
order after 9
go_on
wait_for 20 is_gone_or_zombie "$PID" || fail 'not killed'
umount -l "$MNT"
assert_eq "$(count_overlays)" 3 'disks on overlays'
guest_io guest 0 'write -P 0x51 1M 1M'
virsh qemu-monitor-command guest --hmp "qemu-io -d $(virsh qemu-monitor-command guest \
    '{"execute":"query-block"}' | grep -o '"qdev":"[^"]*"' | tail -n 1 | cut -d '"' -f 4) \"write -P 0x52 2M 1M\"" >/dev/null
serve live=overlay running
assert_clean 'killed'
guest_io guest 0 'read -P 0x51 1M 1M'
mount_stop
virsh destroy guest >/dev/null
qemu-io -r -f qcow2 -c 'read -P 0x52 2M 1M' "$T/disks/c.img" >"$T/io" || fail "$(cat "$T/io")"
! grep -q 'verification failed' "$T/io" || fail "the attached disk has lost what was written: $(cat "$T/io")"
