#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# faults.sh METHOD[/CELL]...: what goes wrong around an instant, one thing after the other: libvirtd,
# QEMU, the guest. Each time another domain is served meanwhile, and afterwards the domain is as it
# was, its guest has lost nothing, the journal is empty, and the log says it once.
#
#   faults.sh overlay                              all cells of a method; --list METHOD prints them
#   faults.sh overlay/qemu-killed@read lock        one, and all of another
#
# A cell is FAULT@STEP. Steps: `look-up`, before anybody opens; `read`, while an instant is open; and
# CALL-before, -during, -after: a call to libvirt by which the instant is fixed or ended.
if [[ ${1:-} != --list ]]; then
    # shellcheck source-path=SCRIPTDIR
    . "$(dirname "$0")/../lib/faults.sh"
fi

# ---- What there is to try ----

# calls METHOD: that fix the instant; ends METHOD: that end it.
calls() {
    case $1 in
    overlay | internal | cold-overlay) echo virDomainSnapshotCreateXML ;;
    backup) echo virDomainBackupBegin ;;
    copy) echo virDomainBlockCopy virDomainBlockJobAbort ;;
    managedsave) echo virDomainManagedSave virDomainSnapshotCreateXML virDomainCreateWithFlags ;;
    esac
}
ends() {
    case $1 in
    overlay) echo virDomainBlockCommit virDomainBlockJobAbort ;;
    backup) echo virDomainAbortJob ;;
    copy) echo unlink ;;
    managedsave | internal) echo virDomainSnapshotDelete ;;
    cold-overlay) echo virDomainDefineXML ;;
    esac
}

# is_with_qemu METHOD CALL: not a call that is made while the guest is off.
is_with_qemu() {
    case $1:$2 in
    managedsave:virDomainSnapshotCreateXML | managedsave:virDomainCreateWithFlags | *:unlink) return 1 ;;
    esac
}

# cells METHOD: the matrix.
cells() {
    local call fault
    for fault in libvirtd-{killed,restarted,stopped}; do
        echo "$fault@look-up" "$fault@read"
    done
    for call in $(calls "$1") $(ends "$1"); do
        echo libvirtd-killed@"$call"-{before,during,after} libvirtd-restarted@"$call-during" \
            libvirtd-stopped@"$call-before"
    done
    case $1 in
    lock) echo guest-renamed@read guest-undefined@read guest-started@read ;;
    internal | cold-overlay)
        echo guest-renamed@read guest-undefined@read guest-started@read
        ;;
    *)
        for call in $(calls "$1") $(ends "$1"); do
            is_with_qemu "$1" "$call" && echo qemu-{killed,stopped}@"$call-before"
        done
        echo qemu-{killed,stopped}@look-up qemu-{killed,stopped}@read qemu-paused@{look-up,read} \
            guest-{reset,off,saved,suspended,undefined}@read disk-detached@read agent-hung@look-up
        ;;
    esac
}
if [[ ${1:-} == --list ]]; then
    cells "$2" | tr ' ' '\n'
    exit
fi

# What the open says, by $method, $fault and $step.
#
# A call that is cut off may have been carried out; then there is an instant, or else there is none.
outcome_of_open() {
    case $fault@$step in
    agent-hung@*) echo OK ;;
    qemu-killed@*) echo 'OK|EIO|EBUSY|ESTALE' ;;
    qemu-stopped@*) echo ETIMEDOUT ;;
    libvirtd-killed@look-up) [[ $method == lock ]] && echo OK || echo EIO ;;
    libvirtd-stopped@look-up) [[ $method == lock ]] && echo OK || echo 'ETIMEDOUT|EIO' ;;
    libvirtd-restarted@look-up) echo OK ;;
    libvirtd-stopped@*) echo 'ETIMEDOUT|EIO' ;;
    # Of a copy nobody is left who says whether it was complete.
    libvirtd-*@virDomainBlockJobAbort-*) echo 'OK|EIO|ETIMEDOUT' ;;
    *) echo 'OK|EIO' ;;
    esac
}

# What a read says of an instant that was opened before the fault.
outcome_of_read() {
    case $method:$fault in
    backup:qemu-killed | backup:guest-off | backup:qemu-stopped) echo EIO ;;
    *:qemu-paused) echo 'OK|EIO' ;; # it is ended where the file system is full
    lock:guest-undefined | internal:guest-undefined | cold-overlay:guest-undefined) echo 'OK|ESTALE' ;;
    *) echo OK ;;
    esac
}

# ---- What goes wrong, and how it is mended ----

