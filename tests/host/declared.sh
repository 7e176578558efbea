#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Formats and chains are what the domain XML declares, never what a file looks like.
. "$(dirname "$0")/../lib/host.sh"

# A guest wrote a qcow2 header into its raw disk that refers to a file of the host's.
printf 'top secret' >"$T/secret"
qemu-img create -q -f qcow2 -u -b "$T/secret" -F raw "$T/evil.raw" 1M
truncate -s 4M "$T/evil.raw"
domain_define evil "$(disk_xml "$T/evil.raw" raw vda)"

# A chain as the images tell it.
truncate -s 2M "$T/base.raw"
printf base | dd of="$T/base.raw" conv=notrunc status=none
qemu-img create -q -f qcow2 -F raw -b base.raw "$T/middle.qcow2" 3M
qemu-io -f qcow2 -c 'write -P 3 1M 64k' "$T/middle.qcow2" >/dev/null
qemu-img create -q -f qcow2 -F qcow2 -b "$T/middle.qcow2" "$T/top.qcow2" 4M
qemu-io -f qcow2 -c 'write -P 4 2M 64k' "$T/top.qcow2" >/dev/null
domain_define chain "$(disk_xml "$T/top.qcow2" qcow2 vda)"

# One as the XML tells it, other than the image does.
truncate -s 2M "$T/other.raw"
printf other | dd of="$T/other.raw" conv=notrunc status=none
qemu-img create -q -f qcow2 -F raw -b base.raw "$T/over.qcow2" 2M
domain_define explicit "$(disk_xml "$T/over.qcow2" qcow2 vda \
    "<backingStore type='file'><format type='raw'/><source file='$T/other.raw'/><backingStore/></backingStore>")"
# One that ends, by an empty element, before the image says so.
domain_define cut "$(disk_xml "$T/over.qcow2" qcow2 vda '<backingStore/>')"

# A volume of a pool.
mkdir "$T/pool"
make_qcow2 "$T/pool/v.qcow2"
virsh pool-create-as disks dir --target "$T/pool" >/dev/null
domain_define volume "<disk type='volume' device='disk'><driver name='qemu' type='qcow2'/>
    <source pool='disks' volume='v.qcow2'/><target dev='vda' bus='virtio'/></disk>"
# A disk without a declared format is raw to libvirt.
domain_define bare "<disk type='file' device='disk'><source file='$T/evil.raw'/>
    <target dev='vda' bus='virtio'/></disk>"

mount_start qemu:///system
now() {
    echo "$MNT/$1/snapshots/now.raw"
}
assert_same_bytes "$(now evil)" "$T/evil.raw"
assert_same_bytes "$(now bare)" "$T/evil.raw"
oracle "$T/top.qcow2" qcow2 "$T/top.raw"
assert_same_bytes "$(now chain)" "$T/top.raw"
assert_same_bytes "$(now explicit)" "$T/other.raw"
assert_eq "$(probe ranges "$(now cut)")" none 'a chain that the XML ends'
oracle "$T/pool/v.qcow2" qcow2 "$T/v.raw"
assert_same_bytes "$(now volume)" "$T/v.raw"
assert_eq "$(status_value chain 's["disks"][0]["layers"][0]["path"]')" "$T/top.qcow2" 'path of a layer'
assert_eq "$(stat -c %s "$(now evil)")" 4194304 'size of a raw disk with a qcow2 header'
for domain in evil bare; do
    if grep -q 'top secret' "$(now $domain)"; then
        fail "$domain shows a file of the host"
    fi
done
mount_stop
