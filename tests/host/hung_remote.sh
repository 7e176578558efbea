#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A QEMU that hangs is asked for the size of its network disk, and never answers. That is the matter
# of its own directory: other domains come, go and change, and the mount ends.
. "$(dirname "$0")/../lib/host.sh"
need qemu-nbd

mkdir "$T/disks"
chmod 777 "$T/disks"
truncate -s 8M "$T/disks/net.img"
make_qcow2 "$T/disks/a.img"
qemu-nbd -t -f raw -k "$T/disks/nbd" -x net --fork --pid-file "$T/nbd.pid" "$T/disks/net.img"
at_exit "kill \$(cat $T/nbd.pid)"
chmod 777 "$T/disks/nbd"
domain_define net "<disk type='network' device='disk'><driver name='qemu' type='raw'/>
    <source protocol='nbd' name='net'><host transport='unix' socket='$T/disks/nbd'/></source>
    <target dev='vda' bus='virtio'/></disk>"
domain_define other "$(disk_xml "$T/disks/a.img" qcow2 vda)"
virsh start net

mount_start qemu:///system -o linger=0
wait_for 20 state_is net running || fail 'not running'
net_size() {
    stat -c %s "$MNT/net/snapshots/now.raw"
}
assert_eq "$(net_size)" $((8 << 20)) 'size of the network disk'

kill -STOP "$(</run/libvirt/qemu/net.pid)"
virsh desc net --config --new-desc 'said while it hangs' >/dev/null # an event, so that it is looked at
virsh domrename other another >/dev/null
wait_for 60 is_listed another || fail 'a rename is not seen while the QEMU of another domain hangs'
domain_define late "$(disk_xml "$T/disks/a.img" qcow2 vda)"
wait_for 60 is_listed late || fail 'a new domain is not seen'
assert_eq "$(net_size)" $((8 << 20)) 'size while its QEMU hangs'

# Once it answers, it is asked again.
kill -CONT "$(</run/libvirt/qemu/net.pid)"
virsh desc net --config --new-desc 'said in the end' >/dev/null
has_description() {
    grep -q 'said in the end' "$MNT/net/domain.xml"
}
wait_for 60 has_description || fail 'the domain is not looked at any more'
kill -STOP "$(</run/libvirt/qemu/net.pid)"
virsh desc net --config --new-desc 'and once more' >/dev/null
mount_stop
kill -CONT "$(</run/libvirt/qemu/net.pid)"
