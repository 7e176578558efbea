# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For the scripts in system/, alone or behind host.sh: the program as it is installed, seen by this
# test only. `meson install` puts all of it into $T/root; that and the machine's own /usr become one
# folder, in a mount namespace of our own, and changes to /etc are thrown away at the end.

: "${BUILD_DIR:?is not set: run this by meson test, or set it to the build folder}"
if [[ -z ${IN_NAMESPACE:-} ]]; then
    IN_NAMESPACE=yes exec unshare --mount --pid --fork --kill-child --mount-proc bash "$0" "$@"
fi
# shellcheck source-path=SCRIPTDIR
declare -F mount_start >/dev/null || . "$(dirname "${BASH_SOURCE[0]}")/mount.sh"

# layer NAME LOWER...: LOWER folders, the first on top, become one at the last of them.
layer() {
    local name=$1 lower
    shift
    mkdir "$T/layers/$name" "$T/layers/$name.work"
    lower=$(IFS=: && echo "$*")
    mount -t overlay "$name" "${!#}" \
        -o "lowerdir=$lower,upperdir=$T/layers/$name,workdir=$T/layers/$name.work"
    at_exit "umount -l '${!#}'"
}

# install_program: sets PREFIX, as of the build. The names that mount(8) knows are linked to /sbin,
# as the manual page says.
install_program() {
    need meson
    [[ -z $(find /sbin/ -maxdepth 1 -name 'mount*virtsnapfs') ]] || fail 'one is installed here'
    meson install -C "$BUILD_DIR" --no-rebuild --destdir "$T/root" >"$T/install" ||
        fail "meson install: $(tail -n 5 "$T/install")"
    PREFIX=$(cd "$T/root" && find . -path '*/bin/virtsnapfs')
    PREFIX=${PREFIX#.} PREFIX=${PREFIX%/bin/virtsnapfs}
    [[ $PREFIX == /usr/* ]] || fail "the build's prefix is '$PREFIX', not one in /usr"
    mkdir "$T/layers"
    mount -t tmpfs tmpfs "$T/layers"
    at_exit "umount -l '$T/layers'"
    layer usr "$T/root/usr" /usr
    # (A folder of host.sh's that this would cover is put on top again.)
    if mountpoint -q /etc/libvirt; then
        mkdir "$T/layers/libvirt"
        mount --bind /etc/libvirt "$T/layers/libvirt"
    fi
    layer etc /etc
    if [[ -d $T/layers/libvirt ]]; then
        mount --bind "$T/layers/libvirt" /etc/libvirt
    fi
    ln -s "$PREFIX/sbin/mount.virtsnapfs" "$PREFIX/sbin/mount.fuse.virtsnapfs" /sbin/
    # What mount(8) remembers of mounts, and lets users unmount.
    mkdir -p /run/mount
    mount -t tmpfs tmpfs /run/mount
    at_exit 'umount -l /run/mount'
}

# run STATUS COMMAND...: its output is in $T/out.
run() {
    local wanted=$1 status=0
    shift
    timeout 120 "$@" >"$T/out" 2>&1 </dev/null || status=$?
    [[ $status == "$wanted" ]] || fail "status $status, wanted $wanted: $*: $(cat "$T/out")"
}

# says REGEX: the command run last.
says() {
    grep -Eq -- "$1" "$T/out" || fail "it said '$(cat "$T/out")', wanted '$1'"
}

# systemd_start: a systemd of our own beside the libvirtd of host.sh, with the units of $T/units, the
# program's and a few that all want; lines of /etc/fstab are units as well.
systemd_start() {
    need systemctl systemd-analyze man
    local unit
    mkdir "$T/units"
    for unit in sysinit basic shutdown umount local-fs local-fs-pre remote-fs remote-fs-pre network; do
        cp "/lib/systemd/system/$unit.target" "$T/units"
    done
    cp "$T/root$PREFIX/lib/systemd/system/virtsnapfs@.service" "$T/units"
    # Its processes have numbers of their own, so it needs a /proc of its own; it sorts them into
    # groups, below one that is this test's. All other mounts that it or we make are seen on both
    # sides, as they are on a host.
    mkdir "$T/groups" "$T/groups/unified" "$T/groups/systemd"
    mount -t cgroup2 cgroup2 "$T/groups/unified"
    mount -t cgroup -o none,name=systemd cgroup "$T/groups/systemd"
    SYSTEMD_LAUNCHER=''
    at_exit systemd_end
    mkdir "$T/groups/unified/$(basename "$T")" "$T/groups/systemd/$(basename "$T")"
    mount --make-rshared /
    # shellcheck disable=SC2016
    bash -euc '
        for group in "$2"/groups/*/"$(basename "$2")"; do
            echo 0 >"$group/cgroup.procs"
        done
        exec unshare --pid --mount --propagation unchanged --cgroup --fork --kill-child bash -euc "
            mount --make-rprivate /proc
            mount --make-rprivate /sys
            mount -t proc proc /proc
            mount -t tmpfs tmpfs /sys/fs/cgroup
            cd /sys/fs/cgroup
            mkdir systemd unified
            mount -t cgroup2 cgroup2 unified
            mount -t cgroup -o none,name=systemd cgroup systemd
            cd /
            exec env -i container=other SYSTEMD_UNIT_PATH=$1 \
                PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
                /lib/systemd/systemd --system --unit=basic.target --log-target=console \
                --show-status=no"' - "$T/units:/run/systemd/generator" "$T" \
        </dev/null >"$T/log.systemd" 2>&1 &
    SYSTEMD_LAUNCHER=$!
    pids+=("$SYSTEMD_LAUNCHER")
    wait_for 10 has_child "$SYSTEMD_LAUNCHER" || fail 'systemd is not started'
    SYSTEMD_PID=$(tr -d ' ' <"/proc/$SYSTEMD_LAUNCHER/task/$SYSTEMD_LAUNCHER/children")
    # It answers only those whose numbers it knows.
    mkdir "$T/bin"
    printf '#!/bin/sh\nexec nsenter -t %s --pid --mount /bin/systemctl "$@"\n' "$SYSTEMD_PID" \
        >"$T/bin/systemctl"
    chmod +x "$T/bin/systemctl"
    PATH=$T/bin:$PATH
    wait_for 60 is_booted || fail "no systemd: $(tail -n 5 "$T/log.systemd")"
}

# All its processes end with it; then their groups can go.
systemd_end() {
    local group
    [[ -z $SYSTEMD_LAUNCHER ]] || kill -KILL "$SYSTEMD_LAUNCHER"
    wait "$SYSTEMD_LAUNCHER" 2>/dev/null
    for group in unified systemd; do
        wait_for 10 remove_groups "$T/groups/$group/$(basename "$T")"
        umount "$T/groups/$group"
    done
}

remove_groups() {
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
}

has_child() {
    [[ -n $(<"/proc/$1/task/$1/children") ]]
}

is_booted() {
    systemctl is-active -q basic.target 2>/dev/null
}

# Runs a command where the processes of that systemd have the numbers that it knows.
at_systemd() {
    nsenter -t "$SYSTEMD_PID" --pid --mount "$@"
}

# unit_value UNIT PROPERTY
unit_value() {
    systemctl show --value -p "$2" "$1"
}

# unit_is UNIT PROPERTY VALUE: for wait_for.
unit_is() {
    [[ $(unit_value "$1" "$2") == "$3" ]]
}