signal_of() {
    case $fault in
    *-killed) echo 9 ;;
    *-restarted) echo 15 ;;
    *-stopped) echo 19 ;;
    esac
}
victim_of() {
    case $fault in
    libvirtd-*) echo "$T/libvirtd.pid" ;;
    qemu-*) echo "$QEMU_PID_FILE" ;;
    esac
}

n_fills=0
# Leaves less room than is about to be written.
fill_disks() {
    mount -o "remount,size=$(($(df --output=used "$DISKS" | tail -n 1) + 256))k" "$DISKS"
}

has_ended() {
    grep -q 'ended early' <(tail -n +$((n_lines + 1)) "$LOG")
}
# A guest that stops on its overlay is merged and goes on before anybody could look.
is_out_of_room() {
    is_paused || { [[ $method@$step == overlay@read ]] && has_ended; }
}

strike() {
    case $fault in
    libvirtd-killed | libvirtd-stopped | qemu-killed | qemu-stopped)
        kill -"$(signal_of)" "$(<"$(victim_of)")"
        ;;
    libvirtd-restarted)
        kill -TERM "$victim" # which deletes the file with its number
        wait_ended
        libvirtd_start
        ;;
    qemu-paused)
        fill_disks
        # To a place that has no clusters yet.
        guest_run guest "dd if=/dev/zero of=/dev/vda bs=64k seek=$((32 + n_fills % 6 * 16)) count=16 \
            conv=fsync >/dev/null 2>&1 &"
        n_fills=$((n_fills + 1))
        wait_for 60 is_out_of_room || fail 'QEMU does not stop the guest'
        ;;
    guest-reset)
        n_boots=$(grep -c '^guest: ready' "$T/log.guest" || true) # (a restore begins the log anew)
        virsh reset guest >/dev/null
        ;;
    guest-off)
        virsh shutdown guest >/dev/null
        wait_for 60 is_off || fail 'the guest does not shut down'
        ;;
    guest-saved)
        # (Under a backup job libvirt refuses.)
        virsh managedsave guest >"$T/saved" 2>&1 || [[ $method == backup ]] || fail "$(cat "$T/saved")"
        ;;
    guest-suspended) virsh suspend guest >/dev/null ;;
    guest-undefined)
        # (libvirt refuses if it has a snapshot of one that is off.)
        virsh undefine guest >"$T/undefine" 2>&1 || [[ $method == internal ]] || fail "$(cat "$T/undefine")"
        ;;
    guest-renamed)
        virsh domrename guest renamed >"$T/rename" 2>&1 || [[ $method == internal ]] || fail "$(cat "$T/rename")"
        ;;
    guest-started)
        if [[ $method == lock ]]; then
            ! virsh start guest >"$T/start" 2>&1 || fail 'a guest was started whose image is read'
            grep -q lock "$T/start" || fail "no start: $(cat "$T/start")"
        else
            guest_start guest
        fi
        ;;
    disk-detached) # (as above)
        virsh detach-disk guest sda --live >"$T/detach" 2>&1 || [[ $method == backup ]] || fail "$(cat "$T/detach")"
        ;;
    agent-hung) guest_run guest 'touch /run/stop_in_freeze' ;;
    *) fail "unknown fault '$fault'" ;;
    esac
}

has_booted() {
    (($(grep -c '^guest: ready' "$T/log.guest") > n_boots))
}

# The fault is over; what it did to the domain is still to be settled.
mend() {
    case $fault in
    libvirtd-killed | libvirtd-restarted)
        wait_for 20 is_gone_or_zombie "$victim" || true
        keep_libvirtd
        ;;
    *-stopped) kill -CONT "$(<"$(victim_of)")" ;;
    qemu-paused) mount -o remount,size=2G "$DISKS" ;;
    guest-reset) wait_for 60 has_booted || fail 'the guest does not boot again' ;;
    guest-saved) is_running || virsh start guest >/dev/null ;;
    guest-undefined) virsh define "$T/guest.xml" >/dev/null ;;
    guest-renamed) ! virsh domstate renamed >/dev/null 2>&1 || virsh domrename renamed guest >/dev/null ;;
    disk-detached)
        [[ $method == backup ]] || wait_for 20 is_detached || fail 'the disk cannot be detached'
        ;;
    agent-hung) guest_run guest 'xargs kill -CONT </run/stopped' ;;
    esac
}
is_detached() {
    ! virsh domblklist guest | grep -q sda
}

