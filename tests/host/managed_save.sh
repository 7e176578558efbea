#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A domain with a managed-save image can be read; a refused start keeps that image.
. "$(dirname "$0")/../lib/host.sh"

make_qcow2 "$T/a.qcow2"
domain_define dom "$(disk_xml "$T/a.qcow2" qcow2 vda)"
mount_start qemu:///system -o linger=0
virsh start dom
guest_io dom 0 'write -P 0x77 512k 64k' flush
virsh managedsave dom
wait_for 20 state_is dom 'shut off' || fail 'not shut off'
assert_eq "$(status_value dom 's["managed_save"]')" true 'managed_save in status'

oracle "$T/a.qcow2" qcow2 "$T/a.raw"
exec {fd}<"$MNT/dom/snapshots/now.raw"
assert_errno crash getxattr "$MNT/dom/snapshots/now.raw" user.virtsnapfs.consistency
if virsh start dom 2>"$T/refusal"; then
    fail 'started while it was read'
fi
grep -q 'Failed to get "write" lock' "$T/refusal" || fail "refusal: $(cat "$T/refusal")"
assert_match "$(virsh dominfo dom)" 'Managed save: +yes' 'the managed-save image after a refusal'
cmp /dev/fd/"$fd" "$T/a.raw" || fail 'bytes of a saved domain'
exec {fd}<&-
wait_for 20 has_no_instants dom || fail 'the instant does not end'

virsh start dom
assert_match "$(virsh dominfo dom)" 'Managed save: +no' 'the managed-save image after a start'
assert_match "$(virsh domstate --reason dom)" 'running.*restored' 'how it was started'
domain_destroy dom
mount_stop
