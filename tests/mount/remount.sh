#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# After a remount everything that backup programs compare is the same, and moves only when the
# content does.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir "$T/images"
make_qcow2 "$T/images/a.qcow2"
qemu-img snapshot -c s1 "$T/images/a.qcow2"
truncate -s 1M "$T/images/b.raw"
all_stats() {
    local path
    find "$MNT" -mindepth 1 | sort | while IFS= read -r path; do
        echo "${path#"$MNT"} $(probe stat "$path")"
    done
}
mount_start "dir:$T/images"
before=$(all_stats)
assert_eq "$(grep -c d_ino <<<"$before" || true)" 0 'inodes that readdir tells differently'
assert_eq "$(grep -o ' ino=[0-9]*' <<<"$before" | sort | uniq -d)" '' 'inodes that occur twice'
mtime=$(stat -c %.9Y "$T/images/a.qcow2" | tr -d .)
assert_match "$(probe stat "$MNT/a.qcow2/snapshots/now.raw")" \
    "mtime=$mtime ctime=$mtime atime=$mtime\$" 'times of now.raw'
cat "$MNT/a.qcow2/snapshots/now.raw" "$MNT/a.qcow2/snapshots/s1.raw" >/dev/null
assert_eq "$(all_stats)" "$before" 'stat after reading'
mount_stop
mount_start_at "dir:$T/images"
assert_eq "$(all_stats)" "$before" 'stat after a remount'

# A snapshot more: its folder's mtime moves, the other domain's does not.
folder=$(stat -c %.Y "$MNT/a.qcow2/snapshots") other=$(probe stat "$MNT/b.raw/snapshots")
# (st_blocks is an estimate from the blocks of the whole image file, and that grew.)
stat_but_blocks() {
    probe stat "$1" | sed 's/ blocks=[0-9]*//'
}
old=$(stat_but_blocks "$MNT/a.qcow2/snapshots/s1.raw")
qemu-img snapshot -c s2 "$T/images/a.qcow2"
folder_moved() {
    [[ $(stat -c %.Y "$MNT/a.qcow2/snapshots") != "$folder" ]]
}
wait_for 10 folder_moved || fail "the folder's mtime did not move"
assert_eq "$(probe stat "$MNT/b.raw/snapshots")" "$other" "the other folder"
assert_eq "$(stat_but_blocks "$MNT/a.qcow2/snapshots/s1.raw")" "$old" 's1.raw'
mount_stop
