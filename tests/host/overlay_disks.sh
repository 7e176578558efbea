#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# live=overlay with several disks of several kinds: one instant for all of them; what else the
# images hold stays (internal snapshots, checkpoints, lower layers); a paused guest stays paused,
# and a transient domain works as well.
. "$(dirname "$0")/../lib/host.sh"

mkdir "$T/disks"
make_qcow2 "$T/disks/a.img" 4M
qemu-img snapshot -c s1 "$T/disks/a.img"
truncate -s 4M "$T/disks/b.img" "$T/disks/base.img" "$T/disks/ro.img"
qemu-io -f raw -c 'write -P 9 0 4M' "$T/disks/ro.img" >/dev/null
qemu-img create -q -f qcow2 -F raw -b "$T/disks/base.img" "$T/disks/c.img"
base_sum=$(sha256sum <"$T/disks/base.img")
domain_define many "$(disk_xml "$T/disks/a.img" qcow2 vda)" "$(disk_xml "$T/disks/b.img" raw vdb)" \
    "$(disk_xml "$T/disks/c.img" qcow2 vdc)" "$(disk_xml "$T/disks/ro.img" raw vdd '<readonly/>')"
virsh start many
virsh checkpoint-create-as many c1 --diskspec vda,checkpoint=bitmap --diskspec vdb,checkpoint=no \
    --diskspec vdc,checkpoint=bitmap --diskspec vdd,checkpoint=no >/dev/null
mount_start qemu:///system -o live=overlay,linger=0
wait_for 20 state_is many running || fail 'not running'
for n in 0 1 2; do
    guest_io many $n 'write -P 1 0 4M' flush
done

is_merged() {
    [[ $(probe list "$T/disks") == "$files" ]] && has_no_instants many
}
# instant_of N: all disks show N everywhere while the guest writes N + 1 over them.
instant_of() {
    local disk fd n=$1 files
    local fds=()
    files=$(probe list "$T/disks")
    virsh dumpxml many >"$T/live.xml"
    virsh dumpxml --inactive many >"$T/inactive.xml"
    for disk in now now.vdb now.vdc now.vdd; do
        exec {fd}<"$MNT/many/snapshots/$disk.raw"
        fds+=("$fd")
    done
    assert_eq "$(status_value many 'len(s["instants"])')" 1 'instants'
    for disk in 0 1 2; do
        guest_io many $disk "write -P $((n + 1)) 0 4M" flush
    done
    head -c 4M /dev/zero | tr '\0' "\\$n" >"$T/wanted"
    for disk in 0 1 2; do
        cmp "$T/wanted" - <&"${fds[disk]}" || fail "disk $disk is not of the instant $n"
    done
    cmp "$T/disks/ro.img" - <&"${fds[3]}" || fail 'the read-only disk'
    for fd in "${fds[@]}"; do
        exec {fd}<&-
    done
    wait_for 60 is_merged || fail "instant $n does not end: $(cat "$MNT/many/status")"
    diff "$T/live.xml" <(virsh dumpxml many) || fail "$n: the live XML is another"
    diff "$T/inactive.xml" <(virsh dumpxml --inactive many) || fail "$n: the inactive XML is another"
}

instant_of 1
virsh suspend many >/dev/null
wait_for 20 state_is many paused || fail 'not paused'
instant_of 2
assert_eq "$(virsh domstate many --reason)" 'paused (user)' 'state of the paused guest'
virsh resume many >/dev/null
wait_for 20 state_is many running || fail 'not resumed'
assert_eq "$(virsh checkpoint-list many --name | head -n 1)" c1 'checkpoint'
virsh checkpoint-delete many c1 >/dev/null
# From now on it is transient.
virsh undefine many >/dev/null
instant_of 3
domain_destroy many

for file in 'a qcow2' 'b raw' 'c qcow2'; do
    read -r name format <<<"$file"
    qemu-io -r -f "$format" -c 'read -P 4 0 4M' "$T/disks/$name.img" >"$T/check"
    ! grep -q 'verification failed' "$T/check" || fail "$name: $(cat "$T/check")"
done
assert_match "$(qemu-img snapshot -l "$T/disks/a.img")" ' s1 ' 'internal snapshot'
assert_eq "$(sha256sum <"$T/disks/base.img")" "$base_sum" 'the lower layer'
mount_stop
