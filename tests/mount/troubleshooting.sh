#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# docs/troubleshooting.md: what a user gets to see is on the page.
. "$(dirname "$0")/../lib/mount.sh"
. "$(dirname "$0")/../lib/troubleshooting.sh"
need qemu-img

mkdir "$T/images" "$T/outside" "$T/mnt"
state="state=$T/state"

# It does not start.
ends 1 -o frobnicate "dir:$T/images" "$T/mnt"
ends 1 -o live=never "dir:$T/images" "$T/mnt"
ends 1 "qemu+ssh://localhost/system" "$T/mnt"
ends 1 --json "dir:$T/images" "$T/mnt"
ends 2 -o "$state" "dir:$T/nowhere" "$T/mnt"
ends 3 -o "$state,timeout=2" "qemu:///system?socket=$T/nothing" "$T/mnt"
ends 4 -o "$state" "dir:$T/images" "$T/nowhere/mnt"
: >"$T/file"
ends 4 -o "$state" "dir:$T/images" "$T/file"
ends 2 --status "$T/nowhere/mnt"
ends 2 --status "$T/mnt"

# Images.
for name in writer damaged later truncated; do
    make_qcow2 "$T/images/$name.qcow2"
done
truncate -s 1M "$T/outside/base.raw" "$T/images/base.raw" "$T/images/fine.raw"
truncate -s 1M "$T/images/not.qcow2"
cp "$T/images/writer.qcow2" "$T/images/odd.img"
qemu-img create -q -f qcow2 -u -F raw -b "$T/outside/base.raw" "$T/images/outside.qcow2" 1M
ln -s "$T/outside/base.raw" "$T/images/link.raw"
qemu-img create -q -f qcow2 -u -F raw -b link.raw "$T/images/leads.qcow2" 1M
qemu-img create -q -f qcow2 -u -o compat=0.10 -F raw -b base.raw "$T/images/formless.qcow2" 1M
python3 - "$T/images" <<'PY'
import struct
import sys

def change(name, edit):
    with open(f"{sys.argv[1]}/{name}.qcow2", "r+b") as f:
        data = bytearray(f.read())
        edit(data)
        f.seek(0)
        f.write(data)

def first_l2_outside(data):
    l1_off, = struct.unpack_from(">Q", data, 40)
    struct.pack_into(">Q", data, l1_off, 1 << 63 | 1 << 50)

def feature_of_the_future(data):
    data[72:80] = struct.pack(">Q", 1 << 40)

def no_backing_format(data):
    # The extension that has it becomes an unknown one.
    at = data.index(b"\xe2\x79\x2a\xca")
    data[at:at + 4] = b"none"

change("damaged", first_l2_outside)
change("later", feature_of_the_future)
change("formless", no_backing_format)
PY
now() {
    echo "$MNT/$1/snapshots/now.raw"
}
mount_start "dir:$T/images" -o linger=0,max_open=2
refused "$(now damaged.qcow2)" EIO
refused "$(now later.qcow2)" EOPNOTSUPP
refused "$(now not.qcow2)" EIO
refused "$(now odd.img)" EOPNOTSUPP
refused "$(now outside.qcow2)" EPERM
refused "$(now leads.qcow2)" EPERM
refused "$(now formless.qcow2)" EOPNOTSUPP
coproc writer { qemu-io -f qcow2 "$T/images/writer.qcow2"; }
# shellcheck disable=SC2154 # coproc sets it
writer_pid=$writer_PID
wait_for 30 bash -c "! qemu-img info '$T/images/writer.qcow2' >/dev/null 2>&1" || fail 'nobody writes'
refused "$(now writer.qcow2)" EBUSY
echo quit >&"${writer[1]}"
wait "$writer_pid" || true
exec {one}<"$(now fine.raw)" {two}<"$(now base.raw)"
refused "$(now writer.qcow2)" EMFILE
exec {one}<&- {two}<&-

