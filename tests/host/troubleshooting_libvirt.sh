#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# docs/troubleshooting.md: what a user of libvirt's domains gets to see is on the page.
. "$(dirname "$0")/../lib/host.sh"
. "$(dirname "$0")/../lib/troubleshooting.sh"
need losetup

mkdir "$T/disks" "$T/closed"
for name in web raw off; do
    qemu-img create -q -f qcow2 "$T/disks/$name.img" 16M
done
truncate -s 16M "$T/disks/raw.img" "$T/disks/device" "$T/disks/shared.img"
loop=$(losetup --find --show "$T/disks/device")
at_exit "losetup -d '$loop'"
domain_define web "$(disk_xml "$T/disks/web.img" qcow2 vda)"
domain_define raw "$(disk_xml "$T/disks/raw.img" raw vda)"
domain_define off "$(disk_xml "$T/disks/off.img" qcow2 vda)"
domain_define shared "$(disk_xml "$T/disks/shared.img" raw vda '<shareable/>')"
domain_define device "<disk type='block' device='disk'><driver name='qemu' type='raw'/>
    <source dev='$loop'/><target dev='vda' bus='virtio'/></disk>"
virsh dumpxml raw | sed -e 's,<name>raw,<name>transient,' -e '/<uuid>/d' \
    -e "s,$T/disks/raw.img,$T/disks/transient.img," >"$T/transient.xml"
truncate -s 16M "$T/disks/transient.img"
for name in web device; do
    virsh start "$name"
done
virsh create "$T/transient.xml" >/dev/null
# shellcheck disable=SC2016 # as it is then
at_exit 'for name in web device transient raw; do virsh destroy "$name" >/dev/null 2>&1; done'
now() {
    echo "$MNT/$1/snapshots/now.raw"
}
# mounted DOMAIN STATE OPTION...
mounted() {
    mount_start qemu:///system -o "linger=0,${*:3}"
    wait_for 30 state_is "$1" "$2" || fail "$1 is not shown as $2"
}
no_instant() {
    wait_for 60 has_no_instants "$1" || fail "$1: the instant does not end"
}

# What a method cannot do.
mounted web running live=overlay
refused "$(now device)" EOPNOTSUPP
refused "$(now shared)" EOPNOTSUPP
exec {fd}<"$(now web)"
first=$MNT first_pid=$PID
mounted web running "live=overlay,state=$T/other"
refused "$(now web)" EBUSY
mount_stop
MNT=$first PID=$first_pid
exec {fd}<&-
no_instant web
virsh start off
wait_for 30 state_is off running || fail 'off does not run'
virsh managedsave off >/dev/null
wait_for 30 state_is off 'shut off' || fail 'off is not off'
mount_stop
mounted web running live=copy
refused "$(now device)" EOPNOTSUPP
mount_stop
mounted web running live=backup
refused "$(now device)" EOPNOTSUPP
# Others' jobs.
echo "<domainbackup mode='pull'><server transport='unix' socket='/var/lib/libvirt/qemu/foreign'/>
    <disks><disk name='vda' backup='yes' type='file'><driver type='qcow2'/>
    <scratch file='$T/disks/foreign'/></disk></disks></domainbackup>" >"$T/backup.xml"
virsh backup-begin web "$T/backup.xml" >/dev/null
refused "$(now web)" EBUSY
mount_stop
mounted web running live=overlay
refused "$(now web)" EBUSY
virsh domjobabort web
is_idle() { virsh domjobinfo web | grep -q None; }
wait_for 30 is_idle || fail 'the foreign job does not end'
mount_stop
mounted transient running live=managedsave
refused "$(now transient)" EOPNOTSUPP
mount_stop
mounted raw 'shut off' cold=internal
refused "$(now raw)" EOPNOTSUPP
mount_stop
mounted off 'shut off' cold=overlay
refused "$(now off)" EOPNOTSUPP
mount_stop
virsh managedsave-remove off >/dev/null
mounted web running quiesce=require
assert_errno EOPNOTSUPP read "$(now web)" 0 1
on_page "$(probe getxattr "$(now web)" user.virtsnapfs.error | sed 's/: domain.*/: x/')" EOPNOTSUPP
on_page "$(probe getxattr "$(now web)" user.virtsnapfs.error | sed 's/.*require: //')" EOPNOTSUPP
mount_stop

# Room.
mounted web running live=overlay,min_free=100T
refused "$(now web)" ENOSPC
mount_stop

# A guest that is stopped, or started, under a reader.
mounted web running live=backup
exec {fd}<"$(now web)"
domain_destroy web
logged 'was stopped while'
exec {fd}<&-
no_instant web
mount_stop
mounted web 'shut off' cold=lock
exec {fd}<"$(now web)"
head -c 1 <&"$fd" >/dev/null
if virsh start web 2>"$T/said"; then
    fail 'started under cold=lock'
fi
in_last_table() {
    local text
    text=$(sed -n '/^## What others say/,$p' "$LIB_DIR/../../docs/troubleshooting.md" | grep -F "\`$1\`") ||
        fail "not in the last table: $1"
    grep -Fq -- "$1" "$T/said" || fail "'$(<"$T/said")' has not '$1' ($text)"
}
in_last_table 'Failed to get "write" lock'
if umount "$MNT" 2>"$T/said"; then
    fail 'unmounted under a reader'
fi
in_last_table 'target is busy'
exec {fd}<&-
no_instant web
mount_stop

# On its overlay, saved.
virsh start web
mounted web running live=overlay
exec {fd}<"$(now web)"
virsh managedsave web >/dev/null
exec {fd}<&-
leftover() { status_value web '" ".join(l.get("reason") or "" for l in s["leftovers"])' | grep memory; }
wait_for 60 leftover >/dev/null || fail "leftovers: $(cat "$MNT/web/status")"
on_page "$(leftover)"
virsh start web
no_leftover() { [[ $(status_value web 'len(s["leftovers"]) + len(s["instants"])') == 0 ]]; }
wait_for 60 no_leftover || fail "not merged: $(cat "$MNT/web/status")"

# libvirtd is away.
kill -KILL "$LIBVIRTD_PID"
logged 'lost the connection'
assert_errno EIO read "$(now web)" 0 1
on_page "$(probe getxattr "$(now web)" user.virtsnapfs.error)" EIO
libvirtd_start
is_back() { head -c 1 "$(now web)" >/dev/null 2>&1; }
wait_for 60 is_back || fail 'it does not come back'
no_instant web
mount_stop
all_came_up host/troubleshooting_libvirt
