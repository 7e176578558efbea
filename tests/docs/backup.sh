#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# docs/backup.md: each of its commands, on a guest that runs, with two disks, and one that is off. Copies
# are what QEMU reads of the images; a second run transfers nothing, and after a write that disk alone;
# a guest that cannot be read keeps no other from being saved, and the status is the one of the page.
. "$(dirname "$0")/../lib/host.sh"
. "$(dirname "$0")/../lib/page.sh"
need rsync restic borg rclone getfattr
page_begin backup.md linger=1,join=12h

images=/var/lib/libvirt/images
qemu-img create -q -f qcow2 $images/web.qcow2 32M
truncate -s 32M $images/web-vdb.raw
make_qcow2 $images/mail.qcow2 16M
qemu-img snapshot -c before-upgrade $images/mail.qcow2
domain_define web "$(disk_xml $images/web.qcow2 qcow2 vda)" "$(disk_xml $images/web-vdb.raw raw vdb)"
domain_define mail "$(disk_xml $images/mail.qcow2 qcow2 vda)"
virsh start web
virsh dumpxml --inactive web >"$T/web.xml"
# What a guest might have; incompressible, so that nothing of it is stored twice by chance.
fill() {
    head -c "$3" /dev/urandom >"$T/data"
    chmod 644 "$T/data"
    guest_io web "$1" "write -s $T/data $2 $3" flush
}
fill 0 1M 6291456
fill 1 9M 4194304

# As QEMU reads them, beside whoever has them open.
truth() {
    mkdir -p "$T/truth/web" "$T/truth/mail"
    qemu-img convert -U -f qcow2 -O raw $images/web.qcow2 "$T/truth/web/now.raw"
    qemu-img convert -U -f raw -O raw $images/web-vdb.raw "$T/truth/web/now.vdb.raw"
    qemu-img convert -U -f qcow2 -O raw $images/mail.qcow2 "$T/truth/mail/now.raw"
}
# assert_copies FOLDER: the tree below it, or FOLDER/GUEST/*.raw, has the bytes of now.
assert_copies() {
    local file copy
    truth
    for file in web/now.raw web/now.vdb.raw mail/now.raw; do
        copy=$1/${file%/*}/snapshots/${file#*/}
        qemu-img compare -q -f raw -F raw "$copy" "$T/truth/$file" || fail "$copy is not what $file has"
        assert_eq "$(stat -c %s "$copy")" "$(stat -c %s "$T/truth/$file")" "size of $copy"
    done
    diff "$T/web.xml" "$1/web/domain.xml" || fail "$1: another definition"
}
numbers() {
    stat -c '%n %i' "$1"/*/snapshots/now*.raw
}
no_instants() {
    has_no_instants web && has_no_instants mail
}
settle() {
    wait_for 60 no_instants || fail 'an instant does not end'
    merges=$(grep -c 'Active Block Commit' "$T/merges" || true)
}
# An instant of a guest that runs ends with a merge, and libvirt tells of it.
touch "$T/merges"
timeout 300 setsid virsh event web --event block-job --loop --timestamp </dev/null >"$T/merges" 2>&1 &
pids+=("$!")
assert_untouched() {
    no_instants || fail "$1 opened a disk that nobody had written to"
    assert_eq "$(grep -c 'Active Block Commit' "$T/merges")" "$merges" "merges of web after $1"
}

# --- rsync and cp -----------------------------------------------------------------------------------

page_run tonight
assert_copies /srv/backup
assert_eq "$(find /srv/backup -type f | sort | tr '\n' ' ')" "$(echo /srv/backup/{mail,web}/domain.xml \
    /srv/backup/{mail/snapshots/now,web/snapshots/now,web/snapshots/now.vdb}.raw | tr ' ' '\n' | sort | tr '\n' ' ')" 'files of the backup'
(($(du -k /srv/backup/web/snapshots/now.raw | cut -f1) < 8192)) || fail 'the copy has no holes'
settle
before=$(numbers /srv/backup)
((merges > 0)) || fail "no merge was seen: $(cat "$T/merges")"
page_run tonight
assert_untouched rsync
assert_eq "$(numbers /srv/backup)" "$before" 'what rsync copied again'

page_run one
truth
for file in now.raw now.vdb.raw; do
    assert_same_bytes "/srv/copy/web/$file" "$T/truth/web/$file"
done
settle
fill 0 8M 65536
page_run consistency
assert_eq "$(cat /srv/copy/web/consistency)" crash 'the consistency that was kept'
truth
assert_same_bytes /srv/copy/web/now.raw "$T/truth/web/now.raw"
settle

# shellcheck disable=SC2317
date() {
    echo "$day"
}
day=2026-01-01
page_run days
settle
fill 1 1M 65536
day=2026-01-02
page_run days
unset -f date
assert_copies /srv/days/2026-01-02
assert_eq "$(readlink /srv/days/last)" 2026-01-02 'the last day'
same=$(cd /srv/days && for file in */*/snapshots/*.raw; do stat -c '%h %n' "$file"; done | grep '^2' | cut -d/ -f2- | sort -u | tr '\n' ' ')
assert_eq "$same" 'mail/snapshots/before-upgrade.raw mail/snapshots/now.raw web/snapshots/now.raw ' \
    'what both days have in common'
settle

fill 0 20M 131072
page_run inplace >"$T/log.out"
assert_copies /srv/backup
# rsync_count WHAT
rsync_count() {
    sed -n "s/^$1: \([0-9,]*\).*/\1/p" "$T/log.out" | tr -d ,
}
literal=$(rsync_count 'Literal data')
((literal >= 131072)) || fail "rsync sent $literal bytes of a disk that had changed"
# The named snapshot is new to this copy; what changed is two pieces of two disks.
((literal < (16 << 20) + 4 * 131072 + 65536)) || fail "rsync sent $literal bytes, that is whole disks"
settle
fill 0 21M 131072
page_run inplace >"$T/log.out"
assert_eq "$(rsync_count 'Number of regular files transferred')" 1 'files that rsync transferred'
literal=$(rsync_count 'Literal data')
((literal >= 131072 && literal < 1 << 20)) || fail "rsync sent $literal bytes for 128 KiB"
settle

