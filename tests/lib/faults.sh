# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For host/faults.sh: a Linux guest that writes numbered blocks, another domain beside it, somebody
# who reads, and what has to be true after each fault.
#
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
: "${KILLER:?is not set: run this by meson test}"

# shellcheck disable=SC2034
TIMEOUT_S=$((5 * DEADLINE_FACTOR)) # timeout= of the mounts
# shellcheck disable=SC2034
QEMU_PID_FILE=/run/libvirt/qemu/guest.pid
DISKS=$T/disks
images=("$DISKS/a.img" "$DISKS/b.img")
is_cold=''

# prepare_domains FORMAT: of the guest's second and third disk; the first one is qcow2.
prepare_domains() {
    formats=(qcow2 "$1")
    mkdir -p "$DISKS" "$T/state/journal"
    mount -t tmpfs -o size=2G,mode=755 tmpfs "$DISKS"
    at_exit "umount -l '$DISKS'"
    qemu-img create -q -f qcow2 "${images[0]}" 8M
    qemu-img create -q -f "$1" "${images[1]}" 8M
    qemu-img create -q -f "$1" "$DISKS/c.img" 4M
    # No driver of the guest's knows the third one, so that it can be taken away at any time.
    scsi_disk="<disk type='file' device='disk'><driver name='qemu' type='$1'/>
        <source file='$DISKS/c.img'/><target dev='sda' bus='scsi'/></disk>"
    GUEST_DEVICES="$GUEST_AGENT<controller type='scsi' model='virtio-scsi'/>" \
        guest_define guest blocks "$(disk_xml "${images[0]}" qcow2 vda)" \
        "$(disk_xml "${images[1]}" "$1" vdb)" "$scsi_disk"
    virsh dumpxml --inactive guest | sed 's/<on_reboot>destroy/<on_reboot>restart/' >"$T/guest.xml"
    virsh define "$T/guest.xml" >/dev/null
    make_qcow2 "$DISKS/other.img"
    oracle "$DISKS/other.img" qcow2 "$T/other.raw"
    qemu-img snapshot -c s1 "$DISKS/other.img"
    domain_define other "$(disk_xml "$DISKS/other.img" qcow2 vda)"
}

# ---- The guest ----

is_running() {
    [[ $(virsh domstate guest) == running ]]
}
is_off() {
    [[ $(virsh domstate guest) == 'shut off' ]]
}
is_paused() {
    [[ $(virsh domstate guest) == paused ]]
}

guest_on() {
    guest_start guest
    guest_wait_agent guest
    wait_for 60 has_synced_more "$last_synced" || fail 'the guest does not write'
}

# The number of the last block that the guest knows to be on its disks.
last_synced=0
note_synced() {
    last_synced=$(guest_progress guest synced)
}
has_synced_more() {
    (($(guest_progress guest synced) > $1))
}

# Nothing that was ever synced is missing on the disks of the guest, which is off now.
check_images() {
    local i copies=()
    wait_for 20 is_off || fail 'the guest is not off'
    for i in 0 1; do
        oracle "${images[i]}" "${formats[i]}" "$T/end.$i"
        copies+=("$T/end.$i")
    done
    last_synced=$(check_blocks --after "$last_synced" "${copies[@]}") || fail 'the guest has lost data'
}

# ---- Who reads ----

holder_start() {
    rm -f "$T/holder.in"
    mkfifo "$T/holder.in"
    python3 "$LIB_DIR/hold.py" "$MNT"/guest/snapshots/now{,.vdb}.raw \
        <"$T/holder.in" >"$T/holder" 2>"$T/log.holder" &
    HOLDER=$! n_asked=0
    pids+=("$HOLDER")
    exec {HOLDER_IN}>"$T/holder.in"
}
tell() {
    echo "$*" >&"$HOLDER_IN"
    n_asked=$((n_asked + 1))
}
has_answered() {
    (($(wc -l <"$T/holder") >= n_asked))
}
# answer: of what was told last.
answer() {
    wait_for 100 has_answered || fail "no answer to what was told $HOLDER: $(cat "$MNT/guest/status")"
    ANSWER=$(tail -n 1 "$T/holder")
    [[ $ANSWER == OK ]] || n_failures=$((n_failures + 1))
}
# expect REGEX WHAT: the answer.
expect() {
    answer
    assert_match "$ANSWER" "^($1)$" "$2"
}
holder_end() {
    exec {HOLDER_IN}>&-
    wait_for 60 is_gone_or_zombie "$HOLDER" || fail 'a reader cannot close'
    unset "pids[-1]"
}

