#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# docs/restore.md: each of its commands, on a Linux guest that boots from its own disk, has an ext4 mounted
# and writes numbered blocks to two disks. Its backups, made by the commands of docs/backup.md, are of one
# moment; restored after domain and images are gone, and beside itself, it boots, finds its files as they
# were and each block that it wrote, and goes on.
. "$(dirname "$0")/../lib/guest.sh"
. "$(dirname "$0")/../lib/page.sh"
need restic borg rclone rsync fdisk sfdisk losetup mkfs.ext4 extlinux xmlstarlet blkid
page_begin restore.md linger=1,join=12h

images=/var/lib/libvirt/images
disk=''
detach() {
    [[ -z $disk ]] || losetup -d "$disk"
}
at_exit detach
at_exit 'umount /mnt/look 2>/dev/null'

# A disk that boots: the kernel, and some files with their sums; behind them a partition for the writer.
make_disk() {
    local inside=$T/inside
    truncate -s 56M "$T/vda.raw"
    printf '%s\n' 'label: dos' 'size=48M, type=83, bootable' 'size=4M, type=83' | sfdisk -q "$T/vda.raw"
    dd if=/usr/lib/EXTLINUX/mbr.bin of="$T/vda.raw" bs=440 count=1 conv=notrunc status=none
    disk=$(losetup -f -P --show "$T/vda.raw")
    partx -u "$disk"
    # (What extlinux reads.)
    mkfs.ext4 -q -O ^64bit,^metadata_csum -E lazy_itable_init=0,lazy_journal_init=0 "${disk}p1"
    mkdir "$inside"
    mount "${disk}p1" "$inside"
    at_exit "umount '$inside' 2>/dev/null"
    mkdir "$inside"/{boot,etc}
    cp "$T/guest/vmlinuz" "$T/guest/initramfs" "$inside/boot/"
    echo web >"$inside/etc/hostname"
    head -c 1M /dev/urandom >"$inside/etc/data"
    (cd "$inside" && find . -type f -exec sha256sum {} + >"$T/sums" && mv "$T/sums" .)
    cp -a "$inside/etc" "$T/etc"
    printf '%s\n' 'DEFAULT linux' 'LABEL linux' 'KERNEL /boot/vmlinuz' 'INITRD /boot/initramfs' \
        "APPEND console=ttyS0 quiet panic=-1 no_timer_check guest.mode=blocks guest.disks=/dev/vda2,/dev/vdb" \
        >"$inside/boot/extlinux.conf"
    extlinux --install "$inside/boot" >"$T/log.out" 2>&1 || fail "extlinux: $(cat "$T/log.out")"
    umount "$inside"
    losetup -d "$disk"
    disk=''
    qemu-img convert -f raw -O qcow2 "$T/vda.raw" $images/web.base.qcow2
    qemu-img create -q -f qcow2 -b $images/web.base.qcow2 -F qcow2 $images/web.qcow2
    truncate -s 16M $images/web-vdb.raw
}

# As after somebody's external snapshot, the definition names a backing file.
define_web() {
    local backing="<backingStore type='file'><format type='qcow2'/><source file='$images/web.base.qcow2'/></backingStore>"
    echo "<domain type='qemu'><name>web</name><memory unit='MiB'>192</memory><vcpu>1</vcpu>
        <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os><features><acpi/></features>
        <on_reboot>destroy</on_reboot>
        <devices><emulator>$(command -v qemu-system-x86_64)</emulator>
        $(disk_xml $images/web.qcow2 qcow2 vda | sed "s|<target|$backing<target|")$(disk_xml $images/web-vdb.raw raw vdb)
        <interface type='user'><model type='virtio'/></interface>
        <serial type='file'><source path='$T/log.web'/><target port='0'/></serial>
        <serial type='unix'><source mode='bind' path='$T/guest/web'/><target port='1'/></serial>
        <controller type='usb' model='none'/><memballoon model='none'/></devices></domain>" >"$T/define.xml"
    virsh define "$T/define.xml" >/dev/null
}

# A guest that is off, with a data disk that is a file system as a whole.
define_mail() {
    qemu-img create -q -f qcow2 $images/mail.qcow2 8M
    mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 -d "$T/etc" $images/mail-vdb.raw 8M
    domain_define mail "$(disk_xml $images/mail.qcow2 qcow2 vda)" "$(disk_xml $images/mail-vdb.raw raw vdb)"
}

# assert_one_moment FOLDER: both disks are of one moment after $before and before $after.
before='' after=''
assert_one_moment() {
    dd if="$1/now.raw" of="$T/vda2" bs=1M skip=49 count=4 status=none
    last=$(check_blocks --after "$before" --before "$after" "$T/vda2" "$1/now.vdb.raw")
}
settle() {
    wait_for 60 has_no_instants web || fail 'the instant does not end'
}

