#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# live=overlay: now.raw of a running guest with one disk is the disk at the moment of open, while the
# guest writes on; afterwards the domain is as it was.
. "$(dirname "$0")/../lib/host.sh"

mkdir "$T/disks"
for kind in qcow2 raw chain; do
    case $kind in
    qcow2) make_qcow2 "$T/disks/qcow2.img" 32M ;;
    raw) truncate -s 32M "$T/disks/raw.img" ;;
    chain)
        truncate -s 32M "$T/disks/base.img"
        qemu-img create -q -f qcow2 -F raw -b "$T/disks/base.img" "$T/disks/chain.img"
        ;;
    esac
    format=qcow2
    [[ $kind != raw ]] || format=raw
    domain_define $kind "$(disk_xml "$T/disks/$kind.img" $format vda)"
    virsh start $kind
done
mount_start qemu:///system -o live=overlay,linger=0
wait_until_merged() {
    wait_for 60 has_no_instants "$1" || fail "$1: the instant does not end"
}

for kind in qcow2 raw chain; do
    wait_for 20 state_is $kind running || fail "$kind is not running"
    now=$MNT/$kind/snapshots/now.raw
    guest_io $kind 0 'write -P 1 0 32M' 'write -P 2 5M 1M' flush
    virsh dumpxml $kind >"$T/live.xml"
    virsh dumpxml --inactive $kind >"$T/inactive.xml"
    files=$(probe list "$T/disks")
    stamp=$(probe stat "$MNT/$kind/domain.xml")

    exec {fd}<"$now" {flat}<"${now%.raw}.qcow2"
    assert_eq "$(status_value $kind 's["instants"][0]["method"]')" overlay method
    guest_io $kind 0 'write -P 3 0 8M' 'write -P 4 31M 1M' flush
    python3 - "$now" <<'PY'
import sys

data = open(sys.argv[1], "rb").read()
wanted = b"\1" * (5 << 20) + b"\2" * (1 << 20) + b"\1" * (26 << 20)
if data != wanted:
    at = next(i for i, (a, b) in enumerate(zip(data, wanted)) if a != b)
    sys.exit(f"byte {at} is {data[at]}, at the instant it was {wanted[at]}")
PY
    guest_io $kind 0 'write -P 5 16M 1M' flush
    assert_flat_is_same $kind
    # The definition that is shown, and backed up, is not the one of the instant.
    virsh dumpxml --inactive $kind | grep -q '\.overlay' || fail "$kind: libvirt names no overlay"
    diff "$T/inactive.xml" "$MNT/$kind/domain.xml" || fail "$kind: domain.xml within the instant"
    exec {fd}<&- {flat}<&-
    wait_until_merged $kind

    assert_eq "$(probe list "$T/disks")" "$files" "$kind: files beside the image"
    diff "$T/live.xml" <(virsh dumpxml $kind) || fail "$kind: the live XML is another"
    diff "$T/inactive.xml" <(virsh dumpxml --inactive $kind) || fail "$kind: the inactive XML is another"
    assert_eq "$(probe stat "$MNT/$kind/domain.xml")" "$stamp" "$kind: stat of domain.xml"
    assert_eq "$(virsh domstate $kind)" running state
    # What the guest wrote meanwhile is in the image.
    domain_destroy $kind
    format=qcow2
    [[ $kind != raw ]] || format=raw
    for check in '3 0 8M' '5 16M 1M' '4 31M 1M' '1 20M 1M'; do
        # shellcheck disable=SC2086
        set -- $check
        qemu-io -r -f $format -c "read -P $1 $2 $3" "$T/disks/$kind.img" >"$T/check" ||
            fail "$kind: $(cat "$T/check")"
        if grep -q 'verification failed' "$T/check"; then
            fail "$kind: $check: $(cat "$T/check")"
        fi
    done
done
mount_stop

# Ending with a reader merges as well.
virsh start qcow2
mount_start qemu:///system -o live=overlay,linger=600
wait_for 20 state_is qcow2 running || fail 'not running'
exec {fd}<"$MNT/qcow2/snapshots/now.raw"
head -c 1 <&"$fd" >/dev/null
kill -TERM "$PID"
mount_wait_end 0
exec {fd}<&-
assert_eq "$(probe list "$T/disks")" "$files" 'files after SIGTERM'
virsh domblklist qcow2 | grep -q "$T/disks/qcow2.img" || fail 'the domain is still on the overlay'
domain_destroy qcow2
