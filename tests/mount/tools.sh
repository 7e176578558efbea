#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Real backup programs, twice over the same images with a remount in between: no warning, and the
# second run finds nothing changed.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img tar rsync borg restic rclone

# More images than max_open= lets be held at once, all of them walked within linger=.
mkdir "$T/images"
make_qcow2 "$T/images/a.qcow2"
qemu-img snapshot -c s1 "$T/images/a.qcow2"
qemu-io -f qcow2 -c 'write -P 7 3M 100k' "$T/images/a.qcow2" >/dev/null
qemu-img snapshot -c 'odd / name' "$T/images/a.qcow2"
qemu-img create -q -f qcow2 -F qcow2 -b a.qcow2 "$T/images/over.qcow2" 8M
qemu-io -f qcow2 -c 'write -P 8 5M 100k' "$T/images/over.qcow2" >/dev/null
qemu-img create -q -f qcow2 "$T/images/empty.qcow2" 2M
for i in {1..18}; do
    truncate -s 100000 "$T/images/small$i.raw"
    printf 'number %d' "$i" | dd of="$T/images/small$i.raw" conv=notrunc status=none
done
mkdir "$T/source" # what the programs are given: mounted over, so that paths stay the same
start() {
    # shellcheck disable=SC2034
    MNT=$T/source LOG=$T/log.tools
    mount_start_at "dir:$T/images"
    cd "$T/source"
    folders=(*/snapshots)
}
stop() {
    cd "$T"
    mount_stop
}
# quiet COMMAND...: succeeds and says nothing on stderr.
quiet() {
    "$@" 2>"$T/stderr" || fail "$*: status $?: $(cat "$T/stderr")"
    [[ ! -s $T/stderr ]] || fail "$*: $(cat "$T/stderr")"
}

run_tar() {
    quiet tar -cSf "$T/sparse$1.tar" "${folders[@]}"
    quiet tar -cf "$T/plain.tar" "${folders[@]}"
    quiet tar -df "$T/sparse$1.tar"
    quiet tar -df "$T/plain.tar"
    # By its own list of what it saw; a mount gets a device number of its own each time.
    quiet tar -cSf "$T/incremental.tar" --no-check-device "--listed-incremental=$T/snar" \
        "${folders[@]}"
    n_incremental=$(tar -tf "$T/incremental.tar" | grep -vc '/$' || true)
}

run_rsync() {
    quiet rsync -aiX --sparse . --include='*/' --include='*.raw' --exclude='*' "$T/rsync" >"$T/said"
}

export BORG_BASE_DIR=$T/borg-home BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
export BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
# borg keeps what is as new as the newest file that it saw out of its cache: that is to be this one.
run_borg() {
    sleep 0.01
    touch "$T/newest"
    borg create --list --filter AMEC --files-cache ctime,size,inode "$T/borg::$1" \
        "${folders[@]}" "$T/newest" 2>"$T/said" || fail "borg: $(cat "$T/said")"
}

export RESTIC_PASSWORD=x RESTIC_CACHE_DIR=$T/restic-cache
run_restic() {
    quiet restic -r "$T/restic" backup --json "${folders[@]}" >"$T/said"
}
restic_count() {
    python3 -c 'import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
print(next(m for m in lines if m["message_type"] == "summary")[sys.argv[2]])' "$T/said" "$1"
}

run_rclone() {
    rclone copy --config "$T/rclone.conf" -v --include '*.raw' . "$T/rclone" 2>"$T/said" ||
        fail "rclone: $(cat "$T/said")"
    if grep -Ei 'error|warn|corrupted' "$T/said" | grep -v 'Errors: *0'; then
        fail "rclone: $(cat "$T/said")"
    fi
}

borg init -e none "$T/borg" 2>/dev/null
restic -q -r "$T/restic" init >/dev/null
touch "$T/rclone.conf"

start
device=$(stat -c %d .)
before=$(for file in */snapshots/*; do probe stat "$file"; done)
run_tar 1
run_rsync
run_borg first
run_restic
run_rclone
# All got the same bytes, the same as QEMU's.
mkdir "$T/untar"
tar -xf "$T/sparse1.tar" -C "$T/untar"
oracle "$T/images/a.qcow2" qcow2 "$T/a.raw"
oracle "$T/images/over.qcow2" qcow2 "$T/over.raw"
for copy in "$T/source" "$T/untar" "$T/rsync" "$T/rclone"; do
    assert_same_bytes "$copy/a.qcow2/snapshots/now.raw" "$T/a.raw"
    assert_same_bytes "$copy/over.qcow2/snapshots/now.raw" "$T/over.raw"
    quiet diff -r --exclude=status --exclude=upload "$T/source" "$copy"
done
used=$(du -k "$T/untar/over.qcow2/snapshots/now.raw" | cut -f1)
((used < 4096)) || fail "tar -S wrote $used KiB of an image with many holes"
stop

start
after=$(for file in */snapshots/*; do probe stat "$file"; done)
assert_eq "$after" "$before" 'stat of all files after a remount'
run_tar 2
assert_eq "$n_incremental" 0 'files that an incremental tar took again'
assert_same_bytes "$T/sparse1.tar" "$T/sparse2.tar"
run_rsync
assert_eq "$(cat "$T/said")" '' 'what rsync transferred again'
run_borg second
assert_eq "$(grep -E '^[AMEC] ' "$T/said" | grep -v /newest || true)" '' 'what borg found changed'
run_restic
counts=(files_new files_changed dirs_new)
# restic keeps the device number with each directory, and a mount gets whichever is free.
[[ $(stat -c %d .) != "$device" ]] || counts+=(dirs_changed)
for what in "${counts[@]}"; do
    assert_eq "$(restic_count "$what")" 0 "restic's $what"
done
run_rclone
if grep -q ': Copied' "$T/said"; then
    fail "rclone copied again: $(cat "$T/said")"
fi

# The small tools.
quiet cp -a a.qcow2/snapshots "$T/cp-a"
quiet cp --sparse=always a.qcow2/snapshots/now.raw "$T/cp-sparse.raw"
quiet cp --sparse=never a.qcow2/snapshots/now.raw "$T/cp-plain.raw"
dd if=a.qcow2/snapshots/now.raw of="$T/dd.raw" iflag=direct bs=64K status=none
dd if=a.qcow2/snapshots/now.raw of="$T/dd-odd.raw" iflag=direct bs=12345 status=none
for copy in cp-a/now.raw cp-sparse.raw cp-plain.raw dd.raw dd-odd.raw; do
    assert_same_bytes "$T/$copy" "$T/a.raw"
done
assert_eq "$(stat -c %.Y "$T/cp-a/s1.raw")" "$(stat -c %.Y a.qcow2/snapshots/s1.raw)" \
    'mtime that cp -a kept'
# As a disk image: qemu-img on top, and a loop device.
assert_eq "$(qemu-img compare -f raw -F raw a.qcow2/snapshots/now.raw "$T/a.raw")" \
    'Images are identical.' 'qemu-img compare'
if loop=$(losetup -f --show -r "$PWD/a.qcow2/snapshots/now.raw" 2>/dev/null); then
    at_exit "losetup -d $loop 2>/dev/null"
    cmp "$loop" "$T/a.raw" || fail 'bytes through a loop device'
    losetup -d "$loop"
fi
stop
