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
    layer etc /etc
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
