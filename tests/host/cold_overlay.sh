#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# cold=overlay: the image of a domain that is off is read while the domain can be started; whether
# it was, and whether it is still on at the end, the definition is afterwards as it was.
. "$(dirname "$0")/../lib/host.sh"

mkdir "$T/disks"
make_qcow2 "$T/disks/a.base" 8M
qemu-img create -q -f qcow2 -b "$T/disks/a.base" -F qcow2 "$T/disks/a.img"
truncate -s 8M "$T/disks/b.img"
domain_define cold "$(disk_xml "$T/disks/a.img" qcow2 vda)" \
    "$(disk_xml "$T/disks/b.img" raw vdb '' "cache='none' discard='unmap'")"
virsh dumpxml --inactive cold >"$T/inactive.xml"
files=$(probe list "$T/disks")
# Nobody is there to be frozen: what requires that is content.
mount_start qemu:///system -o cold=overlay,linger=0,quiesce=require
now=$MNT/cold/snapshots/now
is_back() {
    [[ $(probe list "$T/disks") == "$files" ]] && has_no_instants cold
}
check_back() {
    wait_for 60 is_back || fail "$1: not put back: $(probe list "$T/disks") $(cat "$MNT/cold/status")"
    diff "$T/inactive.xml" <(virsh dumpxml --inactive cold) || fail "$1: another definition"
}
fill() {
    qemu-io -f qcow2 -c "write -P $1 0 8M" "$T/disks/a.img" >/dev/null
    qemu-io -f raw -c "write -P $1 0 8M" "$T/disks/b.img" >/dev/null
}
check_disks() {
    local file
    for file in 'a qcow2' 'b raw'; do
        read -r name format <<<"$file"
        qemu-io -r -f "$format" -c "read -P $1 0 1M" -c "read -P $2 1M 7M" "$T/disks/$name.img" \
            >"$T/check"
        ! grep -q 'verification failed' "$T/check" || fail "$name: $(cat "$T/check")"
    done
}
# start_over: opens both disks, starts the domain and writes 7 to their first MiB.
start_over() {
    exec {a}<"$now.raw" {b}<"$now.vdb.raw"
    assert_eq "$(status_value cold 's["instants"][0]["method"]')" cold-overlay method
    virsh start cold
    guest_io cold 0 'write -P 7 0 1M' flush
    guest_io cold 1 'write -P 7 0 1M' flush
    head -c 8M /dev/zero | tr '\0' "\\$1" >"$T/wanted"
    cmp "$T/wanted" - <&"$a"
    cmp "$T/wanted" - <&"$b"
}
wait_for 20 state_is cold 'shut off' || fail 'not shut off'

# Never started.
fill 1
exec {a}<"$now.raw"
assert_match "$(virsh domblklist cold)" 'a.img.virtsnapfs-' 'source'
virsh setmaxmem cold 40M --config
exec {a}<&-
wait_for 60 is_back || fail "not put back: $(cat "$MNT/cold/status")"
assert_match "$(virsh dumpxml --inactive cold)" "<memory unit='KiB'>40960<" 'a change by others'
virsh setmaxmem cold 32M --config
virsh setmem cold 32M --config
check_back 'never started'

# Started, and still on at the end.
start_over 1
exec {a}<&- {b}<&-
check_back 'still on'
domain_destroy cold
check_disks 7 1

# The same, and libvirtd was started anew meanwhile: it then writes all layers into the definition.
wait_for 20 state_is cold 'shut off' || fail 'not shut off'
fill 3
start_over 3
kill -TERM "$LIBVIRTD_PID"
wait_for 20 is_gone_or_zombie "$LIBVIRTD_PID"
libvirtd_start
exec {a}<&- {b}<&-
check_back 'libvirtd started anew'
domain_destroy cold
check_disks 7 3

# Started and ended again.
wait_for 20 state_is cold 'shut off' || fail 'not shut off'
fill 2
start_over 2
domain_destroy cold
exec {a}<&- {b}<&-
check_back 'ended again'
check_disks 7 2

# With its memory saved the next start would leave the overlay aside.
virsh start cold
virsh managedsave cold >/dev/null
wait_for 20 state_is cold 'shut off' || fail 'not shut off'
has_saved() {
    assert_errno EOPNOTSUPP open "$now.raw"
}
has_saved
virsh managedsave-remove cold >/dev/null
check_back saved
mount_stop
