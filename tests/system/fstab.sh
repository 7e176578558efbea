#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Each line of fstab.example: by mount -a and mount MOUNTPOINT, and as the units that a real systemd
# makes of it, with libvirt. Only the folders' names are this test's own.
. "$(dirname "$0")/../lib/host.sh"
. "$(dirname "$0")/../lib/system.sh"
need findmnt setpriv
install_program

example=$T/root$PREFIX/share/doc/virtsnapfs/fstab.example
sed "s|/mnt/|$T/mnt/|g; s|/srv/|$T/srv/|g" "$example" >/etc/fstab
mkdir -p "$T/mnt"/{vms,backup,cloud,images,nfs,'golden images'} \
    "$T/srv"/{images,nfs/images,lab,lab-disks,lab-state,'golden images','base images',a,b}
# A line that is new in the example is new here, too.
n_lines=$(grep -c '^[^#]' /etc/fstab)
assert_eq "$n_lines" 7 'lines of fstab.example'
qemu-img create -q -f raw "$T/srv/a,b.raw" 1M
mkdir "$T/srv/a,b"
for folder in images nfs/images lab; do
    qemu-img create -q -f qcow2 "$T/srv/$folder/a.qcow2" 1M
done
for base in 'base images' 'a,b'; do
    qemu-img create -q -f raw "$T/srv/$base/base.raw" 1M
    qemu-img create -q -f qcow2 -F raw -b "$T/srv/$base/base.raw" "$T/srv/golden images/on ${base%% *}.qcow2"
done
chown -R 65534 "$T/srv"/lab*
mkdir -p /etc/openstack
printf '%s\n' clouds: '  mycloud:' '    auth: {auth_url: "http://127.0.0.1:9/v3", username: u, password: p,' \
    '      project_name: p, user_domain_id: default, project_domain_id: default}' >/etc/openstack/clouds.yaml
# The default of state=, empty and this test's own.
if [[ ! -d /var/lib/virtsnapfs ]]; then
    mkdir /var/lib/virtsnapfs
    at_exit 'rmdir /var/lib/virtsnapfs'
fi
mount -t tmpfs tmpfs /var/lib/virtsnapfs
at_exit 'umount -l /var/lib/virtsnapfs'
export HOME=/
qemu-img create -q -f qcow2 "$T/vm.img" 1M
domain_define vm "$(disk_xml "$T/vm.img" qcow2 vda)"

all=(vms backup cloud images nfs 'golden images')
for name in "${all[@]}"; do
    mounts+=("$T/mnt/$name")
done
lab=$T/srv/lab-disks
mounts+=("$lab")
n_mounts_at() {
    findmnt -nro TARGET -t fuse.virtsnapfs "$1" | wc -l
}
# assert_tree FOLDER NAME...
assert_tree() {
    local folder=$1
    shift
    assert_eq "$(probe list "$folder")" "$(IFS='|' && echo "$*")" "the tree at $folder"
}
# What each line shows, and what its options do.
assert_mounted() {
    case $1 in
    vms | backup | cloud) assert_tree "$T/mnt/$1" vm ;;
    images | nfs) assert_tree "$T/mnt/$1" a.qcow2 ;;
    golden*)
        assert_tree "$T/mnt/$1" 'on a,b.qcow2' 'on base.qcow2'
        # Only with a backing_dir= that was understood can these be read.
        cat "$T/mnt/$1/on a,b.qcow2/snapshots/now.raw" "$T/mnt/$1/on base.qcow2/snapshots/now.raw" >"$T/bytes"
        assert_eq "$(stat -c %s "$T/bytes")" $((2 << 20)) 'bytes of both'
        ;;
    esac
    case $1 in
    backup)
        assert_eq "$(stat -c '%g %a' "$T/mnt/$1/vm/snapshots/now.raw")" '34 440' 'group and mode'
        setpriv --reuid=65534 --regid=34 --clear-groups ls "$T/mnt/$1/vm" >"$T/listed" || fail 'allow_other'
        ;;
    nfs) assert_match "$(findmnt -nro OPTIONS "$T/mnt/$1")" '^ro,' 'options of nfs' ;;
    esac
}
unmount_all() {
    local name
    for name in "${all[@]}"; do
        if mountpoint -q "$T/mnt/$name"; then
            run 0 umount "$T/mnt/$name"
        fi
        run 0 virtsnapfs --wait "$T/mnt/$name"
    done
}

