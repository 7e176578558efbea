#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# live=managedsave: the guest is saved and started again at once, with a snapshot made in between;
# afterwards the domain is as it was, also after a kill at any point.
. "$(dirname "$0")/../lib/changer.sh"

M=$((1 << 20))
mkdir "$T/disks"
qemu-img create -q -f qcow2 "$T/disks/a.img" 32M
truncate -s 16M "$T/disks/base.img"
qemu-img create -q -f qcow2 -F raw -b "$T/disks/base.img" "$T/disks/b.img"
truncate -s 1M "$T/disks/raw.img"
domain_define dom "$(disk_xml "$T/disks/a.img" qcow2 vda)" "$(disk_xml "$T/disks/b.img" qcow2 vdb)"
virsh snapshot-create-as dom theirs
virsh start dom
guest_io dom 0 'write -P 1 0 32M' flush
guest_io dom 1 'write -P 2 0 8M' flush

# Reads the instant with another program than the one under test.
check_instant() {
    local image
    for image in a b; do
        qemu-img convert -U -l "snapshot.name=$(mark)" -f qcow2 -O raw "$T/disks/$image.img" "$T/$image.raw"
    done
    check_raw "$T/a.raw" "[(1,32*$M)]" "the first disk"
    check_raw "$T/b.raw" "[(2,8*$M),(0,8*$M)]" "the second disk"
}

# check_end WHAT [loosely]
check_end() {
    local image
    domain_check dom "${2:-}"
    for image in "$T"/disks/[ab].img; do
        if qemu-img snapshot -U -l "$image" | grep virtsnapfs; then
            fail "$image: the snapshot is left, $1"
        fi
    done
    assert_match "$(virsh dominfo dom)" 'Managed save: +no' "managed-save image, $1"
}

domain_note dom
changer_start managedsave dom
changer_wait made
assert_eq "$(grep -E 'note|enter|leave' "$T/changer" | tr '\n' ' ')" 'note note halted enter leave note ' 'steps'
assert_eq "$(virsh domstate --reason dom)" 'running (restored)' 'state during the instant'
check_instant
guest_io dom 0 'write -P 3 0 32M' flush
guest_io dom 1 'write -P 4 0 16M' flush
check_instant
changer_end 0
check_end 'the first instant'
guest_io dom 0 'write -P 1 0 32M' flush
guest_io dom 1 'write -P 2 0 8M' 'write -P 0 8M 8M' flush

# The domain may be off at the end.
changer_start managedsave dom
changer_wait made
domain_destroy dom
changer_end 0
virsh start dom
check_end 'a domain that was shut off meanwhile'

# Paused stays paused.
virsh suspend dom
domain_note dom
changer_start managedsave dom
changer_wait made
assert_eq "$(virsh domstate dom)" paused 'state during the instant'
check_instant
changer_end 0
check_end 'a paused guest'
virsh resume dom
domain_note dom

# Killed at each step, and within the save, which libvirtd ends: the guest is off then.
for step in plan 'note halted' enter leave; do
    changer_start managedsave dom -w "$step"
    changer_wait waiting
    changer_kill
    changer_undo managedsave 0
    check_end "a kill at '$step'"
    changer_undo managedsave 0
done
is_running() {
    [[ $(virsh domstate dom) == running ]]
}
is_saving() {
    [[ $(virsh domstate dom) != running ]]
}
changer_start managedsave dom
changer_wait enter
wait_for 20 is_saving || fail 'the guest is not being saved'
changer_kill
changer_undo managedsave 0
check_end 'a kill within the save'
changer_start managedsave dom -w 'note halted'
changer_wait waiting
virsh managedsave dom # as the next step would
changer_kill
changer_undo managedsave 0
check_end 'a kill after the save'

# The same with a snapshot that libvirtd made and did not note.
changer_start managedsave dom -w 'note halted'
changer_wait waiting
virsh managedsave dom
qemu-img snapshot -c "$(sed -n 3p "$T/notes")" "$T/disks/a.img"
changer_kill
changer_undo managedsave 0
check_end 'a kill within the snapshot'

