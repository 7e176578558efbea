#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The state directory is read-only, full, no directory, lost under a mount, or holds what is damaged or
# another's: images are served all the same, with one line about it; and two daemons share it.
. "$(dirname "$0")/../lib/mount.sh"
. "$(dirname "$0")/../lib/fault.sh"
need qemu-img

mkdir "$T/images" "$T/place"
make_qcow2 "$T/images/a.qcow2"
oracle "$T/images/a.qcow2" qcow2 "$T/a.raw"

# The folder of this source's journal begins with a hash of it.
journal_prefix() {
    printf 'dir:%s' "$T/images" | sha256sum | head -c 16
}
# Each makes $S, the state directory, as it is before the mount.
make_read_only() {
    mount -t tmpfs -o ro tmpfs "$T/place"
}
make_full() {
    mount -t tmpfs -o size=4k,nr_inodes=3 tmpfs "$T/place"
    head -c 4k /dev/zero >"$T/place/filler"
    mkdir "$T/place/state"
}
make_no_directory() {
    mkdir "$T/place/state"
    rmdir "$T/place/state"
    : >"$T/place/state"
}
make_damaged() {
    local folder
    folder=$T/place/state/journal/$(journal_prefix)-0123456789abcdef
    (umask 077 && mkdir -p "$folder")
    head -c 300 /dev/urandom >"$folder/virtsnapfs-0123456789abcdef.json"
    chmod 600 "$folder"/*
}
make_foreign() {
    make_damaged
    chown -R 12345 "$T/place/state/journal"
}
make_writable_by_others() {
    make_damaged
    chmod 777 "$T/place/state/journal/"*
}
# shellcheck disable=SC2016 # as it is then
at_exit 'umount -l "$T/place" 2>/dev/null'
declare -A line=(
    [read_only]='will not wait for this server' [full]='will not wait for this server'
    [no_directory]='journal|will not wait for this server' [damaged]='journal .* is left as it is'
    [foreign]='belongs to user 12345' [writable_by_others]='may be written by others'
)
for state in read_only full no_directory damaged foreign writable_by_others; do
    "make_$state"
    find "$T/place" -type f -exec sha256sum {} + >"$T/before"
    mount_start "dir:$T/images" -o "linger=0,state=$T/place/state"
    assert_sound "$MNT/a.qcow2/snapshots/now.raw" "$T/a.raw"
    ls -lR "$MNT" >/dev/null
    assert_serving
    mount_stop
    # shellcheck disable=SC2034
    LOG_MARK=0
    # Of the journal, the times (read and written), and the file for --wait.
    assert_lines "error:|warning:" 1 4 "$state"
    assert_lines "${line[$state]}" 1 2 "$state"
    # What is not ours, or that we cannot read, is still there.
    [[ ! -s $T/before ]] || sha256sum --quiet -c "$T/before" || fail "$state: a file of somebody else's was changed"
    umount "$T/place" 2>/dev/null || rm -rf "${T:?}/place/"*
done

# It goes while it is used, comes back, and fills up.
mount_start "dir:$T/images" -o "linger=0,state=$T/place/state"
exec {fd}<"$MNT/a.qcow2/snapshots/now.raw"
rm -rf "$T/place/state"
assert_sound "$fd" "$T/a.raw"
exec {fd}<&-
assert_sound "$MNT/a.qcow2/snapshots/now.raw" "$T/a.raw"
mount -t tmpfs -o ro tmpfs "$T/place"
# (Locks go a moment after the last close.)
wait_for 20 qemu-img snapshot -c s1 "$T/images/a.qcow2" 2>/dev/null || fail "the image stays locked"
assert_sound "$MNT/a.qcow2/snapshots/s1.raw" "$T/a.raw"
assert_serving
mount_stop
umount "$T/place"

# Two daemons, with one state directory and with two: both serve, neither touches the other.
for second in same another; do
    mount_start "dir:$T/images" -o "linger=0,state=$T/state.same"
    first=("$MNT" "$LOG" "$PID")
    exec {one}<"$MNT/a.qcow2/snapshots/now.raw"
    mount_start "dir:$T/images" -o "linger=0,state=$T/state.$second"
    exec {two}<"$MNT/a.qcow2/snapshots/now.raw"
    assert_sound "$one" "$T/a.raw"
    assert_sound "$two" "$T/a.raw"
    exec {two}<&-
    mount_stop
    assert_sound "$one" "$T/a.raw"
    exec {one}<&-
    MNT=${first[0]} LOG=${first[1]} PID=${first[2]}
    assert_serving
    # shellcheck disable=SC2034
    LOG_MARK=0
    assert_lines 'error:|warning:' 0 0 'the first of two daemons'
    mount_stop
done
