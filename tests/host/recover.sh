#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# --recover: what a killed daemon left is undone without a mount; what a living one has is left
# alone, and so is what only a person can judge.
. "$(dirname "$0")/../lib/host.sh"

mkdir "$T/disks"
make_qcow2 "$T/disks/a.img" 16M
truncate -s 16M "$T/disks/b.img"
domain_define guest "$(disk_xml "$T/disks/a.img" qcow2 vda)" "$(disk_xml "$T/disks/b.img" raw vdb)"
virsh start guest
OPTIONS=live=overlay,linger=0
now=''

describe() {
    virsh dumpxml guest
    virsh dumpxml --inactive guest
    virsh domstate guest
    virsh 'blockjob guest vda --raw; blockjob guest vdb --raw' || true
    probe list "$T/disks"
    [[ ! -d $T/state/journal ]] || find "$T/state/journal" -mindepth 1
}

# recover STATUS: --recover ends with that one.
recover() {
    local status=0
    # shellcheck disable=SC2086
    timeout $((200 * DEADLINE_FACTOR)) $VIRTSNAPFS --recover -o "state=$T/state" qemu:///system \
        </dev/null >"$T/log.recover" 2>&1 || status=$?
    assert_eq "$status" "$1" "exit status of --recover ($(cat "$T/log.recover"))"
    LOG=$T/log.recover assert_no_sanitizer_report
}

# leave_instant NUMBER: the daemon is killed with an instant open; the guest writes bytes of that
# number, and of the two after it, before and after.
leave_instant() {
    mount_start qemu:///system -o $OPTIONS
    wait_for 20 state_is guest running || fail 'the guest is not running'
    now=$MNT/guest/snapshots/now.raw
    guest_io guest 0 "write -P $1 1M 1M"
    guest_io guest 1 "write -P $1 1M 1M"
    exec {fd}<"$now"
    guest_io guest 0 "write -P $(($1 + 1)) 2M 1M"
    kill -KILL "$PID"
    { wait "$PID"; } 2>/dev/null || true
    exec {fd}<&-
    umount -l "$MNT"
    guest_io guest 1 "write -P $(($1 + 2)) 3M 1M"
    is_on_overlay || fail 'the guest is not on an overlay'
}

is_on_overlay() {
    [[ $(virsh domblklist guest) == *virtsnapfs-*.overlay* ]]
}

check_data() {
    guest_io guest 0 "read -P $1 1M 1M" "read -P $(($1 + 1)) 2M 1M"
    guest_io guest 1 "read -P $1 1M 1M" "read -P $(($1 + 2)) 3M 1M"
}

# check_restored NUMBER WHAT: after leave_instant with that number.
check_restored() {
    diff "$T/before" <(describe) || fail "$2: the domain is not as it was"
    check_data "$1"
}

describe >"$T/before"
files=$(probe list "$T/disks")
virsh dumpxml --inactive guest >"$T/inactive"
recover 0
diff "$T/before" <(describe) || fail 'nothing was left, and yet something was done'

# A journal of a daemon that was killed.
leave_instant 10
recover 0
check_restored 10 'with a journal'
assert_match "$(cat "$T/log.recover")" 'was put back' 'log'

# One of a daemon that lives: its instant goes on.
mount_start qemu:///system -o $OPTIONS
wait_for 20 state_is guest running || fail 'the guest is not running'
now=$MNT/guest/snapshots/now.raw
guest_io guest 0 'write -P 20 1M 1M'
exec {fd}<"$now"
guest_io guest 0 'write -P 21 1M 1M'
recover 0
is_on_overlay || fail '--recover has merged the overlay of a living daemon'
python3 -c 'import os, sys
data = os.pread(int(sys.argv[1]), 1 << 20, 1 << 20)
sys.exit(data != b"\x14" * (1 << 20))' "$fd" || fail 'the instant is no longer what it was'
exec {fd}<&-
wait_for 60 has_no_instants guest || fail 'the instant does not end'
mount_stop
diff "$T/before" <(describe) || fail 'the domain is not as it was after the living daemon'

# A journal that was damaged: named, left, and its overlay with it.
leave_instant 30
entry=$(echo "$T"/state/journal/*/*.json)
cp "$entry" "$T/entry"
sed -i 's/"is_persistent": true/"is_persistent": false/' "$entry"
if cmp -s "$entry" "$T/entry"; then
    fail 'the entry was not damaged'
fi
recover 5
assert_eq "$(grep -c 'is left as it is' "$T/log.recover")" 1 'lines about what is left'
assert_match "$(cat "$T/log.recover")" "${entry##*/}' is left as it is: the checksum" 'log'
is_on_overlay || fail 'an overlay was merged on the word of a damaged journal'
mount_start qemu:///system -o $OPTIONS
assert_log "journal '$entry' is left as it is" 'damaged journal at a mount'
assert_errno EBUSY read "$MNT/guest/snapshots/now.raw" 0 512
mount_stop
cp "$T/entry" "$entry"
recover 0
check_restored 30 'after the journal was repaired'

# No journal at all: the overlays' names tell. A mount only shows them.
leave_instant 40
rm -r "$T/state"
mount_start qemu:///system -o $OPTIONS
wait_for 20 state_is guest running || fail 'the guest is not running'
assert_eq "$(status_value guest '[l["state"] for l in s["leftovers"]]')" '["unclaimed"]' leftovers
assert_eq "$(status_value guest 'len(s["leftovers"][0]["files"])')" 2 'files of it'
assert_errno EBUSY read "$MNT/guest/snapshots/now.raw" 0 512
status_value guest '"\n".join(s["leftovers"][0]["commands"])' >"$T/commands"
mount_stop
is_on_overlay || fail 'a mount has merged an overlay that no journal names'
recover 0
check_restored 40 'without a journal'

# The same by hand, by what `status` says to type.
leave_instant 50
rm -r "$T/state"
mount_start qemu:///system -o $OPTIONS
wait_for 20 state_is guest running || fail 'the guest is not running'
status_value guest '"\n".join(s["leftovers"][0]["commands"])' >"$T/commands"
sed -n 's/.*if the domain is on: //p' "$T/commands" >"$T/commands.sh"
assert_eq "$(wc -l <"$T/commands.sh")" 2 "commands in '$(cat "$T/commands")'"
while read -r command; do
    timeout $((60 * DEADLINE_FACTOR)) setsid --wait bash -c "$command" </dev/null >/dev/null || fail "$command"
done <"$T/commands.sh"
has_nothing_left() {
    [[ $(status_value guest 's["leftovers"]') == '[]' ]]
}
wait_for 20 has_nothing_left || fail "still left: $(cat "$MNT/guest/status")"
check_restored 50 'by hand'
cp "$MNT/guest/snapshots/now.raw" "$T/copy" || fail 'an instant after that'
wait_for 60 has_no_instants guest || fail 'the instant does not end'
mount_stop
diff "$T/before" <(describe) || fail 'the domain is not as it was at last'

# A guest that went off on its overlay: what lies below is told by the overlay alone.
leave_instant 60
rm -r "$T/state"
guest_io guest 0 flush
guest_io guest 1 flush
domain_destroy guest
recover 0
assert_eq "$(probe list "$T/disks")" "$files" 'files after a guest that went off'
diff "$T/inactive" <(virsh dumpxml --inactive guest) || fail 'the definition is another'
virsh start guest
check_data 60

kill "$LIBVIRTD_PID"
wait_for 20 is_gone_or_zombie "$LIBVIRTD_PID" || fail 'libvirtd does not end'
recover 3
