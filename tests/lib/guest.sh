# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For scripts in host/ that want a real Linux in their guest: sourced in place of host.sh, which it
# brings along. The guest (guest/init) has a kernel and an initramfs of its own and writes to its
# disks from its start on, as fast as it can (guest/writer.c):
#
#   guest_define NAME blocks DISK-XML...   numbered blocks to all disks in turn; see check_blocks
#   guest_define NAME files DISK-XML...    files on the ext4 of the first disk (guest_make_ext4)
#   guest_start NAME                       and waits until it is up
#   guest_run NAME COMMAND                 a shell command inside of it, by its second serial line
#
# It runs qemu-guest-agent, and shuts down at the press of the power button (virsh shutdown).

GUEST_DIR=${GUEST_CACHE:-${TMPDIR:-/tmp}/virtsnapfs-test-guest}
# Before host.sh, which takes the network away.
if [[ -z ${IN_NAMESPACE:-} ]]; then
    "$(dirname "${BASH_SOURCE[0]}")/guest/build" "$GUEST_DIR" || { echo 'skipped: no guest' && exit 77; }
fi

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/host.sh"

# QEMU runs as another user, who may have no way into a build folder.
mkdir "$T/guest"
cp "$GUEST_DIR/vmlinuz" "$GUEST_DIR/initramfs" "$T/guest/"

guest_define() {
    local name=$1 mode=$2
    shift 2
    echo "<domain type='qemu'><name>$name</name><memory unit='MiB'>192</memory><vcpu>1</vcpu>
        <os><type arch='x86_64' machine='pc'>hvm</type>
        <kernel>$T/guest/vmlinuz</kernel><initrd>$T/guest/initramfs</initrd>
        <cmdline>console=ttyS0 quiet panic=-1 no_timer_check guest.mode=$mode</cmdline></os>
        <features><acpi/></features>
        <on_reboot>destroy</on_reboot>
        <devices><emulator>$(command -v qemu-system-x86_64)</emulator>$*
        <serial type='file'><source path='$T/log.$name'/><target port='0'/></serial>
        <serial type='unix'><source mode='bind' path='$T/guest/$name'/><target port='1'/></serial>
        ${GUEST_DEVICES:-$GUEST_AGENT}
        <controller type='usb' model='none'/><memballoon model='none'/></devices></domain>" \
        >"$T/define.xml"
    virsh define "$T/define.xml" >/dev/null
}

# What a guest has unless GUEST_DEVICES says otherwise.
GUEST_AGENT="<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"

# guest_run NAME COMMAND: prints what it prints; its status.
guest_run() {
    python3 "$LIB_DIR/guest/command.py" "$T/guest/$1" "$2"
}

guest_is_ready() {
    grep -q '^guest: ready' "$T/log.$1"
}

guest_start() {
    rm -f "$T/log.$1"
    virsh start "$1" >/dev/null
    guest_wait_ready "$1"
}

guest_wait_ready() {
    wait_for 60 guest_is_ready "$1" || fail "guest $1 does not come up"
}

guest_agent_is_connected() {
    virsh dumpxml "$1" | grep -q "name='org.qemu.guest_agent.0' state='connected'"
}

guest_wait_agent() {
    wait_for 20 guest_agent_is_connected "$1" || fail "guest $1: no agent"
}

# guest_progress NAME started|synced|gap_us: of its writer. gap_us is the longest
# time between two synced writes since guest_reset_gap.
guest_progress() {
    guest_run "$1" 'writer ask' | grep -o "$2 [0-9]*" | cut -d ' ' -f 2
}

guest_reset_gap() {
    guest_run "$1" 'writer reset'
}

# guest_make_ext4 FILE SIZE: a raw image.
guest_make_ext4() {
    truncate -s "$2" "$1"
    mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$1"
}

# check_blocks [--after N] [--before N] RAW-DISK...: prints the number up to which all are there.
check_blocks() {
    python3 "$LIB_DIR/guest/check_blocks.py" "$@"
}
