#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# user.virtsnapfs.* are read by name and not listed.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir "$T/images"
make_qcow2 "$T/images/a.qcow2"
qemu-img snapshot -c s1 "$T/images/a.qcow2"
mount_start "dir:$T/images"
d=$MNT/a.qcow2/snapshots
rfc3339='^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z$'

for path in "$MNT" "$MNT/a.qcow2" "$d" "$d/now.raw" "$d/s1.raw" "$MNT/a.qcow2/status"; do
    assert_errno none listxattr "$path"
    for name in security.capability system.posix_acl_access user.other user.virtsnapfs.other; do
        found=$(probe getxattr "$path" $name)
        [[ $found == ENODATA || $found == EOPNOTSUPP ]] || fail "$name of $path: $found"
    done
done
for name in taken method consistency error; do
    assert_errno ENODATA getxattr "$d/now.raw" user.virtsnapfs.$name
done
assert_errno "$T/images/a.qcow2" getxattr "$d/now.raw" user.virtsnapfs.source
assert_match "$(probe getxattr "$d/s1.raw" user.virtsnapfs.taken)" "$rfc3339" 'taken of a snapshot'
exec {fd}<"$d/now.raw"
assert_match "$(probe getxattr "$d/now.raw" user.virtsnapfs.taken)" "$rfc3339" 'taken of now'
assert_errno lock getxattr "$d/now.raw" user.virtsnapfs.method
assert_errno shutdown getxattr "$d/now.raw" user.virtsnapfs.consistency
exec {fd}<&-
for operation in setxattr removexattr; do
    assert_errno EROFS $operation "$d/now.raw" user.virtsnapfs.taken
done
mount_stop
