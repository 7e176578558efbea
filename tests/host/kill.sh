#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# kill.sh METHOD: the program is killed (SIGKILL) at each step by which it changes a domain or its
# journal; the next mount puts the domain back, and nothing that the guest wrote is lost.
#
#   KILL_COUNT=N    N kills of each kind, or "all": at each step (default: 2)
#   KILL_SEED=N     for which steps and delays those are (default: another one each time)
#   KILL_KINDS=...  only these kinds
#   KILL_STEPS=...  these steps, in place of a choice
#
# With a cold method the guest is off, and is started during every second instant.
#
# The kinds: `before`, `after` and `during` a step; `twice`: the mount that puts the domain back is
# killed, too; `libvirtd`: it is killed as well, during the step; `power`: so is QEMU.
. "$(dirname "$0")/../lib/host.sh"

METHOD=$1
KILL_COUNT=${KILL_COUNT:-2}
RANDOM=${KILL_SEED:=$RANDOM}
KILL_KINDS=${KILL_KINDS:-before after during twice libvirtd power}
DELAY_MAX_US=40000
PLAIN=${VIRTSNAPFS_PLAIN:-$VIRTSNAPFS}
: "${KILLER:?is not set: run this by meson test}"
# Of a program with the sanitizer in it: the preload comes before it.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0

formats=(qcow2 raw)
is_cold=''
case $METHOD in
overlay | backup | copy) option=live=$METHOD ;;
managedsave) option=live=$METHOD formats=(qcow2 qcow2) ;;
internal) option=cold=$METHOD is_cold=yes formats=(qcow2 qcow2) ;;
cold-overlay) option=cold=overlay is_cold=yes ;;
*) fail "unknown method '$METHOD'" ;;
esac

option+=,linger=0,min_free=1M
echo "KILL_SEED=$KILL_SEED KILL_COUNT=$KILL_COUNT"
mkdir -p "$T/disks" "$T/state/journal"
images=("$T/disks/a.img" "$T/disks/b.img")
disks=()
for i in 0 1; do
    qemu-img create -q -f "${formats[i]}" "${images[i]}" 24M # 4 MiB for each slot of guest_write
    disks+=("$(disk_xml "${images[i]}" "${formats[i]}" "vd$(tr 01 ab <<<$i)")")
done
domain_define guest "${disks[@]}"
QEMU_PID_FILE=/run/libvirt/qemu/guest.pid

QEMU_PID=0 # none
start_guest() {
    virsh start guest && QEMU_PID=$(<"$QEMU_PID_FILE")
}

is_running() {
    [[ $(virsh domstate guest) == running ]]
}

# As long as the call of a killed program may go on in libvirtd, a guest that is on may go off.
is_steady() {
    [[ $METHOD != managedsave ]] && is_running
}

[[ -n $is_cold ]] || start_guest
MNT=$T/mnt
mkdir "$MNT"
mounts+=("$MNT")

# ---- The guest ----

# As a service manager does. libvirt 9.0 dies of a commit that it lost sight of when it was killed, in
# the moment in which that ends.
keep_libvirtd() {
    is_gone_or_zombie "$(<"$T/libvirtd.pid")" || return 0
    n_crashes=$((n_crashes + 1))
    libvirtd_start
}

# In place of a guest that is off.
image_do() {
    local line disk
    for line; do
        disk=${line%%:*}
        qemu-io -f "${formats[disk]}" -c "${line#*:}" "${images[disk]}"
    done
}

# guest_do DISK:COMMAND...: as guest_io, for many commands at once; all may be done twice.
guest_do() {
    local line script=''
    if [[ -n $is_cold ]] && ! is_running; then
        image_do "$@" >"$T/guest_io" 2>&1 || fail "image_do: $(cat "$T/guest_io")"
        set --
    fi
    for line; do
        script+="qemu-monitor-command guest --hmp \"qemu-io -d "
        script+="/machine/peripheral/virtio-disk${line%%:*}/virtio-backend \\\"${line#*:}\\\"\";"
    done
    [[ -z $script ]] || virsh "$script" >"$T/guest_io" 2>&1 || {
        keep_libvirtd
        virsh "$script" >"$T/guest_io" 2>&1 || fail "guest_io: $(cat "$T/guest_io")"
    }
    if grep -iE 'error|fail|conflict' "$T/guest_io"; then
        fail "the guest: $*: $(cat "$T/guest_io")"
    fi
}

