#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# bench/run's: a running guest whose disk has the bytes of `plain` is backed up in two ways, both of
# which read one NBD export that QEMU makes: nbdcopy from a job that virsh starts, and now.raw under
# live=backup. Prints rows: run, metric, image, program, value, unit.
. "$(dirname "$0")/../lib/host.sh"
need nbdcopy

# QEMU writes to its disk, and runs as another user, who may have no way to our folder.
mkdir "$T/disks" "$T/scratch"
chmod 777 "$T/scratch"
mount --bind "$BENCH_DIR/work" "$T/disks"
chmod 755 "$T/disks"
cp "$BENCH_DIR/images/plain.qcow2" "$T/disks/guest.qcow2"
at_exit "rm -f $T/disks/guest.qcow2; umount $T/disks"
domain_define guest "$(disk_xml "$T/disks/guest.qcow2" qcow2 vda)"
virsh start guest
at_exit 'domain_destroy guest'
size=$(qemu-img info -U --output=json "$T/disks/guest.qcow2" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["virtual-size"])')

rate() { # RUN METRIC PROGRAM BYTES SECONDS
    awk -v OFS='\t' -v run="$1" -v metric="$2" -v program="$3" -v bytes="$4" -v seconds="$5" \
        'BEGIN { print run, metric, "plain", program, bytes / 1e6 / seconds, "MB/s" }'
}

no_job() {
    virsh domjobinfo guest | grep -q None
}

# Where libvirt keeps what QEMU may make.
socket=/var/lib/libvirt/qemu/bench
echo "<domainbackup mode='pull'><server transport='unix' socket='$socket'/>
    <disks><disk name='vda' backup='yes' type='file'><driver type='qcow2'/>
    <scratch file='$T/scratch/theirs'/></disk></disks></domainbackup>" >"$T/backup.xml"

# Once unmeasured: the image into the page cache, and the bytes right.
read_by_nbdcopy() {
    virsh backup-begin guest "$T/backup.xml" >/dev/null
    read -r seconds _ < <(timeout 300 "$METER" run nbdcopy "nbd+unix:///vda?socket=$socket" "$1")
    virsh domjobabort guest
    wait_for 30 no_job || fail 'the job does not end'
}

mount_start qemu:///system -o "live=backup,linger=0,join=0,scratch=$T/scratch"
wait_for 30 state_is guest running || fail 'the guest does not run'
now=$MNT/guest/snapshots/now.raw
no_instant() {
    wait_for 60 has_no_instants guest || fail 'the instant does not end'
}

read_by_nbdcopy "$T/disks/copy.raw"
at_exit "rm -f $T/disks/copy.raw"
assert_same_bytes "$now" "$T/disks/copy.raw"
rm -f "$T/disks/copy.raw"
no_instant

for ((run = 1; run <= RUNS; run++)); do
    read_by_nbdcopy null:
    rate "$run" backup nbdcopy "$size" "$seconds"
    # What open() takes is libvirt's work; nbdcopy's begins when the job runs, too.
    read -r bytes seconds _ < <(timeout 300 "$METER" read "$now")
    rate "$run" backup virtsnapfs "$bytes" "$seconds"
    no_instant
    # As bytes of the disk, too, of which nbdcopy leaves out the same ones.
    read -r bytes seconds _ < <(timeout 300 "$METER" data "$now")
    rate "$run" backup_data virtsnapfs "$size" "$seconds"
    no_instant
done
mount_stop
