#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Freezing and thawing by a real qemu-guest-agent: in time, refused, hung before and in the middle
# of a freeze, and not there at all.
. "$(dirname "$0")/../lib/guest.sh"

guest_make_ext4 "$T/files.raw" 64M
guest_define files files "$(disk_xml "$T/files.raw" raw vda)"
guest_start files
guest_wait_agent files

# agent VERB DOMAIN: sets outcome and reason.
agent() {
    # shellcheck disable=SC2086
    ${VIRTSNAPFS_WRAPPER:-} "$AGENTCALL" "$@" >"$T/outcome"
    read -r outcome reason <"$T/outcome"
}

# is_writing DOMAIN: files are written and synced meanwhile.
is_writing() {
    local before
    before=$(guest_progress "$1" synced)
    wait_for 5 has_synced_more "$1" "$before"
}
has_synced_more() {
    (($(guest_progress "$1" synced) > $2))
}

# A file system that stands still lets the writer go no further than to its next write.
assert_frozen() {
    local before
    sleep 0.3
    before=$(guest_progress "$1" started)
    sleep 0.5
    assert_eq "$(guest_progress "$1" started)" "$before" 'writes begun while frozen'
}

is_writing files || fail 'the guest does not write'
agent freeze files
assert_eq "$outcome" OK "freeze ($reason)"
assert_frozen files
# Somebody's freeze is not ours: refused, and known to be no freeze of ours.
agent freeze files
assert_eq "$outcome" EIO 'freeze of a frozen guest'
agent thaw files
assert_eq "$outcome" OK "thaw ($reason)"
is_writing files || fail 'the guest does not write after the thaw'
agent thaw files
assert_eq "$outcome" OK "thaw of what is not frozen ($reason)"

# The agent stops in the middle of a freeze, and goes on with it when nobody waits any more.
guest_run files 'touch /run/stop_in_freeze'
agent freeze files
assert_eq "$outcome" EINPROGRESS "freeze by an agent that hangs ($reason)"
agent thaw files
assert_eq "$outcome" ETIMEDOUT "thaw by an agent that hangs ($reason)"
guest_run files 'xargs kill -CONT </run/stopped'
assert_frozen files
agent thaw files
assert_eq "$outcome" OK "thaw of a late freeze ($reason)"
is_writing files || fail 'the guest does not write after the late thaw'

# It hangs before it is asked: then it is not, and there is nothing to thaw.
guest_run files 'killall -STOP qemu-ga'
agent freeze files
assert_eq "$outcome" ETIMEDOUT "freeze by a stopped agent ($reason)"
guest_run files 'killall -CONT qemu-ga'
is_writing files || fail 'the guest does not write in the end'

# What cannot be asked costs no waiting.
refuses() {
    agent freeze files
    assert_eq "$outcome" "$1" "freeze: $3"
    assert_match "$reason" "$2" "$3"
}
virsh suspend files >/dev/null
refuses EOPNOTSUPP paused 'a paused guest'
virsh resume files >/dev/null
guest_run files 'killall qemu-ga'
wait_for 10 eval '! guest_agent_is_connected files' || fail 'the agent does not go'
refuses EOPNOTSUPP 'no guest agent is connected' 'an agent that is not there'
domain_destroy files
refuses ESTALE 'not running' 'a guest that is off'
agent thaw files
assert_eq "$outcome" ESTALE 'thaw of a guest that is off'

virsh undefine files >/dev/null
GUEST_DEVICES=' ' guest_define files files "$(disk_xml "$T/files.raw" raw vda)"
guest_start files
refuses EOPNOTSUPP 'no channel for a guest agent' 'no channel'
agent thaw files
assert_eq "$outcome" OK 'thaw without a channel'

# The power button works.
virsh shutdown files >/dev/null
is_off() {
    [[ $(virsh domstate "$1") == 'shut off' ]]
}
wait_for 20 is_off files || fail 'the guest does not shut down'
e2fsck -fn "$T/files.raw" >"$T/e2fsck" || fail "$(cat "$T/e2fsck")"
