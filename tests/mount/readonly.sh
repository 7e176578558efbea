#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Nothing can be changed, and each way to try gets the errno of the contract.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir "$T/images"
make_qcow2 "$T/images/a.qcow2"
qemu-img snapshot -c s1 "$T/images/a.qcow2"
sum=$(sha256sum <"$T/images/a.qcow2")
mount_start "dir:$T/images"
d=$MNT/a.qcow2 raw=$MNT/a.qcow2/snapshots/now.raw

for flags in O_WRONLY O_RDWR 'O_WRONLY O_TRUNC' 'O_RDWR O_APPEND'; do
    # shellcheck disable=SC2086
    assert_errno EACCES open "$raw" $flags
    # shellcheck disable=SC2086
    assert_errno EACCES open "$d/snapshots/s1.raw" $flags
done
for folder in "$MNT" "$d" "$d/snapshots"; do
    assert_errno EROFS create "$folder/new"
    assert_errno EROFS mkdir "$folder/new"
    assert_errno EROFS mkfifo "$folder/new"
    assert_errno EROFS symlink x "$folder/new"
    assert_errno EROFS rename "$d/status" "$folder/new"
done
assert_errno EROFS unlink "$raw"
assert_errno EROFS rmdir "$d/snapshots"
assert_errno EROFS rename "$raw" "$d/snapshots/other.raw"
assert_errno EROFS rename "$d" "$MNT/other"
assert_errno EROFS link "$raw" "$d/snapshots/other.raw"
for file in "$raw" "$d" "$d/status"; do
    assert_errno EROFS chmod "$file" 777
    assert_errno EROFS chown "$file"
    assert_errno EROFS utime "$file"
done
assert_errno EROFS truncate "$raw" 0
if rm -rf "$MNT/a.qcow2" 2>/dev/null; then
    fail 'rm -rf succeeded'
fi
assert_eq "$(probe list "$d/snapshots")" 'now.raw|s1.raw' 'what is left'
mount_stop
assert_eq "$(sha256sum <"$T/images/a.qcow2")" "$sum" 'the image afterwards'