# ---- What is true while something is broken ----

# The other domain is listed and read, also what is not in the kernel's cache, and so is `status`.
check_others() {
    local name
    timeout $((60 * DEADLINE_FACTOR)) ls -lR "$MNT" >"$T/ls" || fail "ls hangs: $(cat "$T/ls")"
    for name in guest other; do
        [[ $name == other || ${fault:-} != guest-@(undefined|renamed) ]] || continue # not there
        timeout $((60 * DEADLINE_FACTOR)) cat "$MNT/$name/status" "$MNT/$name/domain.xml" >/dev/null || fail "status of $name hangs"
    done
    timeout $((60 * DEADLINE_FACTOR)) dd "if=$MNT/other/snapshots/s1.raw" bs=1M iflag=direct status=none |
        cmp - "$T/other.raw" || fail 'a snapshot of the other domain cannot be read'
    # By a lock of ours, for which nobody else is needed.
    [[ -n $is_cold ]] ||
        timeout $((60 * DEADLINE_FACTOR)) cmp "$MNT/other/snapshots/now.raw" "$T/other.raw" ||
        fail 'now.raw of the other domain cannot be read'
}

# ---- What is true before and after ----

journal_entries() {
    find "$T/state/journal" -type f ! -name lock
}

describe() {
    echo '== live'
    # Who started the guest last, and what a restore or a new libvirtd numbers and orders anew, is no
    # matter.
    virsh dumpxml guest | python3 -c 'import re, sys
text = re.sub(r"(<domain [^>]*) id=.[0-9]+.", r"\1", sys.stdin.read())
text = re.sub(r"/domain-[0-9]+-guest/", "/domain-guest/", text)
text = re.sub(r"(<(?:source|backingStore) [^>]*) index=.[0-9]+.", r"\1", text)
controllers = r"<controller [^>]*?(?:/>|>.*?</controller>)\s*"
found = sorted(one for one in re.findall(controllers, text, re.S) if "type=\x27usb" not in one)
print(re.sub(controllers, "", text, flags=re.S), *found, sep="\n")'
    echo '== inactive'
    virsh dumpxml --inactive guest
    echo '== state'
    virsh domstate guest
    echo '== jobs'
    virsh domjobinfo guest 2>&1 | grep 'Job type' || true
    virsh 'blockjob guest vda --raw; blockjob guest vdb --raw' 2>/dev/null || true
    echo '== snapshots'
    virsh snapshot-list guest --name
    virsh dominfo guest | grep '^Managed save'
    for image in "$DISKS"/*.img; do
        qemu-img snapshot -U -l "$image"
    done
    echo '== files'
    probe list "$DISKS"
    find /run/libvirt /var/lib/libvirt -name '*virtsnapfs-*'
    echo '== journal'
    journal_entries
}

keep_libvirtd() {
    is_gone_or_zombie "$LIBVIRTD_PID" || return 0
    libvirtd_start
}

is_settled() {
    keep_libvirtd
    [[ $(status_value guest 'len(s["instants"]) + len(s["leftovers"])' 2>/dev/null) == 0 ]]
}

# What the program itself says since line $n_lines: a line a fault, and not one a second.
n_lines=0
lines_of_cell() {
    tail -n +$((n_lines + 1)) "$LOG" | grep -E '^virtsnapfs: (warning|error):' || true
}
