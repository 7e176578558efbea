#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A QEMU that hangs in the middle of a call keeps neither an unmount nor --recover waiting for ever.
# The domain is left to those that come once QEMU answers, and nothing of it is lost.
. "$(dirname "$0")/../lib/host.sh"

TIMEOUT_S=5 # timeout= of the mounts
mkdir "$T/disks"
make_qcow2 "$T/disks/a.img" 16M
make_qcow2 "$T/disks/b.img" 16M
domain_define guest "$(disk_xml "$T/disks/a.img" qcow2 vda)" "$(disk_xml "$T/disks/b.img" qcow2 vdb)"
virsh start guest

qemu_stop() {
    kill -STOP "$(</run/libvirt/qemu/guest.pid)"
}
qemu_go_on() {
    kill -CONT "$(</run/libvirt/qemu/guest.pid)"
}

# What a restored guest is numbered with anew is no matter.
describe() {
    virsh dumpxml guest | sed "s/\(<domain [^>]*\) id='[0-9]*'/\1/; s/domain-[0-9]*-guest/domain-guest/
        s/ index='[0-9]*'//"
    virsh dumpxml --inactive guest
    virsh domstate guest
    virsh 'blockjob guest vda --raw; blockjob guest vdb --raw' || true
    virsh snapshot-list guest --name
    qemu-img snapshot -U -l "$T/disks/a.img"
    probe list "$T/disks"
    find /run/libvirt /var/lib/libvirt -name '*virtsnapfs-*'
    journal_entries
}
journal_entries() {
    [[ ! -d $T/state/journal ]] || find "$T/state/journal" -type f ! -name lock
}
has_entry() {
    [[ -n $(journal_entries) ]]
}
is_as_before() {
    describe >"$T/found"
    diff "$T/baseline" "$T/found" >"$T/diff"
}

serve() {
    mount_start qemu:///system -o "live=$1,linger=0,timeout=$TIMEOUT_S"
    wait_for 20 state_is guest running || fail 'the state is not known'
}

# write_io NUMBER: the guest writes, on both disks, what check_io finds again.
write_io() {
    guest_io guest 0 "write -P $1 1M 1M"
    guest_io guest 1 "write -P $1 3M 1M"
}
check_io() {
    guest_io guest 0 "read -P $1 1M 1M"
    guest_io guest 1 "read -P $1 3M 1M"
}

# end_left WHAT: the program ends by a signal, and says in one line which domain it leaves.
end_left() {
    kill -TERM "$PID"
    mount_wait_end 0
    assert_log "warning: domain 'guest' is left as it is \($1\): the hypervisor has not answered" 'the end'
    assert_eq "$(grep -c 'is left as it is' "$LOG")" 1 "lines about it ($(cat "$LOG"))"
    has_entry || fail 'the journal does not know of it any more'
    # shellcheck disable=SC2086
    timeout 60 $VIRTSNAPFS --wait -o "state=$T/state" "$MNT" || fail '--wait waits for what has ended'
}

# recover STATUS: --recover ends with that one.
recover() {
    local status=0
    # shellcheck disable=SC2086
    timeout 100 $VIRTSNAPFS --recover -o "state=$T/state,timeout=$TIMEOUT_S" qemu:///system \
        </dev/null >"$T/log.recover" 2>&1 || status=$?
    assert_eq "$status" "$1" "exit status of --recover ($(cat "$T/log.recover"))"
    LOG=$T/log.recover assert_no_sanitizer_report
}

# assert_put_back NUMBER WHAT: as it was before, with what the guest has written since.
assert_put_back() {
    wait_for 20 is_as_before || fail "$2: the domain is not as it was: $(cat "$T/diff")"
    check_io "$1"
}

describe >"$T/baseline"
number=1

# QEMU hangs while somebody reads: it answers neither the end nor --recover.
for method in overlay backup; do
    serve $method
    exec {fd}<"$MNT/guest/snapshots/now.raw"
    write_io $((number += 1))
    qemu_stop
    end_left $method
    exec {fd}<&-
    recover 5
    grep -q "domain 'guest' is left as it is ($method)" "$T/log.recover" ||
        fail "$method: --recover does not say what it leaves ($(cat "$T/log.recover"))"
    qemu_go_on
    recover 0
    assert_put_back $number "$method, read"
    echo "$method: put back once its QEMU went on"
done

# It hangs before the instant is there.
for method in overlay managedsave; do
    serve $method
    write_io $((number += 1))
    qemu_stop
    (exec {fd}<"$MNT/guest/snapshots/now.raw") 2>/dev/null && fail "$method: opened without QEMU"
    if ! has_entry; then # it hangs at the first look, and there is nothing to undo yet
        kill -TERM "$PID"
        mount_wait_end 0
        qemu_go_on
    else
        end_left 'an instant half made'
        qemu_go_on
        recover 0
    fi
    assert_put_back $number "$method, taken"
    echo "$method: undone once its QEMU went on"
done

# What a killed daemon left, under a mount that is ended itself; the one after it puts it back.
serve overlay
exec {fd}<"$MNT/guest/snapshots/now.raw"
write_io $((number += 1))
kill -KILL "$PID"
{ wait "$PID"; } 2>/dev/null || true
exec {fd}<&-
umount -l "$MNT"
qemu_stop
serve overlay
end_left overlay
qemu_go_on
serve overlay
is_settled() {
    [[ $(status_value guest 'len(s["instants"]) + len(s["leftovers"])') == 0 ]]
}
wait_for 60 is_settled || fail 'the next mount does not put it back'
assert_put_back $number 'by a mount'
mount_stop
