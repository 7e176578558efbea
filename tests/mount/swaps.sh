#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Somebody who may write to the folder of images swaps an image, a backing file and a folder on the
# way with links that lead to files of others, with a FIFO and with a device, all the while they are
# opened: what is read is an image's own bytes, or an error; never those of others, and never a hang.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir -p "$T/images/parts" "$T/spare" "$T/outside"
for file in images/plain.raw images/parts/base.raw spare/base.raw; do
    head -c 65536 /dev/zero | tr '\0' G >"$T/$file"
done
head -c 65536 /dev/zero | tr '\0' S | tee "$T/outside/base.raw" >"$T/outside/plain.raw"
qemu-img create -q -f qcow2 -u -F raw -b parts/base.raw "$T/images/over.qcow2" 64K

cat >"$T/swap.py" <<'PY'
import itertools
import os
import sys

images, outside, spare = sys.argv[1:]


def replace(name, make):
    aside = f"{images}/.aside"
    make(aside)
    os.rename(aside, name)


def copy(path):
    with open(path, "wb") as f:
        f.write(b"G" * 65536)


plain, base, parts = f"{images}/plain.raw", f"{images}/parts/base.raw", f"{images}/parts"
for i in itertools.count():
    for name, path in (("plain.raw", plain), ("base.raw", base)):
        replace(path, lambda at: os.symlink(f"{outside}/{name}", at))
        replace(path, copy)
        replace(path, os.mkfifo)
        replace(path, copy)
        replace(path, lambda at: os.mknod(at, 0o20600, os.makedev(1, 5)))
        replace(path, copy)
    os.rename(parts, f"{images}/.parts")
    os.symlink(outside, parts)
    os.unlink(parts)
    os.rename(f"{images}/.parts", parts)
    if i == 0:
        print("begun", flush=True)
PY

cat >"$T/read.py" <<'PY'
import collections
import errno
import os
import sys

root = sys.argv[1]
found = collections.Counter()
files = ("plain.raw/snapshots/now.raw", "over.qcow2/snapshots/now.raw")
i = 0
# Until each was read often enough, whatever is refused in between.
while i < 400 or any(found[f, "read"] < 20 for f in files):
    file = files[i % 2]
    i += 1
    try:
        fd = os.open(f"{root}/{file}", os.O_RDONLY)
        try:
            data = os.pread(fd, 65536, 0)
        finally:
            os.close(fd)
    except OSError as e:
        found[file, errno.errorcode[e.errno]] += 1
        continue
    if data.strip(b"G"):
        sys.exit(f"{file}: {data[:16]!r} of a file that is another's")
    found[file, "read"] += 1
print(dict(found))
PY

mount_start "dir:$T/images" -o linger=0,join=0
mkfifo "$T/begun"
python3 "$T/swap.py" "$T/images" "$T/outside" "$T/spare" >"$T/begun" &
swapper=$!
pids+=("$swapper")
head -n 1 "$T/begun" >/dev/null
timeout $((200 * DEADLINE_FACTOR)) python3 "$T/read.py" "$MNT" || fail 'bytes of another file, or a hang'
kill "$swapper"
wait "$swapper" 2>/dev/null || true
unset 'pids[-1]'
mount_stop
