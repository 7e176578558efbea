#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# many.sh METHOD: opens and closes in a row, eight readers at once, two domains at once; afterwards
# the domains are as before, and no descriptor, memory, file or job is left.
#
#   MANY_COUNT=N  opens in a row of each domain (default: 6)
. "$(dirname "$0")/../lib/host.sh"

METHOD=$1
MANY_COUNT=${MANY_COUNT:-6}
formats=(qcow2 raw) is_cold=''
case $METHOD in
overlay | backup | copy) option=live=$METHOD ;;
managedsave) option=live=$METHOD formats=(qcow2 qcow2) ;;
lock) option=cold=$METHOD is_cold=yes ;;
internal) option=cold=$METHOD is_cold=yes formats=(qcow2 qcow2) ;;
cold-overlay) option=cold=overlay is_cold=yes ;;
*) fail "unknown method '$METHOD'" ;;
esac

mkdir "$T/disks"
for name in one two; do
    disks=()
    for i in 0 1; do
        file=$T/disks/$name.$i
        qemu-img create -q -f "${formats[i]}" "$file" 16M
        qemu-io -f "${formats[i]}" -c "write -P $((i + 1)) 1M 3M" "$file" >/dev/null
        oracle "$file" "${formats[i]}" "$T/$name.$i.raw"
        disks+=("$(disk_xml "$file" "${formats[i]}" "vd$(tr 01 ab <<<$i)")")
    done
    domain_define $name "${disks[@]}"
    [[ -n $is_cold ]] || virsh start $name
done

# What is to be the same in the end: definitions, states, files, snapshots, jobs.
look() {
    local name
    probe list "$T/disks"
    for name in one two; do
        virsh dumpxml --inactive $name
        virsh domstate $name
        virsh domblklist $name
        virsh snapshot-list $name
        virsh domjobinfo $name | grep 'Job type' || true # of a domain that is off: no job
    done
}

# A program without sanitizers: memory is looked at.
# shellcheck disable=SC2034
VIRTSNAPFS=${VIRTSNAPFS_PLAIN:-$VIRTSNAPFS}
look >"$T/before"
mount_start qemu:///system -o "$option,linger=0,quiesce=never"
[[ -n $is_cold ]] || for name in one two; do
    wait_for 20 state_is $name running || fail "$name is not running"
done

is_idle() {
    [[ $(status_value "$1" 'len(s["instants"]) + len(s["leftovers"])') == 0 ]]
}
n_descriptors() {
    find "/proc/$PID/fd" -mindepth 1 ! -lname /dev/fuse | wc -l # but for one for each FUSE thread
}
memory_kib() {
    awk '$1 == "VmRSS:" { print $2 }' "/proc/$PID/status"
}
# copy DOMAIN N: disk N through the mount, compared.
copy() {
    local name=$1 file=now.raw
    [[ $2 == 0 ]] || file=now.vdb.raw
    # An open may come while the instant before is put back by a retry; there is none here.
    cmp "$MNT/$name/snapshots/$file" "$T/$name.$2.raw"
}

# Once, so that all is there that stays: threads, caches, connections.
for name in one two; do
    copy $name 0
    wait_for 60 is_idle $name || fail "$name: the instant does not end"
done
descriptors=$(n_descriptors) memory=$(memory_kib)

in_a_row() {
    local i
    for ((i = 0; i < MANY_COUNT; i++)); do
        copy "$1" $((i % 2))
        wait_for 60 is_idle "$1" || fail "$1: the instant does not end"
    done
}
# Two domains at once.
in_a_row one &
first=$!
in_a_row two
wait "$first" || fail 'opens in a row of the other domain'

# Eight readers at once, of one instant.
exec {fd}<"$MNT/one/snapshots/now.raw"
serial=$(status_value one 's["instants"][0]["serial"]')
readers=()
for i in {0..7}; do
    copy one $((i % 2)) &
    readers+=($!)
done
for pid in "${readers[@]}"; do
    wait "$pid" || fail 'one of eight readers'
done
assert_eq "$(status_value one 's["instants"][0]["serial"]')" "$serial" 'instant of eight readers'
exec {fd}<&-
wait_for 60 is_idle one || fail 'the instant of eight readers does not end'

has_no_more_descriptors() {
    (($(n_descriptors) <= descriptors))
}
wait_for 20 has_no_more_descriptors ||
    fail "$(n_descriptors) descriptors, $descriptors before: $(ls -l "/proc/$PID/fd")"
grown=$(($(memory_kib) - memory))
echo "$METHOD: $MANY_COUNT opens of each of two domains; memory grew by $grown KiB"
[[ -z ${VIRTSNAPFS_PLAIN:-} ]] || ((grown < 16384)) || fail "memory grew by $grown KiB"
mount_stop
look >"$T/after"
diff "$T/before" "$T/after" || fail 'the domains are not as before'
for name in one two; do
    [[ -n $is_cold ]] || domain_destroy $name
    for i in 0 1; do
        oracle "$T/disks/$name.$i" "${formats[i]}" "$T/after.raw"
        assert_same_bytes "$T/after.raw" "$T/$name.$i.raw"
    done
done
