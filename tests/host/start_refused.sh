#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# cold=lock: while a disk is read its domain cannot be started, by QEMU's own word; who writes
# already gives EBUSY.
. "$(dirname "$0")/../lib/host.sh"

make_qcow2 "$T/a.qcow2"
make_qcow2 "$T/b.qcow2"
truncate -s 1M "$T/raw.raw"
domain_define dom "$(disk_xml "$T/a.qcow2" qcow2 vda)" "$(disk_xml "$T/b.qcow2" qcow2 vdb)"
domain_define rawdom "$(disk_xml "$T/raw.raw" raw vda)"
mount_start qemu:///system -o linger=2

refused_start() {
    if virsh start "$1" 2>"$T/refusal"; then
        fail "$1 was started while its disk was read"
    fi
    grep -q 'Failed to get "write" lock' "$T/refusal" || fail "refusal: $(cat "$T/refusal")"
    assert_eq "$(virsh domstate "$1")" 'shut off' 'state after a refused start'
}
start_works() {
    wait_for 20 virsh start "$1" 2>/dev/null || fail "$1 does not start after the last close"
    domain_destroy "$1"
}

# Opening one disk fixes all of them: the lock is on the other disk's image as well.
exec {fd}<"$MNT/dom/snapshots/now.vdb.raw"
refused_start dom
if qemu-io -f qcow2 -c info "$T/a.qcow2" >/dev/null 2>&1; then
    fail 'the disk that was not opened is free'
fi
cat <&"$fd" >/dev/null || fail 'the reader was disturbed'
exec {fd}<&-
wait_for 20 has_no_instants dom || fail 'the instant does not end'
start_works dom

exec {fd}<"$MNT/rawdom/snapshots/now.raw"
refused_start rawdom
exec {fd}<&-
wait_for 20 has_no_instants rawdom || fail 'the instant does not end'
start_works rawdom

# Both disks one after the other, as cp does it, are of one instant.
wait_for 20 state_is dom 'shut off' || fail 'still running'
exec {fd}<"$MNT/dom/snapshots/now.raw"
serial=$(status_value dom 's["instants"][0]["serial"]')
cat <&"$fd" >/dev/null
exec {fd}<&-
exec {fd}<"$MNT/dom/snapshots/now.vdb.raw"
assert_eq "$(status_value dom 's["instants"][0]["serial"]')" "$serial" 'instant of the second disk'
cat <&"$fd" >/dev/null
exec {fd}<&-

# Running, and live= not given: by overlays over both disks.
wait_for 20 virsh start dom 2>/dev/null || fail 'dom does not start'
wait_for 20 state_is dom running || fail 'not running'
exec {fd}<"$MNT/dom/snapshots/now.raw"
assert_eq "$(status_value dom 's["instants"][0]["method"]')" overlay method
exec {fd}<&-
wait_for 60 has_no_instants dom || fail 'the instant does not end'
domain_destroy dom
wait_for 20 state_is dom 'shut off' || fail 'still running'

# Somebody else writes.
coproc writer { qemu-io -f qcow2 "$T/b.qcow2"; }
writer_pid=$!
echo 'write -P 9 0 512' >&"${writer[1]}"
IFS= read -r -t 30 line <&"${writer[0]}"
assert_match "$line" wrote 'answer of qemu-io'
assert_errno EBUSY open "$MNT/dom/snapshots/now.raw"
echo quit >&"${writer[1]}"
wait "$writer_pid"
assert_errno OK open "$MNT/dom/snapshots/now.raw"
mount_stop
