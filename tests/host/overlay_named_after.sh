#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Somebody's snapshot of a disk that is on our overlay, without a file named: libvirt calls the file
# after the overlay. It is theirs all the same: instants are fixed over it, times are its own, and
# nothing but the overlay is merged.
. "$(dirname "$0")/../lib/host.sh"

mkdir "$T/disks"
make_qcow2 "$T/disks/a.img" 8M
domain_define guest "$(disk_xml "$T/disks/a.img" qcow2 vda)"
virsh start guest

# assert_now NUMBER OFFSET WHAT: now.raw has, from that megabyte on, bytes of that number.
assert_now() {
    qemu-io -r -f raw -c "read -P $1 $2 1M" "$MNT/guest/snapshots/now.raw" >"$T/io" 2>&1 ||
        fail "$3: $(cat "$T/io") $(cat "$MNT/guest/status")"
    ! grep -q 'verification failed' "$T/io" || fail "$3: old bytes: $(cat "$T/io")"
}
theirs() {
    find "$T/disks" -name '*.theirs'
}
is_merged() {
    [[ -z $(find "$T/disks" -name '*.overlay') ]]
}

# What libvirt deletes while it is looked at is tried again.
has_no_leftovers() {
    grep -q '"leftovers": \[\]' "$MNT/guest/status"
}

mount_start qemu:///system -o live=overlay,linger=0
wait_for 20 state_is guest running || fail 'not running'
exec {fd}<"$MNT/guest/snapshots/now.raw"
virsh snapshot-create-as guest theirs --disk-only --no-metadata >/dev/null
assert_match "$(theirs)" 'virtsnapfs-[0-9a-f]*\.theirs$' 'what libvirt calls it'
guest_io guest 0 'write -P 7 1M 1M' flush
exec {fd}<&-
wait_for 60 is_merged || fail "not merged below theirs: $(cat "$MNT/guest/status")"
wait_for 60 has_no_instants guest || fail 'the instant does not end'
wait_for 60 has_no_leftovers || fail "left over: $(cat "$MNT/guest/status")"
file=$(theirs)

for method in overlay backup copy; do
    [[ $method == overlay ]] || mount_start qemu:///system -o live=$method,linger=0
    wait_for 20 state_is guest running || fail 'not running'
    assert_now 7 1M "live=$method"
    wait_for 60 has_no_instants guest || fail "live=$method: the instant does not end"
    assert_match "$(virsh domblklist guest)" "vda +$file" "live=$method: source"
    mount_stop
done

# Off: the time is that of their layer, which is what the guest writes to.
virsh destroy guest >/dev/null
mount_start qemu:///system -o linger=0
wait_for 20 state_is guest 'shut off' || fail 'not off'
touch -d '2021-01-01 12:00 UTC' "$T/disks/a.img"
for time in '2022-02-02 12:00 UTC' '2023-03-03 12:00 UTC'; do
    touch -d "$time" "$file"
    assert_eq "$(stat -c %Y "$MNT/guest/snapshots/now.raw")" "$(date -d "$time" +%s)" 'time of now.raw'
done
assert_now 7 1M 'cold=lock'
mount_stop
mount_start qemu:///system -o cold=internal,linger=0
wait_for 20 state_is guest 'shut off' || fail 'not off'
assert_now 7 1M 'cold=internal'
wait_for 60 has_no_instants guest || fail 'cold=internal: the instant does not end'
mount_stop
assert_match "$(virsh domblklist guest)" "vda +$file" 'source in the end'
