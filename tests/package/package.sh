#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The Debian package, from the tarball that meson dist makes: built, judged by lintian, installed,
# used by a line in fstab, removed. Nothing is left then, but for what must not be lost.
#
# This machine is the one that it is installed on: seen through an overlay in a mount namespace of our
# own, so that each change is a file in $upper.
[[ -n ${PACKAGE_NAMESPACE:-} ]] ||
    PACKAGE_NAMESPACE=yes exec unshare --mount --pid --fork --kill-child --mount-proc \
        --propagation private "$0" "$@"
. "$(dirname "$0")/../lib/mount.sh"
need dpkg-buildpackage dh lintian meson git qemu-img
source_dir=$(realpath "$(dirname "$0")/../..")
unset CC CXX CFLAGS CPPFLAGS LDFLAGS

# quietly NAME COMMAND...: shows the end of its log if it fails.
quietly() {
    local log=$T/log.$1
    shift
    "$@" >"$log" 2>&1 </dev/null || fail "$*: $(tail -n 20 "$log")"
}

# The tarball, of the files as they are now.
mkdir "$T/source" "$T/build" "$T/images"
(cd "$source_dir" && tests/lint/files.sh | tar -c --null -T -) | tar -x -C "$T/source"
git -C "$T/source" init -q
git -C "$T/source" add -A
git -C "$T/source" -c user.name=test -c user.email=test@localhost commit -qm all
quietly setup meson setup "$T/dist" "$T/source" -Dtests=false
quietly dist meson dist -C "$T/dist" --no-tests --formats xztar
version=$(dpkg-parsechangelog -l "$source_dir/debian/changelog" -S Version)
tar -x -C "$T/build" -f "$T/dist/meson-dist/virtsnapfs-${version%-*}.tar.xz" ||
    fail "debian/changelog has another version than meson.build: $version"
cp "$T/dist/meson-dist/virtsnapfs-${version%-*}.tar.xz" "$T/build/virtsnapfs_${version%-*}.orig.tar.xz"

# The package; the unit tests are a suite of their own here. A warning is put right, or explained in an
# override.
cd "$T/build/virtsnapfs-${version%-*}"
DEB_BUILD_OPTIONS="nocheck parallel=$(nproc)" DEB_BUILD_PROFILES=nocheck \
    quietly build dpkg-buildpackage -us -uc
cd /
changes=$(echo "$T/build"/*.changes) deb=$(echo "$T/build"/virtsnapfs_*.deb)
lintian --allow-root --fail-on error,warning "$changes" >"$T/log.lintian" 2>&1 ||
    fail "lintian: $(cat "$T/log.lintian")"

# The machine. What the test writes by itself does not count.
host=$T/host upper=$T/layer/upper
mkdir "$host" "$T/layer"
mount -t tmpfs tmpfs "$T/layer"
mkdir "$upper" "$T/layer/work"
mount -t overlay host "$host" -o "lowerdir=/,upperdir=$upper,workdir=$T/layer/work"
at_exit "umount -Rl '$host' '$T/layer'"
mount --rbind /dev "$host/dev"
mount --rbind /proc "$host/proc"
for folder in run srv mnt tmp; do
    mount -t tmpfs tmpfs "$host/$folder"
done
mkdir "$host/mnt/vms" "$host/srv/images" "$host/srv/bin"
ln -s "$T" "$host/srv/test"
cp "$deb" "$host/srv/virtsnapfs.deb"
make_qcow2 "$host/srv/images/fed18.qcow2"
oracle "$host/srv/images/fed18.qcow2" qcow2 "$T/wanted.raw"
echo 'dir:/srv/images /mnt/vms virtsnapfs defaults,nofail 0 0' >"$host/etc/fstab"
[[ ! -e $host/var/lib/virtsnapfs ]] || rm -r "$host/var/lib/virtsnapfs"

# on_host COMMAND...: its output is in $T/out.
on_host() {
    timeout 300 chroot "$host" /usr/bin/env -i LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive \
        PATH=/srv/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" >"$T/out" 2>&1 </dev/null ||
        fail "$*: status $?: $(cat "$T/out")"
}
says() {
    grep -q -- "$1" "$T/out" || fail "it said '$(cat "$T/out")', wanted '$1'"
}
# What differs from the machine as it was: changed, new and removed files, but for dpkg's own.
changed() {
    (cd "$upper" && find . -mindepth 1 | while IFS= read -r path; do
        [[ -d $upper/$path && -d /$path ]] || echo "${path#.}"
    done) | grep -Ev '^/var/(lib/dpkg|log|cache/(man|ldconfig|debconf))/|^/etc/ld\.so\.cache$' | sort
}
if dpkg-query -W virtsnapfs >/dev/null 2>&1; then
    fail 'a package virtsnapfs is installed on this machine'
fi
before=$(changed)
assert_nothing_left() {
    local after
    after=$(changed)
    [[ $after == "$before" ]] || fail "$1: $(diff <(echo "$before") <(echo "$after"))"
    if compgen -G "$host/var/lib/dpkg/info/virtsnapfs*" >"$T/out"; then
        fail "$1: $(cat "$T/out")"
    fi
}
is_ended() {
    # (The name comes by standard input, so that grep does not find itself.)
    # shellcheck disable=SC2062
    ! grep -Fqsxz --file=- /proc/[0-9]*/cmdline <<</mnt/vms
}

