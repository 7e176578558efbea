#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# bench/methods' part: a Linux guest writes and syncs blocks all the time, or is shut off, while its disks are
# read by each method. Adds rows to $ROWS: run, method, metric, value. METHODS names the methods.
#
# All that a method may write lies on one loop device: images, what it puts beside them, saved memory.
# The kernel's count of sectors written there is what went to disk, whoever wrote it.
. "$(dirname "$0")/../lib/guest.sh"
need losetup mkfs.ext4 python3

# Blocks that the guest writes at least while its disks are read; it goes round over 256 of them.
BLOCKS=300
image=$T/store.img disks=$T/disks

make_store() {
    truncate -s 4G "$image"
    mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 -O ^has_journal "$image"
    loop=$(losetup --find --show "$image")
    mkdir "$disks"
    mount "$loop" "$disks"
    at_exit "umount -l '$disks'; losetup -d '$loop'"
    mkdir "$disks/save"
    chown --reference=/var/lib/libvirt/qemu/save "$disks/save"
    mount --bind "$disks/save" /var/lib/libvirt/qemu/save
    at_exit 'umount /var/lib/libvirt/qemu/save'
}

make_guest() {
    qemu-img create -q -f raw "$disks/content" 512M
    head -c 256M /dev/urandom | dd of="$disks/content" conv=notrunc bs=1M iflag=fullblock status=none
    qemu-img convert -f raw -O qcow2 "$disks/content" "$disks/a.qcow2"
    rm "$disks/content"
    qemu-img create -q -f qcow2 "$disks/b.qcow2" 64M
    guest_define guest idle "$(disk_xml "$disks/a.qcow2" qcow2 vda)" "$(disk_xml "$disks/b.qcow2" qcow2 vdb)"
    at_exit 'virsh destroy guest >/dev/null 2>&1 || true'
    guest_up
    # Each block that it writes has its cluster from here on.
    wait_for 120 has_synced 512 || fail 'the guest does not write'
}

guest_up() {
    guest_start guest
    guest_run guest 'writer blocks 256 /dev/vdb >/dev/console 2>&1 &'
    wait_for 30 has_synced 0 || fail 'the guest does not write'
}

guest_down() {
    virsh shutdown guest >/dev/null
    wait_for 60 is_off || fail 'the guest does not shut down'
}

is_off() { [[ $(virsh domstate guest) == 'shut off' ]]; }
has_synced() { (($(guest_progress guest synced) > $1)); }
answers() { guest_run guest true >/dev/null 2>&1; }
now_us() { echo "${EPOCHREALTIME/[.,]/}"; }

# Bytes that went to the device so far.
written() {
    sync -f "$disks"
    awk '{ printf "%.0f\n", $7 * 512 }' "/sys/block/${loop##*/}/stat"
}

# Bytes that lie there.
used() {
    du -sB1 "$disks" | cut -f 1
}

# CPU that the program and libvirtd took, in milliseconds; QEMU's is the guest's, too.
cpu_ms() {
    awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); sum += $12 + $13 + $14 + $15 } END { print int(sum * 1000 / hz) }' \
        "/proc/$PID/stat" "/proc/$LIBVIRTD_PID/stat"
}

row() {
    printf '%s\t%s\t%s\t%s\n' "$RUN" "$1" "$2" "$3" >>"$ROWS"
}

# The most that ever lay there, until told to stop.
watch_room() {
    python3 -c '
import os, signal, sys, time
most, ends = 0, []
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
while not ends:
    now = 0
    for folder, _, names in os.walk(sys.argv[1]):
        for name in names:
            try:
                now += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    most = max(most, now)
    time.sleep(0.02)
print(most)' "$disks" >"$T/room" &
    watcher=$!
}

files_bytes() {
    find "$disks" -type f -printf '%b\n' | awk '{ sum += $1 } END { printf "%.0f\n", sum * 512 }'
}

