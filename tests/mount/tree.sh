#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The tree of a dir: source: names and their escapes, modes, what is found but not listed.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir -p "$T/images/sub"
make_qcow2 "$T/images/disk.qcow2"
truncate -s 1M "$T/images/disk.raw" "$T/images/plain" "$T/images/50%@home" "$T/images/.hidden"
truncate -s 1M "$T/images/sub/not-listed.raw"
mkfifo "$T/images/fifo"
ln -s disk.raw "$T/images/link.raw"
for name in s1 now a/b .dot 50% x@y end.vda $'tab\there' übung twice twice \
    "$(printf 'n%.0s' {1..255})"; do
    qemu-img snapshot -c "$name" "$T/images/disk.qcow2"
done
mount_start "dir:$T/images"

assert_eq "$(probe list "$MNT")" '%2Ehidden|50%25%40home|disk.qcow2|disk.raw|link.raw|plain' root
assert_eq "$(probe list "$MNT/disk.qcow2")" 'snapshots|status|upload' 'domain folder'
assert_eq "$(probe list "$MNT/plain/snapshots")" now.raw 'snapshots of a raw image'

# The snapshot with the long name, cut and with its id (12), stands for itself.
listed=$(probe list "$MNT/disk.qcow2/snapshots")
long=$(tr '|' '\n' <<<"$listed" | grep '^nnn')
assert_match "$long" '^n+@12\.raw$' 'the name that was cut'
((${#long} <= 255)) || fail "a name of ${#long} bytes"
assert_eq "${listed/"|$long"/}" \
    '%2Edot.raw|%6Eow.raw|50%25.raw|a%2Fb.raw|end%2Evda.raw|now.raw|s1.raw|tab%09here.raw|twice.raw|twice@11.raw|x%40y.raw|übung.raw' \
    'escaped names'
while IFS= read -r -d '|' name; do
    assert_eq "$(stat -c '%s %A %h' "$MNT/disk.qcow2/snapshots/$name")" '4194304 -r-------- 1' \
        "stat of $name"
    cat "$MNT/disk.qcow2/snapshots/$name" >/dev/null
done <<<"$listed|"

# Also found: the disk by its target. Not found: what is no name of ours.
assert_eq "$(stat -c %i "$MNT/plain/snapshots/now.vda.raw")" \
    "$(stat -c %i "$MNT/plain/snapshots/now.raw")" 'inode by target'
for name in nothing 'sub' fifo .hidden plain/other plain/snapshots/now \
    plain/snapshots/now.vdb.raw plain/snapshots/other.raw disk.qcow2/snapshots/a plain/now.raw; do
    assert_errno ENOENT lstat "$MNT/$name"
done
assert_errno ENOTDIR lstat "$MNT/plain/snapshots/now.raw/x"
assert_errno ENOTDIR lstat "$MNT/plain/upload/x"

assert_eq "$(stat -c '%A %h' "$MNT/plain" | sed 's/ .*//')" dr-x------ 'mode of a domain folder'
assert_eq "$(stat -c %A "$MNT/plain/snapshots")" dr-x------ 'mode of snapshots'
assert_eq "$(stat -c '%s %A' "$MNT/plain/status")" '0 -r--------' 'stat of status'
assert_eq "$(stat -c '%s %A' "$MNT/plain/upload")" '0 -rw-------' 'stat of upload'
assert_eq "$(find "$MNT" | wc -l)" $((1 + 6 * 5 + 12)) 'all that find sees'

# A new image and a lost one show without a remount.
truncate -s 512 "$T/images/new.raw"
assert_eq "$(stat -c %s "$MNT/new.raw/snapshots/now.raw")" 512 'size of a new image'

# Also to who keeps the folder open and begins it again: os.listdir() of a descriptor rewinds.
python3 - "$MNT" "$T/images/newer.raw" <<'PY'
import errno, os, sys
mount, image = sys.argv[1:]
fd = os.open(mount, os.O_RDONLY)
before = set(os.listdir(fd))
with open(image, "wb") as f:
    f.truncate(512)
came = set(os.listdir(fd)) - before
if came != {"newer.raw"}:
    sys.exit(f"came: {came}")
os.unlink(image)
if set(os.listdir(fd)) != before:
    sys.exit("newer.raw is still listed")
# A domain that goes away while its folder is open.
gone = os.path.join(os.path.dirname(image), "gone.raw")
with open(gone, "wb") as f:
    f.truncate(512)
folder = os.open(os.path.join(mount, "gone.raw"), os.O_RDONLY)
os.listdir(folder)
os.unlink(gone)
try:
    sys.exit(f"listed: {os.listdir(folder)}")
except OSError as e:
    if e.errno != errno.ESTALE:
        raise
PY
rm "$T/images/plain"
wait_for 5 bash -c "! ls '$MNT' | grep -qx plain" || fail "plain is still listed"
wait_for 5 bash -c "! cat '$MNT/plain/snapshots/now.raw' 2>/dev/null" || fail "plain still opens"
mount_stop
