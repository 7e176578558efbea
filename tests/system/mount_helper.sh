#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# mount.virtsnapfs under the real mount(8): each flag, users, namespaces, statuses, and what umount,
# findmnt, df and others make of such a mount.
. "$(dirname "$0")/../lib/system.sh"
need fusermount3 findmnt setpriv nsenter
install_program

mkdir "$T/images" "$T/mnt"
truncate -s 1M "$T/images/a.raw"
MNT=$T/mnt
mounts+=("$MNT")
state=state=$T/state,min_free=1M
# The program's command line, which tells how it was called.
server_of() {
    local file
    for file in /proc/[0-9]*/cmdline; do
        if [[ $(tr '\0' ' ' <"$file" 2>/dev/null) == *" $MNT "* ]]; then
            file=${file#/proc/} && echo "${file%/cmdline}" && return
        fi
    done
}
gone() {
    run 0 virtsnapfs -o "$state" --wait "$MNT"
    wait_for 60 is_served_by_none || fail 'the program does not end'
    run 32 mountpoint "$MNT"
}

# Both types; what others see of the mount; each way to take it away.
for type in virtsnapfs fuse.virtsnapfs; do
    run 0 mount -t "$type" "dir:$T/images" "$MNT" -o "$state"
    assert_eq "$(cat "$T/out")" '' "what mount -t $type says"
    assert_match "$(tr '\0' ' ' <"/proc/$(server_of)/cmdline")" "^/sbin/mount.$type " 'the helper called'
    assert_eq "$(ls "$MNT")" a.raw 'the tree'
    assert_eq "$(findmnt -nro SOURCE,FSTYPE "$MNT")" "dir:$T/images fuse.virtsnapfs" findmnt
    assert_match "$(findmnt -no OPTIONS "$MNT")" '^rw,nosuid,nodev,' 'its options'
    run 0 mountpoint "$MNT"
    run 0 df "$MNT"
    says "^dir:$T/images +0 +0 +0 +- $MNT\$"
    # A dash for a file system without a size: a df of all leaves it out, as it does with /proc.
    df | grep -F "$MNT" && fail 'df of all lists it'
    if [[ $type == virtsnapfs ]]; then
        run 0 umount "$MNT"
    else
        run 0 fusermount3 -u "$MNT"
    fi
    gone
done
run 0 mount -t virtsnapfs "dir:$T/images" "$MNT" -o "$state"
exec 5<"$MNT/a.raw/snapshots/now.raw"
run 32 umount "$MNT"
says busy
run 0 umount -l "$MNT"
exec 5<&-
gone

# -v says what was done; -n changes nothing; -r and -o ro and rw are ro and rw.
run 0 mount -v -n -t virtsnapfs "dir:$T/images" "$MNT" -o "$state"
says "^mount.virtsnapfs: 'dir:$T/images' mounted on '$MNT'\$"
run 0 umount "$MNT"
gone
run 0 mount -r -t virtsnapfs "dir:$T/images" "$MNT" -o "$state"
assert_match "$(findmnt -no OPTIONS "$MNT")" '^ro,' 'options of mount -r'
assert_errno EROFS open "$MNT/a.raw/upload" O_WRONLY
run 0 umount "$MNT"
gone
run 0 mount -t virtsnapfs "dir:$T/images" "$MNT" -o "ro,$state,rw"
assert_match "$(findmnt -no OPTIONS "$MNT")" '^rw,' 'options of -o ro,rw'
run 0 umount "$MNT"
gone

# What is mounted is not mounted once more, and mount -a does not try.
echo "dir:$T/images $MNT virtsnapfs $state 0 0" >>/etc/fstab
run 0 mount "$MNT"
run 0 mount -a
run 32 mount "$MNT"
says 'already mounted|already served'
run 32 mount -t virtsnapfs "dir:$T/images" "$MNT" -o "$state"
says 'already served by virtsnapfs \(process [0-9]+\)'
sed -i '$d' /etc/fstab
assert_eq "$(findmnt -nro TARGET -t fuse.virtsnapfs "$MNT" | wc -l)" 1 'mounts there'
run 0 umount "$MNT"
gone

# -f mounts nothing, and does not even ask libvirt, but finds what cannot be.
run 0 mount -f -t virtsnapfs "dir:$T/images" "$MNT" -o "$state"
run 0 mount -f -t virtsnapfs 'qemu:///system?socket=/nowhere' "$MNT" -o "$state"
run 32 mountpoint "$MNT"
run 32 mount -f -t virtsnapfs "dir:$T/images" "$T/nowhere" -o "$state"
says nowhere
run 32 mount -f -t virtsnapfs "dir:$T/nowhere" "$MNT" -o "$state"
says nowhere
run 1 mount -f -t virtsnapfs qemu+ssh://localhost/system "$MNT" -o "$state"
says 'another machine'
run 1 mount -f -t virtsnapfs "dir:$T/images" "$MNT" -o "$state,frobnicate"
says frobnicate

# -s drops unknown options, and only those.
run 1 mount -t virtsnapfs "dir:$T/images" "$MNT" -o "$state,frobnicate=1"
says frobnicate
run 0 mount -s -t virtsnapfs "dir:$T/images" "$MNT" -o "frobnicate=1,$state,umask=0377"
assert_eq "$(stat -c %a "$MNT/a.raw/snapshots/now.raw")" 400 'mode by an option beside an unknown one'
run 0 umount "$MNT"
gone

# Statuses, and the reason in the program's own words.
run 2 mount -t virtsnapfs "dir:$T/nowhere" "$MNT" -o "$state"
says "virtsnapfs: error: .*nowhere"
run 32 mount -t virtsnapfs 'qemu:///system?socket=/nowhere' "$MNT" -o "$state,timeout=2"
says 'virtsnapfs: error: .*/nowhere'
run 32 mount.virtsnapfs "dir:$T/images" "$T/nowhere" -o "$state"
run 1 mount.virtsnapfs "dir:$T/images"
says DIR
run 0 mount.virtsnapfs -h
says '^usage: mount.virtsnapfs'

# What mount(8), fstab and systemd say among themselves never gets to libfuse.
words=defaults,auto,noauto,nofail,_netdev,user,nouser,owner,group,comment=x,x-a.b=c,X-d,suid,nosuid,dev,nodev
words+=,exec,noexec,atime,noatime,diratime,nodiratime,relatime,norelatime,strictatime,lazytime,sync,async
words+=,dirsync,silent,loud,mand,nomand,iversion,noiversion,nosymfollow,uhelper=x,helper=x,rw
run 0 mount -t virtsnapfs "dir:$T/images" "$MNT" -o "$state,$words"
assert_match "$(findmnt -no OPTIONS "$MNT")" '^rw,nosuid,nodev,' 'options beside many words'
# A remount changes nothing, and says so; the kernel's own kind of it works.
run 1 mount -o remount "$MNT"
says 'cannot be changed'
run 1 mount -s -o remount,join=1 "$MNT"
run 0 mount -o remount,bind,ro "$MNT"
assert_errno EROFS open "$MNT/a.raw/upload" O_WRONLY
# What a crash leaves is in nobody's way, but mount -a takes it for mounted.
kill -KILL "$(server_of)"
wait_for 10 is_served_by_none
echo "dir:$T/images $MNT virtsnapfs $state 0 0" >>/etc/fstab
run 0 mount -a
run 2 ls "$MNT"
run 0 mount "$MNT"
says 'had died'
sed -i '$d' /etc/fstab
assert_eq "$(ls "$MNT")" a.raw 'the tree after a crash'
run 0 umount "$MNT"
gone

# -N, as a process and as a path: mounted there, and not here.
unshare --mount --propagation private sleep infinity &
other=$!
pids+=("$other")
wait_for 10 test "$(readlink /proc/self/ns/mnt)" != "$(readlink "/proc/$other/ns/mnt")"
for namespace in "$other" "/proc/$other/ns/mnt"; do
    run 0 mount -N "$namespace" -t virtsnapfs "dir:$T/images" "$MNT" -o "$state"
    run 32 mountpoint "$MNT"
    assert_eq "$(nsenter -t "$other" -m ls "$MNT")" a.raw 'the tree in the other namespace'
    run 0 umount -N "$namespace" "$MNT"
    gone
done
run 32 mount.virtsnapfs "dir:$T/images" "$MNT" -N "$T/nowhere" -o "$state"
says nowhere

# A user's line in fstab: the helper is run as that user, who can take the mount away.
as_user() {
    local uid=$1 wanted=$2
    shift 2
    run "$wanted" env HOME=/ setpriv "--reuid=$uid" "--regid=$uid" --clear-groups "$@"
}
mkdir "$T/theirs"
chown 65534 "$T/theirs" "$MNT"
echo "dir:$T/images $MNT virtsnapfs noauto,user,nofail,state=$T/theirs 0 0" >>/etc/fstab
as_user 65534 0 mount "$MNT"
as_user 65534 0 cat "$MNT/a.raw/snapshots/now.raw"
run 2 ls "$MNT/a.raw"
assert_match "$(findmnt -no OPTIONS "$MNT")" 'user_id=65534' "whose mount it is"
as_user 1 32 umount "$MNT"
as_user 65534 0 umount "$MNT"
state=state=$T/theirs
gone
as_user 65534 0 mount "$MNT"
run 0 umount "$MNT"
gone
# Who does not own the folder may not mount there.
as_user 1 32 mount "$MNT" -o "state=$T"