page_run together >"$T/log.out"
assert_eq "$(rsync_count 'Number of regular files transferred')" 3 'files that rsync -I transferred'
assert_copies /srv/backup
settle

# --- restic ----------------------------------------------------------------------------------------

# restic_said WORD: how many files are new, changed, unmodified.
restic_said() {
    sed -n "s/^Files:.* \([0-9]*\) $1.*/\1/p" "$T/log.out"
}
page_run restic-init >"$T/log.out"
page_run restic >"$T/log.out"
assert_eq "$(restic_said new)" 6 'files in the first restic snapshot'
settle
page_run restic >"$T/log.out"
assert_untouched restic
assert_eq "$(restic_said new) $(restic_said changed) $(restic_said unmodified)" '0 0 6' 'files in the second one'
fill 0 3M 65536
page_run restic >"$T/log.out"
assert_match "$(grep '^Added to the repo' "$T/log.out")" ': [0-9.]+ ([KM]iB|B)' 'what restic stored'
assert_eq "$(restic_said new) $(restic_said changed)" '0 1' 'files that restic found changed'
page_run restic-keep >"$T/log.out"
restic -q restore latest --target "$T/restic"
assert_copies "$T/restic/mnt/vms"
settle

# --- borg ------------------------------------------------------------------------------------------

