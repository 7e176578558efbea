# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For the scripts in host/: a real libvirtd and real QEMU guests, away from those of the machine.
# The script runs again in namespaces of its own (mounts, network, processes), with empty folders
# where libvirt keeps its state, so it may kill and stop its libvirtd, sees no domains but its own,
# and leaves nothing behind. Guests have no operating system: they sit in their BIOS, and their
# disks are written to from outside (guest_io), through the same path as the guest's own writes.

for tool in virsh qemu-system-x86_64 qemu-img unshare; do
    command -v "$tool" >/dev/null || { echo "skipped: no $tool" && exit 77; }
done
if [[ -z ${IN_NAMESPACE:-} ]]; then
    IN_NAMESPACE=yes exec unshare --mount --net --pid --fork --kill-child --mount-proc \
        bash "$0" "$@"
fi

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/mount.sh"
export LIBVIRT_DEFAULT_URI=qemu:///system

# In a session of its own: with a terminal virsh looks for a polkit agent.
virsh() {
    timeout $((120 * DEADLINE_FACTOR)) setsid --wait virsh -q "$@" </dev/null
}

libvirtd_start() {
    # By way of Python, which hands on none of the files that the test has open.
    python3 -c 'import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))' \
        /usr/sbin/libvirtd -d -p "$T/libvirtd.pid"
    # shellcheck disable=SC2034
    LIBVIRTD_PID=$(<"$T/libvirtd.pid")
    virsh uri >/dev/null || fail "libvirtd does not answer: $(tail -n 5 "$T/log.libvirtd")"
}

prepare_libvirt() {
    local folder
    for folder in /run /etc/libvirt /var/lib/libvirt /var/log/libvirt; do
        mount -t tmpfs tmpfs "$folder"
    done
    mkdir -p /run/lock
    # What libvirtd found out about QEMU, which takes it ten seconds, is kept for the next test.
    if [[ -n ${LIBVIRT_CACHE:-} ]]; then
        mkdir -p "$LIBVIRT_CACHE"
        mount --bind "$LIBVIRT_CACHE" /var/cache/libvirt
    else
        mount -t tmpfs tmpfs /var/cache/libvirt
    fi
    # Guests are emulated. Where libvirtd finds /dev/kvm usable and QEMU does not, or the other way
    # round (it asks as root, and then as QEMU's user), it asks QEMU again what it can do, for
    # seconds, with each definition. So here is a device that nobody can open.
    if [[ -e /dev/kvm ]]; then
        mknod -m 600 "$T/no-kvm" c 0 0
        mount --bind "$T/no-kvm" /dev/kvm
    fi
    printf '%s\n' 'auth_unix_rw = "none"' 'log_filters = "4:util.netdev"' "log_outputs = \"3:file:$T/log.libvirtd\"" \
        >/etc/libvirt/libvirtd.conf
    : >/etc/libvirt/qemu.conf
    /usr/sbin/virtlogd -d
    libvirtd_start
}

# disk_xml FILE FORMAT TARGET [INSIDE [DRIVER-ATTRIBUTES]]: INSIDE goes into <disk> as it is.
disk_xml() {
    echo "<disk type='file' device='disk'>
        <driver name='qemu' type='$2' ${5:-}/><source file='$1'/>
        <target dev='$3' bus='virtio'/>${4:-}</disk>"
}

# domain_define NAME DISK-XML...
domain_define() {
    local name=$1
    shift
    echo "<domain type='qemu'><name>$name</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
        <os><type arch='x86_64' machine='pc'>hvm</type></os>
        <devices><emulator>$(command -v qemu-system-x86_64)</emulator>$*
        <controller type='usb' model='none'/><memballoon model='none'/></devices></domain>" \
        >"$T/define.xml"
    virsh define "$T/define.xml" >/dev/null
}

domain_destroy() {
    virsh destroy "$1" >/dev/null
}

# guest_io DOMAIN N COMMAND...: commands of qemu-io on the Nth disk of a running guest.
guest_io() {
    local domain=$1 disk=$2 command
    shift 2
    for command; do
        virsh qemu-monitor-command "$domain" --hmp \
            "qemu-io -d /machine/peripheral/virtio-disk$disk/virtio-backend \"$command\"" \
            >"$T/guest_io"
        if grep -iE 'error|fail|conflict' "$T/guest_io"; then
            fail "guest_io $domain $command"
        fi
    done
}

# now.qcow2 is sound and has the bytes of now.raw, in one instant: somebody holds that open.
assert_flat_is_same() {
    local d=$MNT/$1/snapshots
    qemu-img check -q -f qcow2 "$d/now.qcow2" || fail "$1: now.qcow2 is not sound"
    qemu-img compare -q -f qcow2 -F raw "$d/now.qcow2" "$d/now.raw" || fail "$1: the views differ"
    assert_eq "$(status_value "$1" 'len(s["instants"])')" 1 "$1: instants"
}

domain_state() {
    status_value "$1" 's["state"]'
}

# state_is DOMAIN STATE: in our status; for wait_for.
state_is() {
    [[ -e $MNT/$1/status && $(domain_state "$1" 2>/dev/null) == "$2" ]]
}

is_listed() {
    probe list "$MNT" | tr '|' '\n' | grep -Fqx -- "$1"
}

is_not_listed() {
    ! is_listed "$1"
}

has_no_instants() {
    [[ $(status_value "$1" 'len(s["instants"])') == 0 ]]
}

prepare_libvirt
