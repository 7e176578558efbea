#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# virtsnapfs@.service under a real systemd, over a real libvirtd: it is there when the mount is, stopping
# it waits for domains, a crash is recovered from, and it is fenced in without hiding the mount.
. "$(dirname "$0")/../lib/host.sh"
. "$(dirname "$0")/../lib/system.sh"
need python3
install_program

mkdir "$T/disks" "$T/mnt" /etc/virtsnapfs
MNT=$T/mnt
mounts+=("$MNT")
qemu-img create -q -f qcow2 "$T/disks/vm.img" 32M
chmod -R a+rwX "$T/disks"
domain_define vm "$(disk_xml "$T/disks/vm.img" qcow2 vda)"
virsh start vm
write_conf() {
    # (What the sanitizers look for at the end of a program, the unit does not allow.)
    printf '%s\n' SOURCE=qemu:///system "MOUNTPOINT=$MNT" "OPTIONS='$1'" \
        ASAN_OPTIONS=detect_leaks=0:exitcode=99 >/etc/virtsnapfs/vms.conf
}
options=state=$T/state,min_free=1M,live=overlay,linger=0
write_conf "$options"
systemd_start

# The unit says nothing that systemd does not understand, and its manual pages are there.
export MANPATH=$T/root$PREFIX/share/man
run 0 env "SYSTEMD_UNIT_PATH=$T/units" systemd-analyze verify virtsnapfs@x.service
assert_eq "$(cat "$T/out")" '' 'what systemd-analyze verify says'

unit=virtsnapfs@vms.service
now=$MNT/vm/snapshots/now.raw

# What it says to any manager, and when: by then the mount is there.
# shellcheck disable=SC2086
python3 - "$MNT" $VIRTSNAPFS -f -o "$options" -- "dir:$T/disks" "$MNT" <<'PY'
import os
import socket
import subprocess
import sys

mnt, *command = sys.argv[1:]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.bind("\0virtsnapfs-test")
    s.settimeout(60)
    program = subprocess.Popen(command, env={**os.environ, "NOTIFY_SOCKET": "@virtsnapfs-test"})
    said = [s.recv(4096).decode()]
    is_there = os.path.ismount(mnt)
    program.terminate()
    status = program.wait()
    s.setblocking(False)
    said.append(s.recv(4096).decode())
if not is_there or status or "READY=1" not in said[0].split("\n") or \
        "STOPPING=1" not in said[1].split("\n"):
    sys.exit(f"mounted: {is_there}, status {status}, said {said}")
PY

run 0 systemctl start "$unit"
assert_eq "$(unit_value "$unit" StatusText)" Mounted 'status after the start'
assert_eq "$(findmnt -nro SOURCE,FSTYPE "$MNT")" 'qemu:///system fuse.virtsnapfs' 'the mount'
assert_eq "$(ls "$MNT")" vm 'the tree as soon as the start is done'

# What it may, and that it sees the host's file systems, or nobody but it would see the mount.
pid=$(unit_value "$unit" MainPID)
assert_eq "$(at_systemd readlink "/proc/$pid/ns/mnt")" "$(at_systemd readlink /proc/1/ns/mnt)" \
    'the mount namespace of the service'
fence=$(at_systemd grep -E '^(NoNewPrivs|Seccomp|CapBnd):' "/proc/$pid/status" | tr -s '\t\n' ' ')
# SYS_ADMIN (21), SETPCAP (8), FOWNER (3), DAC_READ_SEARCH (2), DAC_OVERRIDE (1) at most.
python3 - "$fence" <<'PY'
import re
import sys

values = dict(re.findall(r"(\w+): (\w+)", sys.argv[1]))
allowed = sum(1 << n for n in (21, 8, 3, 2, 1))
if values["NoNewPrivs"] != "1" or values["Seccomp"] != "2" or int(values["CapBnd"], 16) & ~allowed:
    sys.exit(f"the service's fence is {values}")
PY

# A stop returns when the domain is back on its own disk.
files=$(probe list "$T/disks")
on_overlay() {
    ! virsh domblklist vm | grep -Eq " $T/disks/vm.img\$"
}
exec {fd}<"$now"
head -c 512 <&"$fd" >/dev/null
on_overlay || fail 'the domain has no overlay while it is read'
guest_io vm 0 'write -P 7 0 24M' flush
run 0 systemctl stop "$unit"
if on_overlay; then
    fail 'the stop did not wait for the domain'
fi
assert_eq "$(probe list "$T/disks")" "$files" 'files after the stop'
assert_eq "$(unit_value "$unit" ActiveState)" inactive 'state after the stop' # and not failed
run 32 mountpoint "$MNT"
exec {fd}<&-

# Killed: systemd starts it again, which detaches the dead mount and puts the domain back.
run 0 systemctl start "$unit"
exec {fd}<"$now"
head -c 512 <&"$fd" >/dev/null
on_overlay || fail 'the domain has no overlay while it is read again'
run 0 systemctl kill -s KILL "$unit"
exec {fd}<&-
has_started_again() {
    unit_is "$unit" NRestarts 1 && unit_is "$unit" SubState running
}
wait_for 60 has_started_again || fail "not started again: $(systemctl status "$unit")"
assert_eq "$(ls "$MNT")" vm 'the tree after the crash'
is_back() {
    ! on_overlay
}
wait_for 60 is_back || fail 'the domain is still on its overlay after the crash'
wait_for 60 cat "$now" >"$T/copy" || fail 'the domain cannot be read after the crash'

# Unmounted by hand: that is no failure, and nothing starts it again.
run 0 umount "$MNT"
wait_for 60 unit_is "$unit" ActiveState inactive || fail 'the service outlives its mount'

# Each way to fix an instant works within the fence: NBD sockets, qemu-img, libvirt's saves.
serve_with() {
    write_conf "state=$T/state,min_free=1M,linger=0,$1"
    run 0 systemctl start "$unit"
    wait_for 60 state_is vm "$2" || fail "$1: the domain is not $2"
    cat "$now" >"$T/copy" || fail "$1: $(status_value vm 's["errors"]')"
    run 0 systemctl stop "$unit"
    if on_overlay; then
        fail "$1: the domain is on an overlay after the stop"
    fi
    assert_eq "$(probe list "$T/disks")" "$files" "$1: files after the stop"
    assert_eq "$(stat -c %s "$T/copy")" $((32 << 20)) "$1: bytes read"
}
for method in overlay backup copy managedsave; do
    serve_with "live=$method" running
done
domain_destroy vm
oracle "$T/disks/vm.img" qcow2 "$T/wanted"
for method in lock internal overlay; do
    serve_with "cold=$method" 'shut off'
    assert_same_bytes "$T/copy" "$T/wanted"
done

# A configuration that is wrong is not tried again and again.
write_conf "$options,frobnicate"
run 1 systemctl start "$unit"
assert_eq "$(unit_value "$unit" SubState)" failed 'state with a wrong option'
assert_eq "$(unit_value "$unit" ExecMainStatus)" 1 'status with a wrong option'
systemctl reset-failed "$unit"
# No options at all; and none of the file.
sed -i '/^OPTIONS=/d; s|^SOURCE=.*|SOURCE=dir:/nowhere|' /etc/virtsnapfs/vms.conf
run 1 systemctl start "$unit"
assert_eq "$(unit_value "$unit" ExecMainStatus)" 2 'status without a folder'
run 0 systemctl stop "$unit"
run 1 systemctl start virtsnapfs@other.service