# What borg stored: added, modified, changed while it was read, failed.
borg_stored() {
    grep -E '^[AMCE] .*raw$' "$T/log.out" | sort
}
page_run borg-init
page_run borg 2>"$T/log.out"
! borg list --last 1 --short | xargs -I {} borg list ::{} | grep -E 'status|upload' || fail 'borg stored what is no content'
assert_eq "$(borg_stored)" 'A /mnt/vms/mail/snapshots/before-upgrade.raw
A /mnt/vms/mail/snapshots/now.raw
A /mnt/vms/web/snapshots/now.raw
A /mnt/vms/web/snapshots/now.vdb.raw' 'disks in the first archive'
settle
sleep 1 # archives are called after the second
page_run borg 2>"$T/log.out"
assert_eq "$(borg_stored)" '' 'disks in the second archive that were stored again'
settle
fill 1 10M 65536
page_run borg 2>"$T/log.out"
assert_eq "$(borg_stored)" 'M /mnt/vms/web/snapshots/now.vdb.raw' 'disks that borg found changed'
page_run borg-keep
last=$(borg list --last 1 --format '{archive}')
mkdir "$T/borg"
(cd "$T/borg" && borg extract --sparse "::$last")
assert_copies "$T/borg/mnt/vms"
settle

# --- rclone ----------------------------------------------------------------------------------------

mkdir /srv/offsite
rclone config create offsite alias remote=/srv/offsite >"$T/log.out" 2>&1
page_run rclone 2>"$T/log.out"
assert_copies /srv/offsite/guests
assert_eq "$(grep -c ': Copied (new)' "$T/log.out")" 5 'files that rclone copied'
settle
page_run rclone 2>"$T/log.out"
assert_eq "$(grep ': Copied' "$T/log.out" || true)" '' 'what rclone copied again'
assert_eq "$(grep 'Checks:' "$T/log.out" | xargs)" 'Checks: 2 / 2, 100% Checks: 3 / 3, 100%' 'what rclone looked at'
settle
fill 0 5M 65536
page_run rclone 2>"$T/log.out"
assert_match "$(grep ': Copied' "$T/log.out")" ': snapshots/now.raw: Copied \(replaced existing\)$' 'what rclone copied'
settle

# --- a guest that cannot be read -------------------------------------------------------------------

page_run tonight
settle
cp --sparse=always /srv/backup/mail/snapshots/now.raw "$T/mail.before"
fill 0 7M 65536
qemu-io -f qcow2 -c 'write -P 9 3M 64k' $images/mail.qcow2 >"$T/log.out"
qemu-nbd --fork --pid-file="$T/nbd.pid" -t -k "$T/nbd.sock" -f qcow2 $images/mail.qcow2
nbd=$(cat "$T/nbd.pid")
at_exit "kill $nbd 2>/dev/null"
page_status tonight
assert_eq "$PAGE_STATUS" 23 "status of tonight"
truth
assert_same_bytes /srv/backup/web/snapshots/now.raw "$T/truth/web/now.raw"
assert_same_bytes /srv/backup/mail/snapshots/now.raw "$T/mail.before"
page_run why >"$T/log.out"
assert_match "$(cat "$T/log.out")" 'mail' 'the reason'
page_status restic
assert_eq "$PAGE_STATUS" 3 "status of restic"
(($(restic ls latest | grep -c '/mail/snapshots/now.raw') == 0)) || fail 'restic has a disk that it could not read'
sleep 1
page_status borg 2>"$T/log.out"
assert_eq "$PAGE_STATUS" 1 "status of borg"
assert_match "$(cat "$T/log.out")" 'E /mnt/vms/mail/snapshots/now.raw' 'what borg says'
page_status rclone 2>"$T/log.out"
assert_eq "$PAGE_STATUS" 1 "status of rclone"
assert_match "$(tail -n 1 "$T/log.out")" '^not saved: mail$' 'what was not saved'
assert_same_bytes /srv/offsite/guests/web/snapshots/now.raw "$T/truth/web/now.raw"
assert_same_bytes /srv/offsite/guests/mail/snapshots/now.raw "$T/mail.before"
kill "$nbd"
wait_for 20 is_gone_or_zombie "$nbd" || fail 'qemu-nbd does not end'
settle
page_run tonight
assert_copies /srv/backup
settle

