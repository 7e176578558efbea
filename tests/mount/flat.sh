#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# NAME.qcow2: the same disk as NAME.raw in one qcow2 file that stands alone, judged by qemu-img.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img qemu-io rsync

mkdir "$T/images" "$T/copies"
cd "$T/images"
qemu-img create -q -f qcow2 empty.qcow2 1G
qemu-img create -q -f qcow2 zero.qcow2 0
qemu-img create -q -f qcow2 sector.qcow2 512
qemu-io -f qcow2 -c 'write -P 1 0 512' sector.qcow2 >/dev/null
# Exactly one L2 table, and one sector more.
for size in 536870912 536871424; do
    qemu-img create -q -f qcow2 table-$size.qcow2 $size
    qemu-io -f qcow2 -c 'write -P 2 0 100k' -c "write -P 3 $((size - 512)) 512" \
        table-$size.qcow2 >/dev/null
done
make_qcow2 plain.qcow2
qemu-img snapshot -c s1 plain.qcow2
qemu-io -f qcow2 -c 'write -P 7 3M 100k' plain.qcow2 >/dev/null
qemu-img snapshot -c s.qcow2 plain.qcow2
qemu-io -f qcow2 -c 'write -z 0 1M' plain.qcow2 >/dev/null
qemu-img create -q -f qcow2 -F qcow2 -b plain.qcow2 over.qcow2 5000k
qemu-io -f qcow2 -c 'write -P 8 2M 100k' -c 'write -z 3M 64k' over.qcow2 >/dev/null
make_qcow2 source 20M
qemu-img convert -c -O qcow2 source zlib.qcow2
qemu-img convert -c -O qcow2 -o compression_type=zstd,cluster_size=4k source zstd.qcow2
rm source
qemu-img create -q -f qcow2 -o cluster_size=512 small.qcow2 1M
qemu-io -f qcow2 -c 'write -P 4 100k 3k' -c 'write -P 5 700k 512' small.qcow2 >/dev/null
qemu-img create -q -f qcow2 -o cluster_size=2M,extended_l2=on large.qcow2 50M
qemu-io -f qcow2 -c 'write -P 6 3M 100k' -c 'write -P 6 30M 64k' large.qcow2 >/dev/null
qemu-img create -q -f qcow2 -o data_file=data.raw,data_file_raw=on data.qcow2 10M
qemu-io -f qcow2 -c 'write -P 9 1M 200k' data.qcow2 >/dev/null
truncate -s 10M holes.raw
dd if=/dev/urandom of=holes.raw bs=1k count=200 seek=5000 conv=notrunc status=none
head -c 100001 /dev/urandom >odd.raw
cd "$T"

