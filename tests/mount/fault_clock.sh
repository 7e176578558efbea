#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The clock of the day jumps a year back or ahead, with readers there: sharing, lingering and the
# longest time that an instant is held go by another clock; times that backup programs compare do not
# move; and stamps of what changes afterwards differ from those before.
. "$(dirname "$0")/../lib/mount.sh"
. "$(dirname "$0")/../lib/fault.sh"
need qemu-img

YEAR=31536000
faulty_start
clock_ahead() {
    faulty clock_ahead_s "$1"
}
status_of() {
    status_value a.qcow2 "$1"
}
all_stats() {
    find "$MNT" -mindepth 1 | sort | while IFS= read -r path; do
        echo "${path#"$MNT"} $(probe stat "$path")"
    done
}
has_no_instants() {
    [[ $(status_of 'len(s["instants"])') == 0 ]]
}
image_is_free() {
    qemu-io -f qcow2 -c info "$T/images/a.qcow2" >/dev/null 2>&1
}

for jump in $YEAR -$YEAR; do
    rm -rf "$T/images" "$T/state"
    mkdir "$T/images"
    make_qcow2 "$T/images/a.qcow2"
    make_qcow2 "$T/images/b.qcow2"
    oracle "$T/images/a.qcow2" qcow2 "$T/a.raw"
    clock_ahead 0
    mount_start "dir:$T/images" -o linger=600,join=600,max_hold=3600
    before=$(all_stats)
    exec {one}<"$MNT/a.qcow2/snapshots/now.raw"
    serial=$(status_of 's["instants"][0]["serial"]')
    clock_ahead "$jump"
    # Still the same instant, that others join.
    exec {two}<"$MNT/a.qcow2/snapshots/now.raw"
    assert_eq "$(status_of 's["instants"][0]["serial"]')" "$serial" "$jump: instant after the jump"
    assert_sound "$one" "$T/a.raw"
    assert_sound "$two" "$T/a.raw"
    assert_eq "$(all_stats)" "$before" "$jump: stat after the jump"
    assert_match "$(probe getxattr "$MNT/a.qcow2/snapshots/now.raw" user.virtsnapfs.taken)" '^20[0-9-]+T' taken
    exec {one}<&- {two}<&-
    # A change that comes after the jump is one.
    folder=$(probe stat "$MNT/b.qcow2/snapshots")
    mount_stop
    mount_start_at "dir:$T/images" -o linger=0
    assert_eq "$(all_stats)" "$before" "$jump: stat after a remount"
    qemu-img snapshot -c s1 "$T/images/b.qcow2"
    moved() {
        [[ $(probe stat "$MNT/b.qcow2/snapshots") != "$folder" ]]
    }
    wait_for 20 moved || fail "$jump: a new snapshot did not move its folder's time"
    # Back again: new times still differ from all before.
    clock_ahead 0
    folder=$(probe stat "$MNT/b.qcow2/snapshots")
    qemu-img snapshot -c s2 "$T/images/b.qcow2"
    wait_for 20 moved || fail "$jump: another snapshot did not move its folder's time"
    mount_stop

    # What is to end, ends: by the seconds that really pass.
    mount_start "dir:$T/images" -o linger=1,join=0,max_hold=600
    exec {one}<"$MNT/a.qcow2/snapshots/now.raw"
    clock_ahead "$jump"
    assert_errno EBUSY open "$MNT/a.qcow2/snapshots/now.raw"
    exec {one}<&-
    wait_for 60 has_no_instants || fail "$jump: linger= never ends"
    mount_stop
    mount_start "dir:$T/images" -o max_hold=1
    exec {one}<"$MNT/a.qcow2/snapshots/now.raw"
    clock_ahead 0
    wait_for 60 image_is_free || fail "$jump: max_hold= never ends"
    exec {one}<&-
    mount_stop
done