# The guest itself is asked, after its start: it went on behind the last block of the copy, went over all
# blocks that it had ever written, and its files have their sums.
has_written() {
    (($(guest_progress web synced) > $1))
}
assert_guest_is_complete() {
    guest_wait_ready web
    wait_for 60 grep -q "^writer: 2 disks, going on after" "$T/log.web" || fail 'the guest does not write'
    assert_eq "$(sed -n 's/^writer: 2 disks, going on after \([0-9]*\).*/\1/p' "$T/log.web")" "$last" 'the last block of the copy'
    # Twice 256 places.
    wait_for 60 has_written $((last + 520)) || fail "the writer stopped: $(tail -n 3 "$T/log.web")"
    ! grep 'writer: lost' "$T/log.web" || fail 'the guest misses blocks'
    guest_run web 'mount -t ext4 /dev/vda1 /mnt && cd /mnt && sha256sum -c sums' >"$T/log.out" || fail "files: $(cat "$T/log.out")"
    assert_match "$(cat "$T/log.out")" 'etc/data: OK' 'what the guest says of its files'
    assert_eq "$(guest_run web 'cat /mnt/written')" 'by the guest' 'the file that the guest had written'
}

make_disk
define_web
define_mail
guest_start web
guest_run web 'mount -t ext4 /dev/vda1 /mnt && echo by the guest >/mnt/written && sync'
virsh dumpxml --inactive web >"$T/web.xml"
grep -q "<source file='$images/web.base.qcow2'/>" "$T/web.xml" || fail "no backing file in the definition: $(cat "$T/web.xml")"
wait_for 60 has_written 600 || fail 'the guest is slow'

# --- looking inside ---------------------------------------------------------------------------------

mount /mnt/vms
wait_for 20 state_is web running || fail 'not running'
page_run fdisk >"$T/log.out"
assert_match "$(cat "$T/log.out")" 'now\.raw1 +\* +2048 +100351 +98304 +48M +83 Linux' 'partitions by fdisk'
assert_match "$(cat "$T/log.out")" 'now\.raw2 +100352 +108543 +8192 +4M +83 Linux' 'partitions by fdisk'
settle
page_run look >"$T/log.out"
assert_match "$(cat "$T/log.out")" 'p1: .*TYPE="ext4"' 'file systems by blkid'
diff -r "$T/etc" /srv/etc-of-web || fail 'files of the guest'
assert_eq "$(status_value web 'len(s["instants"])')" 1 'instants while it is looked into'
assert_errno EROFS create /mnt/look/new
page_run look-end
disk=''
settle
page_run whole
diff -r -x lost+found "$T/etc" /mnt/look || fail 'files of a disk without partitions'
page_run look-end
page_run replay
disk=''
settle
# (docs/examples.sh runs it.)
page_ran+=(get-glance)

# --- backups, of different moments -----------------------------------------------------------------

backup=$PAGES/backup.md
rclone config create offsite alias remote=/srv/offsite >"$T/log.out" 2>&1
mkdir /srv/offsite
page_borrow "$backup" restic-init >"$T/log.out"
page_borrow "$backup" borg-init 2>"$T/log.out"
for tool in restic borg rclone; do
    before=$(guest_progress web synced)
    page_borrow "$backup" $tool >"$T/log.out" 2>&1 || fail "$tool: $(cat "$T/log.out")"
    after=$(guest_progress web started)
    settle
    page_run get-$tool >"$T/log.out"
    disk=''
    cd "$T"
    assert_one_moment /srv/back/web/snapshots
    echo "$tool: $before <= $last <= $after"
    diff "$T/web.xml" /srv/back/web/domain.xml || fail "$tool: another definition"
    rm -r /srv/back
done
before=$(guest_progress web synced)
page_borrow "$backup" tonight
after=$(guest_progress web started)
copy=/srv/backup/web
assert_one_moment $copy/snapshots
settle
page_run which >"$T/log.out"
# shellcheck disable=SC2016
awk '/^<!-- run: which -->/ { seen = 1 } seen && /^```text/ { inside = 1; next } inside && /^```/ { exit } inside' \
    "$PAGE" | diff - "$T/log.out" || fail 'what the page says of the definition'

# --- all is lost -----------------------------------------------------------------------------------

domain_destroy web
virsh undefine web
rm $images/*
rm -f "$T/log.web"
page_run disks
qemu-img check -q -f qcow2 $images/web.qcow2 || fail 'the restored qcow2'
qemu-img compare -q -f qcow2 -F raw $images/web.qcow2 $copy/snapshots/now.raw || fail 'the restored first disk'
qemu-img compare -q -f raw -F raw $images/web-vdb.raw $copy/snapshots/now.vdb.raw || fail 'the restored second disk'
page_run define
virsh dumpxml --inactive web >"$T/again.xml"
diff <(xmlstarlet ed -d //disk/backingStore "$T/web.xml") <(xmlstarlet ed -d //disk/backingStore "$T/again.xml") ||
    fail 'the restored definition is another'
assert_guest_is_complete

# --- beside itself ---------------------------------------------------------------------------------

domain_destroy web
rm -f "$T/log.web"
page_run beside
page_run unplug
assert_eq "$(virsh domblklist web2 | xargs)" "vda $images/web2-vda.raw vdb $images/web2-vdb.raw" 'disks of the second guest'
# identity DOMAIN: what both must not share.
identity() {
    virsh dumpxml --inactive "$1" | grep -oE '<uuid>.*|<mac address=.*' | sort
}
assert_eq "$(comm -12 <(identity web) <(identity web2))" '' 'what both guests have in common'
assert_eq "$(identity web2 | wc -l)" 2 'UUID and MAC address of the second guest'
virsh dumpxml web2 | grep -q "<link state='down'/>" || fail 'the second guest is in the network'
assert_guest_is_complete
domain_destroy web2
page_end
