# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For the scripts in mount/ and host/: a temporary folder, mounts that are waited for and taken
# down on any exit, and assertions that say what was found and what was wanted.
#
#   . "$(dirname "$0")/../lib/mount.sh"
#   mount_start "dir:$T/images" -o linger=1
#   assert_eq "$(stat -c %s "$MNT/a.raw/snapshots/now.raw")" 1048576 "size of a.raw"
#   mount_stop
#
# The program under test is $VIRTSNAPFS, which meson sets.

set -euo pipefail

LIB_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${VIRTSNAPFS:?is not set: run this by meson test, or set it to the program}"

export PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8
READY_DEADLINE_S=${READY_DEADLINE_S:-60}
# All deadlines are times this, where what is tested runs under something slow.
DEADLINE_FACTOR=${DEADLINE_FACTOR:-1}

# $T is this test's own. QEMU runs as another user and has to get to the images in it.
T=$(mktemp -d "${TMPDIR:-/tmp}/virtsnapfs-test.XXXXXX")
chmod 755 "$T"

# What the program runs under: valgrind. Each process, of whatever user, writes to a file of its own
# what was found in it, since nobody sees the exit status of a daemon, of the broker and its children.
if [[ -n ${VIRTSNAPFS_WRAPPER:-} ]]; then
    VIRTSNAPFS="$VIRTSNAPFS_WRAPPER $VIRTSNAPFS"
    mkdir -m 1777 "$T/valgrind"
    export VALGRIND_OPTS="--log-file=$T/valgrind/%p"
fi

# Of the mount started last; @mounts and @pids hold all of this test.
MNT='' LOG='' PID=''
n_mounts=0
mounts=() pids=() cleanups=()

# Adds a command for the end of the test, run in reverse order whatever happened.
at_exit() {
    cleanups+=("$*")
}