# Installed, mounted, copied, unmounted, removed.
on_host dpkg -i /srv/virtsnapfs.deb
on_host dpkg --verify virtsnapfs
assert_eq "$(cat "$T/out")" '' 'what dpkg --verify finds'
for file in /usr/bin/virtsnapfs /usr/libexec/virtsnapfs/virtsnapfs /sbin/mount.virtsnapfs \
    /sbin/mount.fuse.virtsnapfs '/usr/lib/systemd/system/virtsnapfs@.service' \
    /usr/share/bash-completion/completions/virtsnapfs /usr/share/doc/virtsnapfs/{README.md,fstab.example} \
    /usr/share/doc/virtsnapfs/docs/methods.md /usr/share/man/man1/virtsnapfs.1.gz \
    /usr/share/man/man8/mount.{fuse.,}virtsnapfs.8.gz; do
    on_host test -s "$file"
done
on_host virtsnapfs --version
assert_eq "$(cat "$T/out")" "virtsnapfs ${version%-*}" 'its version'
on_host mount /mnt/vms
on_host cp /mnt/vms/fed18.qcow2/snapshots/now.raw /srv/copy.raw
assert_same_bytes "$host/srv/copy.raw" "$T/wanted.raw"
on_host umount /mnt/vms
on_host virtsnapfs --wait /mnt/vms
# The program for libvirt is found as well.
on_host virtsnapfs test:///default /mnt/vms
on_host ls /mnt/vms
assert_eq "$(cat "$T/out")" test 'domains of the test driver'
on_host umount /mnt/vms
on_host virtsnapfs --wait /mnt/vms
[[ -n $(ls "$host/var/lib/virtsnapfs") ]] || fail 'nothing in /var/lib/virtsnapfs to be removed'
on_host dpkg -r virtsnapfs
[[ -d $host/var/lib/virtsnapfs && ! -e $host/usr/bin/virtsnapfs ]] || fail 'dpkg -r is not dpkg -P'
on_host dpkg -P virtsnapfs
assert_nothing_left 'after dpkg -P'

# Removed while it serves: services are stopped, by a systemd if there is one; other mounts are named
# and go on. An upgrade does neither.
for tool in deb-systemd-invoke systemctl; do
    printf '#!/bin/sh\necho "$@" >>/srv/invoked\n' >"$host/srv/bin/$tool"
    chmod +x "$host/srv/bin/$tool"
done
mkdir -p "$host/run/systemd/system"
on_host dpkg -i /srv/virtsnapfs.deb
on_host mount /mnt/vms
on_host dpkg -i /srv/virtsnapfs.deb
assert_eq "$(sort -u "$host/srv/invoked")" '--system daemon-reload' 'what an upgrade did to services'
on_host dpkg -r virtsnapfs
says '^  /mnt/vms$'
assert_eq "$(grep -v daemon-reload "$host/srv/invoked")" 'stop virtsnapfs@*.service' \
    'what the removal did to services'
on_host cp /mnt/vms/fed18.qcow2/snapshots/now.raw /srv/copy.raw
assert_same_bytes "$host/srv/copy.raw" "$T/wanted.raw"
on_host umount /mnt/vms
wait_for 60 is_ended || fail 'the server of a removed package does not end'

# A guest that is to be put back, and what somebody else keeps there, is never deleted.
entry=$host/var/lib/virtsnapfs/journal/0-0/virtsnapfs-0.json
mkdir -p "${entry%/*}"
echo '{}' >"$entry"
on_host dpkg -P virtsnapfs
says 'is kept: domains in it are not put back yet'
[[ -e $entry ]] || fail 'dpkg -P deleted an entry of the journal'
on_host dpkg -i /srv/virtsnapfs.deb
on_host dpkg -r virtsnapfs
says 'journal are not put back yet'
rm "$entry"
echo kept >"$host/var/lib/virtsnapfs/theirs"
on_host dpkg -P virtsnapfs
says 'files that are not the program'
assert_eq "$(cat "$host/var/lib/virtsnapfs/theirs")" kept 'a file of somebody else'
rm -r "$host/var/lib/virtsnapfs"
assert_nothing_left 'after all'