# Without us: blocks a second, what they cost on disk, the longest time between two of them.
measure_alone() {
    local t0 t1 s0 s1 w0 w1
    w0=$(written)
    guest_reset_gap guest
    s0=$(guest_progress guest synced) t0=$(now_us)
    wait_for 60 has_synced $((s0 + BLOCKS)) || fail 'the guest does not write'
    s1=$(guest_progress guest synced) t1=$(now_us)
    row alone load "$(cut -d ' ' -f 1 /proc/loadavg)"
    row alone gap_ms $(($(guest_progress guest gap_us) / 1000))
    w1=$(written)
    alone_rate=$(((s1 - s0) * 1000000000 / (t1 - t0)))
    row alone rate "$((alone_rate / 1000))"
    row alone written_kib $(((w1 - w0) / 1024))
    row alone guest_kib $(((s1 - s0) * 4))
}

begin() {
    mount_start qemu:///system -o "$1,quiesce=never,linger=0"
    wait_for 30 state_is guest "$2" || fail "the guest is not shown as $2"
    now=$MNT/guest/snapshots/now.raw
    files0=$(files_bytes) w0=$(written) c0=$(cpu_ms)
    watch_room
}

# Sets t0 and t1, around the open and the first bytes.
open_now() {
    t0=$(now_us)
    exec {fd}<"$now"
    head -c 4096 <&"$fd" >/dev/null
    t1=$(now_us)
}

read_all() {
    cat "$now" "${now%.raw}.vdb.raw" >/dev/null
}

# end_open METHOD: the last close, and what all of it took.
end_open() {
    local t2 t3
    t2=$(now_us)
    exec {fd}<&-
    wait_for 60 has_no_instants guest || fail "$1: the domain is not put back"
    t3=$(now_us)
    row "$1" first_ms $(((t1 - t0) / 1000))
    row "$1" after_ms $(((t3 - t2) / 1000))
    row "$1" cpu_ms $(($(cpu_ms) - c0))
}

# end METHOD BLOCKS: what lies there and what was written; so many blocks of 4 KiB are the guest's own.
end() {
    local w1
    w1=$(written)
    kill "$watcher" && wait "$watcher"
    row "$1" written_kib $(((w1 - w0) / 1024))
    row "$1" guest_kib $(($2 * 4))
    row "$1" room_mib $((($(<"$T/room") - files0) / 1048576))
    row "$1" left_mib $((($(files_bytes) - files0) / 1048576))
    mount_stop
}

measure_live() {
    local method=$1 s0 s1 gap pause
    s0=$(guest_progress guest synced)
    begin "live=$method" running
    guest_reset_gap guest
    open_now
    # While its memory is saved, its clock stands still: until it answers again, by ours.
    wait_for 60 answers || fail "$method: the guest does not answer any more"
    pause=$(($(now_us) - t0))
    read_all
    s1=$(guest_progress guest synced)
    wait_for 60 has_synced $((s1 + BLOCKS)) || fail "$method: the guest does not write"
    end_open "$method"
    gap=$(guest_progress guest gap_us)
    [[ $method != managedsave ]] || gap=$pause
    row "$method" gap_ms $((gap / 1000))
    s1=$(guest_progress guest synced)
    row "$method" rate_permille $(((s1 - s0) * 1000000000000 / ($(now_us) - t0) / alone_rate))
    end "$method" $((s1 - s0))
}

measure_cold() {
    local method=$1 s0=0 s1=0
    begin "cold=$method" 'shut off'
    open_now
    if [[ $method == lock ]]; then
        ! virsh start guest >/dev/null 2>&1 || fail 'the guest was started under cold=lock'
        read_all
    else
        guest_start guest
        guest_run guest 'writer blocks 256 /dev/vdb >/dev/console 2>&1 &'
        wait_for 30 has_synced 0 || fail 'the guest does not write'
        s0=$(guest_progress guest synced)
        read_all
        wait_for 60 has_synced $((s0 + BLOCKS)) || fail "$method: the guest does not write"
    fi
    end_open "cold-$method"
    if [[ $method != lock ]]; then
        s1=$(guest_progress guest synced)
        guest_down
    fi
    end "cold-$method" $((s1 - s0))
}

make_store
make_guest
measure_alone
for method in $METHODS; do
    case $method in
    cold-*)
        is_off || guest_down
        measure_cold "${method#cold-}"
        ;;
    *) measure_live "$method" ;;
    esac
done
is_off || guest_down