# guest_write SLOT: something new on both disks, at a place of that phase and this trial. All is
# noted in $T/writes, in order.
n_trials=0 n_kills=0 n_lost=0 n_crashes=0 n_take='' trial_text=dry
declare -A written
guest_write() {
    local disk pattern=$((RANDOM % 255 + 1)) commands=()
    local off=$(($1 * 4 * 1024 * 1024 + n_trials % 61 * 65536))
    for disk in 0 1; do
        commands+=("$disk:write -P $pattern $off 65536" "$disk:flush")
        echo "$disk $pattern $off" >>"$T/writes"
    done
    guest_do "${commands[@]}"
    written[$1]="$pattern $off"
}

# What this trial wrote is there.
guest_check() {
    local slot disk commands=()
    for slot in "${!written[@]}"; do
        for disk in 0 1; do
            commands+=("$disk:read -P ${written[$slot]} 65536")
        done
    done
    guest_do "${commands[@]}"
}

# All that was ever written is in the images of the guest that is off now.
check_images() {
    local i
    for i in 0 1; do
        oracle "${images[i]}" "${formats[i]}" "$T/found.$i"
        python3 - "$T/found.$i" "$T/writes" $i <<'PY'
import sys

data = bytearray(24 << 20)
for line in open(sys.argv[2], encoding="ascii"):
    disk, pattern, off = map(int, line.split())
    if disk == int(sys.argv[3]):
        data[off:off + 65536] = bytes([pattern]) * 65536
found = open(sys.argv[1], "rb").read()
if found != data:
    at = next((i for i, (a, b) in enumerate(zip(found, data)) if a != b), len(data))
    sys.exit(f"disk {sys.argv[3]}: byte {at} is {found[at:at + 1]!r}, the guest wrote {data[at:at + 1]!r}")
PY
    done
}

# ---- The program ----

is_dead() {
    is_gone_or_zombie "$PID"
}

# start_killed NAME=VALUE...: the program with the killer before it; it may be dead at once. Without
# its sandbox: the killer writes its log where it likes, and counts in one process what is done.
start_killed() {
    VIRTSNAPFS="env LD_PRELOAD=$KILLER $* $PLAIN"
    LOG=$T/log.killed
    : >"$LOG"
    # shellcheck disable=SC2086
    $VIRTSNAPFS -f -o "state=$T/state,sandbox=no,$option" qemu:///system "$MNT" \
        </dev/null >>"$LOG" 2>&1 &
    PID=$!
    pids+=("$PID")
    wait_for "$READY_DEADLINE_S" ready_or_dead || fail "no mount after $READY_DEADLINE_S s"
}

has_nothing_left() {
    keep_libvirtd
    [[ $(status_value guest 'len(s["instants"]) + len(s["leftovers"])' 2>/dev/null) == 0 ]]
}

is_over() {
    is_dead || has_nothing_left
}

# Within an instant. A start is refused while an image is being merged.
use_guest() {
    if [[ -n $is_cold ]] && ((n_trials % 2)); then
        start_guest 2>"$T/start" || grep -q lock "$T/start" || fail "no start: $(cat "$T/start")"
    fi
    if [[ -z $is_cold ]] || is_running; then
        guest_write 1
    fi
}