# wanted_size RAW FLAT: what a flat file takes for the data of a disk, as its map tells, and what the
# file's own map is.
wanted_size() {
    python3 - "$1" "$2" <<PY
import os, sys
sys.path.insert(0, "$LIB_DIR")
import probe, view_ranges
C = 1 << 16
def up(a, b):
    return -(-a // b)
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
data = set()
for start, end in view_ranges.seek_ranges(fd, size):
    data.update(range(start // C, up(end, C)))
n = 1 + up(max(up(size, C * 8192), 1) * 8, C) + len({c // 8192 for c in data}) + len(data)
# A refcount block counts 32768 clusters, and a cluster of their table holds 8192 blocks.
blocks = next(b for b in range(1, 100) if n + b + 1 <= b * 32768)
print((n + blocks + 1) * C, probe.ranges(sys.argv[2]))
PY
}

# check_flat FLAT RAW: sound, the same disk, as small as it should be, and the same bytes twice.
check_flat() {
    local flat=$1 raw=$2 bound size copy=$T/copies/$((++n_copies)).qcow2
    bound=$(stat -c %s "$flat")
    exec {keep}<"$flat"
    size=$(stat -L -c %s "/proc/self/fd/$keep")
    ((size <= bound)) || fail "$flat: $size bytes, at most $bound were told"
    assert_eq "$(stat -c %s "$flat")" "$size" "size of $flat while it is open"
    assert_eq "$(stat -L -c %b "/proc/self/fd/$keep")" $((size / 512)) "blocks of $flat"
    assert_eq "$size 0-$size" "$(wanted_size "$raw" "$flat")" "size and data of $flat"
    assert_match "$(qemu-img info -f qcow2 "$flat")" "virtual size: .*\($(stat -c %s "$raw") bytes\)" \
        "virtual size of $flat"
    qemu-img check -q -f qcow2 "$flat" || fail "qemu-img check of $flat"
    # qemu-img compare refuses an empty raw file.
    [[ $(stat -c %s "$raw") == 0 ]] || qemu-img compare -q -f qcow2 -F raw "$flat" "$raw" ||
        fail "$flat and $raw differ"
    cp "$flat" "$copy"
    exec {keep}<&-
    assert_same_bytes "$flat" "$copy"
    qemu-img check -q -f qcow2 "$copy" || fail "qemu-img check of the copy of $flat"
}

n_copies=0
mount_start "dir:$T/images"
for d in "$MNT"/*/snapshots; do
    for flat in "$d"/*.qcow2; do
        [[ ! -e $flat ]] || fail "$flat is listed"
    done
    for raw in "$d"/*.raw; do
        check_flat "${raw%.raw}.qcow2" "$raw"
    done
done
((n_copies >= 17)) || fail "only $n_copies disks"
# To the source, too, and to a snapshot whose name ends like a view's.
compare_with_source() {
    qemu-img compare -q -f qcow2 "$MNT/$1/snapshots/$2" -F "$3" "$T/images/$1" || fail "$1"
}
compare_with_source over.qcow2 now.qcow2 qcow2
compare_with_source zstd.qcow2 now.vda.qcow2 qcow2
compare_with_source odd.raw now.qcow2 raw
d=$MNT/plain.qcow2/snapshots
for name in s1 s.qcow2; do
    qemu-img convert -q -l snapshot.name=$name -f qcow2 -O raw "$T/images/plain.qcow2" "$T/s.raw"
    qemu-img compare -q -f qcow2 -F raw "$d/$name.qcow2" "$T/s.raw" || fail "snapshot $name"
done
assert_errno ENOENT lstat "$d/s.raw"
assert_errno ENOENT lstat "$d/s1.vdb.qcow2"
assert_errno EACCES open "$d/now.qcow2" O_RDWR

# xattrs are the raw view's; an open instant is one for both.
exec {raw}<"$d/now.raw" {flat}<"$d/now.qcow2"
for name in taken method consistency source; do
    assert_eq "$(probe getxattr "$d/now.qcow2" user.virtsnapfs.$name)" \
        "$(probe getxattr "$d/now.raw" user.virtsnapfs.$name)" "xattr $name"
done
assert_eq "$(status_value plain.qcow2 '[len(i["readers"]) for i in s["instants"]]')" '[2]' readers
exec {raw}<&- {flat}<&-
mount_stop

# What ls shows, and stat of it over a remount.
list_options=(raw qcow2 all)
listings=('now.raw|s.qcow2.raw|s1.raw' 'now.qcow2|s.qcow2.qcow2|s1.qcow2'
    'now.qcow2|now.raw|s.qcow2.qcow2|s.qcow2.raw|s1.qcow2|s1.raw')
for i in 0 1 2; do
    mount_start "dir:$T/images" -o "list=${list_options[i]}"
    d=$MNT/plain.qcow2/snapshots
    assert_eq "$(probe list "$d")" "${listings[i]}" "list=${list_options[i]}"
    [[ -e $d/now.raw && -e $d/now.qcow2 ]] || fail 'a view is not found by name'
    ((i == 2)) || mount_stop
done
all_stats() {
    python3 - "$MNT" <<PY
import os, sys
sys.path.insert(0, "$LIB_DIR")
import probe
for folder, _, files in sorted(os.walk(sys.argv[1])):
    for path in [folder] * (folder != sys.argv[1]) + [os.path.join(folder, f) for f in sorted(files)]:
        print(path[len(sys.argv[1]):], probe.stat(path))
PY
}
before=$(all_stats)
assert_eq "$(grep -c d_ino <<<"$before" || true)" 0 'inodes that readdir tells differently'
assert_eq "$(grep -o ' ino=[0-9]*' <<<"$before" | sort | uniq -d)" '' 'inodes that occur twice'
assert_eq "$(stat -c %y "$d/s1.qcow2")" "$(stat -c %y "$d/s1.raw")" 'mtime'
rsync -a --include='*/' --include='*.qcow2' --exclude='*' "$MNT/" "$T/rsync"
for flat in "$MNT"/*/snapshots/*.qcow2; do
    assert_same_bytes "$flat" "$T/rsync${flat#"$MNT"}"
done
mount_stop
mount_start_at "dir:$T/images" -o list=all
assert_eq "$(all_stats)" "$before" 'stat after a remount'
mount_stop

# 16 TiB whose 32768 L1 entries share one L2 table with data in every second cluster, in a file that
# has room for as many tables: to walk that takes minutes. Ctrl-C and the unmount do not wait for it, and nobody else does.
mkdir "$T/slow"
python3 - "$T/slow/slow.qcow2" <<'PY'
import struct, sys
C, N = 1 << 16, 32768
with open(sys.argv[1], "wb") as f:
    f.write(struct.pack(">IIQIIQIIQQIIQQQQII", 0x514649fb, 3, 0, 0, 16, N << 29, 0, N, C, 5 * C, 1,
                        0, 0, 0, 0, 0, 4, 104))
    f.seek(C)
    f.write(struct.pack(">Q", 6 * C | 1 << 63) * N)
    f.seek(6 * C)
    f.write(struct.pack(">QQ", 7 * C | 1 << 63, 0) * 4096)
    f.truncate((8 + N) * C)
PY
make_qcow2 "$T/slow/quick.qcow2"
mount_start "dir:$T/slow"
slow=$MNT/slow.qcow2/snapshots
n_readers() {
    [[ $(status_value slow.qcow2 'sum(len(i["readers"]) for i in s["instants"])') == "$1" ]]
}
cat "$slow/now.qcow2" >"$T/slow.out" 2>&1 &
reader=$!
wait_for 30 n_readers 1 || fail 'nobody reads'
qemu-img check -q -f qcow2 "$MNT/quick.qcow2/snapshots/now.qcow2" || fail 'the others wait'
head -c 512 "$slow/now.raw" >/dev/null
kill -INT $reader # (a background job of a script ignores it)
kill -TERM $reader
wait_for 30 is_gone_or_zombie $reader || fail 'an open cannot be interrupted'
wait_for 30 n_readers 0 || fail 'an interrupted open goes on'
assert_eq "$(cat "$T/slow.out")" '' 'what cat said'
cat "$slow/now.qcow2" >/dev/null 2>"$T/slow.out" &
wait_for 30 n_readers 1 || fail 'nobody reads'
kill -TERM "$PID"
mount_wait_end 0
assert_match "$(cat "$T/slow.out")" 'Input/output error' 'what cat said at the end'

# Holes that are data once they were read, as of allocated clusters that nobody has written to: an
# open file stays what it is, for those who come later, too; afterwards it is another file, and a
# snapshot's node does not show the old one's pages for it.
mkdir "$T/unwritten"
cd "$T/unwritten"
for file in base.raw alone.raw; do
    fallocate -l 10M $file
    qemu-io -f raw -c 'write -P 5 3M 64k' $file >/dev/null
done
qemu-img create -q -f qcow2 -F raw -b base.raw top.qcow2
qemu-io -f qcow2 -c 'write -P 6 8M 64k' top.qcow2 >/dev/null
qemu-img snapshot -c s1 top.qcow2
cd "$T"
mount_start "dir:$T/unwritten"
check_twice() {
    local flat=$1 raw=${1%.qcow2}.raw size kept
    exec {kept}<"$flat"
    size=$(stat -c %s "$flat")
    cat "$T/unwritten/$2" >/dev/null
    qemu-img compare -q -f qcow2 -F raw "$flat" "$raw" || fail "$flat: another disk"
    if [[ $flat == */now.qcow2 ]]; then
        assert_eq "$(stat -c %s "$flat")" "$size" "size of $flat"
    fi
    cat <&"$kept" >"$T/kept.qcow2"
    assert_eq "$(stat -c %s "$T/kept.qcow2")" "$size" "size of a copy of $flat"
    qemu-img check -q -f qcow2 "$T/kept.qcow2" || fail "$flat: not sound"
    qemu-img compare -q -f qcow2 -F raw "$T/kept.qcow2" "$raw" || fail "$flat: a wrong copy"
    exec {kept}<&-
    qemu-img check -q -f qcow2 "$flat" || fail "$flat: not sound at the end"
    qemu-img compare -q -f qcow2 -F raw "$flat" "$raw" || fail "$flat: another disk at the end"
}
check_twice "$MNT/alone.raw/snapshots/now.qcow2" alone.raw
check_twice "$MNT/top.qcow2/snapshots/s1.qcow2" base.raw
mount_stop
