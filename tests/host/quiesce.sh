#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# quiesce=try, require and never on a guest that writes files to ext4 all the time: what a copy's
# file system is like, and what comes of an agent that hangs or is not there.
. "$(dirname "$0")/../lib/guest.sh"
need mkfs.ext4 dumpe2fs e2fsck

guest_make_ext4 "$T/files.raw" 64M
qemu-img convert -O qcow2 "$T/files.raw" "$T/files.qcow2"
guest_define files files "$(disk_xml "$T/files.qcow2" qcow2 vda)"
guest_start files
guest_wait_agent files
virsh dumpxml files >"$T/live.xml"
virsh dumpxml --inactive files >"$T/inactive.xml"

# with_quiesce POLICY: a mount with it; snapshots in $now.
with_quiesce() {
    mount_start qemu:///system -o "live=overlay,linger=0,quiesce=$1"
    wait_for 20 state_is files running || fail 'not running'
    now=$MNT/files/snapshots/now.raw
}

# Nothing is left of an instant, and the guest goes on.
assert_restored() {
    wait_for 60 is_settled || fail "$1: the instant does not end"
    assert_eq "$(find "$T" -maxdepth 1 -name '*.overlay')" '' "$1: overlays"
    diff "$T/live.xml" <(virsh dumpxml files) || fail "$1: the live XML is another"
    diff "$T/inactive.xml" <(virsh dumpxml --inactive files) || fail "$1: the inactive XML is another"
    is_writing || fail "$1: the guest does not write"
}
is_settled() {
    [[ $(status_value files 's["instants"] + s["leftovers"]') == '[]' ]]
}
is_writing() {
    local before
    before=$(guest_progress files synced)
    wait_for 30 has_synced_more "$before"
}
has_synced_more() {
    (($(guest_progress files synced) > $1))
}

# copy_now CONSISTENCY: to $T/copy.raw.
copy_now() {
    exec {fd}<"$now"
    assert_eq "$(status_value files 's["instants"][0]["consistency"]')" "$1" consistency
    assert_eq "$(probe getxattr "$now" user.virtsnapfs.consistency)" "$1" 'the xattr consistency'
    cp --sparse=always "/dev/fd/$fd" "$T/copy.raw"
    exec {fd}<&-
}

needs_recovery() {
    dumpe2fs -h "$T/copy.raw" 2>/dev/null | grep '^Filesystem features' | grep -qw needs_recovery
}

assert_clean() {
    ! needs_recovery || fail "$1: the journal needs recovery"
    e2fsck -fn "$T/copy.raw" >"$T/e2fsck" 2>&1 || fail "$1: $(cat "$T/e2fsck")"
}

# (e2fsck ends with 1 when it has replayed the journal; it may find nothing else to do.)
assert_replays() {
    needs_recovery || fail "$1: the journal is clean, so this proves nothing"
    e2fsck -y -E journal_only "$T/copy.raw" >"$T/e2fsck" 2>&1 || (($? == 1)) ||
        fail "$1: $(cat "$T/e2fsck")"
    e2fsck -fn "$T/copy.raw" >"$T/e2fsck" 2>&1 || fail "$1, after the replay: $(cat "$T/e2fsck")"
}

# Freeze, instant, thaw: frozen no longer than it takes.
with_quiesce require
guest_reset_gap files
copy_now filesystem
assert_clean 'quiesce=require'
assert_restored 'quiesce=require'
gap_us=$(guest_progress files gap_us)
echo "longest gap between two synced files: $((gap_us / 1000)) ms"

# An agent that hangs in mid-freeze: refused, and thawed as soon as it goes on.
guest_run files 'touch /run/stop_in_freeze'
assert_errno ETIMEDOUT open "$now" O_RDONLY
assert_log 'quiesce=require: ' 'why it is refused'
guest_run files 'xargs kill -CONT </run/stopped'
assert_restored 'quiesce=require, agent hangs'

# No agent: refused at once.
guest_run files 'killall qemu-ga'
agent_is_gone() {
    ! guest_agent_is_connected files
}
wait_for 10 agent_is_gone || fail 'the agent does not go'
assert_errno EOPNOTSUPP open "$now" O_RDONLY
sed "s/state='connected'/state='disconnected'/" -i "$T/live.xml"
assert_restored 'quiesce=require, no agent'
mount_stop

# With try, it is an instant like one after a power failure.
with_quiesce try
copy_now crash
assert_replays 'quiesce=try, no agent'
assert_restored 'quiesce=try, no agent'
assert_log 'info: .*no guest agent is connected' 'why it is crash-consistent'
guest_run files 'agent_start' >/dev/null
guest_wait_agent files
virsh dumpxml files >"$T/live.xml"
guest_run files 'touch /run/stop_in_freeze'
copy_now crash
assert_replays 'quiesce=try, agent hangs'
guest_run files 'xargs kill -CONT </run/stopped'
assert_restored 'quiesce=try, agent hangs'
copy_now filesystem
assert_clean 'quiesce=try'
assert_restored 'quiesce=try'
mount_stop

with_quiesce never
copy_now crash
assert_replays 'quiesce=never'
assert_restored 'quiesce=never'
mount_stop
domain_destroy files
