#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# With allow_other, other users read only what the modes let them.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img setpriv

mkdir "$T/images"
make_qcow2 "$T/images/a.qcow2"
as_nobody() {
    setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
}
now_of() {
    now=$MNT/a.qcow2/snapshots/now.raw
}
refused() {
    if as_nobody "$@" >/dev/null 2>"$T/error"; then
        fail "nobody may $*"
    fi
    grep -q 'Permission denied' "$T/error" || fail "$*: $(cat "$T/error")"
}
# Without it the kernel lets nobody in at all.
mount_start "dir:$T/images"
refused ls "$MNT"
mount_stop
# With it, the modes decide: 0400 and 0500 of root.
mount_start "dir:$T/images" -o allow_other
now_of
refused ls "$MNT/a.qcow2"
refused head -c 1 "$now"
mount_stop
# One folder in, so that the file's own mode is what refuses. An open that is refused begins no
# instant: the kernel asks for none.
mount_start "dir:$T/images" -o allow_other,umask=0066
now_of
as_nobody stat "$now" >/dev/null || fail 'nobody may not even stat'
refused head -c 1 "$now"
refused cat "$MNT/a.qcow2/status"
refused tee "$MNT/a.qcow2/upload"
refused dd "if=$now" iflag=direct count=1
assert_eq "$(status_value a.qcow2 '[s["instants"], s["errors"], s["uploads"]]')" '[[], [], []]' \
    'what refused opens began'
exec {fd}<"$now"
assert_eq "$(status_value a.qcow2 'len(s["instants"])')" 1 'an open that is let in begins one'
exec {fd}<&-
mount_stop
# All modes open: who owns the files may read them, and so may everybody.
mount_start "dir:$T/images" -o allow_other,umask=0000,uid=65534
now_of
as_nobody head -c 1 "$now" >/dev/null || fail 'the owner may not read'
setpriv --reuid=12345 --regid=12345 --clear-groups head -c 1 "$now" >/dev/null ||
    fail 'mode 0444 lets nobody read'
as_nobody ls "$MNT/a.qcow2/snapshots" >/dev/null || fail 'the owner may not list'
mount_stop
