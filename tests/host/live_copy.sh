#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# live=copy: the deltas are the disks at one moment, over the same layers below; afterwards the
# domain is as it was, also after a kill at any point.
. "$(dirname "$0")/../lib/changer.sh"

M=$((1 << 20))
mkdir "$T/disks"
make_qcow2 "$T/disks/a.img" 32M
truncate -s 16M "$T/disks/b.img"
truncate -s 32M "$T/disks/base.img"
qemu-io -f raw -c 'write -P 9 0 32M' "$T/disks/base.img" >/dev/null
qemu-img create -q -f qcow2 -F raw -b "$T/disks/base.img" "$T/disks/chain.img"
domain_define two "$(disk_xml "$T/disks/a.img" qcow2 vda)" "$(disk_xml "$T/disks/b.img" raw vdb)"
domain_define chain "$(disk_xml "$T/disks/chain.img" qcow2 vda)"
virsh start two
virsh start chain

# check_copy TARGET RUNS WHAT
check_copy() {
    qemu-img convert -f qcow2 -O raw "$(delta_of "$1")" "$T/copy.raw"
    check_raw "$T/copy.raw" "$2" "$3"
}

# A chain: only its top is copied.
guest_io chain 0 'write -P 1 1M 2M' flush
domain_note chain
changer_start copy chain
changer_wait made
guest_io chain 0 'write -P 2 0 32M' flush
check_copy vda "[(9,$M),(1,2*$M),(9,29*$M)]" 'the copy of a chain'
(($(stat -c %s "$(delta_of vda)") < 4 * M)) || fail 'more than the top layer was copied'
if grep -q '^note halted' "$T/changer"; then
    fail 'a guest with one disk was held'
fi
changer_end 0
domain_check chain
assert_eq "$(md5sum <"$T/disks/base.img")" "$(head -c 32M /dev/zero | tr '\0' '\11' | md5sum)" 'the base'

# Two disks of one moment, raw and qcow2: the guest is held for it, and goes on.
guest_io two 0 'write -P 1 0 32M' flush
guest_io two 1 'write -P 3 0 16M' flush
domain_note two
changer_start copy two
changer_wait made
assert_eq "$(virsh domstate --reason two)" 'running (unpaused)' 'state during the instant'
assert_eq "$(grep -E 'note|enter|leave' "$T/changer" | tr '\n' ' ')" 'note note halted enter leave note ' 'steps'
guest_io two 0 'write -P 2 0 8M' flush
guest_io two 1 'write -P 4 8M 1M' flush
check_copy vda "[(1,32*$M)]" 'the copy of the first disk'
check_copy vdb "[(3,16*$M)]" 'the copy of the second disk'
changer_end 0
domain_check two

# What is written once all is copied, before the moment, belongs to it.
changer_start copy two -w enter
changer_wait waiting
assert_eq "$(virsh domstate two)" running 'state before the moment'
guest_io two 0 'write -P 5 31M 1M' flush
guest_io two 1 'write -P 6 0 1M' flush
changer_go_on
changer_wait made
check_copy vda "[(2,8*$M),(1,23*$M),(5,$M)]" 'the first disk, with what came late'
check_copy vdb "[(6,$M),(3,7*$M),(4,$M),(3,7*$M)]" 'the second disk, with what came late'
changer_end 0
domain_check two

# A paused guest stays paused all the time.
virsh suspend two
domain_note two
changer_start copy two
changer_wait made
if grep -q '^note halted' "$T/changer"; then
    fail 'a paused guest was held'
fi
assert_eq "$(virsh domstate two)" paused 'state during the instant'
changer_end 0
domain_check two
virsh resume two

# Transient domains can be copied as well.
virsh dumpxml --inactive chain >"$T/transient.xml"
domain_destroy chain
virsh undefine chain
virsh create "$T/transient.xml" >/dev/null
changer_start copy chain
changer_wait made
check_copy vda "[(2,32*$M)]" 'the copy of a transient domain'
changer_end 0
assert_eq "$(virsh dominfo chain | sed -n 's/^Persistent: *//p')" no 'still transient'

# Killed at each step, also while the guest is held.
domain_note two
for step in plan 'note halted' enter leave; do
    changer_start copy two -w "$step"
    changer_wait waiting
    changer_kill
    changer_undo copy 0
    domain_check two
    changer_undo copy 0
    domain_check two
done
changer_start copy two -w 'note halted'
changer_wait waiting
virsh suspend two # as the next step would
changer_kill
changer_undo copy 0
domain_check two

# The libvirtd dies before the moment, which has not come then.
changer_start copy two -w enter
changer_wait waiting
libvirtd_restart
changer_go_on
changer_end 3
assert_match "$(<"$T/changer")" 'make: ' 'a copy that was cut off'
domain_check two loosely
domain_note two

# Nobody waits any more.
CHANGER_CANCELS=yes changer_start copy two
changer_end 3
assert_match "$(<"$T/changer")" 'make: EINTR' 'a copy that is cancelled'
domain_check two

# Somebody pivots to the copy while it runs: it is the disk then, and is not deleted.
changer_start copy chain -w enter
changer_wait waiting
virsh blockjob chain vda --pivot
changer_go_on
changer_end 4
assert_match "$(<"$T/changer")" 'undo: EBUSY: .*uses the copy' 'a copy that was pivoted to'
delta=$(sed -n 8p "$T/notes")
[[ -e $delta ]] || fail 'a copy in use was deleted'
changer_refuses copy chain EBUSY 'still on an overlay of virtsnapfs'
domain_destroy chain
rm "$delta"

# Refused, with nothing changed: a foreign job, a guest that is off, no room.
echo "<disk type='file'><driver type='qcow2'/><source file='$T/disks/theirs'/></disk>" >"$T/theirs.xml"
virsh blockcopy two vdb --transient-job --wait --xml "$T/theirs.xml" >/dev/null
changer_refuses copy two EBUSY "disk 'vdb' .*has a block job running"
virsh blockjob two vdb --abort
rm "$T/disks/theirs"
mkdir "$T/small"
mount -t tmpfs -o size=4M tmpfs "$T/small"
at_exit umount "$T/small"
changer_start copy two -s "$T/small"
changer_end 2
assert_match "$(<"$T/changer")" '^plan: ENOSPC: ' 'no room for the copy'
domain_check two
domain_destroy two
changer_refuses copy two EBUSY 'shut off'
