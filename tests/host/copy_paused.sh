#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# live=copy halts a guest with several disks for the moment. Who suspends it right before that finds
# it suspended afterwards.
. "$(dirname "$0")/../lib/host.sh"
: "${KILLER:?is not set: run this by meson test}"
# Of a program with the sanitizer in it: the preload comes before it.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0

mkdir "$T/disks"
make_qcow2 "$T/disks/a.img" 8M
make_qcow2 "$T/disks/b.img" 8M
domain_define guest "$(disk_xml "$T/disks/a.img" qcow2 vda)" "$(disk_xml "$T/disks/b.img" qcow2 vdb)"
virsh start guest

# Without the program's sandbox, since it is to signal itself.
VIRTSNAPFS="env LD_PRELOAD=$KILLER KILL_ORDER=$T/order $VIRTSNAPFS" \
    mount_start qemu:///system -o sandbox=no,live=copy,linger=0
echo "$PID" >"$T/program.pid"
wait_for 20 state_is guest running || fail 'not running'

# stop_at CALL: the program stops before the next one.
stop_at() {
    echo "$1 before 19 $T/program.pid" >"$T/order.new"
    mv "$T/order.new" "$T/order"
}
is_stopped() {
    [[ ! -e $T/order && $(sed 's/.*) //; s/ .*//' "/proc/$PID/stat") == T ]]
}

stop_at virDomainBlockCopy
probe open "$MNT/guest/snapshots/now.raw" >"$T/opened" &
opener=$!
wait_for 20 is_stopped || fail 'the program does not stop at a copy'
stop_at renameat # the note that the guest is halted, right before that
kill -CONT "$PID"
wait_for 60 is_stopped || fail 'the program does not stop at the note'
assert_eq "$(virsh domstate guest)" running 'state at the note'
virsh suspend guest >/dev/null
kill -CONT "$PID"
wait "$opener" || true
assert_eq "$(<"$T/opened")" OK open
wait_for 60 has_no_instants guest || fail 'the instant does not end'
assert_eq "$(virsh domstate guest)" paused 'state after the copy'
mount_stop
assert_eq "$(find "$T/disks" -name '*.delta')" '' 'deltas'
assert_eq "$(virsh domstate guest)" paused 'state in the end'