# One instant from its begin to the end of the program, with a guest that writes all the while.
use_instant() {
    local fd state=running
    [[ -z $is_cold ]] || state='shut off'
    wait_for 20 state_is guest "$state" || is_dead || fail "the guest is not $state"
    if { exec {fd}<"$MNT/guest/snapshots/now.raw"; } 2>/dev/null; then
        head -c 65536 <&"$fd" >/dev/null 2>&1 || true
        [[ -n $n_take ]] || n_take=$(wc -l <"$T/log.steps")
        # Not while libvirtd may be killed at any moment.
        if [[ -z $also ]] || ((step > n_take)); then
            use_guest
        fi
        exec {fd}<&-
    elif grep -q 'Duplicate nodes with node-name' "$LOG"; then
        # A libvirtd that was killed counts from a number that QEMU has nodes of; only another QEMU helps.
        wait_for 1 is_dead || true # its killer may be about to kill libvirtd, too
        keep_libvirtd
        domain_destroy guest 2>/dev/null || true
        start_guest
    elif ! is_dead; then
        wait_for 5 is_dead || fail "the open failed: $(tail -n 5 "$LOG")"
    fi
    wait_for 60 is_over || fail "the instant does not end: $(tail -n 5 "$LOG")"
    end_program
}

# Waits for the program, which is killed or is asked to end now.
end_program() {
    local status=0
    is_dead || umount "$MNT" 2>/dev/null || true
    if ! wait_for 60 is_dead; then
        show_threads "$PID"
        fail "the program does not end: $(tail -n 5 "$LOG")"
    fi
    { wait "$PID"; } 2>/dev/null || status=$?
    unset "pids[-1]"
    case $status in
    137) n_kills=$((n_kills + 1)) ;;
    0) ;;
    *) fail "the program ended with $status: $(tail -n 20 "$LOG")" ;;
    esac
}

is_settled() {
    keep_libvirtd
    [[ $(status_value guest \
        'all(l["state"] in ("deferred", "broken") for l in s["leftovers"])' 2>/dev/null) == true ]]
}

# A libvirtd that died may have lost a guest that runs on, or take it for being on another image
# than it is (virDomainDiskDefMirrorParse, in its log). No more can be done until that is off. With a
# backup job that it lost ("backup job data missing") it does not start the guest then, either,
# until it is restarted itself.
turn_off_guest() {
    ! is_gone_or_zombie "$QEMU_PID" || return 0
    n_lost=$((n_lost + 1))
    kill -KILL "$QEMU_PID"
    wait_for 20 is_gone_or_zombie "$QEMU_PID" || fail 'QEMU does not end'
    if is_running; then
        domain_destroy guest 2>/dev/null || true
    fi
    kill -KILL "$(<"$T/libvirtd.pid")"
    wait_for 20 is_gone_or_zombie "$(<"$T/libvirtd.pid")" || fail 'libvirtd does not end'
    libvirtd_start
}

# A mount that is not killed; the dead one below it is found and detached.
recover() {
    LOG=$T/log.recover
    : >"$LOG"
    VIRTSNAPFS=$PLAIN
    mount_start_at qemu:///system -o "$option"
    if is_steady; then
        guest_write 3
    fi
    if [[ -n $also ]]; then
        wait_for 60 is_settled || fail "neither put back nor deferred: $(cat "$MNT/guest/status")"
        has_nothing_left || turn_off_guest
    fi
    wait_for 60 has_nothing_left ||
        fail "left: $(cat "$MNT/guest/status") $(tail -n 20 "$LOG")"
    if is_running; then
        QEMU_PID=$(<"$QEMU_PID_FILE")
        guest_write 4
    fi
    umount "$MNT" || fail 'cannot unmount'
    end_program
    unset "mounts[-1]"
}

# ---- The domain as it is to be found again ----