# Once all is settled: as before the cell.
restore() {
    case $fault in
    qemu-killed | guest-off) wait_for 60 is_off || fail 'the guest is not off' ;;
    qemu-paused) ! is_paused || virsh resume guest >/dev/null ;;
    guest-suspended)
        is_paused || fail 'the guest is not suspended any more'
        virsh resume guest >/dev/null
        ;;
    disk-detached)
        echo "$scsi_disk" >"$T/disk.xml"
        ! is_detached || virsh attach-device guest "$T/disk.xml" --live >/dev/null
        ;;
    guest-started)
        if [[ $method != lock ]]; then
            note_synced
            domain_destroy guest
        fi
        ;;
    esac
    if [[ -z $is_cold ]] && is_off; then
        check_images
        guest_on
    fi
}

# ---- A cell ----

is_struck() {
    [[ ! -e $T/order ]]
}
order() {
    local call=${step%-*}
    echo "$call ${step##*-} $(signal_of) $(victim_of)" >"$T/order.new"
    mv "$T/order.new" "$T/order"
}
wait_struck() {
    wait_for 60 is_struck || fail "the program does not get to $step"
    is_stopping || wait_ended
}
# Within some calls a libvirtd does not end by SIGTERM: then as systemd does it, who waits longer.
wait_ended() {
    wait_for 20 is_victim_dead && return
    [[ $fault == libvirtd-restarted ]] || fail 'the victim lives'
    echo '  libvirtd does not end by SIGTERM'
    kill -KILL "$victim"
    wait_for 20 is_victim_dead || fail 'libvirtd does not end'
}
is_stopping() {
    [[ $fault == *-stopped ]]
}
is_victim_dead() {
    is_gone_or_zombie "$victim"
}

# An instant, and all places of the disks written over after it.
open_both() {
    tell open 0
    expect OK 'open before the fault'
    tell open 1
    expect OK 'open of the second disk before the fault'
    [[ -z $is_cold ]] || return 0
    after=$(guest_progress guest started)
    wait_for 60 has_synced_more $((after + 600)) || fail 'the guest is slow'
    note_synced
}

# judge_copies: those of both disks are of one moment, between $before and $after.
judge_copies() {
    if [[ -n $is_cold ]]; then
        cmp "$T/copy.0" "$T/end.0" || fail 'a copy is another'
        cmp "$T/copy.1" "$T/end.1" || fail 'a copy of the second disk is another'
    else
        check_blocks --after "$before" ${after:+--before "$after"} "$T/copy.0" "$T/copy.1" >/dev/null ||
            fail 'the copies are not of one moment'
    fi
}

try_look_up() {
    strike
    if [[ $fault == qemu-paused ]]; then
        try_paused
        return
    fi
    tell open 0
    check_others
    expect "$(outcome_of_open)" 'open'
    mend
    copy_if_open
}

# A guest that waits for room: nothing is begun without any; and with some, it stays paused.
try_paused() {
    tell open 0
    expect 'ENOSPC|EBUSY' 'open without room'
    check_others
    mend
    tell open 0
    # Those that halt and resume the guest themselves do not touch it.
    expect "$([[ $method == @(managedsave|copy) ]] && echo EBUSY || echo OK)" 'open of a paused guest'
    copy_if_open
    holder_end
    settle
    is_paused || fail 'the guest does not stay paused'
}

# Of an instant that there may be now.
copy_if_open() {
    [[ $ANSWER == OK ]] || return 0
    tell open 1
    expect 'OK|EIO|ESTALE' 'open of the second disk'
    [[ $ANSWER == OK ]] || return 0
    tell copy 0 "$T/copy.0"
    answer
    tell copy 1 "$T/copy.1"
    expect 'OK|EIO' 'copy'
    [[ $ANSWER != OK ]] || judge_copies
}

try_read() {
    open_both
    tell copy 0 "$T/copy.0"
    expect OK 'copy before the fault'
    strike
    check_others
    tell copy 1 "$T/copy.1"
    expect "$(outcome_of_read)" 'copy after the fault'
    [[ $ANSWER != OK ]] || judge_copies
    mend
}

try_call() {
    order
    tell open 0
    wait_struck
    check_others
    if is_stopping; then
        expect "$(outcome_of_open)" open
        mend
    else
        mend
        expect "$(outcome_of_open)" open
    fi
    copy_if_open
}

try_end() {
    open_both
    tell copy 0 "$T/copy.0"
    answer
    tell copy 1 "$T/copy.1"
    expect OK copy
    judge_copies
    order
    holder_end
    wait_struck
    check_others
    mend
}

# libvirt 9.0 loses its way when it dies within some calls (docs/methods.md): then only a guest that is
# off can be put back.
settle() {
    local text
    wait_for 100 is_settled && return
    text="not put back: $(cat "$MNT/guest/status")"
    [[ $fault@$step == libvirtd-*-during ]] || fail "$text"
    echo "  libvirtd has lost the guest: $(status_value guest '[l["text"] for l in s["leftovers"]]')"
    kill -KILL "$(<"$QEMU_PID_FILE")"
    wait_for 60 is_off || true
    kill -KILL "$LIBVIRTD_PID"
    wait_for 20 is_gone_or_zombie "$LIBVIRTD_PID" || fail 'libvirtd does not end'
    libvirtd_start
    wait_for 100 is_settled || fail "$text"
}

