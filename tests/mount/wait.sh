#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# --wait: until the server of a mountpoint has ended, mounted or not.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir "$T/images" "$T/elsewhere"
make_qcow2 "$T/images/a.qcow2"
waiters=()
kill_waiters() {
    kill -KILL "${waiters[@]}" 2>/dev/null
}
at_exit kill_waiters

# start_wait ARGUMENT...: sets WAITER.
start_wait() {
    # shellcheck disable=SC2086
    $VIRTSNAPFS -o "state=$T/state" --wait "$@" </dev/null >"$T/log.wait" 2>&1 &
    WAITER=$!
    waiters+=("$WAITER")
}
# assert_wait STATUS WHAT: the waiter ends with that status.
assert_wait() {
    local status=0
    wait_for 60 is_gone_or_zombie "$WAITER" || fail "$2: still waits"
    wait "$WAITER" || status=$?
    assert_eq "$status" "$1" "$2"
}
# The server's file, and how many wait for its lock.
lock_file() {
    echo "$T"/state/mounts/*-*
}
n_blocked() {
    grep -c -- "-> OFDLCK .*:$(stat -c %i "$(lock_file)") " /proc/locks
}
are_blocked() {
    [[ $(n_blocked) == "$1" ]]
}
assert_blocked() {
    wait_for 30 are_blocked "$1" || fail "$(n_blocked) wait, wanted $1: $(cat /proc/locks)"
}
# umount(8) would ask the server, which is stopped.
umount_of_stopped() {
    python3 -c 'import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.umount2(os.fsencode(sys.argv[1]), 0):
    sys.exit(os.strerror(ctypes.get_errno()))' "$MNT" || fail "cannot unmount $MNT"
}

# Nothing to wait for: no mount ever, a folder that is gone, somebody else's mount.
start_wait "$T/elsewhere"
assert_wait 0 'never mounted'
start_wait "$T/nowhere"
assert_wait 0 'no such folder'
assert_match "$(cat "$T/log.wait")" "warning: there is no '$T/nowhere'" 'no such folder'
start_wait /proc
assert_wait 0 "another's mount"
start_wait "$T/nowhere/at/all"
assert_wait 2 'no way to such a folder'

# Two wait for one that is mounted, by whatever path; its end lets both go.
mount_start "dir:$T/images"
assert_eq "$(cat "$(lock_file)")" "$PID"$'\n'"dir:$T/images" 'the file'
assert_eq "$(stat -c %a "$(lock_file)" "$T/state/mounts" | xargs)" '600 700' 'modes'
ln -s "$MNT" "$T/link"
start_wait "$T/link"
first=$WAITER
start_wait "$T/elsewhere/../$(basename "$MNT")/"
assert_blocked 2
mount_stop
assert_wait 0 'after umount'
WAITER=$first
assert_wait 0 'the other one'
assert_eq "$(ls "$T/state/mounts")" '' 'files after the end'

# Unmounted, the folder deleted, and the server not done yet.
mount_start "dir:$T/images"
kill -STOP "$PID"
umount_of_stopped
rmdir "$MNT"
start_wait "$MNT"
assert_blocked 1
start_wait "$MNT"
assert_blocked 2
kill -TERM "$WAITER"
assert_wait 143 'a waiter that was interrupted'
assert_blocked 1
WAITER=${waiters[-2]}
kill -CONT "$PID"
assert_wait 0 'after the end'
mount_wait_end 0

# A server that begins meanwhile at the same place is none to wait for.
mount_start "dir:$T/images"
old=$PID
kill -STOP "$old"
umount_of_stopped
start_wait "$MNT"
assert_blocked 1
mount_start_at "dir:$T/images"
kill -CONT "$old"
assert_wait 0 'with a new server at that place'
wait "$old" || fail 'the old server failed'
is_serving || fail 'the new server is gone'
start_wait "$MNT"
assert_blocked 1

# Killed: there is nobody to wait for, although a dead mount stays. The next server tidies up.
kill -KILL "$PID"
wait "$PID" 2>/dev/null || true
assert_wait 0 'a server that was killed'
start_wait "$MNT"
assert_wait 0 'a dead mount'
[[ -e $(lock_file) ]] || fail 'a killed server leaves its file'
# With another state= nobody can tell what it has left.
start_wait -o "state=$T/other" "$MNT"
assert_wait 2 'a dead mount with another state='
assert_match "$(cat "$T/log.wait")" 'has died, and had another state=' 'what it says of that'
mount_start_at "dir:$T/images"
assert_eq "$(head -n 1 "$(lock_file)")" "$PID" 'the only file now'

# Killed, with domains in the journal of its source: said, also when it is unmounted, by those that
# waited and those that come later; until they are put back, or another daemon has taken them over.
prefix=$(printf 'dir:%s' "$T/images" | sha256sum | head -c 16)
entry=$T/state/journal/$prefix-0123456789abcdef/virtsnapfs-0123456789abcdef.json
(umask 077 && mkdir -p "${entry%/*}")
start_wait "$MNT"
assert_blocked 1
(umask 077 && touch "${entry%/*}/lock" "$entry")
kill -KILL "$PID"
wait "$PID" 2>/dev/null || true
left="error: process $PID, which served '$MNT', is gone, and domains are not put back: 1;"
assert_wait 2 'a server that was killed and left something'
assert_match "$(cat "$T/log.wait")" "$left" 'what it says of what is left'
umount "$MNT"
start_wait "$MNT"
assert_wait 2 'the same without a mount'
assert_match "$(cat "$T/log.wait")" "$left .*--recover dir:$T/images" 'what it says without a mount'
python3 -c 'import fcntl, struct, sys, time
f = open(sys.argv[1], "r+")
fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK
print("locked", flush=True)
time.sleep(600)' "${entry%/*}/lock" >"$T/holder" &
holder=$!
waiters+=("$holder")
wait_for 30 grep -q locked "$T/holder" || fail 'no lock'
start_wait "$MNT"
assert_wait 0 'taken over by another'
kill "$holder"
wait "$holder" 2>/dev/null || true
rm -r "$T/state/journal"
start_wait "$MNT"
assert_wait 0 'put back'
mount_start_at "dir:$T/images"

# Another state= does not know this server, and must not say that it has ended.
status=0
# shellcheck disable=SC2086
$VIRTSNAPFS -o "state=$T/other" --wait "$MNT" 2>"$T/err" || status=$?
assert_eq "$status" 2 'with another state='
assert_match "$(cat "$T/err")" 'another state=' 'what it says'
mount_stop

# Where no file can be written it serves all the same, and says so.
mount_start "dir:$T/images" -o state=/proc/nowhere
assert_log 'warning: .*--wait will not wait' 'no file'
mount_stop