# Uploads.
# written LINE ERRNO
written() {
    local found
    found=$(python3 -c 'import errno, os, sys
try:
    os.write(os.open(sys.argv[1], os.O_WRONLY), sys.argv[2].encode())
except OSError as e:
    print(errno.errorcode[e.errno])' "$MNT/fine.raw/upload" "$1")
    assert_eq "$found" "$2" "outcome of the line '$1'"
    on_page "$(sed -n 2p "$MNT/fine.raw/upload")" "$2"
}
written 'now' EACCES
mount_stop
cat >"$T/clouds.yaml" <<'YAML'
clouds:
  c:
    auth: {auth_url: "http://127.0.0.1:1/v3", username: u, password: p, project_name: p,
           user_domain_id: default, project_domain_id: default}
YAML
export OS_CLIENT_CONFIG_FILE=$T/clouds.yaml
ends 2 -o "$state,cloud=none" "dir:$T/images" "$T/mnt"
mount_start "dir:$T/images" -o cloud=c
written $'\n' EINVAL
written 'now a=b' EINVAL
written 'now my image' EINVAL
written $'now a\nnow b' EINVAL
written 'now disk=vdb' ENOENT
mount_stop
unset OS_CLIENT_CONFIG_FILE

# Time, and room.
mount_start "dir:$T/images" -o linger=0,join=0
exec {one}<"$(now fine.raw)"
is_old() { (($(status_value fine.raw 's["instants"][0]["age_s"]') > 0)); }
wait_for 30 is_old || fail 'no second passes'
refused "$(now fine.raw)" EBUSY
exec {one}<&-
mount_stop
mount_start "dir:$T/images" -o linger=0,max_hold=1
exec {one}<"$(now fine.raw)"
has_ended() { [[ $(status_value fine.raw '[e["text"] for e in s["errors"]]') == *max_hold* ]]; }
wait_for 30 has_ended || fail "max_hold: $(cat "$MNT/fine.raw/status")"
logged max_hold
exec {one}<&-

# A mount whose program is gone.
kill -KILL "$PID"
wait_for 30 is_gone_or_zombie "$PID"
ends 2 --status "$MNT"
: >"$LOG"
ends 2 --wait -o "state=$T/other" "$MNT"
mount_start_at "dir:$T/images"
logged 'had died'
ends 2 --wait -o "state=$T/other" "$MNT"
ends 4 -o "$state" "dir:$T/images" "$MNT"
ends 4 -o "state=$T/other" "dir:$T/images" "$MNT"
mount_stop
ends 2 --status "$T/nowhere"

# The journal.
prefix=$(printf 'dir:%s' "$T/images" | sha256sum | head -c 16)
entry=$T/state/journal/$prefix-0123456789abcdef/virtsnapfs-0123456789abcdef.json
(umask 077 && mkdir -p "${entry%/*}")
(umask 077 && echo 'no checksum' >"$entry")
try_journal() {
    mount_start "dir:$T/images"
    logged "$1"
    mount_stop
}
# write_entry TEXT CORRECTION: the checksum of its text, changed.
write_entry() {
    python3 -c 'import hashlib, sys
digest = hashlib.sha256(sys.argv[1].encode()).hexdigest()
print("{\"sha256\": \"" + digest.translate(str.maketrans(sys.argv[2], sys.argv[2][::-1])) + "\",\n" + sys.argv[1], end="")' \
        "$1" "$2" >"$entry"
}
write_entry '"version": 99}' 0123456789abcdef
try_journal 'checksum is wrong'
write_entry '"version": 99}' ''
try_journal 'it is of version'
on_page "$(grep -o 'journal.*as it is' "$LOG"): x"
chmod 666 "$entry"
try_journal 'written by others'
chmod 600 "$entry"
chown 12345 "$entry"
try_journal 'belongs to user'
rm "$entry"
mount -t tmpfs -o ro tmpfs "$T/state"
at_exit "umount -l '$T/state' 2>/dev/null"
mount_start "dir:$T/images"
logged 'will not wait for this server'
mount_stop
umount "$T/state"

# The commands at the top of the page.
mount_start "dir:$T/images"
page=$LIB_DIR/../../docs/troubleshooting.md
# shellcheck disable=SC2016 # backquotes of Markdown
mapfile -t commands < <(sed -n '/^```$/,/^```$/p; /^## /q' "$page" | grep -v '^```')
((${#commands[@]} == 4)) || fail "the page begins with ${#commands[@]} commands"
probe read "$(now damaged.qcow2)" 0 1 >/dev/null
ln -s "${VIRTSNAPFS##* }" "$T/virtsnapfs"
for command in "${commands[@]}"; do
    command=${command%%#*}
    command=${command//DOMAIN/damaged.qcow2}
    [[ $command != journalctl* ]] || continue # no daemon of ours has a journal here
    PATH=$T:$PATH bash -ec "${command//\/mnt\/vms/$MNT}" >"$T/out" || fail "$command: $(<"$T/out")"
    grep -q 'L1 table\|damaged' "$T/out" || fail "$command: it said '$(<"$T/out")'"
done
mount_stop
all_came_up mount/troubleshooting
