#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the running program has given up, on all its threads, as the kernel tells it; sandbox=no; and
# the broker, which ends with it.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img setpriv

mkdir "$T/images"
make_qcow2 "$T/images/a.qcow2"
oracle "$T/images/a.qcow2" qcow2 "$T/a.raw"

is_tsan=''
[[ ! $(ldd "${VIRTSNAPFS##* }") =~ libtsan ]] || is_tsan=yes

# threads_of PROCESS: but for one of the thread sanitizer's own, the second, which it begins in a process
# that was forked before that can confine itself. (Capabilities are given up by one thread for itself.)
threads_of() {
    local threads
    threads=$(find "/proc/$1/task" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -n)
    if [[ -n $is_tsan && $1 != "$PID" ]]; then
        threads=$(sed 2d <<<"$threads")
    fi
    echo "$threads"
}

# limit_of PROCESS NAME: of /proc/PID/status, the same for all threads.
limit_of() {
    local values thread
    values=$(for thread in $(threads_of "$1"); do
        sed -n "s/^$2:\t//p" "/proc/$1/task/$thread/status"
    done | sort -u)
    assert_eq "$(wc -l <<<"$values")" 1 "$2 of all threads: $values"
    echo "$values"
}
# Of its one thread: the thread sanitizer adds another.
limit_of_broker() {
    sed -n "s/^$1:\t//p" "/proc/$((broker))/status"
}
broker_of() {
    cat "/proc/$1/task/"*/children
}
assert_confined() {
    assert_eq "$(limit_of "$1" NoNewPrivs)" 1 'no_new_privs'
    assert_eq "$(limit_of "$1" Seccomp)" 2 'a filter for system calls'
    # (Only root can empty this one; of a user's programs none gets anything from it.)
    [[ $(limit_of "$1" Uid) != 0* ]] ||
        assert_eq "$(limit_of "$1" CapBnd)" 0000000000000000 'capabilities of a program that is run'
    assert_eq "$(limit_of "$1" CapInh)" 0000000000000000 'inherited capabilities'
    assert_eq "$(limit_of "$1" CapEff)" "$2" 'effective capabilities'
    assert_eq "$(limit_of "$1" CapPrm)" "$2" 'permitted capabilities'
}
is_gone() {
    [[ ! -e /proc/$1 ]]
}

# CAP_DAC_READ_SEARCH alone, and reading works.
mount_start "dir:$T/images" -o threads=4
assert_same_bytes "$MNT/a.qcow2/snapshots/now.raw" "$T/a.raw"
assert_confined "$PID" 0000000000000004
assert_eq "$(status_value a.qcow2 '[s["sandbox"][k] for k in ("on", "no_new_privs", "seccomp", "capabilities")]')" \
    '[true, true, true, ["dac_read_search"]]' 'sandbox in status'
# As the kernel has it: 0 is none.
abi=$(python3 -c 'import ctypes; print(max(0, ctypes.CDLL(None).syscall(444, None, 0, 1)))')
assert_eq "$(status_value a.qcow2 's["sandbox"]["landlock_abi"]')" "$abi" 'version of Landlock'
# shellcheck disable=SC2086
told=$($VIRTSNAPFS --status --json "$MNT" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["domains"][0]["sandbox"]["seccomp"])')
assert_eq "$told" True 'sandbox in virtsnapfs --status --json'
broker=$(broker_of "$PID")
assert_eq "$(limit_of_broker NoNewPrivs)" 1 'no_new_privs of the broker'
# DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, SYS_ADMIN
assert_eq "$(limit_of_broker CapEff)" 000000000020000e 'capabilities of the broker'
mount_stop
wait_for 20 is_gone "$((broker))" || fail 'the broker outlives the program'

# Killed: the broker goes, the dead mount stays until the next start.
mount_start "dir:$T/images"
broker=$(broker_of "$PID")
kill -TERM "$((broker))" # as systemd does to all at once: it stays for the unmount
kill -KILL "$PID"
wait "$PID" 2>/dev/null || true
wait_for 20 is_gone "$((broker))" || fail 'the broker outlives a program that was killed'
assert_errno ENOTCONN lstat "$MNT/a.qcow2"
mount_start_at "dir:$T/images"
mount_stop

# The broker killed alone: one line tells, reading goes on, and an unmount ends the program well.
mount_start "dir:$T/images"
broker=$(broker_of "$PID")
kill -KILL "$((broker))"
assert_log 'error: the broker, .*, was killed: .*; mount again' 'the end of the broker'
assert_same_bytes "$MNT/a.qcow2/snapshots/now.raw" "$T/a.raw"
mount_stop
assert_eq "$(grep -c 'the broker,' "$LOG")" 1 'lines about the broker'

# All of the state directory is written as before, and a foreign owner's too.
chown 65534 "$T/state"
mount_start "dir:$T/images"
assert_confined "$PID" 0000000000000006
mount_stop
chown 0 "$T/state"