# Something is said if something failed for somebody, or a connection was lost; and not again and again.
judge_log() {
    local min=0 max=3 n
    # Seen by the reader, and by libvirt as the end of the guest.
    [[ $method:$fault@$step != backup:qemu-killed@read ]] || max=1
    [[ $n_failures == 0 && $fault != libvirtd-killed && $fault != libvirtd-restarted ]] || min=1
    n=$(lines_of_cell | wc -l)
    ((min <= n && n <= max)) || fail "$n lines in the log, wanted $min to $max: $(lines_of_cell)"
}

cell() {
    fault=${1%%@*} step=${1#*@} before='' after=''
    local begin=$SECONDS victim='' n_failures=0
    local wanted_quiesce=try
    ! needs_no_agent "$1" || wanted_quiesce=never
    if [[ $quiesce != "$wanted_quiesce" ]]; then
        mount_stop
        mount_with $wanted_quiesce
    fi
    n_lines=$(wc -l <"$LOG")
    if [[ -n $(victim_of) && -e $(victim_of) ]]; then
        victim=$(<"$(victim_of)")
    fi
    if [[ -z $is_cold ]]; then
        note_synced
        before=$last_synced
    fi
    holder_start
    case $step in
    look-up) try_look_up ;;
    read) try_read ;;
    *) if [[ " $(ends "$method") " == *" ${step%-*} "* ]]; then try_end; else try_call; fi ;;
    esac
    is_gone_or_zombie "$HOLDER" || holder_end
    rm -f "$T/order"
    settle
    restore
    if [[ -z $is_cold ]]; then
        wait_for 60 has_synced_more "$last_synced" || fail 'the guest does not write any more'
    else
        check_images
    fi
    describe >"$T/found"
    diff "$T/baseline" "$T/found" >"$T/diff" || fail "the domain is not as it was: $(cat "$T/diff")"
    judge_log
    assert_no_sanitizer_report
    echo "$method $1: $(lines_of_cell | wc -l) lines in the log, $((SECONDS - begin)) s"
}

# ---- All of them ----

begin_method() {
    method=$1
    case $method in
    overlay | backup | copy | managedsave) is_cold='' option=live=$method ;;
    lock | internal) is_cold=yes option=cold=$method ;;
    cold-overlay) is_cold=yes option=cold=overlay ;;
    *) fail "unknown method '$method'" ;;
    esac
    if [[ -n $is_cold ]]; then
        is_off || domain_destroy guest
        check_images
    elif is_off; then
        guest_on
    fi
    mount_with try
    describe >"$T/baseline"
}

# mount_with QUIESCE. Without the program's sandbox: the killer in it signals others.
mount_with() {
    quiesce=$1
    VIRTSNAPFS="env LD_PRELOAD=$KILLER KILL_ORDER=$T/order KILL_DELAY_US=3000 $PROGRAM" \
        mount_start qemu:///system -o "sandbox=no,$option,linger=0,timeout=$TIMEOUT_S,quiesce=$quiesce"
    wait_for 20 state_is guest "$([[ -n $is_cold ]] && echo 'shut off' || echo running)" ||
        fail 'the state is not known'
}

# needs_no_agent CELL: libvirt's client library before 10.3 writes to a stack that is gone
# (CVE-2024-4418) when a thread calls while another one waits for a libvirtd that is frozen, and the
# connection is given up. Here that would be the thaw.
needs_no_agent() {
    [[ $1 == libvirtd-stopped@*-before ]]
}

end_method() {
    [[ -z ${method:-} ]] || mount_stop
    assert_eq "$(journal_entries 2>/dev/null)" '' 'the journal at the end'
}

PROGRAM=$VIRTSNAPFS method='' option=''
# Of a program with the sanitizer in it: the preload comes before it.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0
format=raw
# What has no internal snapshots is refused.
[[ " $*" != *' '@(managedsave|internal)* ]] || format=qcow2
prepare_domains $format
for each; do
    wanted=${each#*/}
    if [[ ${each%%/*} != "$method" ]]; then
        end_method
        begin_method "${each%%/*}"
    fi
    [[ $each == */* ]] || wanted=$(cells "$each")
    for one in $wanted; do
        cell "$one"
    done
done
end_method
is_off || domain_destroy guest
check_images
