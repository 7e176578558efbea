#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The tree follows the domains without a remount, and tells what libvirt tells.
. "$(dirname "$0")/../lib/host.sh"

make_qcow2 "$T/a.qcow2"
qemu-img snapshot -c s1 "$T/a.qcow2"
truncate -s 3M "$T/b.raw" "$T/cd.iso"
make_qcow2 "$T/c.qcow2" 8M
truncate -s 1M "$T/shared.raw"
mount_start qemu:///system
assert_eq "$(probe list "$MNT")" '' 'no domains'

# Defined: with three disks, a CD-ROM with and one without a medium, a floppy, and a network disk.
domain_define web "$(disk_xml "$T/a.qcow2" qcow2 vda)" "$(disk_xml "$T/b.raw" raw vdb)" \
    "<disk type='file' device='cdrom'><source file='$T/cd.iso'/><target dev='sda' bus='sata'/></disk>" \
    "<disk type='file' device='cdrom'><target dev='sdb' bus='sata'/></disk>" \
    "$(disk_xml "$T/shared.raw" raw vdc "<shareable/>")" \
    "<disk type='network' device='disk'><driver name='qemu' type='raw'/>
     <source protocol='nbd' name='x'><host name='localhost' port='1'/></source>
     <target dev='vdd' bus='virtio'/></disk>"
wait_for 10 is_listed web || fail 'a new domain is not listed'
assert_eq "$(probe list "$MNT/web")" 'domain.xml|snapshots|status|upload' 'domain folder'
listed=$(probe list "$MNT/web/snapshots")
for name in now.raw s1.raw now.vdb.raw; do
    [[ "|$listed|" == *"|$name|"* ]] || fail "no $name in $listed"
done
[[ $listed != *sda* && $listed != *sdb* ]] || fail "CD-ROMs in $listed"
oracle "$T/a.qcow2" qcow2 "$T/a.raw"
assert_same_bytes "$MNT/web/snapshots/now.raw" "$T/a.raw"
assert_same_bytes "$MNT/web/snapshots/s1.raw" "$T/a.raw"
assert_same_bytes "$MNT/web/snapshots/now.vdb.raw" "$T/b.raw"
assert_errno ENOENT lstat "$MNT/web/snapshots/now.sda.raw"
for target in vdc vdd; do
    found=$(probe read "$MNT/web/snapshots/now.$target.raw" 0 1)
    assert_eq "$found" EOPNOTSUPP "read of $target"
done
assert_eq "$(status_value web '[d["target"] for d in s["disks"] if not d["supported"]]')" \
    '["vdc", "vdd"]' 'unsupported disks in status'

# domain.xml is the persistent definition.
virsh dumpxml --inactive web >"$T/wanted.xml"
assert_eq "$(cat "$MNT/web/domain.xml")" "$(cat "$T/wanted.xml")" domain.xml
assert_eq "$(stat -c %s "$MNT/web/domain.xml")" "$(wc -c <"$MNT/web/domain.xml")" 'its size'
before=$(probe stat "$MNT/web/domain.xml")
sed 's|<memory |<description>changed</description>&|' "$T/wanted.xml" >"$T/changed.xml"
virsh define "$T/changed.xml"
xml_is_new() {
    [[ $(cat "$MNT/web/domain.xml") == "$(virsh dumpxml --inactive web)" ]]
}
wait_for 10 xml_is_new || fail 'domain.xml does not follow'
[[ $(probe stat "$MNT/web/domain.xml") != "$before" ]] || fail "domain.xml's stat did not move"

# Started and stopped, paused and resumed.
assert_eq "$(domain_state web)" 'shut off' state
virsh detach-disk web vdd --config
virsh start web
wait_for 10 state_is web running || fail 'a start does not show'
virsh suspend web
wait_for 10 state_is web paused || fail 'a suspend does not show'
virsh resume web
wait_for 10 state_is web running || fail 'a resume does not show'
domain_destroy web
wait_for 10 state_is web 'shut off' || fail 'a stop does not show'

# Transient: there while it runs.
domain_define short "$(disk_xml "$T/c.qcow2" qcow2 vda)"
virsh undefine short
virsh create "$T/define.xml"
wait_for 10 is_listed short || fail 'a transient domain is not listed'
domain_destroy short
wait_for 10 is_not_listed short || fail 'a transient domain is still listed'

# Renamed: same inodes. Names with odd bytes are escaped.
inode=$(stat -c %i "$MNT/web/snapshots/now.raw")
virsh domrename web 'w%b@1'
wait_for 10 is_listed 'w%25b%401' || fail 'the new name is not listed'
is_not_listed web || fail 'the old name is still listed'
assert_eq "$(stat -c %i "$MNT/w%25b%401/snapshots/now.raw")" "$inode" 'inode after a rename'

# Undefined under an open reader: it may read on or see ESTALE, and the name is gone.
exec {fd}<"$MNT/w%25b%401/snapshots/now.raw"
virsh undefine 'w%b@1'
wait_for 10 is_not_listed 'w%25b%401' || fail 'an undefined domain is still listed'
cat <&"$fd" >"$T/rest" 2>"$T/error" || grep -q 'Stale' "$T/error" ||
    fail "reader of an undefined domain: $(cat "$T/error")"
[[ ! -s $T/rest ]] || cmp -n "$(wc -c <"$T/rest")" "$T/rest" "$T/a.raw" || fail 'wrong bytes'
exec {fd}<&-
assert_errno ENOENT lstat "$MNT/w%25b%401"
mount_stop