# With standard streams that are closed, no other file gets their numbers.
MNT=$T/mnt.closed LOG=$T/log.closed
mkdir "$MNT"
: >"$LOG"
# shellcheck disable=SC2086
$VIRTSNAPFS -f -o "state=$T/state" "dir:$T/images" "$MNT" <&- >&- 2>&- &
PID=$!
mounts+=("$MNT")
pids+=("$PID")
wait_for "$READY_DEADLINE_S" ready_or_dead || fail 'no mount without standard streams'
broker=$(broker_of "$PID")
for fd in 0 1 2; do
    assert_eq "$(readlink "/proc/$PID/fd/$fd")" /dev/null "descriptor $fd, which was closed"
    assert_eq "$(readlink "/proc/$((broker))/fd/$fd")" /dev/null "descriptor $fd of the broker"
done
assert_same_bytes "$MNT/a.qcow2/snapshots/now.raw" "$T/a.raw"
mount_stop

# Off.
mount_start "dir:$T/images" -o sandbox=no
assert_eq "$(status_value a.qcow2 's["sandbox"]')" '{"on": false}' 'sandbox=no in status'
assert_eq "$(limit_of "$PID" NoNewPrivs)" 0 'no_new_privs with sandbox=no'
assert_eq "$(limit_of "$PID" Seccomp)" 0 'filter with sandbox=no'
assert_eq "$(broker_of "$PID")" '' 'broker with sandbox=no'
mount_stop
for value in '=maybe' '=' ''; do
    status=0
    # shellcheck disable=SC2086
    $VIRTSNAPFS -o "sandbox$value" "dir:$T/images" "$T" >"$T/out" 2>&1 || status=$?
    assert_eq "$status" 1 "exit status of sandbox$value"
    grep -q sandbox "$T/out" || fail "sandbox$value: $(cat "$T/out")"
done

# In the background: the same, and nobody is left at the end.
MNT=$T/mnt.background
mkdir "$MNT"
mounts+=("$MNT")
# shellcheck disable=SC2086
$VIRTSNAPFS -o "state=$T/state" "dir:$T/images" "$MNT" </dev/null
server=$(head -q -n 1 "$T/state/mounts/"*)
assert_confined "$server" 0000000000000004
broker=$(broker_of "$server")
for fd in 0 1 2; do
    assert_eq "$(readlink "/proc/$((broker))/fd/$fd")" /dev/null "descriptor $fd of the broker"
done
assert_eq "$(readlink "/proc/$((broker))/cwd")" / 'working folder of the broker'
mount_stop_detached
wait_for 20 is_gone "$((broker))" || fail 'the broker outlives the daemon'

# A user's, which a unit gave the one capability that is needed for images of others.
MNT=$T/mnt.ambient LOG=$T/log.ambient
mkdir "$MNT" "$T/state.ambient"
chmod 600 "$T/images/a.qcow2"
chown 65534:65534 "$MNT" "$T/state.ambient"
# shellcheck disable=SC2086
setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+dac_read_search,+sys_admin --ambient-caps=+dac_read_search,+sys_admin \
    $VIRTSNAPFS -f -o "state=$T/state.ambient" "dir:$T/images" "$MNT" </dev/null >"$LOG" 2>&1 &
PID=$!
pids+=("$PID")
mounts+=("$MNT")
wait_for 60 grep -q serving "$LOG" || fail "no mount with a capability: $(cat "$LOG")"
assert_confined "$PID" 0000000000000004
setpriv --reuid=65534 --regid=65534 --clear-groups \
    cmp "$MNT/a.qcow2/snapshots/now.raw" "$T/a.raw" || fail "a mount with a capability"
kill -TERM "$PID"
mount_wait_end 0

# A user who mounts for himself has nothing to keep; fusermount3 mounts and unmounts for him.
if [[ -u $(command -v fusermount3) ]]; then
    mkdir -m 700 "$T/own" "$T/own/images" "$T/own/mnt"
    cp "$T/images/a.qcow2" "$T/own/images"
    chown -R 65534:65534 "$T/own"
    : >"$T/log.own"
    # shellcheck disable=SC2086
    setpriv --reuid=65534 --regid=65534 --clear-groups \
        $VIRTSNAPFS -f -o "state=$T/own/state" "dir:$T/own/images" "$T/own/mnt" \
        </dev/null >"$T/log.own" 2>&1 &
    PID=$! MNT=$T/own/mnt LOG=$T/log.own
    pids+=("$PID")
    mounts+=("$MNT")
    wait_for 60 grep -q serving "$LOG" || fail "no mount of a user's: $(cat "$LOG")"
    assert_confined "$PID" 0000000000000000
    setpriv --reuid=65534 --regid=65534 --clear-groups \
        cmp "$MNT/a.qcow2/snapshots/now.raw" "$T/a.raw" || fail "a user's own mount"
    kill -TERM "$PID"
    mount_wait_end 0
    if is_mounted "$MNT"; then
        fail "a user's mount stays"
    fi
fi
