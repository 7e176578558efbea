#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# live=copy, live=managedsave and cold=internal through the mount: files are the disks at the moment
# of open, the domain is as it was afterwards, also after a kill; refusals say why.
. "$(dirname "$0")/../lib/changer.sh"

M=$((1 << 20))
mkdir "$T/disks"
truncate -s 16M "$T/disks/base.img"
qemu-img create -q -f qcow2 "$T/disks/a.img" 32M
qemu-img create -q -f qcow2 -F raw -b "$T/disks/base.img" "$T/disks/b.img"
truncate -s 1M "$T/disks/raw.img"
domain_define dom "$(disk_xml "$T/disks/a.img" qcow2 vda)" "$(disk_xml "$T/disks/b.img" qcow2 vdb)"
domain_define raw "$(disk_xml "$T/disks/raw.img" raw vda)"
virsh snapshot-create-as dom theirs

fill() {
    guest_io dom 0 'write -P 1 0 32M' flush
    guest_io dom 1 'write -P 2 0 8M' 'write -P 0 8M 8M' flush
}
overwrite() {
    guest_io dom 0 'write -P 3 0 32M' flush
    guest_io dom 1 'write -P 4 0 16M' flush
}
is_listed_alone() {
    [[ $(probe list "$MNT/dom/snapshots") == 'now.raw|now.vdb.raw|theirs.raw|theirs.vdb.raw' ]]
}
check_files() {
    cat <&"$first" >"$T/first"
    cat <&"$second" >"$T/second"
    check_raw "$T/first" "[(1,32*$M)]" "$1: the first disk"
    check_raw "$T/second" "[(2,8*$M),(0,8*$M)]" "$1: the second disk"
}
wait_until_over() {
    wait_for 60 has_no_instants dom || fail "$1: the instant does not end"
    wait_for 60 state_is dom "$2" || fail "$1: the domain is not $2"
}
open_both() {
    exec {first}<"$MNT/dom/snapshots/now.raw" {second}<"$MNT/dom/snapshots/now.vdb.raw"
    assert_eq "$(status_value dom 's["instants"][0]["method"]')" "$1" 'method in status'
    is_listed_alone || fail "$1: listed are $(probe list "$MNT/dom/snapshots")"
}

virsh start dom
for method in copy managedsave; do
    fill
    domain_note dom
    mount_start qemu:///system -o "live=$method,linger=0"
    wait_for 20 state_is dom running || fail 'not running'
    open_both $method
    overwrite
    check_files $method
    exec {first}<&- {second}<&-
    wait_until_over $method running
    domain_check dom

    # A daemon that was killed: the next one puts the domain back.
    fill
    open_both $method
    kill -KILL "$PID"
    wait "$PID" 2>/dev/null || true
    exec {first}<&- {second}<&-
    umount -l "$MNT"
    unset "pids[-1]" "mounts[-1]"
    mount_start qemu:///system -o "live=$method,linger=0"
    wait_for 60 grep -q "domain .* was put back ($method)" "$LOG" || fail "$method: nothing is recovered"
    domain_check dom
    if [[ $method == managedsave ]]; then
        virsh start raw
        wait_for 20 state_is raw running || fail 'not running'
        assert_errno EOPNOTSUPP read "$MNT/raw/snapshots/now.raw" 0 1
        reason=$(probe getxattr "$MNT/raw/snapshots/now.raw" user.virtsnapfs.error)
        assert_match "$reason" 'is raw, internal snapshots need qcow2' 'the reason'
        domain_destroy raw
    fi
    mount_stop
done

fill
domain_destroy dom
domain_note dom
mount_start qemu:///system -o cold=internal,linger=0
wait_for 20 state_is dom 'shut off' || fail 'not shut off'
assert_errno EOPNOTSUPP read "$MNT/raw/snapshots/now.raw" 0 1
open_both internal
virsh start dom
overwrite
check_files internal
domain_destroy dom
exec {first}<&- {second}<&-
wait_until_over internal 'shut off'
domain_check dom
mount_stop
