#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# -o words as fstab and mount(8) hand them over, and what uid=, gid= and umask= do.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir "$T/images" "$T/a,b"
make_qcow2 "$T/images/a.qcow2"
truncate -s 1M "$T/a,b/base.raw"
qemu-img create -q -f qcow2 -F raw -b "$T/a,b/base.raw" "$T/images/over.qcow2"

mount_start "dir:$T/images" \
    -o 'nofail,_netdev,user,noauto,x-systemd.automount,x-gvfs-hide,rw,nosuid,nodev,noexec,relatime' \
    -o "uid=1234,gid=99,umask=0027,cache=8M,linger=0,max_open=4,backing_dir=$T/a\\,b"
now=$MNT/a.qcow2/snapshots/now.raw
assert_eq "$(stat -c '%u %g %a' "$now")" '1234 99 440' 'owner and mode of a file'
assert_eq "$(stat -c '%u %g %a' "$MNT/a.qcow2")" '1234 99 550' 'owner and mode of a folder'
assert_errno OK read "$MNT/over.qcow2/snapshots/now.raw" 0 512
assert_match "$(grep " $MNT " /proc/self/mountinfo)" 'fuse\.virtsnapfs' 'type of the mount'
mount_stop

# The long options and options behind the operands.
MNT=$T/mnt.words
mkdir "$MNT"
LOG=$T/log.words
mount_words() {
    # shellcheck disable=SC2086
    $VIRTSNAPFS "$@" </dev/null >>"$LOG" 2>&1 &
    PID=$!
    mounts+=("$MNT")
    pids+=("$PID")
    wait_for 60 ready_or_dead
    is_serving || fail "no mount: $(tail -n 3 "$LOG")"
}
mount_words "dir:$T/images" "$MNT" -f -o ro "--state=$T/state" --umask=0377
assert_eq "$(stat -c %a "$MNT/a.qcow2/snapshots/now.raw")" 400 'mode by a long option'
mount_stop

# -d serves in the foreground and says what it does; -s serves with one thread.
mount_words -d -s -o "state=$T/state" "dir:$T/images" "$MNT"
head -c 1 "$MNT/a.qcow2/snapshots/now.raw" >/dev/null
mount_stop

# mount(8), by its own helper for FUSE types. That finds the program in the standard folders only,
# so one of them is covered for as long as this test runs, for this test only.
cat >"$T/virtsnapfs" <<END
#!/bin/sh
exec $VIRTSNAPFS "\$@"
END
chmod +x "$T/virtsnapfs"
# shellcheck disable=SC2016
unshare --mount bash -euc '
    mount -t tmpfs none /usr/local/bin
    cp "$1/virtsnapfs" /usr/local/bin
    mount -t fuse.virtsnapfs -o "nofail,_netdev,x-a.b=c,state=$1/state" "dir:$1/images" "$2"
    ls "$2"
    umount "$2"
' - "$T" "$MNT" >"$T/listed" 2>"$T/err" || fail "mount -t fuse.virtsnapfs: $(cat "$T/err")"
assert_eq "$(tr '\n' ' ' <"$T/listed")" 'a.qcow2 over.qcow2 ' 'the tree by mount(8)'
wait_for 60 is_served_by_none || fail 'the program started by mount(8) does not end'
