#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The examples of README.md, the manual pages and docs/methods.md: each command is looked up in the page and
# run as it stands there. One that the page has and that is neither run here nor listed with the test
# that runs it is a failure.
. "$(dirname "$0")/../lib/host.sh"
. "$(dirname "$0")/../lib/openstack.sh"
. "$(dirname "$0")/../lib/page.sh"
need getfattr losetup openstack
install_program
fresh_folder /mnt
fresh_folder /srv -o size=60G # so much room that the default of min_free= is left
if [[ ! -d /var/lib/virtsnapfs ]]; then
    mkdir /var/lib/virtsnapfs
    at_exit 'rmdir /var/lib/virtsnapfs'
fi
mount -t tmpfs tmpfs /var/lib/virtsnapfs
at_exit 'umount -l /var/lib/virtsnapfs'
mkdir -p /mnt/vms /mnt/images /srv/images /srv/work/backup
chmod 711 /srv /srv/images
mounts+=(/mnt/vms /mnt/images)
MNT=/mnt/vms

TOP=$LIB_DIR/../..
# commands_of FILE: what stands behind a prompt, or, in the part EXAMPLES, is indented; without comments.
commands_of() {
    awk '
        /^\$ / { more = 1; text = substr($0, 3) }
        /^EXAMPLES/ { examples = 1 }
        /^DESCRIPTION/ { examples = 0 }
        examples && /^    / { more = 1; text = substr($0, 5) }
        /^virtsnapfs --/ && !examples { more = 1; text = $0 }
        !more { next }
        { more = 0; sub(/ +#.*/, "", text); print text }' "$1"
}
# has FILE COMMAND: the page has it.
has() {
    commands_of "$TOP/$1" | grep -xF -- "$2" >"$T/found" || fail "$1 does not say: $2"
    echo "$1: $2" >>"$T/typed"
}
# type_in FILE COMMAND: runs it, as it stands in the page.
type_in() {
    has "$1" "$2"
    eval "$2"
}
readme() {
    type_in README.md "$1"
}
man1() {
    type_in docs/man/virtsnapfs.1.rst "$1"
}
man8() {
    type_in docs/man/mount.virtsnapfs.8.rst "$1"
}
is_ended() {
    wait_for 60 is_served_by_none || fail 'the program does not end'
}

make_qcow2 /srv/images/fed18.qcow2
truncate -s 8M /srv/images/fed18-data.raw
qemu-io -f raw -c 'write -P 5 1M 2M' /srv/images/fed18-data.raw >/dev/null
oracle /srv/images/fed18.qcow2 qcow2 "$T/vda.raw"
qemu-img snapshot -c before-upgrade /srv/images/fed18.qcow2
domain_define fed18 "$(disk_xml /srv/images/fed18.qcow2 qcow2 vda)" "$(disk_xml /srv/images/fed18-data.raw raw vdb)"
virsh dumpxml --inactive fed18 >"$T/before.xml"
virsh start fed18
cd /srv/work
assert_copied() {
    assert_same_bytes "$1" "$2"
    rm "$1"
}

# README.md: a copy of a guest that runs.
readme 'virtsnapfs qemu:///system /mnt/vms'
readme 'ls -l /mnt/vms/fed18/snapshots' >"$T/out"
assert_eq "$(awk 'NR > 1 {print $1, $NF}' "$T/out" | xargs)" \
    '-r-------- before-upgrade.raw -r-------- now.raw -r-------- now.vdb.raw' 'what ls shows'
readme 'cp /mnt/vms/fed18/snapshots/now.raw backup/'
assert_copied backup/now.raw "$T/vda.raw"
readme 'umount /mnt/vms'
is_ended

# virtsnapfs(1).
man1 'virtsnapfs qemu:///system /mnt/vms'
man1 'ls -l /mnt/vms/fed18/snapshots' >"$T/out"
man1 'cp /mnt/vms/fed18/snapshots/now.raw /mnt/vms/fed18/snapshots/now.vdb.raw backup/'
assert_copied backup/now.raw "$T/vda.raw"
assert_copied backup/now.vdb.raw /srv/images/fed18-data.raw
has docs/man/virtsnapfs.1.rst 'virtsnapfs --status --watch /mnt/vms'
exec {fd}</mnt/vms/fed18/snapshots/now.raw
timeout 10 virtsnapfs --status --watch /mnt/vms >"$T/out" || true
exec {fd}<&-
assert_match "$(cat "$T/out")" 'fed18' 'what --watch shows'
man1 'umount /mnt/vms'
man1 'virtsnapfs --wait /mnt/vms'
diff "$T/before.xml" <(virsh dumpxml --inactive fed18)

# A domain that is off, and an image that somebody else writes to: README.md, When something fails.
domain_destroy fed18
man8 'mount -t virtsnapfs qemu:///system /mnt/vms'
qemu-io -f qcow2 -c 'sleep 60000' /srv/images/fed18.qcow2 >/dev/null &
writer=$!
pids+=("$writer")
# (Not by reading: if that comes first, it is the writer that is refused.)
is_locked() {
    grep -q ":$(stat -c %i /srv/images/fed18.qcow2) " /proc/locks
}
wait_for 20 is_locked || fail 'nobody writes'
has README.md 'cp /mnt/vms/fed18/snapshots/now.raw .'
cp /mnt/vms/fed18/snapshots/now.raw . 2>"$T/out" && fail 'copied while somebody writes'
grep -qxF "$(cat "$T/out")" "$TOP/README.md" || fail "cp says: $(cat "$T/out")"
readme 'getfattr --only-values -n user.virtsnapfs.error /mnt/vms/fed18/snapshots/now.raw' >"$T/out"
assert_match "$(cat "$T/out")" 'is open for writing in another process' 'the reason'
readme 'cat /mnt/vms/fed18/status' >"$T/out"
grep -q 'is open for writing in another process' "$T/out" || fail 'no reason in status'
kill "$writer"
man8 'umount /mnt/vms'
man8 'virtsnapfs --wait /mnt/vms'

# docs/methods.md.
type_in docs/methods.md 'virtsnapfs --recover qemu:///system'

# virtsnapfs(1): a folder, and a loop device.
man1 'virtsnapfs dir:/srv/images /mnt/images'
loop=$(man1 'losetup -r -f -P --show /mnt/images/fed18.qcow2/snapshots/now.raw')
at_exit "losetup -d '$loop' 2>/dev/null"
assert_same_bytes "$loop" "$T/vda.raw"
losetup -d "$loop"
umount /mnt/images
is_ended

# README.md: an upload.
virsh start fed18
cloud_start
cloud_login snap
env | sed -n "s/^\(OS_[A-Z_]*\)=\(.*\)/export \1='\2'/p" >openrc
cloud_logout
readme '. openrc'
readme 'virtsnapfs qemu:///system /mnt/vms'
readme 'echo "now snap1-of-fed18 --poll" > /mnt/vms/fed18/upload'
readme 'cat /mnt/vms/fed18/upload' >"$T/out"
assert_match "$(awk '$3 == "snap1-of-fed18" {print $2, $5, $6}' "$T/out")" '^now active 100$' 'what upload shows'
openstack image save --file "$T/saved" snap1-of-fed18
assert_eq "$(qemu-img info "$T/saved" | sed -n 's/^file format: //p')" qcow2 'format of the image'
oracle "$T/saved" qcow2 "$T/saved.raw"
cmp "$T/saved.raw" "$T/vda.raw"
# docs/restore.md: and back.
echo 'now snap1-of-web --poll' >/mnt/vms/fed18/upload
mkdir -p /var/lib/libvirt/images
page_borrow "$PAGES/restore.md" get-glance
qemu-img compare -q -f qcow2 -F raw /var/lib/libvirt/images/web.qcow2 "$T/vda.raw"
umount /mnt/vms
is_ended
domain_destroy fed18

# Not here: what the suites package and system do, what builds the program for any test (tests/run), and what
# there is with systemd alone.
cat >>"$T/typed" <<'ELSEWHERE'
README.md: sudo apt-get install build-essential && sudo apt-get build-dep .
README.md: dpkg-buildpackage -b -us -uc
README.md: sudo apt-get install ../virtsnapfs_0.1.0-1_*.deb
README.md: apt-get install gcc meson ninja-build pkg-config libfuse3-dev libvirt-dev libxml2-dev \
README.md: meson setup --buildtype=release -Dtests=false build && meson compile -C build
README.md: build/fs/virtsnapfs --help
README.md: sudo meson install -C build
README.md: mkdir -p /mnt/vms
README.md: journalctl -t virtsnapfs
docs/man/mount.virtsnapfs.8.rst: qemu:///system  /mnt/vms  virtsnapfs  nofail,noauto,x-systemd.automount,x-systemd.after=libvirtd.service  0 0
docs/man/mount.virtsnapfs.8.rst: mkdir -p /mnt/vms /etc/virtsnapfs
docs/man/mount.virtsnapfs.8.rst: printf '%s\n' SOURCE=qemu:///system MOUNTPOINT=/mnt/vms >/etc/virtsnapfs/vms.conf
docs/man/mount.virtsnapfs.8.rst: systemctl enable --now virtsnapfs@vms
ELSEWHERE
for page in README.md docs/methods.md docs/man/virtsnapfs.1.rst docs/man/mount.virtsnapfs.8.rst; do
    commands_of "$TOP/$page" | sed "s|^|$page: |"
done | sort -u >"$T/said"
sort -u "$T/typed" >"$T/known"
assert_eq "$(comm -23 "$T/said" "$T/known")" '' 'examples that nothing runs'
