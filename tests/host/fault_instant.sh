#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fault_instant.sh METHOD: the state directory or the place for overlays, deltas and scratch files
# fails before an instant is taken or while it stands, and another daemon wants the same domain. The
# domain is as it was each time, the guest has lost nothing, and others are served meanwhile.
. "$(dirname "$0")/../lib/host.sh"
. "$(dirname "$0")/../lib/fault.sh"

METHOD=$1
M=$((1 << 20)) SIZE_M=16
is_cold='' makes_files=yes format=qcow2
case $METHOD in
overlay | backup | copy) option=live=$METHOD ;;
managedsave) option=live=$METHOD makes_files='' ;;
internal) option=cold=$METHOD is_cold=yes makes_files='' ;;
cold-overlay) option=cold=overlay is_cold=yes ;;
*) fail "unknown method '$METHOD'" ;;
esac

mkdir "$T/disks" "$T/place" "$T/scratch"
# Before the guest starts: libvirt gives QEMU a mount namespace of its own.
mount -t tmpfs -o size=256M,mode=777 tmpfs "$T/scratch"
qemu-img create -q -f $format "$T/disks/one.img" ${SIZE_M}M
make_qcow2 "$T/disks/off.img"
oracle "$T/disks/off.img" qcow2 "$T/off.raw"
qemu-img snapshot -c s1 "$T/disks/off.img"
domain_define one "$(disk_xml "$T/disks/one.img" $format vda)"
domain_define off "$(disk_xml "$T/disks/off.img" qcow2 vda)"
[[ -n $is_cold ]] || virsh start one
# shellcheck disable=SC2034 # by assert_serving
SERVED='off|one'
# shellcheck disable=SC2016 # as it is then
at_exit 'umount -l "$T/place" "$T/scratch" 2>/dev/null'
S=$T/place/state

# The other domain is served: by its lock, or where that is no lock, by a snapshot it has.
assert_off_served() {
    [[ -n $is_cold ]] || assert_sound "$MNT/off/snapshots/now.raw" "$T/off.raw"
    assert_sound "$MNT/off/snapshots/s1.raw" "$T/off.raw"
}
# Everything that is to be the same afterwards.
look() {
    probe list "$T/disks"
    probe list "$T/scratch" | sed 's/filler//'
    virsh dumpxml --inactive one
    virsh 'domstate one; domblklist one; snapshot-list one'
    virsh domjobinfo one 2>/dev/null | grep 'Job type' || true
}
# write_to BYTE LENGTH_M: by the guest, or where it is off, to its image.
write_to() {
    if [[ -n $is_cold ]]; then
        qemu-io -f $format -c "write -P $1 0 ${2}M" "$T/disks/one.img" >/dev/null
    else
        guest_io one 0 "write -P $1 0 ${2}M" flush
    fi
}
check_has() {
    if [[ -n $is_cold ]]; then
        qemu-io -r -f $format -c "read -P $1 0 ${2}M" "$T/disks/one.img" >"$T/check"
        ! grep -q 'verification failed' "$T/check" || fail "$3: not what was written"
    else
        guest_io one 0 "read -P $1 0 ${2}M"
    fi
}
is_same() {
    has_no_instants one && [[ $(look) == "$(<"$T/before")" ]]
}
check_same() {
    wait_for 90 is_same || {
        diff "$T/before" <(look) || true
        fail "$1: the domain is not as it was: $(cat "$MNT/one/status")"
    }
}
fresh_places() {
    umount "$T/place" 2>/dev/null || true
    mount -t tmpfs -o size=1M,mode=755 tmpfs "$T/place"
}
begin() {
    mount_start qemu:///system -o "$option,linger=0,join=0,quiesce=never,min_free=${1:-1M},scratch=$T/scratch,state=$S"
    [[ -n $is_cold ]] || wait_for 20 state_is one running || fail 'not running'
    now=$MNT/one/snapshots/now.raw
}
# set_byte BYTE: the whole disk is that, and $T/oracle too.
set_byte() {
    write_to "$1" $SIZE_M
    head -c $((SIZE_M * M)) /dev/zero | tr '\0' "\\$(printf %o "$1")" >"$T/oracle"
}

