#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk that fails under some images (a real loop device whose own file has lost its end): EIO for
# what lies there and for nothing else, and right bytes again once the disk is back.
. "$(dirname "$0")/../lib/mount.sh"
. "$(dirname "$0")/../lib/fault.sh"
need qemu-img mkfs.ext4 losetup

mkdir "$T/images" "$T/disk"
python3 -c 'import base64, random, sys
data = base64.b64encode(random.Random(1).randbytes(3 << 20))
sys.stdout.buffer.write(data[:4 << 20])' >"$T/oracle"
truncate -s 64M "$T/device"
# A single group of blocks: files come to lie one after the other.
mkfs.ext4 -q -F -b 4096 -O ^has_journal -E lazy_itable_init=0 "$T/device"
# Mounts it anew, so that the kernel remembers none of its bytes.
loop=''
attach() {
    loop=$(losetup --find --show "$T/device")
    mount -o "$1" "$loop" "$T/images"
}
detach() {
    [[ -n $loop ]] || return 0
    wait_for 20 umount "$T/images" 2>/dev/null || fail 'cannot unmount the device'
    losetup -d "$loop"
    loop=''
}
# shellcheck disable=SC2016 # as it is then
at_exit 'umount -l "$T/images" 2>/dev/null; [[ -z $loop ]] || losetup -d "$loop"'

attach rw
rmdir "$T/images/lost+found"
I=$T/images
qemu-img convert -f raw -O qcow2 "$T/oracle" "$I/other.qcow2"
qemu-img create -q -f qcow2 -F raw -b below.raw -u "$I/over.qcow2" 4M
sync -f "$I"
victims=(raw.raw plain.qcow2 packed.qcow2 snapshot.qcow2 below.raw)
for victim in "${victims[@]}"; do
    case $victim in
    raw.raw | below.raw) cp "$T/oracle" "$I/$victim" ;;
    plain.qcow2) qemu-img convert -f raw -O qcow2 "$T/oracle" "$I/$victim" ;;
    packed.qcow2) qemu-img convert -c -f raw -O qcow2 "$T/oracle" "$I/$victim" ;;
    snapshot.qcow2) qemu-img convert -f raw -O qcow2 "$T/oracle" "$I/$victim" && qemu-img snapshot -c s1 "$I/$victim" ;;
    esac
    sync -f "$I"
done
# place FILE: the first byte of it on the device, the first one past it, and one in its middle.
place() {
    python3 - "$1" <<'PY'
import array, fcntl, os, struct, sys

fd = os.open(sys.argv[1], os.O_RDONLY)
room = 64
request = bytearray(struct.pack("=QQLLLL", 0, 1 << 40, 1, 0, room, 0) + bytes(56 * room))
fcntl.ioctl(fd, 0xC020660B, request)  # FS_IOC_FIEMAP
n = struct.unpack_from("=L", request, 20)[0]
extents = [struct.unpack_from("=QQQ", request, 32 + 56 * i) for i in range(n)]
middle = os.fstat(fd).st_size // 2
logical, physical, _ = [e for e in extents if e[0] <= middle][-1]
print(min(e[1] for e in extents), max(e[1] + e[2] for e in extents),
      (physical + middle - logical) // 4096 * 4096)
PY
}
# shellcheck disable=SC2034 # `end` is used
declare -A begin end middle
for file in other.qcow2 over.qcow2 "${victims[@]}"; do
    read -r "begin[$file]" "end[$file]" "middle[$file]" < <(place "$I/$file")
done
detach

# break_at BYTE: from there on the device fails. heal: it does not any more.
break_at() {
    tail -c "+$(($1 + 1))" "$T/device" >"$T/rest"
    LOST_FROM=$1
    truncate -s "$1" "$T/device"
}
heal() {
    dd if="$T/rest" of="$T/device" bs=1M oflag=seek_bytes seek="$LOST_FROM" conv=notrunc status=none
}

# files VICTIM: what is shown of it.
files() {
    case $1 in
    below.raw) echo below.raw/snapshots/now.raw over.qcow2/snapshots/now.raw ;;
    snapshot.qcow2) echo snapshot.qcow2/snapshots/now.raw snapshot.qcow2/snapshots/s1.raw ;;
    *) echo "$1/snapshots/now.raw" ;;
    esac
}
domain_of() {
    echo "${1%%/*}"
}
# check VICTIM WHERE: its middle and what follows fails, or all of it. Others further on do too.
check() {
    local file fd fds=() at=${middle[$1]}
    [[ $2 != begin ]] || at=${begin[$1]}
    [[ $at -ge ${end[other.qcow2]} && $at -ge ${end[over.qcow2]} ]] || fail 'the sound image lies in the broken part'
    attach ro
    mount_start "dir:$I" -o linger=0
    if [[ $2 == middle ]]; then
        for file in $(files "$1"); do
            exec {fd}<"$MNT/$file"
            fds+=("$fd")
            head -c 65536 <&"$fd" | cmp -n 65536 - "$T/oracle" || fail "$file: first piece"
        done
    fi
    break_at "$at"
    log_mark
    for file in $(files "$1"); do
        if [[ $2 == middle ]]; then
            READ_TIMES=20 assert_fault EIO "${fds[0]}" "$T/oracle"
            ((FAILED > 0 && FAILED < 20 * 64)) || fail "$file: $FAILED pieces failed"
            fds=("${fds[@]:1}")
        else
            assert_fault EIO "$MNT/$file" "$T/oracle"
            # Names that cannot be read are not gone: no backup is to delete what it has of them.
            [[ $1 != *.qcow2 ]] || assert_errno EIO list "$MNT/${file%/*}"
        fi
        assert_lines "'$(domain_of "$file")'" 1 7 "$file, $2"
        assert_sound "$MNT/other.qcow2/snapshots/now.raw" "$T/oracle"
    done
    assert_serving
    heal
    # Nothing sticks: readers that were there already, and those that come.
    for file in $(files "$1"); do
        wait_for 10 is_readable "$MNT/$file" || fail "$file is still broken"
        assert_sound "$MNT/$file" "$T/oracle"
    done
    [[ $1 != snapshot.qcow2 ]] || assert_eq "$(probe list "$MNT/$1/snapshots")" 'now.raw|s1.raw' names
    for fd in /proc/"$$"/fd/*; do
        [[ $(readlink "$fd") != "$MNT"/* ]] || { fd=${fd##*/} && exec {fd}<&-; }
    done
    mount_stop
    detach
}
is_readable() {
    [[ $(probe read "$1" 0 65536) == OK ]]
}

shown=("${victims[@]}")
[[ $FAULTS == all ]] || shown=(plain.qcow2 below.raw)
for victim in "${shown[@]}"; do
    check "$victim" middle
done
[[ $FAULTS == all ]] || shown=(snapshot.qcow2)
for victim in "${shown[@]}"; do
    check "$victim" begin
done
