#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A reference must lie inside the folder or a backing_dir=; else EPERM and one line that names both.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir -p "$T/images/parts" "$T/outside"
truncate -s 1M "$T/outside/base.raw" "$T/images/parts/base.raw"
printf secret >"$T/outside/secret"
ln -s "$T/outside/base.raw" "$T/images/parts/leads-out.raw"
overlay() {
    qemu-img create -q -f qcow2 -u -F raw -b "$2" "$T/images/$1.qcow2" 1M
}
overlay inside parts/base.raw
overlay inside-absolute "$T/images/parts/base.raw"
overlay outside "$T/outside/base.raw"
overlay dots ../outside/base.raw
overlay symlink parts/leads-out.raw
overlay missing parts/nothing.raw
overlay directory parts
overlay nbd nbd://localhost/x
overlay json 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}'
mkfifo "$T/images/parts/fifo"
overlay fifo parts/fifo
(cd "$T/images" && qemu-img create -q -f qcow2 -o "data_file=$T/outside/data.raw" data.qcow2 1M)
qemu-img create -q -f qcow2 -u -F qcow2 -b loop2.qcow2 "$T/images/loop1.qcow2" 1M
qemu-img create -q -f qcow2 -u -F qcow2 -b loop1.qcow2 "$T/images/loop2.qcow2" 1M
qemu-img create -q -f qcow2 -u -F qcow2 -b itself.qcow2 "$T/images/itself.qcow2" 1M

mount_start "dir:$T/images"
now() {
    echo "$MNT/$1.qcow2/snapshots/now.raw"
}
refused() {
    local name=$1 errno=$2
    shift 2
    assert_errno "$errno" read "$(now "$name")" 0 1
    for text; do
        assert_log "(error|warning|warn).*$text" "refusal of $name"
    done
    assert_eq "$(stat -c %s "$(now "$name")")" 1048576 "size of $name, which needs no reference"
}
for name in inside inside-absolute; do
    assert_errno OK read "$(now "$name")" 0 1048576
done
refused outside EPERM "outside.qcow2.*$T/outside/base.raw"
n=$(grep -c "outside.qcow2.*$T/outside/base.raw" "$LOG")
assert_eq "$n" 1 'log lines for one refused open'
refused dots EPERM 'dots.qcow2.*outside/base.raw'
refused symlink EPERM 'parts/leads-out.raw'
refused data EPERM "data.qcow2.*$T/outside/data.raw"
refused missing EIO 'missing.qcow2|parts/nothing.raw'
refused directory EOPNOTSUPP parts
refused fifo EOPNOTSUPP parts/fifo
refused nbd EOPNOTSUPP 'nbd.qcow2.*nbd://localhost/x'
refused json EOPNOTSUPP 'json.qcow2.*json:'
refused loop1 EIO loop
refused itself EIO itself.qcow2
mount_stop

# With the other folder allowed; the option adds up.
mount_start "dir:$T/images" -o "backing_dir=$T/images,backing_dir=$T/outside"
for name in outside dots symlink data; do
    assert_errno OK read "$(now "$name")" 0 1048576
done
mount_stop
