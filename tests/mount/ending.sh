#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The ways to end: umount, SIGTERM with an open reader, kill -9 and a mount over the dead one.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir "$T/images"
make_qcow2 "$T/images/a.qcow2"
oracle "$T/images/a.qcow2" qcow2 "$T/a.raw"
image_is_free() {
    qemu-io -f qcow2 -c info "$T/images/a.qcow2" >/dev/null 2>&1 # opens it for writing
}

# SIGTERM: the reader gets EIO or ENOTCONN, the program ends with 0, nothing stays mounted.
for signal in TERM INT HUP; do
    mount_start "dir:$T/images"
    exec {fd}<"$MNT/a.qcow2/snapshots/now.raw"
    head -c 1 <&"$fd" >/dev/null
    kill -"$signal" "$PID"
    mount_wait_end 0
    if is_mounted "$MNT"; then
        fail "still mounted after SIG$signal"
    fi
    if dd bs=1M skip=3 iflag=direct <&"$fd" >/dev/null 2>&1; then
        fail "a read after SIG$signal gave bytes"
    fi
    exec {fd}<&-
    image_is_free || fail "the image is still locked after SIG$signal"
done

# umount -l under a reader: as on SIGTERM, the reader gets an error and the program ends.
mount_start "dir:$T/images"
exec {fd}<"$MNT/a.qcow2/snapshots/now.raw"
head -c 1 <&"$fd" >/dev/null
umount -l "$MNT"
mount_wait_end 0
if dd bs=1M skip=3 iflag=direct <&"$fd" >/dev/null 2>&1; then
    fail 'a read after umount -l gave bytes'
fi
exec {fd}<&-
image_is_free || fail 'the image is still locked after umount -l'

# The same where a copy of the mount lives on in a namespace of somebody else's.
mount_start "dir:$T/images"
unshare --mount --propagation private sleep 300 &
holder=$!
until nsenter --mount="/proc/$holder/ns/mnt" findmnt -n "$MNT" >/dev/null 2>&1 &&
    [[ $(readlink "/proc/$holder/ns/mnt") != "$(readlink /proc/self/ns/mnt)" ]]; do
    sleep 0.05
done
umount "$MNT"
mount_wait_end 0
kill "$holder"
wait "$holder" 2>/dev/null || true

# What lies below the mount stays, whoever is first to notice the umount.
mkdir "$T/below"
mount -t tmpfs virtsnapfs-below "$T/below"
mounts+=("$T/below")
for ((i = 0; i < 12; i++)); do
    MNT=$T/below LOG=$T/log.below
    mount_start_at "dir:$T/images"
    wait_for 20 test -e "$MNT/a.qcow2" || fail 'no mount over another one'
    head -c 1 "$MNT/a.qcow2/snapshots/now.raw" >/dev/null
    mount_stop
    grep -q " $T/below .* virtsnapfs-below " /proc/self/mountinfo || fail "umount $i took what lay below"
done
if grep 'failed to unmount' "$T/log.below"; then
    fail 'an unmount of what is unmounted'
fi
umount "$T/below"
unset "mounts[-1]"

# A plain umount under a reader is refused and harms nothing.
mount_start "dir:$T/images"
exec {fd}<"$MNT/a.qcow2/snapshots/now.raw"
if umount "$MNT" 2>/dev/null; then
    fail 'umount of a busy mount'
fi
cmp /dev/fd/"$fd" "$T/a.raw" || fail 'bytes after a refused umount'
exec {fd}<&-

# kill -9 leaves a dead mount; the next start at the same place detaches it.
kill -KILL "$PID"
wait "$PID" 2>/dev/null || true
assert_errno ENOTCONN lstat "$MNT/a.qcow2"
mount_start_at "dir:$T/images"
assert_same_bytes "$MNT/a.qcow2/snapshots/now.raw" "$T/a.raw"
assert_eq "$(grep -c " $MNT " /proc/self/mountinfo)" 1 'mounts at that place'
mount_stop

# What is served is not hidden under a second mount, by whatever path, source or state=; the first one
# never notices. Dead ones that lie over it (as a server of before could leave them) are taken away.
refuse() {
    local status=0
    # shellcheck disable=SC2086
    timeout 60 $VIRTSNAPFS "$@" </dev/null >"$T/log.refused" 2>&1 || status=$?
    assert_eq "$status" 4 "status of virtsnapfs $*"
}
n_mounts_here() {
    grep -c " $MNT .* - fuse.virtsnapfs" /proc/self/mountinfo
}
mount_start "dir:$T/images"
refuse -o "state=$T/state" "dir:$T/images" "$MNT"
assert_eq "$(cat "$T/log.refused")" \
    "virtsnapfs: error: '$MNT' is already served by virtsnapfs (process $PID); umount it first" 'reason'
ln -s "$MNT" "$T/link"
refuse -f -o "state=$T/state" "dir:$T/below" "$T/link/"
assert_match "$(cat "$T/log.refused")" "'$MNT' is already served by virtsnapfs \(process $PID\)" 'by a link'
refuse -o "state=$T/other,sandbox=no" "dir:$T/images" "$MNT"
assert_match "$(cat "$T/log.refused")" 'already served by virtsnapfs; umount' 'with another state='
# Before anything is connected: this source is nobody's.
refuse -o "state=$T/state" "qemu:///system?socket=$T/nowhere" "$MNT"
assert_eq "$(n_mounts_here)" 1 'mounts after those that were refused'
is_serving || fail 'the first mount does not answer'
assert_same_bytes "$MNT/a.qcow2/snapshots/now.raw" "$T/a.raw"
mount_stop

# A start that hangs: the signal ends what a person waits for at once, and what is left of it as soon as
# libvirt says anything; nothing is mounted.
# shellcheck disable=SC2086
python3 - "$T" $VIRTSNAPFS <<'PY'
import os, signal, socket, subprocess, sys

folder, *program = sys.argv[1:]
mountpoint = folder + "/mnt.hung"
os.mkdir(mountpoint)
with socket.socket(socket.AF_UNIX) as libvirt:
    libvirt.bind(folder + "/hung")
    libvirt.listen()
    libvirt.settimeout(60)
    for number, is_ignored in ((signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGHUP, True)):
        before = signal.signal(number, signal.SIG_IGN) if is_ignored else None
        start = subprocess.Popen([*program, "-o", f"timeout=1h,state={folder}/state",
                                  f"qemu:///system?socket={folder}/hung", mountpoint],
                                 restore_signals=False, stderr=subprocess.DEVNULL)
        if is_ignored:
            signal.signal(number, before)
        connection = libvirt.accept()[0]
        connection.recv(1)
        start.send_signal(number)
        if is_ignored:  # as by nohup(1)
            try:
                sys.exit(f"an ignored signal ended it: {start.wait(2)}")
            except subprocess.TimeoutExpired:
                connection.close()
                status = start.wait(60)
                if status != 3:
                    sys.exit(f"a libvirt that hangs up: status {status}")
                continue
        try:
            status = start.wait(60)
        except subprocess.TimeoutExpired:
            sys.exit(f"{number} does not end a start that hangs")
        connection.close()
        if status != -number:
            sys.exit(f"{number}: status {status}")
if os.path.ismount(mountpoint):
    sys.exit("something is mounted")
PY
MNT=$T/mnt.hung
wait_for 60 is_served_by_none || fail 'what a person has given up goes on'
