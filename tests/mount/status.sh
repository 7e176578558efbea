#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# status is JSON of size 0, with disks, chain and formats, readers and the last errors.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir "$T/images"
make_qcow2 "$T/images/a.qcow2"
qemu-img snapshot -c s1 "$T/images/a.qcow2"
qemu-img create -q -f qcow2 "$T/images/broken.qcow2" 1M
truncate -s 60 "$T/images/broken.qcow2"
mount_start "dir:$T/images"

assert_eq "$(stat -c %s "$MNT/a.qcow2/status")" 0 size
before=$(probe stat "$MNT/a.qcow2/status")
assert_eq "$(status_value a.qcow2 's["name"]')" a.qcow2 name
assert_eq "$(status_value a.qcow2 's["state"]')" 'shut off' state
assert_eq "$(status_value a.qcow2 's["disks"][0]["layers"][0]["path"]')" "$T/images/a.qcow2" path
assert_eq "$(status_value a.qcow2 's["disks"][0]["layers"][0]["format"]')" qcow2 format
assert_eq "$(status_value a.qcow2 'len(s["errors"])')" 0 errors
exec {fd}<"$MNT/a.qcow2/snapshots/s1.raw"
assert_eq "$(status_value a.qcow2 's["snapshot_readers"][0]["pid"]')" $$ 'pid of a reader'
assert_eq "$(status_value a.qcow2 's["snapshot_readers"][0]["snapshot"]')" s1 'what it reads'
exec {fd}<&-
assert_errno EIO read "$MNT/broken.qcow2/snapshots/now.raw" 0 1
assert_match "$(cat "$MNT/broken.qcow2/status")" '60 bytes' 'reason of a failure'
assert_eq "$(status_value a.qcow2 'len(s["errors"])')" 0 'errors of another domain'
assert_eq "$(probe stat "$MNT/a.qcow2/status")" "$before" 'stat afterwards'
# In small pieces, as any program may read it.
dd if="$MNT/a.qcow2/status" bs=7 status=none | python3 -m json.tool >/dev/null
mount_stop
