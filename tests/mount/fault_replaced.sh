#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# An image is truncated, deleted, replaced or written over while somebody reads it: old bytes or an
# error, never others; another image is read meanwhile; and the next open shows what is there now.
. "$(dirname "$0")/../lib/mount.sh"
. "$(dirname "$0")/../lib/fault.sh"
need qemu-img

N=64 # pieces of 64 KiB
mkdir "$T/images" "$T/made"
# make KIND NAME SEED: $T/made/NAME.KIND..., and what is in it as $T/made/NAME.oracle.
content() {
    python3 -c 'import base64, random, sys
data = base64.b64encode(random.Random(sys.argv[1]).randbytes(3 << 20))
sys.stdout.buffer.write(data[:4 << 20])' "$1"
}
content old >"$T/old"
content new >"$T/new"
make() {
    local from=$T/$2 to=$3
    case $1 in
    raw) cp "$from" "$to" ;;
    plain) qemu-img convert -f raw -O qcow2 "$from" "$to" ;;
    packed) qemu-img convert -c -f raw -O qcow2 "$from" "$to" ;;
    esac
}
# What is broken: the image itself, or what lies below it.
image_of() {
    case $1 in
    raw) echo "$T/images/$1-$2.raw" ;;
    below) echo "$T/images/$1-$2.base" ;;
    *) echo "$T/images/$1-$2.qcow2" ;;
    esac
}
kinds='plain below'
# shellcheck disable=SC2153 # set by fault.sh
[[ $FAULTS != all ]] || kinds+=' raw packed'
faults='half empty deleted renamed overwritten'
for kind in $kinds; do
    for fault in $faults; do
        image=$(image_of "$kind" "$fault")
        if [[ $kind == below ]]; then
            cp "$T/old" "$image"
            qemu-img create -q -f qcow2 -F raw -b "$image" "${image%.base}.qcow2"
        else
            make "$kind" old "$image"
        fi
    done
done
make plain old "$T/images/other.qcow2"
mount_start "dir:$T/images" -o linger=0

# happen FAULT KIND IMAGE
happen() {
    local new=raw
    [[ $2 == below ]] || new=$2
    case $1 in
    half) truncate -s $(($(stat -c %s "$3") / 2)) "$3" ;;
    empty) truncate -s 0 "$3" ;;
    deleted) rm "$3" ;;
    renamed) make "$new" new "$T/images/.new" && mv "$T/images/.new" "$3" ;;
    overwritten) make "$new" new "$T/made/new" && cat "$T/made/new" 1<>"$3" ;;
    esac
}
# check_now KIND FAULT FILE IMAGE: the next open. QEMU says what is there.
check_now() {
    local top=$4 format=raw
    [[ $1 != below ]] || top=${4%.base}.qcow2
    [[ $1 == raw ]] || format=qcow2
    if [[ $1-$2 == raw-deleted ]]; then
        assert_fault ENOENT "$3" "$T/old"
    elif ! qemu-img convert -f $format -O raw "$top" "$T/now" 2>/dev/null; then
        # (A compressed cluster that the end of the file cuts is garbage to QEMU, so look behind it.)
        assert_match "$(probe read "$3" $(((N - 1) << 16)) 65536)" '^(EIO|ENOENT)$' "$1-$2"
    else
        assert_sound "$3" "$T/now"
        assert_eq "$(stat -c %s "$3")" "$(stat -c %s "$T/now")" "size of $1-$2"
    fi
}
has_no_instants() {
    [[ $(status_value "$1" 'len(s["instants"])' 2>/dev/null || echo 0) == 0 ]]
}
# What happens to a reader: errno, pieces that fail at least and at most. Some are in the cache.
declare -A wanted=(
    [half]="EIO 8 $((N - 1))" [empty]="EIO $((N - 8)) $N" [deleted]='OK 0 0' [renamed]='OK 0 0'
    [overwritten]="* 0 $N"
)
shopt -s extglob
for kind in $kinds; do
    for fault in $faults; do
        image=$(image_of "$kind" "$fault")
        domain=$(basename "${image%.base}")
        [[ $kind != below ]] || domain+=.qcow2
        file=$MNT/$domain/snapshots/now.raw
        read -r outcome least most <<<"${wanted[$fault]}"
        exec {fd}<"$file"
        head -c 65536 <&"$fd" | cmp -n 65536 - "$T/old" || fail "$kind-$fault: first piece"
        log_mark
        happen "$fault" "$kind" "$image"
        oracles=("$T/old")
        # Somebody wrote to it past all locks: a copy of the moment is all that can be had.
        [[ $fault != overwritten ]] || oracles+=("$T/new")
        assert_fault "$outcome" "$fd" "${oracles[@]}"
        ((FAILED >= least && FAILED <= most)) || fail "$kind-$fault: $FAILED of $N pieces failed"
        # A reader that does not give up is no flood in the log.
        [[ $outcome != EIO ]] || READ_TIMES=50 assert_fault EIO "$fd" "$T/old"
        assert_lines "'$domain'" "$([[ $outcome == EIO ]] && echo 1 || echo 0)" 3 "$kind-$fault"
        assert_sound "$MNT/other.qcow2/snapshots/now.raw" "$T/old"
        exec {fd}<&-
        wait_for 20 has_no_instants "$domain" || fail "$kind-$fault: the instant does not end"
        check_now "$kind" "$fault" "$file" "$image"
    done
done
assert_serving
mount_stop