# mount -a, twice: what is mounted is not mounted once more.
run 0 mount -a
run 0 mount -a
for name in backup images nfs 'golden images'; do
    assert_eq "$(n_mounts_at "$T/mnt/$name")" 1 "mounts at $name"
    assert_mounted "$name"
done
for name in vms cloud; do
    run 32 mountpoint "$T/mnt/$name"
    run 0 mount "$T/mnt/$name"
    assert_mounted "$name"
done
run 0 setpriv --reuid=65534 --regid=65534 --clear-groups mount "$lab"
assert_eq "$(findmnt -nro FSTYPE "$lab")" fuse.virtsnapfs 'type of the mount of a user'
run 0 setpriv --reuid=65534 --regid=65534 --clear-groups cat "$lab/a.qcow2/snapshots/now.raw"
run 0 setpriv --reuid=65534 --regid=65534 --clear-groups umount "$lab"
run 0 findmnt --verify
says ' 0 parse errors, 0 errors|^0 parse errors, 0 errors'
unmount_all
# One that fails says so, and does not keep the others from being mounted.
sed -i.all "1i qemu:///system?socket=/nowhere $T/mnt/vms virtsnapfs nofail,timeout=2 0 0" /etc/fstab
run 64 mount -a
says /nowhere
assert_mounted images
unmount_all
mv /etc/fstab.all /etc/fstab

# As units. That of the automount is there from boot on.
systemd_start
assert_eq "$(findmnt -nro FSTYPE "$T/mnt/vms")" autofs 'before somebody looks'
at_systemd ls "$T/mnt/vms/vm" >"$T/listed" || fail "the automount: $(tail -n 5 "$T/log.systemd")"
assert_eq "$(n_mounts_at "$T/mnt/vms")" 1 'mounts by looking'
assert_mounted vms
run 0 systemctl stop "$(systemd-escape --path --suffix=automount "$T/mnt/vms")"
unmount_all
for name in "${all[@]}"; do
    unit=$(systemd-escape --path --suffix=mount "$T/mnt/$name")
    run 0 systemctl start "$unit"
    assert_eq "$(n_mounts_at "$T/mnt/$name")" 1 "mounts at $name by systemd"
    assert_mounted "$name"
    run 0 systemctl stop "$unit"
    run 32 mountpoint "$T/mnt/$name"
done
unmount_all

# The units of the examples, first as they are, then for our folder.
export MANPATH=$T/root$PREFIX/share/man
for kind in mount automount; do
    run 0 env "SYSTEMD_UNIT_PATH=$(dirname "$example"):$T/units" systemd-analyze verify "mnt-vms.$kind"
    assert_eq "$(cat "$T/out")" '' "what systemd-analyze says to mnt-vms.$kind"
    sed "s|^Where=.*|Where=$T/mnt/vms|" "$(dirname "$example")/mnt-vms.$kind" \
        >"$T/units/$(systemd-escape --path --suffix=$kind "$T/mnt/vms")"
done
run 0 systemctl daemon-reload
unit=$(systemd-escape --path --suffix=automount "$T/mnt/vms")
run 0 systemctl start "$unit"
at_systemd ls "$T/mnt/vms/vm" >"$T/listed" || fail "the automount: $(tail -n 5 "$T/log.systemd")"
assert_mounted vms
assert_eq "$(unit_value "${unit%.automount}.mount" Description)" 'guest disks as files' 'the unit that mounted'
run 0 systemctl stop "$unit"
unmount_all

# At boot: no circle with libvirt's own units, which wait for all other file systems. Without nofail
# there would be one.
has_circle() {
    local units=$T/boot$RANDOM
    mkdir -p "$units/late"
    SYSTEMD_FSTAB=$1 /lib/systemd/system-generators/systemd-fstab-generator "$units" "$units/late" "$units/late"
    printf '%s\n' '[Unit]' Wants=local-fs.target Wants=remote-fs.target Wants=libvirtd.service >"$units/all.target"
    SYSTEMD_UNIT_PATH=$units:/lib/systemd/system systemd-analyze verify --man=no all.target >"$T/out" 2>&1
    grep -q 'ordering cycle' "$T/out"
}
sed 's/nofail,//' /etc/fstab >"$T/fstab.circle"
has_circle "$T/fstab.circle" || fail "no circle is found where there is one: $(cat "$T/out")"
if has_circle /etc/fstab; then
    fail "at boot: $(cat "$T/out")"
fi
