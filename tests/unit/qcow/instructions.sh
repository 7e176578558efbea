#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# How many instructions the decoder needs to read or map an image, counted by callgrind: they are
# the same on a busy machine. The limits are half as much again as was measured when they were set,
# so that another compiler or processor passes, and work that is done twice, or for each cluster of
# a chain, does not.
set -euo pipefail
export LC_ALL=C.UTF-8
for tool in valgrind qemu-img qemu-io python3; do
    command -v "$tool" >/dev/null || { echo "skipped: no $tool" && exit 77; }
done
[[ -n ${VIRTSNAPFS_PLAIN:-} ]] || { echo 'skipped: VIRTSNAPFS_PLAIN is not set' && exit 77; }
qcowcat=$(dirname "$VIRTSNAPFS_PLAIN")/../tests/unit/qcow/qcowcat
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
cd "$T"

# 64 MiB, every second MiB is data: text-like and not to be compressed by turns
python3 - <<'PY'
import random
source = random.Random(5)
words = [source.randbytes(source.randrange(3, 9)) for _ in range(500)]
with open("base.raw", "wb") as f:
    f.truncate(64 << 20)
    for mib in range(0, 64, 2):
        f.seek(mib << 20)
        text = b"".join(source.choices(words, k=200000))[: 1 << 20]
        f.write(source.randbytes(1 << 20) if mib % 10 == 0 else text)
PY
qemu-img convert -f raw -O qcow2 base.raw plain.qcow2
qemu-img convert -f raw -O qcow2 -c base.raw zlib.qcow2
qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd base.raw zstd.qcow2
qemu-img create -q -f qcow2 frag.qcow2 64M
# every second cluster, from the end to the beginning
for ((i = 1022; i >= 0; i -= 2)); do echo "write -P $((i % 255 + 1)) $((i * 64))k 64k"; done |
    qemu-io -f qcow2 frag.qcow2 >/dev/null
below=frag.qcow2
for i in 1 2 3 4; do
    qemu-img create -q -f qcow2 -b "$below" -F qcow2 "chain$i.qcow2"
    qemu-io -f qcow2 -c "write -P $i ${i}M 64k" "chain$i.qcow2" >/dev/null
    below=chain$i.qcow2
done

# expect THOUSANDS ARGUMENT...: qcowcat needs at most half as many instructions more
failed=0
expect() {
    local measured=$1 n
    shift
    n=$(timeout 300 valgrind --tool=callgrind --callgrind-out-file=/dev/null "$qcowcat" "$@" \
        2>&1 >/dev/null | sed -n 's/.*Collected : //p')
    [[ -n $n ]] || { echo "FAILED: callgrind counted nothing for $*" && exit 1; }
    printf '%-22s %9d thousand instructions, %9d when the limit was set\n' "$*" $((n / 1000)) \
        "$measured"
    ((n / 1000 <= measured + measured / 2)) || failed=1
}

expect 35000 plain.qcow2
expect 416000 zlib.qcow2
expect 457000 zstd.qcow2
expect 40000 frag.qcow2
expect 52000 chain4.qcow2
expect 17000 --map chain4.qcow2
((failed == 0)) || { echo 'FAILED: more instructions than the limit' && exit 1; }
