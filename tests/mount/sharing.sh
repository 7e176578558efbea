#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Who shares an instant: joining, lingering, EBUSY with the readers named, max_hold.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img qemu-io

mkdir "$T/images"
make_qcow2 "$T/images/a.qcow2"
now_of() {
    now=$MNT/a.qcow2/snapshots/now.raw
}
readers() {
    status_value a.qcow2 'sum(len(i["readers"]) for i in s["instants"])'
}
instants() {
    status_value a.qcow2 'len(s["instants"])'
}
serial() {
    status_value a.qcow2 's["instants"][0]["serial"]'
}
has_readers() {
    [[ $(readers) == "$1" ]]
}
has_no_instant() {
    [[ $(instants) == 0 ]]
}
change_image() {
    qemu-io -f qcow2 -c "write -P $1 0 512" "$T/images/a.qcow2" >/dev/null
}
first_byte() {
    head -c 1 "$@" | od -An -tu1 | tr -d ' '
}

# Two readers within join= share an instant; the readers have pids.
mount_start "dir:$T/images" -o linger=1
now_of
assert_eq "$(instants)" 0 'instants before the first open'
exec {one}<"$now"
exec {two}<"$now"
assert_eq "$(readers)" 2 'readers'
assert_eq "$(status_value a.qcow2 's["instants"][0]["readers"][0]["pid"]')" $$ "reader's pid"
assert_eq "$(status_value a.qcow2 's["instants"][0]["method"]')" lock method
first=$(serial)
# Nobody writes meanwhile.
if change_image 1 2>/dev/null; then
    fail 'QEMU opened the image for writing while it was read'
fi
assert_eq "$(first_byte <&"$one")" 161 'byte read'
exec {one}<&-
wait_for 5 has_readers 1 || fail 'the first reader is still counted'
exec {two}<&-
wait_for 10 has_no_instant || fail 'the instant does not end'
change_image 2
exec {one}<"$now"
assert_eq "$(first_byte <&"$one")" 2 'byte after the image was changed'
(($(serial) > first)) || fail 'no new instant'
exec {one}<&-
mount_stop

# It lingers for disks that were not read; for one that was read, an open gets a fresh one at once.
# (That two disks share one that lingers is tested in host/, since dir: has no second disk.)
mount_start "dir:$T/images" -o linger=600
now_of
exec {one}<"$now"
first=$(serial)
first_byte <&"$one" >/dev/null
exec {one}<&-
exec {one}<"$now"
wait_for 5 has_readers 1 || fail 'readers are counted wrong'
first_byte <&"$one" >/dev/null
exec {one}<&-
wait_for 5 has_readers 0 || fail 'the reader is still counted'
exec {one}<"$now"
(($(serial) > first)) || fail 'no fresh instant'
exec {one}<&-
mount_stop

# An older instant that others still read.
mount_start "dir:$T/images" -o join=0,linger=0
now_of
exec {one}<"$now"
sleep 0.01
assert_errno EBUSY open "$now"
assert_log "a.qcow2.*$$" 'EBUSY with the pid of the reader'
assert_match "$(probe getxattr "$now" user.virtsnapfs.error)" "$$" 'reason in the xattr'
assert_eq "$(first_byte <&"$one")" 2 'the older reader goes on'
exec {one}<&-
wait_for 10 has_no_instant || fail 'the instant does not end'
assert_errno OK open "$now"
mount_stop

# max_hold ends it: the reader gets EIO, the image is free.
mount_start "dir:$T/images" -o max_hold=1,join=0
now_of
exec {one}<"$now"
wait_for 20 has_readers 0 || fail 'max_hold does not end the instant'
if first_byte <&"$one" 2>"$T/error" | grep -q .; then
    fail 'a read after max_hold gave bytes'
fi
grep -q 'Input/output error' "$T/error" || fail "read after max_hold: $(cat "$T/error")"
change_image 3
assert_eq "$(first_byte "$now")" 3 'a fresh instant'
exec {one}<&-
mount_stop

# A writer that is there already.
mount_start "dir:$T/images"
now_of
coproc writer { qemu-io -f qcow2 "$T/images/a.qcow2"; }
writer_pid=$!
at_exit "kill $writer_pid 2>/dev/null"
echo 'write -P 9 0 512' >&"${writer[1]}"
IFS= read -r -t 30 line <&"${writer[0]}" || fail 'qemu-io does not answer'
assert_match "$line" wrote 'answer of qemu-io'
assert_errno EBUSY open "$now"
assert_log 'a.qcow2.*(writ|open)' 'EBUSY for a foreign writer'
echo quit >&"${writer[1]}"
wait "$writer_pid"
assert_eq "$(first_byte "$now")" 9 'after the writer has gone'
mount_stop

# A named snapshot of which the files below have become others: what the page cache has is of those.
head -c 1M /dev/zero | tr '\0' 1 >"$T/images/base1.raw"
head -c 1M /dev/zero | tr '\0' 2 >"$T/images/base2.raw"
qemu-img create -q -f qcow2 -F raw -b base1.raw "$T/images/over.qcow2"
qemu-img snapshot -c kept "$T/images/over.qcow2"
mount_start "dir:$T/images"
kept=$MNT/over.qcow2/snapshots/kept
assert_is_of() {
    assert_same_bytes "$kept.raw" "$T/images/$1.raw"
    qemu-img compare -q -f qcow2 -F raw "$kept.qcow2" "$T/images/$1.raw" || fail "$kept.qcow2: not $1"
}
assert_is_of base1
(cd "$T/images" && qemu-img rebase -u -f qcow2 -F raw -b base2.raw over.qcow2)
assert_is_of base2
head -c 1M /dev/urandom >"$T/images/base2.new"
mv "$T/images/base2.new" "$T/images/base2.raw"
assert_is_of base2
head -c 1M /dev/urandom >"$T/images/base2.raw"
assert_is_of base2
inode=$(stat -c %i "$kept.raw")
exec {one}<"$kept.raw"
exec {two}<"$kept.raw"
qemu-io -f qcow2 -c 'write 0 64k' "$T/images/over.qcow2" >/dev/null
assert_eq "$(stat -L -c %i "/proc/self/fd/$one") $(stat -c %i "$kept.raw")" "$inode $inode" \
    'what is written to the disk itself changes no snapshot'
exec {one}<&- {two}<&-
mount_stop