# A managed-save image beside a running guest, as a libvirtd leaves it that died in the start.
changer_start managedsave dom -w 'note halted'
changer_wait waiting
changer_kill
touch /var/lib/libvirt/qemu/save/dom.save
libvirtd_restart # which looks for such images only then
assert_match "$(virsh dominfo dom)" 'Managed save: +yes' 'the stale managed-save image'
changer_undo managedsave 0
check_end 'a stale managed-save image' loosely
[[ ! -e /var/lib/libvirt/qemu/save/dom.save ]] || fail 'the stale managed-save image is left'
domain_note dom

# What is the user's own is left: a guest that was shut off, saved or not.
changer_start managedsave dom
changer_wait made
virsh managedsave dom
changer_end 0
assert_eq "$(virsh domstate dom)" 'shut off' "a guest that its user has saved"
virsh start dom

# The snapshot fails: the guest goes on at once.
wait_for 20 is_running || fail 'not running'
domain_note dom
changer_start managedsave dom -w 'note halted'
changer_wait waiting
virsh snapshot-create-as dom "$(sed -n 3p "$T/notes")" # libvirt takes no second one of that name
changer_go_on
changer_end 3
assert_match "$(<"$T/changer")" 'make: .*already exists' 'a snapshot that cannot be made'
check_end 'a snapshot that cannot be made'

# The start fails: a person is told, and it is tried again.
changer_start managedsave dom -w enter
changer_wait waiting
hold_writers_off "$T/disks/b.img"
changer_go_on
changer_end 4
assert_match "$(<"$T/changer")" 'undo: .*off with its memory saved.*virsh start dom' 'a start that fails'
assert_match "$(virsh dominfo dom)" 'Managed save: +yes' 'the memory of a guest that cannot be started'
kill "$HOLDER"
wait_for 20 is_gone_or_zombie "$HOLDER"
changer_undo managedsave 0
check_end 'a start that failed'

# libvirtd dies within the save: the guest goes on, or is started again.
domain_note dom
changer_start managedsave dom
changer_wait enter
wait_for 20 is_saving || fail 'the guest is not being saved'
libvirtd_restart
wait_for 120 has_said made || fail 'the changer hangs'
exec {CHANGER_IN}>&-
wait "$CHANGER_PID" || true
unset "pids[-1]"
assert_eq "$(tail -n 1 "$T/changer")" undone 'a save that was cut off'
check_end 'a save that was cut off' loosely
domain_note dom

# Nobody waits any more: the save is given up, or has ended already.
CHANGER_CANCELS=yes changer_start managedsave dom
exec {CHANGER_IN}>&-
wait_for 60 is_gone_or_zombie "$CHANGER_PID" || fail 'a save that is cancelled does not end'
wait "$CHANGER_PID" || true
assert_eq "$(tail -n 1 "$T/changer")" undone 'a save that is cancelled'
unset "pids[-1]"
check_end 'a save that was cancelled' loosely # it may have been started by another libvirtd

# Refused, with nothing changed.
echo "<disk type='file'><driver type='qcow2'/><source file='$T/disks/theirs'/></disk>" >"$T/theirs.xml"
virsh blockcopy dom vdb --transient-job --wait --xml "$T/theirs.xml" >/dev/null
changer_refuses managedsave dom EBUSY "disk 'vdb' .*has a block job running"
virsh blockjob dom vdb --abort
rm "$T/disks/theirs"
touch /var/lib/libvirt/qemu/save/dom.save
libvirtd_restart
changer_refuses managedsave dom EOPNOTSUPP 'has a managed-save image'
virsh managedsave-remove dom
make_qcow2 "$T/disks/c.img"
virsh attach-disk dom "$T/disks/c.img" vdc --subdriver qcow2 --config >/dev/null
changer_refuses managedsave dom EOPNOTSUPP 'other disks than its persistent definition'
virsh detach-disk dom vdc --config >/dev/null
virsh dumpxml --inactive dom >"$T/dom.xml"
domain_destroy dom
changer_refuses managedsave dom EBUSY 'shut off'
virsh undefine dom --snapshots-metadata
virsh create "$T/dom.xml" >/dev/null
changer_refuses managedsave dom EOPNOTSUPP 'is transient'
domain_destroy dom
domain_define raw "$(disk_xml "$T/disks/a.img" qcow2 vda)" "$(disk_xml "$T/disks/raw.img" raw vdc)"
virsh start raw
changer_refuses managedsave raw EOPNOTSUPP "disk 'vdc' .*is raw, internal snapshots need qcow2"
domain_destroy raw