# (A file system with files open for writing is not made read-only by mount(8).)
fault_read_only() { find "$S" -type d -exec chattr +i {} +; }
heal_read_only() { find "$S" -type d -exec chattr -i {} +; }
fault_full() { head -c 2M /dev/zero >"$T/place/filler" 2>/dev/null || true; }
heal_full() { rm "$T/place/filler"; }
# In the sandbox only what was there at the start can be written to, also if somebody makes it anew.
fault_gone() { rm -rf "$S" && mkdir -m 700 "$S"; }
heal_gone() { mount_stop && begin; }
fault_gone_outside() { rm -rf "$S"; }
heal_gone_outside() { :; }
fault_scratch_full() { head -c 300M /dev/zero >"$T/scratch/filler" 2>/dev/null || true; }
heal_scratch_full() { rm "$T/scratch/filler"; }
fault_scratch_fills() { head -c 100M /dev/zero >"$T/scratch/filler"; }
heal_scratch_fills() { rm "$T/scratch/filler"; }

# What is on the disk at this moment.
now_of_one() {
    cp "$T/oracle" "$T/oracle.now"
    [[ -n $is_cold ]] ||
        head -c $((4 * M)) /dev/zero | tr '\0' "\\$(printf %o $((n + 1)))" |
        dd of="$T/oracle.now" conv=notrunc status=none
}

