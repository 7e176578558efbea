#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Descriptors, threads or memory run out while the mount is used: an errno that says so, no wrong
# byte, no name missing from a list, a line in the log; and afterwards all is as before.
. "$(dirname "$0")/../lib/mount.sh"
. "$(dirname "$0")/../lib/fault.sh"
need qemu-img

mkdir "$T/images"
head -c 1M /dev/urandom >"$T/random"
cp "$T/random" "$T/images/raw.img"
qemu-img convert -c -f raw -O qcow2 "$T/random" "$T/images/packed.qcow2"
qemu-img snapshot -c s1 "$T/images/packed.qcow2"
qemu-img create -q -f qcow2 -F raw -b raw.img "$T/images/over.qcow2"
# Its name says raw, its first bytes say otherwise: never to be read as raw for want of a look.
cp "$T/images/packed.qcow2" "$T/images/disputed.img"

plain=$VIRTSNAPFS
faulty_start

# shortage KIND [ARGUMENT...]: see fault_shortage.py.
shortage() {
    mount_start "dir:$T/images" -o linger=0
    # env has become the program.
    log_mark
    local status=0
    timeout "$([[ $FAULTS == all ]] && echo 2500 || echo 500)" python3 "$LIB_DIR/fault_shortage.py" "$MNT" "$T/random" "$PID" "$T/faulty" "$@" || status=$?
    if ((status != 0)) && wait_for 5 is_gone_or_zombie "$PID"; then
        status=0
        wait "$PID" || status=$?
        fail "$1: the program has ended with $status: $(tail -n 3 "$LOG")"
    fi
    ((status == 0)) || fail "$1: see above"
    assert_serving
    assert_lines "$2" "$([[ $1 != mounts ]] && echo 1 || echo 0)" "$3" "$1"
    mount_stop
}
step=$([[ $FAULTS == all ]] && echo 1 || echo 7)
# Lines: a few for each file of each domain in ten seconds, whatever the number of attempts.
shortage memory 'out of memory|Cannot allocate memory' 2000 "$step"
# Nobody waits for anything, and nothing is to be told.
shortage mounts 'emory' 0 "$step"
shortage descriptors 'Too many open files' 2000 1
shortage threads 'cannot start a thread|ailed to create thread|error creating thread|Resource temp' 2000 1
# The real thing, where the program is not so large by its sanitizer that it would be that which fails.
if ! grep -q libasan <<<"$(ldd "${plain##* }")"; then
    shortage address_space 'out of memory|Cannot allocate memory' 2000 "$step"
fi