describe() {
    local i
    echo '== live'
    # Who started the guest last, and whether libvirtd has forgotten a name since, is no matter.
    virsh dumpxml guest | python3 -c 'import re, sys
text = re.sub(r"(<domain [^>]*) id=.[0-9]+.", r"\1", sys.stdin.read())
print(re.sub(r"<controller type=.usb.[^>/]*(/>|>.*?</controller>)", "", text, flags=re.S))'
    echo '== inactive'
    virsh dumpxml --inactive guest
    echo '== state'
    virsh domstate guest
    echo '== jobs'
    virsh domjobinfo guest 2>&1 || true
    virsh 'blockjob guest vda --raw; blockjob guest vdb --raw' || true
    echo '== snapshots'
    virsh snapshot-list guest --name
    virsh dominfo guest | grep '^Managed save'
    for i in 0 1; do
        [[ ${formats[i]} != qcow2 ]] || qemu-img snapshot -U -l "${images[i]}"
    done
    echo '== files'
    probe list "$T/disks"
    find "$T/state/journal" -mindepth 1
    find /run/libvirt /var/lib/libvirt "$T/state" -name '*virtsnapfs-*'
}

judge() {
    describe >"$T/found"
    diff "$T/before" "$T/found" >"$T/diff" || fail "the domain is not as it was: $(cat "$T/diff")"
    guest_check
}

# trial KIND STEP WHEN [STEP-OF-RECOVERY]
trial() {
    local step=$2 also='' delay=$((RANDOM * DELAY_MAX_US / 32768))
    case $1 in
    libvirtd) also=KILL_ALSO=$T/libvirtd.pid ;;
    power) also=KILL_ALSO=$T/libvirtd.pid:$QEMU_PID_FILE ;;
    esac
    n_trials=$((n_trials + 1))
    written=()
    rm -f "$T/log.steps"
    trial_text="$* (delay $delay us)"
    guest_write 0
    # shellcheck disable=SC2086
    start_killed "KILL_AT=$step" "KILL_WHEN=$3" "KILL_DELAY_US=$delay" "KILL_LOG=$T/log.steps" $also
    use_instant
    if [[ -n $also ]] && ! virsh uri >/dev/null 2>&1; then
        libvirtd_start
    fi
    if is_steady; then
        guest_write 2
    fi
    if [[ -n ${4:-} ]]; then
        start_killed "KILL_AT=$4" KILL_WHEN=during "KILL_DELAY_US=$delay" "KILL_LOG=$T/log.steps2"
        wait_for 60 is_over || fail "left: $(cat "$MNT/guest/status")"
        end_program
    fi
    recover
    if ! is_running; then
        turn_off_guest
        [[ -n $is_cold ]] || start_guest
    elif [[ -n $is_cold ]]; then
        domain_destroy guest
    fi
    judge
}

# ---- All of them ----

show_trial() {
    echo "KILL_SEED=$KILL_SEED, trial $n_trials: $trial_text"
    cat "$T/log.steps"
}

at_exit '((status == 0)) || show_trial'
describe >"$T/before"
trial dry 0 never
mapfile -t steps <"$T/log.steps"
n_steps=${#steps[@]}
((n_steps >= 8)) || fail "only $n_steps steps were seen"
printf '%s\n' "${steps[@]}"

# kills_of KIND: the steps for this run.
kills_of() {
    if [[ -n ${KILL_STEPS:-} ]]; then
        tr ' ' '\n' <<<"$KILL_STEPS"
    elif [[ $KILL_COUNT == all ]]; then
        seq "$n_steps"
    else
        seq "$n_steps" | shuf -n "$KILL_COUNT" --random-source=<(yes "$KILL_SEED $1")
    fi
}

for each in $KILL_KINDS; do
    for step in $(kills_of "$each"); do
        case $each in
        before | after | during) trial "$each" "$step" "$each" ;;
        libvirtd | power) trial "$each" "$step" during ;;
        twice) trial twice "$step" after $((RANDOM % 6 + 1)) ;;
        esac
    done
    echo "$each: $n_kills kills in $n_trials trials so far, $n_lost guests lost by libvirtd," \
        "which died by itself $n_crashes times ($SECONDS s)"
done
((n_kills >= n_trials / 2)) || fail "only $n_kills kills in $n_trials trials"
[[ -n $is_cold ]] || domain_destroy guest
check_images
