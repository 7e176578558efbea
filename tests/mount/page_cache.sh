#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What a read of ours brings into the host's page cache leaves it again; what was there before stays,
# since a guest with cache=writeback lives from it.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img base64

mkdir "$T/images"
cd "$T/images"
# Text of random bytes: it compresses, but not to nothing.
head -c 36M /dev/urandom | base64 -w 0 >"$T/content.raw"
truncate -s 48M "$T/content.raw"
qemu-img convert -f raw -O qcow2 "$T/content.raw" plain.qcow2
qemu-img convert -f raw -O qcow2 -c "$T/content.raw" zlib.qcow2
cp plain.qcow2 .base.qcow2
qemu-img create -q -f qcow2 -b .base.qcow2 -F qcow2 chain.qcow2
for ((i = 0; i < 48; i += 3)); do
    qemu-io -f qcow2 -c "write -P $((i + 1)) ${i}M 192k" chain.qcow2 >/dev/null
done
for image in plain zlib chain; do
    oracle $image.qcow2 qcow2 "$T/$image.raw"
done
cd "$T"

resident() {
    python3 "$LIB_DIR/../mount/resident.py" "$@"
}

evict() {
    dd of="$1" oflag=nocache conv=notrunc,fdatasync count=0 status=none
}

# files_of IMAGE: it and what is below it.
files_of() {
    echo "$T/images/$1.qcow2"
    [[ $1 != chain ]] || echo "$T/images/.base.qcow2"
}

n_pages() {
    resident list "$1" | grep -c . || true
}

# read_all IMAGE: of an instant of its own, since that of the last read was read already.
read_all() {
    assert_same_bytes "$MNT/$1.qcow2/snapshots/now.raw" "$T/$1.raw"
}

# Somebody else on this machine may drop all caches meanwhile, as benchmarks do; the kernel counts it.
n_drops() {
    awk '/^drop_pagecache/ { print $2 }' /proc/vmstat
}

# load_and_read IMAGE LOAD: LOAD brings something of each file in; before.FILE and after.FILE list
# the pages that are there before and after all of the disk was read.
load_and_read() {
    local image=$1 i drops file
    for ((i = 0; i < 20; i++)); do
        drops=$(n_drops)
        for file in $(files_of "$image"); do
            evict "$file"
            "$2" "$file"
            resident list "$file" >"$T/before.${file##*/}"
        done
        read_all "$image"
        for file in $(files_of "$image"); do
            resident list "$file" >"$T/after.${file##*/}"
        done
        [[ $(n_drops) != "$drops" ]] || return 0
    done
    fail 'all caches are dropped again and again'
}

load_none() {
    :
}

# A sixth, from within a page on.
load_part() {
    local size
    size=$(stat -c %s "$1")
    resident load "$1" $((size / 3)) $((size / 6))
}

load_all() {
    cat "$1" >/dev/null
}

# expect_pages FILE WHICH LEAST MOST: 48ths of all pages that are there WHICH (before, after).
expect_pages() {
    local n all
    n=$(grep -c . "$T/$2.${1##*/}" || true) all=$((($(stat -c %s "$1") + 4095) / 4096))
    ((n * 48 >= all * $3 && n * 48 <= all * $4)) || fail "$1: $2, $n of $all pages were there"
}

# What was there before still is, but for a page that the kernel takes of its own accord.
expect_kept() {
    local n before
    n=$(comm -23 <(sort "$T/before.${1##*/}") <(sort "$T/after.${1##*/}") | wc -l)
    before=$(grep -c . "$T/before.${1##*/}" || true)
    ((n * 100 <= before)) || fail "of $1 $n of $before pages that were there are no more"
}

mount_start "dir:$T/images" -o join=0
is_able=$(resident can "$T/images")
for image in plain zlib chain; do
    load_and_read $image load_all
    for file in $(files_of $image); do
        expect_pages "$file" before 48 48
        expect_kept "$file"
    done
    load_and_read $image load_part
    for file in $(files_of $image); do
        expect_pages "$file" before 7 9
        expect_kept "$file"
        # What is read ahead, or looked at by two threads at once, may be left over.
        [[ $is_able == no ]] || expect_pages "$file" after 7 20
    done
    load_and_read $image load_none
    for file in $(files_of $image); do
        expect_pages "$file" before 0 0
        [[ $is_able == no ]] || expect_pages "$file" after 0 12
    done
done
mount_stop
echo "pages can be left out of the page cache here: $is_able"