n=1
# before_it FAULT ERRNO
before_it() {
    ((n += 2))
    fresh_places
    set_byte $n
    begin
    look >"$T/before"
    # So that there is a journal that can go.
    [[ $1 != gone* ]] || { assert_sound "$now" "$T/oracle" && check_same 'an instant'; }
    log_mark
    "fault_$1"
    look >"$T/before"
    for _ in 1 2 3; do
        if [[ $2 == OK ]]; then
            assert_sound "$now" "$T/oracle"
            check_same "$METHOD, $1"
        else
            assert_errno "$2" open "$now"
        fi
    done
    check_same "$METHOD, refused for $1"
    [[ $2 == OK ]] || assert_lines "error: domain 'one'" 1 3 "$METHOD, $1"
    assert_off_served
    "heal_$1"
    look >"$T/before"
    assert_sound "$now" "$T/oracle"
    check_same "$METHOD, after $1"
    finish "$1"
}
# during_it FAULT ERRNO [MIN_FREE]
during_it() {
    ((n += 2))
    fresh_places
    set_byte $n
    begin "${3:-}"
    look >"$T/before"
    exec {fd}<"$now"
    log_mark
    [[ -n $is_cold ]] || write_to $((n + 1)) 4
    "fault_$1"
    if [[ $2 == OK ]]; then
        assert_sound "$fd" "$T/oracle"
    else
        wait_for 60 is_over "$fd" || fail "$METHOD, $1: the reader goes on"
        assert_fault "$2" "$fd" "$T/oracle"
        assert_lines "error: domain 'one'" 1 2 "$METHOD, $1"
    fi
    assert_off_served
    exec {fd}<&-
    if [[ $METHOD:$1 == overlay:@(read_only|full) ]]; then
        # A merge has to be noted before it begins: the guest stays on its overlay until it can be.
        wait_for 60 is_told_why || fail "$METHOD, $1: $(cat "$MNT/one/status")"
        "heal_$1"
        check_same "$METHOD, after $1"
    else
        check_same "$METHOD, $1 meanwhile"
        [[ $1 != gone ]] || check_gone
        "heal_$1"
    fi
    [[ -n $is_cold ]] || check_has $((n + 1)) 4 "$METHOD, $1"
    set_byte $n
    assert_sound "$now" "$T/oracle"
    check_same "$METHOD, after $1 was over"
    finish "$1"
}
# What stood was put back without a note; nothing new is begun until a new mount.
check_gone() {
    local reason='state directory was deleted or replaced, and is made anew only by a new mount'
    if [[ $METHOD == overlay ]]; then
        assert_lines "error: domain 'one': the $reason: .*; what was done to it is undone" 1 1 "$METHOD, put back"
    fi
    assert_errno EIO open "$now"
    assert_lines "error: domain 'one': .*$reason: cannot make" 1 2 "$METHOD, refused"
    grep -q "$reason" "$MNT/one/status" || fail "no reason in status: $(cat "$MNT/one/status")"
}
is_told_why() {
    grep -q 'could not be put back: cannot write' "$MNT/one/status"
}
is_over() {
    local found
    found=$(python3 "$LIB_DIR/fault_read.py" "$1" "$T/oracle") || fail "$METHOD: other bytes"
    [[ $found == EIO* ]]
}
# The journal is true: the next daemon finds nothing to do, and leaves nothing.
finish() {
    assert_serving
    mount_stop
    mount_start_at qemu:///system -o "$option,linger=0,scratch=$T/scratch,state=$S"
    wait_for 60 has_nothing_left || fail "$METHOD, $1: left: $(cat "$MNT/one/status")"
    mount_stop
    assert_eq "$(find "$S/journal" -name '*.json*' 2>/dev/null)" '' "$METHOD, $1: journal"
    diff "$T/before" <(look) || fail "$METHOD, $1: another domain after a remount"
}
has_nothing_left() {
    has_no_instants one && [[ $(status_value one 's["leftovers"]') == '[]' ]]
}
# two_daemons STATE: a second one, which has the state directory of the first or its own. It is
# refused where the first one's instant stands in its way; else it takes its own, and both stand.
two_daemons() {
    local first
    ((n += 2))
    fresh_places
    set_byte $n
    begin
    look >"$T/before"
    exec {fd}<"$now"
    first=("$MNT" "$LOG" "$PID" "$now")
    [[ -n $is_cold ]] || write_to $((n + 1)) 4
    eval "S=\$1 begin $fd<&-" # or it would be one of the first one's readers
    log_mark
    case $METHOD in
    overlay | backup | cold-overlay)
        for _ in 1 2 3; do
            assert_errno EBUSY open "$now"
        done
        assert_lines "error: domain 'one'" 1 3 "$METHOD: the second daemon"
        ;;
    *)
        now_of_one
        assert_sound "$now" "$T/oracle.now"
        ;;
    esac
    assert_off_served
    assert_sound "$fd" "$T/oracle"
    exec {fd}<&-
    check_same "$METHOD, by the first of two daemons"
    wait_for 60 has_nothing_left || fail "$METHOD: the second of two daemons still sees it: $(cat "$MNT/one/status")"
    set_byte $n
    assert_sound "$now" "$T/oracle"
    check_same "$METHOD, by the second of two daemons"
    mount_stop
    MNT=${first[0]} LOG=${first[1]} PID=${first[2]} now=${first[3]}
    assert_sound "$now" "$T/oracle"
    check_same "$METHOD, after the second daemon has gone"
    finish "two daemons"
}

before_it read_only EIO
during_it gone OK
[[ -z $makes_files ]] || before_it scratch_full ENOSPC
if [[ $FAULTS == all ]]; then
    two_daemons "$T/place/another"
    # What a guest that is off could fill there is nothing.
    [[ -z $makes_files || -n $is_cold || $METHOD == copy ]] || during_it scratch_fills EIO 180M
    before_it full ENOSPC
    before_it gone EIO
    during_it read_only OK
    during_it full OK
    two_daemons "$S"
    option+=,sandbox=no
    before_it gone_outside OK
    during_it gone_outside OK
fi
