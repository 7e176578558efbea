#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A running guest by one line: its image is of one moment, has nova's properties and those of the
# machine, and no more bytes than the disk; memory stays small, and the domain is as it was.
. "$(dirname "$0")/../lib/host.sh"
. "$(dirname "$0")/../lib/openstack.sh"
. "$(dirname "$0")/../lib/upload.sh"

MIB=1048576 DATA=64
cloud_start
cloud_login snap
mkdir "$T/disks"
truncate -s 20G "$T/content"
for at in 0 7000 20400; do
    head -c 16M /dev/urandom |
        dd "of=$T/content" bs=1M "seek=$at" conv=notrunc iflag=fullblock status=none
done
qemu-img convert -f raw -O qcow2 "$T/content" "$T/disks/fed18.qcow2"
rm "$T/content"
truncate -s 8M "$T/disks/data.raw"
domain_define fed18 "$(disk_xml "$T/disks/fed18.qcow2" qcow2 vda)" \
    "$(disk_xml "$T/disks/data.raw" raw vdb)" \
    "<interface type='user'><model type='virtio'/></interface>" \
    "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
virsh start fed18
# Freed memory goes back at once, sanitizer or not.
ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}quarantine_size_mb=1 \
    mount_start qemu:///system -o "live=overlay,linger=0,quiesce=never,cache=8M,join=$((60 * DEADLINE_FACTOR))"
D=$MNT/fed18
wait_for 20 state_is fed18 running || fail 'fed18 is not running'
guest_io fed18 0 "write -P 1 1G $((DATA / 4))M" flush
guest_io fed18 1 'write -P 2 1M 1M' flush
virsh dumpxml fed18 >"$T/live.xml"
virsh dumpxml --inactive fed18 >"$T/inactive.xml"
files=$(probe list "$T/disks")
memory() {
    awk -v "what=$1:" '$1 == what {print int($2 / 1024)}' "/proc/$PID/status"
}

# The line of the issue; meanwhile the guest writes, which the image does not show. Others hold the
# same instant, to compare with.
before=$(memory VmRSS)
exec {root}<"$D/snapshots/now.raw" {data}<"$D/snapshots/now.vdb.raw"
assert_eq "$(upload 'now data-of-fed18 disk=vdb')" OK 'the second disk'
guest_io fed18 0 'write -P 3 0 1M' 'write -P 4 5G 1M' flush
guest_io fed18 1 'write -P 5 0 4M' flush
assert_eq "$(upload 'now snap1-of-fed18 --poll')" OK 'the first disk'
after=$(memory VmHWM)
wait_for 60 row_is data-of-fed18 active || fail "not active: $(cat "$D/upload")"
image=$(image_of snap1-of-fed18)
assert_eq "$(show "$image" status disk_format min_disk image_type instance_uuid hw_architecture \
    hw_machine_type hw_firmware_type hw_disk_bus hw_vif_model hw_qemu_guest_agent)" \
    "active|qcow2|20|snapshot|$(virsh domuuid fed18)|x86_64|$(virsh dumpxml fed18 |
        sed -n "s/.*<type.* machine='\([^']*\)'.*/\1/p")|bios|virtio|virtio|yes" 'the record'
openstack image save --file "$T/saved.qcow2" "$image"
openstack image save --file "$T/saved.raw" "$(image_of data-of-fed18)"
qemu-img compare -q -f qcow2 -F raw "$T/saved.qcow2" "/proc/self/fd/$root" || fail 'another content'
assert_same_bytes "$T/saved.raw" "/proc/self/fd/$data"
qemu-img check -q "$T/saved.qcow2" || fail 'qemu-img check'
len=$(stat -c %s "$T/saved.qcow2")
((len > DATA * MIB && len < (DATA + 4) * MIB)) || fail "$len bytes for $DATA MiB of data"
((after - before < DATA * 3 / 4)) || fail "memory grew from $before to $after MiB"

# Another moment while this one is read: refused, and nothing stays behind.
exec {root}<&- {data}<&-
wait_for 60 has_no_instants fed18 || fail 'the instant does not end'
mount_stop
mount_start qemu:///system -o 'live=overlay,linger=0,quiesce=never,join=0'
D=$MNT/fed18
wait_for 20 state_is fed18 running || fail 'fed18 is not running'
exec {root}<"$D/snapshots/now.raw"
refused now 'Device or resource busy' 'an instant taken .* ago is still read by pid'
exec {root}<&-
assert_eq "$(list_images | wc -l)" 2 'images after a refusal'

wait_for 60 has_no_instants fed18 || fail 'the instant does not end'
assert_no_secrets
diff "$T/live.xml" <(virsh dumpxml fed18) || fail 'the live XML is another'
diff "$T/inactive.xml" <(virsh dumpxml --inactive fed18) || fail 'the inactive XML is another'
assert_eq "$(probe list "$T/disks")" "$files" 'files beside the images'
mount_stop
domain_destroy fed18