# --- a read that fails half-way --------------------------------------------------------------------

# An entry of the active L2 table that is of no cluster, in the middle of the first chunk of 4 MiB that a
# program reads; then as it was, with the same times, so that no disk looks changed.
# damage VALUE: prints the entry that was there.
damage() {
    python3 - $images/mail.qcow2 "$1" <<'PY'
import struct
import sys

with open(sys.argv[1], "r+b") as image:
    def number(off):
        image.seek(off)
        return struct.unpack(">Q", image.read(8))[0]
    entry = (number(number(40)) & 0x00FFFFFFFFFFFE00) + 8 * (1 << 20 >> 16)
    print(number(entry))
    image.seek(entry)
    image.write(struct.pack(">Q", int(sys.argv[2], 0)))
PY
}
entry=$(damage 0x8000000000000200)
touch -r $images/mail.qcow2 "$T/mail.time"
cp --sparse=always /srv/backup/mail/snapshots/now.raw "$T/mail.before"
fill 0 7M 65536
page_status tonight 2>"$T/log.out"
assert_eq "$PAGE_STATUS" 23 'status of tonight with a read that fails'
assert_same_bytes /srv/backup/mail/snapshots/now.raw "$T/mail.before"
page_status restic
assert_eq "$PAGE_STATUS" 3 'status of restic with a read that fails'
(($(restic ls latest | grep -c '/mail/snapshots/now.raw') == 0)) || fail 'restic has a part of a disk'
sleep 1
page_status borg 2>"$T/log.out"
assert_eq "$PAGE_STATUS" 1 'status of borg with a read that fails'
last=$(borg list --last 1 --format '{archive}')
assert_eq "$(borg list "::$last" | grep mail/snapshots/now.raw || true)" '' 'what borg has of the disk'
page_status rclone 2>"$T/log.out"
assert_eq "$PAGE_STATUS" 1 'status of rclone with a read that fails'
[[ ! -e /srv/offsite/guests/mail/snapshots/now.raw ]] ||
    assert_same_bytes /srv/offsite/guests/mail/snapshots/now.raw "$T/mail.before"
settle
page_status inplace >"$T/log.out" 2>&1
assert_eq "$PAGE_STATUS" 23 'status of rsync --inplace with a read that fails'
damage "$entry" >"$T/log.out"
touch -r "$T/mail.time" $images/mail.qcow2
page_run inplace >"$T/log.out"
assert_copies /srv/backup
page_run restic >"$T/log.out"
restic -q restore latest --target "$T/restic.again"
assert_copies "$T/restic.again/mnt/vms"
sleep 1
page_run borg 2>"$T/log.out"
assert_match "$(borg_stored)" '[AM] /mnt/vms/mail/snapshots/now.raw' 'what borg stored at last'
mkdir "$T/borg.again"
last=$(borg list --last 1 --format '{archive}')
(cd "$T/borg.again" && borg extract --sparse "::$last")
assert_copies "$T/borg.again/mnt/vms"
page_run rclone 2>"$T/log.out"
assert_copies /srv/offsite/guests
settle

# --- the host's own ---------------------------------------------------------------------------------

rsync -ax /mnt /srv/host
assert_eq "$(find /srv/host -type f)" '' 'what rsync -x took along'
restic --json backup --one-file-system /mnt | tail -n 1 >"$T/log.out"
assert_match "$(cat "$T/log.out")" '"total_files_processed":0,' 'what restic --one-file-system took along'
borg create --one-file-system --list ::host /mnt 2>"$T/log.out"
! grep raw "$T/log.out" || fail 'borg --one-file-system took disks along'
tar --one-file-system -cf /srv/host.tar -C / mnt 2>"$T/log.out"
! tar -tf /srv/host.tar | grep raw || fail 'tar --one-file-system took disks along'
assert_untouched 'a backup of the host'
page_end