cleanup() {
    local status=$? i
    trap - EXIT
    set +e
    for ((i = ${#cleanups[@]} - 1; i >= 0; i--)); do
        eval "${cleanups[i]}"
    done
    for i in "${!mounts[@]}"; do
        umount -l "${mounts[i]}" 2>/dev/null
    done
    for i in "${!pids[@]}"; do
        kill -KILL "${pids[i]}" 2>/dev/null
        wait "${pids[i]}" 2>/dev/null
    done
    if print_valgrind_reports && ((status == 0)); then
        echo 'FAILED: valgrind complained' >&2
        status=1
    fi
    if ((status != 0 && status != 77)); then
        for i in "$T"/log.*; do
            [[ -e $i ]] && echo "--- $(basename "$i")" && tail -n 100 "$i"
        done
    fi
    if [[ -n ${KEEP:-} ]]; then
        echo "kept: $T"
    else
        rm -rf --one-file-system "$T"
    fi
    exit "$status"
}
trap cleanup EXIT
trap 'exit 143' TERM INT HUP

fail() {
    echo "FAILED: $*" >&2
    local i
    for ((i = 1; i < ${#FUNCNAME[@]}; i++)); do
        echo "  at ${BASH_SOURCE[i]}:${BASH_LINENO[i - 1]}" >&2
    done
    exit 1
}

skip() {
    echo "skipped: $*"
    exit 77
}

# Skips the test when one of the tools is missing.
need() {
    local tool
    for tool; do
        command -v "$tool" >/dev/null || skip "no $tool"
    done
}

is_mounted() {
    grep -q " $1 .* - fuse" /proc/self/mountinfo
}

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
    local deadline=$((SECONDS + $1 * DEADLINE_FACTOR))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# By the device number: a dead mount, which a start may find at its place, has none to tell, and the
# folder below it has its parent's.
is_serving() {
    local device
    device=$(stat -c %d "$MNT/." 2>/dev/null) && [[ $device != "$(stat -c %d "$MNT/..")" ]]
}

ready_or_dead() {
    is_serving || is_gone_or_zombie "$PID"
}

# mount_start SOURCE [OPTION...]: sets MNT, LOG and PID.
mount_start() {
    local source=$1
    shift
    n_mounts=$((n_mounts + 1))
    MNT=$T/mnt.$n_mounts LOG=$T/log.$n_mounts
    mkdir "$MNT"
    mount_start_at "$source" "$@"
}

# The same over the present MNT and LOG: a remount.
mount_start_at() {
    local source=$1
    shift
    # shellcheck disable=SC2086
    $VIRTSNAPFS -f -o "state=$T/state,min_free=1M" "$@" "$source" "$MNT" </dev/null >>"$LOG" 2>&1 &
    PID=$!
    mounts+=("$MNT")
    pids+=("$PID")
    wait_for "$READY_DEADLINE_S" ready_or_dead || fail "no mount after $READY_DEADLINE_S s"
    is_serving || fail "virtsnapfs ended at once: $(tail -n 3 "$LOG")"
}

# Unmounts the mount started last, and checks that the program ended well.
mount_stop() {
    umount "$MNT" || fail "cannot unmount $MNT"
    mount_wait_end 0
}

# mount_wait_end STATUS: the program ends by itself with that status.
mount_wait_end() {
    if ! wait_for 60 is_gone_or_zombie "$PID"; then
        show_threads "$PID"
        fail 'virtsnapfs still runs 60 s after its end'
    fi
    local status=0
    wait "$PID" || status=$?
    assert_eq "$status" "$1" "exit status of virtsnapfs"
    assert_no_sanitizer_report
    unset "pids[-1]" "mounts[-1]"
}

# A program that detached itself is none of our children: is one left that serves MNT?
is_served_by_none() {
    # (The name comes by standard input, so that grep does not find itself.)
    # shellcheck disable=SC2062
    ! grep -Fqsxz --file=- /proc/[0-9]*/cmdline <<<"$MNT"
}

# mount_stop for a mount whose program has detached itself.
mount_stop_detached() {
    umount "$MNT" || fail "cannot unmount $MNT"
    wait_for 60 is_served_by_none || fail 'the detached program does not end'
}

# Where a program that hangs does so.
show_threads() {
    local task
    for task in "/proc/$1/task"/*; do
        echo "thread $(cat "$task/comm") in $(cat "$task/wchan"), system call $(cat "$task/syscall")"
    done
    if command -v gdb >/dev/null; then
        timeout 60 gdb -p "$1" -batch -ex 'thread apply all bt 16' 2>/dev/null | grep '^[#T]'
    fi
}

is_gone_or_zombie() {
    local state
    state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) || return 0
    [[ $state == Z ]]
}

assert_no_sanitizer_report() {
    if grep -E 'ERROR: [A-Za-z]+Sanitizer|runtime error:|WARNING: ThreadSanitizer' "$LOG"; then
        fail "a sanitizer complained"
    fi
    if print_valgrind_reports; then
        fail 'valgrind complained'
    fi
}

# Of all processes up to now. False if there are none.
print_valgrind_reports() {
    [[ -d $T/valgrind ]] && grep -rhE '^==[0-9]+== ' "$T/valgrind"
}

# assert_eq FOUND WANTED WHAT
assert_eq() {
    [[ $1 == "$2" ]] || fail "$3: '$1', wanted '$2'"
}

# assert_match FOUND REGEX WHAT
assert_match() {
    [[ $1 =~ $2 ]] || fail "$3: '$1' does not match '$2'"
}

# assert_log REGEX WHAT: a line of the log, which may still be under way.
assert_log() {
    wait_for 5 grep -Eq -- "$1" "$LOG" || fail "$2: no line '$1' in the log"
}

# assert_errno ERRNO OPERATION...: what probe.py says of that operation ("OK" is an outcome too).
assert_errno() {
    local wanted=$1 found
    shift
    found=$(probe "$@")
    assert_eq "$found" "$wanted" "outcome of $*"
}

probe() {
    python3 "$LIB_DIR/probe.py" "$@"
}

assert_same_bytes() {
    cmp "$1" "$2" || fail "$1 and $2 differ"
}

# status_value DOMAIN EXPRESSION: of the domain's status as the Python object s.
status_value() {
    python3 -c 'import json, sys
s = json.load(open(sys.argv[1]))
v = eval(sys.argv[2])
print(v if isinstance(v, str) else json.dumps(v))' "$MNT/$1/status" "$2"
}

# make_qcow2 FILE [SIZE]: an image with a little content.
make_qcow2() {
    local size=${2:-4M}
    qemu-img create -q -f qcow2 "$1" "$size"
    qemu-io -f qcow2 -c 'write -P 0xa1 0 100k' -c 'write -P 0xa2 1M 64k' \
        -c 'write -P 0xa3 2100k 1000k' -c 'write -z 2200k 300k' "$1" >/dev/null
}

# oracle FILE FORMAT TARGET: the guest's bytes as QEMU reads them.
oracle() {
    qemu-img convert -f "$2" -O raw "$1" "$3"
}
