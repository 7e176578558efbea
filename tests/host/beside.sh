#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Two mounts of one libvirt, with a state= for each: an overlay of the one is no leftover to the other, which
# says who works with it, and nobody merges it as long as that one lives.
. "$(dirname "$0")/../lib/host.sh"

mkdir "$T/disks"
make_qcow2 "$T/disks/a.img" 8M
domain_define guest "$(disk_xml "$T/disks/a.img" qcow2 vda)"
virsh start guest
files=$(probe list "$T/disks")
mount_start qemu:///system -o live=overlay,linger=0
one=$MNT one_pid=$PID
mount_start qemu:///system -o "live=backup,linger=0,state=$T/other"
wait_for 20 state_is guest running || fail 'not running'
value() {
    status_value guest "$1"
}
is_value() {
    [[ $(value "$1") == "$2" ]]
}
is_merged() {
    [[ $(probe list "$T/disks") == "$files" ]]
}
recover_other() {
    local status=0
    # shellcheck disable=SC2086
    timeout 100 $VIRTSNAPFS -o "state=$T/third,min_free=1M" --recover qemu:///system \
        >"$T/log.recover" 2>&1 </dev/null || status=$?
    assert_eq "$status" "$1" "status of --recover: $(cat "$T/log.recover")"
}
assert_eq "$(value 's["elsewhere"]')" '[]' 'before'

# Libvirt does not tell other connections of a snapshot: their records follow within a minute.
exec {fd}<"$one/guest/snapshots/now.raw"
head -c 512 <&"$fd" >/dev/null
wait_for 120 is_value '[u["pid"] for u in s["elsewhere"]]' "[$one_pid]" || fail "not seen: $(cat "$MNT/guest/status")"
assert_eq "$(value 's["leftovers"]')" '[]' 'leftovers beside a mount that lives'
assert_match "$(value 's["elsewhere"][0]["files"][0]')" 'virtsnapfs-.*overlay$' 'the file'
# shellcheck disable=SC2086
$VIRTSNAPFS --status "$MNT" >"$T/screen" </dev/null
grep -q '^1 domain, .* 0 left over' "$T/screen" || fail "it is counted: $(cat "$T/screen")"
grep -A 2 '^In use by another mount' "$T/screen" | grep -Eq "^guest +overlay .* $one_pid\$" ||
    fail "not on the screen: $(cat "$T/screen")"
grep -q 'Left over' "$T/screen" && fail "it looks like damage: $(cat "$T/screen")"
assert_errno EBUSY read "$MNT/guest/snapshots/now.raw" 0 512

# Not even those who ask for it get it merged.
recover_other 5
assert_match "$(cat "$T/log.recover")" "in use by another mount, with another state= \\(process $one_pid\\)" 'why'
guest_io guest 0 'write -P 9 1M 1M'
exec {fd}<&-
wait_for 60 is_merged || fail 'the first one does not merge'
wait_for 120 is_value 's["elsewhere"]' '[]' || fail "still there: $(cat "$MNT/guest/status")"
assert_eq "$(value 's["leftovers"]')" '[]' 'leftovers at the end'
guest_io guest 0 'read -P 9 1M 1M'

# Once it was killed, nobody is seen to live: the sign went with it.
exec {fd}<"$one/guest/snapshots/now.raw"
head -c 512 <&"$fd" >/dev/null
kill -KILL "$one_pid"
{ wait "$one_pid"; } 2>/dev/null || true
exec {fd}<&-
wait_for 120 is_value '[l["state"] for l in s["leftovers"]]' '["unclaimed"]' || fail "left: $(cat "$MNT/guest/status")"
assert_eq "$(value 's["elsewhere"]')" '[]' 'after a kill'
assert_match "$(value 's["leftovers"][0]["reason"]')" 'of another mount.* or of one that is gone' 'reason'
status=0
# shellcheck disable=SC2086
$VIRTSNAPFS -o "state=$T/state" --wait "$one" 2>"$T/log.wait" </dev/null || status=$?
assert_eq "$status" 2 '--wait after a kill'
assert_match "$(cat "$T/log.wait")" "process $one_pid, which .* not put back: 1;" 'what --wait says'
umount -l "$one"
mount_stop
recover_other 0
is_merged || fail 'not merged by --recover'
