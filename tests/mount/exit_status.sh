#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Exit statuses: 0 fine, 1 usage, 2 system or configuration, 3 no libvirt, 4 mount failed. The
# reason is on stderr, also when the program would have detached.
. "$(dirname "$0")/../lib/mount.sh"

mkdir "$T/images" "$T/mnt"
truncate -s 1M "$T/images/a.raw"
touch "$T/file"
run() {
    local wanted=$1 status=0
    shift
    # shellcheck disable=SC2086
    timeout $((60 * DEADLINE_FACTOR)) $VIRTSNAPFS "$@" >"$T/out" 2>"$T/err" </dev/null || status=$?
    [[ $status == "$wanted" ]] || fail "status $status, wanted $wanted: virtsnapfs $*: $(cat "$T/err")"
}
says() {
    grep -Eq -- "$1" "$T/err" || fail "stderr is '$(cat "$T/err")', wanted '$1'"
}
state="state=$T/state"

run 0 -h
grep -q SOURCE "$T/out" || fail 'no help on stdout'
run 0 -V
grep -Eq '[0-9]+\.[0-9]+' "$T/out" || fail 'no version on stdout'
for arguments in '' "dir:$T/images" "dir:$T/images $T/mnt more" "-o frobnicate dir:$T/images $T/mnt" \
    "-x dir:$T/images $T/mnt" "-o join=soon dir:$T/images $T/mnt" \
    "-o join dir:$T/images $T/mnt" "-o live=never dir:$T/images $T/mnt" \
    "qemu+ssh://localhost/system $T/mnt" "qemu://example.org/system $T/mnt"; do
    # shellcheck disable=SC2086
    run 1 $arguments
    says 'virtsnapfs: error: '
done
run 1 -o frobnicate "dir:$T/images" "$T/mnt"
says frobnicate
run 2 -o "$state" "dir:$T/nowhere" "$T/mnt"
says nowhere
run 2 -o "$state" "dir:$T/file" "$T/mnt"
run 2 -o "$state,backing_dir=$T/nowhere" "dir:$T/images" "$T/mnt"
says nowhere
run 3 -o "$state,timeout=2" "qemu:///system?socket=$T/nothing" "$T/mnt"
says nothing
run 4 -o "$state" "dir:$T/images" "$T/not-there"
says not-there
run 4 -o "$state" "dir:$T/images" "$T/file"
for foreground in '' -f; do
    # shellcheck disable=SC2086
    run 4 $foreground -o "$state" "dir:$T/images" "$T/not-there"
    says not-there
done

# Detached: it returns with 0 when the mount is ready, and holds none of our descriptors.
MNT=$T/mnt
mounts+=("$MNT")
# shellcheck disable=SC2086
answer=$($VIRTSNAPFS -o "$state" "dir:$T/images" "$MNT" </dev/null)
assert_eq "$answer" '' 'what it says when all is fine'
assert_eq "$(probe list "$MNT")" a.raw 'the mount right after its start'
if is_served_by_none; then
    fail 'no program serves the mount'
fi
mount_stop_detached
