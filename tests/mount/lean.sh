#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The program that serves folders loads a handful of libraries; for libvirt and for uploads it becomes
# the full one, which it finds in the build folder and where it is installed, and nowhere else.
#
# In a mount namespace of its own, where other folders are put at the place of the prefix.
[[ -n ${LEAN_NAMESPACE:-} ]] || LEAN_NAMESPACE=yes exec unshare -m --propagation private "$0" "$@"
program=$VIRTSNAPFS
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img meson

build=$(realpath "$(dirname "$program")/..")
[[ -e $build/build.ninja ]] || skip "$program does not lie in a build folder"
option() {
    meson introspect --buildoptions "$build" |
        python3 -c 'import json, sys
print(next(o["value"] for o in json.load(sys.stdin) if o["name"] == sys.argv[1]))' "$1"
}
prefix=$(option prefix)
full=$prefix/$(option libexecdir)/virtsnapfs/virtsnapfs
[[ -d $prefix ]] || skip "no $prefix to put another folder at"

mkdir "$T/images" "$T/empty"
make_qcow2 "$T/images/a.qcow2"
oracle "$T/images/a.qcow2" qcow2 "$T/a.raw"
# What programs like this one are told of clouds by whoever runs the tests is not meant for it.
for name in "${!OS_@}"; do
    unset "$name"
done
export HOME=$T/home XDG_CONFIG_HOME=$T/home/.config

libraries_of() {
    sed -n 's|.*/\(lib[^/]*\)\.so[^/]*$|\1|p' "/proc/$1/maps" | sort -u
}

# Those of the sanitizers and of valgrind as well. What else comes with a library shows here, too.
assert_lean() {
    local name
    for name in $(libraries_of "$PID"); do
        [[ $name =~ ^lib(c|m|nettle|seccomp|fuse3|jansson|yaml-0|z|zstd|deflate|asan|ubsan|tsan|gcc_s|stdc\+\+|dl|rt|pthread)$ ]] ||
            fail "$1: $name is loaded"
    done
}

assert_serves_folder() {
    assert_same_bytes "$MNT/a.qcow2/snapshots/now.raw" "$T/a.raw"
    cp "$MNT/a.qcow2/snapshots/now.raw" "$T/copy.raw"
    assert_same_bytes "$T/copy.raw" "$T/a.raw"
}

# assert_runs PROGRAM WHAT: as the process that was started, not as its child.
assert_runs() {
    [[ -n ${VIRTSNAPFS_WRAPPER:-} ]] || assert_eq "$(readlink "/proc/$PID/exe")" "$1" "$2"
}

# refuses SOURCE: fails with status 2, in the foreground or not, and says what is missing.
refuses() {
    local status foreground
    for foreground in '' -f; do
        status=0
        # shellcheck disable=SC2086
        timeout $((60 * DEADLINE_FACTOR)) $VIRTSNAPFS $foreground -o "state=$T/state" "$1" "$T/empty" </dev/null >"$T/err" 2>&1 ||
            status=$?
        assert_eq "$status" 2 "status without the full program"
        assert_match "$(<"$T/err")" "error: cannot run '$full'.*No such file" 'what it says'
    done
}

# What the build folder has.
mount_start "dir:$T/images"
assert_runs "$build/fs/virtsnapfs" 'program for a folder'
assert_lean 'a folder'
assert_serves_folder
assert_errno EACCES write "$MNT/a.qcow2/upload" now
assert_lean 'a folder after a refused upload'
mount_stop

mount_start test:///default
assert_runs "$build/fs/full/virtsnapfs" 'program for libvirt'
assert_eq "$(probe list "$MNT")" test 'domains of the test driver'
mount_stop

export OS_AUTH_URL=http://127.0.0.1:9/v3 OS_USERNAME=u OS_PASSWORD=p OS_PROJECT_NAME=p
mount_start "dir:$T/images"
assert_runs "$build/fs/full/virtsnapfs" 'program for a folder and a cloud'
assert_serves_folder
assert_errno ECONNREFUSED write "$MNT/a.qcow2/upload" now
# (valgrind gives the program a copy of its own environment, and the kernel shows valgrind's.)
if [[ -z ${VIRTSNAPFS_WRAPPER:-} ]] && grep -qz 'OS_PASSWORD=p' "/proc/$PID/environ"; then
    fail 'the password is still in the environment'
fi
mount_stop

# Somewhere else, with programs of that name beside it, in the working folder and in PATH.
mkdir -p "$T/else/fs/full" "$T/else/libexec/virtsnapfs" "$T/prefix"
cp "$build/fs/virtsnapfs" "$T/else/fs/virtsnapfs"
for trap in fs/full/virtsnapfs libexec/virtsnapfs/virtsnapfs full virtsnapfs; do
    [[ -d $T/else/$trap ]] || printf '#!/bin/sh\necho trapped >&2\nexit 9\n' >"$T/else/$trap"
    chmod +x "$T/else/$trap"
done
mount --bind "$T/prefix" "$prefix"
VIRTSNAPFS="${VIRTSNAPFS_WRAPPER:+$VIRTSNAPFS_WRAPPER }$T/else/fs/virtsnapfs"
cd "$T/else"
PATH=$T/else:$PATH refuses dir:"$T/images"
unset OS_AUTH_URL OS_USERNAME OS_PASSWORD OS_PROJECT_NAME
PATH=$T/else:$PATH refuses test:///default
mount_start "dir:$T/images"
assert_serves_folder
mount_stop
cd /
umount "$prefix"

# Installed.
DESTDIR=$T/dest meson install -C "$build" --no-rebuild --quiet >"$T/log.install" 2>&1 ||
    fail "meson install: $(tail -n 3 "$T/log.install")"
mount --bind "$T/dest$prefix" "$prefix"
VIRTSNAPFS="${VIRTSNAPFS_WRAPPER:+$VIRTSNAPFS_WRAPPER }$prefix/bin/virtsnapfs"
mount_start "dir:$T/images"
assert_runs "$prefix/bin/virtsnapfs" 'installed program for a folder'
assert_lean 'a folder by the installed program'
assert_serves_folder
mount_stop
mount_start test:///default
assert_runs "$full" 'installed program for libvirt'
assert_eq "$(probe list "$MNT")" test 'domains of the test driver'
mount_stop
umount "$prefix"
