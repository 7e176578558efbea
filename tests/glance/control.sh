#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A line written to `upload` becomes an image: what it says, who hears of a failure and where,
# and what is there when somebody interrupts, kills, or unmounts.
. "$(dirname "$0")/../lib/openstack.sh"
. "$(dirname "$0")/../lib/upload.sh"

cloud_start
mkdir "$T/images"
make_qcow2 "$T/images/a.qcow2"
qemu-img snapshot -c s1 "$T/images/a.qcow2"
qemu-io -f qcow2 -c 'write -P 0xb1 3M 64k' "$T/images/a.qcow2" >/dev/null
oracle "$T/images/a.qcow2" qcow2 "$T/now.raw"
qemu-img convert -l snapshot.name=s1 -f qcow2 -O raw "$T/images/a.qcow2" "$T/s1.raw"
sum=$(sha256sum <"$T/images/a.qcow2")

# Without a cloud: refused, with the reason.
cloud_logout
mount_start "dir:$T/images"
D=$MNT/a.qcow2
refused now 'Permission denied' 'no cloud is configured'
refused now 'Permission denied' 'no cloud is configured'
assert_log "upload 2: image 'now-of-a.qcow2': no cloud is configured" 'the second of two alike'
mount_stop
assert_match "$($VIRTSNAPFS -o "state=$T/state" --cloud=nowhere "dir:$T/images" "$MNT" 2>&1 ||
    echo "status $?")" "nowhere.*status 2" 'a cloud that there is not'

# The file itself.
cloud_login snap
mount_start "dir:$T/images" -o linger=0
D=$MNT/a.qcow2
assert_eq "$(stat -c '%s %a' "$D/upload")" '0 600' 'size and mode'
assert_eq "$(wc -l <"$D/upload")" 1 'lines of an empty table'
for flags in O_WRONLY 'O_WRONLY O_TRUNC' 'O_WRONLY O_APPEND' O_RDWR; do
    # shellcheck disable=SC2086
    assert_errno OK open "$D/upload" $flags
done
assert_errno OK truncate "$D/upload" 0
assert_errno EROFS truncate "$D/upload" 1
assert_errno EROFS chmod "$D/upload" 777
assert_errno EROFS utime "$D/upload"

# As nova: the line of the issue; the image compares equal, is nova's, and stands alone.
assert_eq "$(upload 'now snap1-of-fed18 --poll')" OK 'a poll'
assert_eq "$(row_of snap1-of-fed18)" 'active 100' 'the row of a poll'
image=$(image_of snap1-of-fed18)
assert_eq "$(show "$image" name status disk_format container_format visibility min_disk min_ram \
    protected image_type image_location image_state)|$(stored "$image" owner_id)" \
    "snap1-of-fed18|active|qcow2|bare|private|1|0|False|snapshot|snapshot|available|$(
        show "$image" owner)" 'the record'
openstack image save --file "$T/saved.qcow2" "$image"
qemu-img check -q "$T/saved.qcow2" || fail 'qemu-img check'
qemu-img compare -q -f qcow2 -F raw "$T/saved.qcow2" "$T/now.raw" || fail 'another content'
assert_eq "$(qemu-img info "$T/saved.qcow2" | grep -c backing)" 0 'backing file of an image'

# Without --poll, by tee and by >>, raw: the job goes on when its shell has ended. Keys.
echo 's1 format=raw min_disk=3 min_ram=64 "property:os_distro=a b" protected=false' |
    tee "$D/upload" >/dev/null
bash -c 'printf "s1 appended format=raw" >>"$1"' - "$D/upload"
for name in s1-of-a.qcow2 appended; do
    wait_for 60 row_is "$name" active || fail "not active: $(cat "$D/upload")"
    assert_same_bytes "$CLOUD/images/$(image_of "$name")" "$T/s1.raw"
done
assert_eq "$(show "$(image_of s1-of-a)" min_disk min_ram os_distro)" '3|64|a b' 'the keys'

# What is wrong with a line.
refused nope 'No such file or directory' "no snapshot 'nope'"
refused 'now disk=vdz' 'No such file or directory' "no disk 'vdz'"
refused 'now what=1' 'Invalid argument' "unknown key 'what'"
said=$(printf 'now a\nnow b\n' | dd "of=$D/upload" bs=4k conv=notrunc status=none 2>&1 || true)
assert_match "$said" 'Invalid argument' 'two lines in one write'
assert_match "$(sed -n 2p "$D/upload")" 'failed.*more than one line' 'row of two lines'
refused '' 'Invalid argument' 'no snapshot is named'
refused "now '" 'Invalid argument' 'single quote'
assert_eq "$(list_images | wc -l)" 3 'images after refused lines'
assert_eq "$(status_value a.qcow2 '[u["state"] for u in s["uploads"]].count("active")')" 3 \
    'uploads in status'
# shellcheck disable=SC2086
text=$($VIRTSNAPFS --status "$MNT")
assert_match "$text" '9 uploads: 6 failed, 3 active' 'how many uploads'
assert_match "$text" '[0-9]+ +a.qcow2 +vda +appended +active +100 +[0-9.]+ MiB +[0-9.]+ [kMG]?B/s +-' 'the last one'
assert_match "$text" '[0-9]+ +a.qcow2 +- +[^ ]+ +failed +0 +- +- +-
    [0-9]+s ago: .*more than one line' 'one that failed'
assert_match "$text" '3 more have ended, 1 of them failed: see a.qcow2/upload' 'older ones'
assert_no_secrets
mount_stop
# shellcheck disable=SC2046
openstack image delete $(list_images | cut -d ' ' -f 1)

# What Glance refuses: nothing stays, and it is said why.
# shellcheck disable=SC2031
export GLANCE_DEFAULT='image_size_cap = 1048576'
glance_restart
mount_start "dir:$T/images" -o linger=0
D=$MNT/a.qcow2
refused 'now format=raw --poll' 'File too large' '413'
assert_no_images 'a size cap'
assert_eq "$(status_value a.qcow2 'len(s["instants"])')" 0 'instants after a failure'
mount_stop
export GLANCE_DEFAULT=''
glance_restart

# Several at once, over a line on which nothing moves any more.
relay_start 9393 9292
export OS_IMAGE_ENDPOINT_OVERRIDE=http://127.0.0.1:9393
relay mute 100000
mount_start "dir:$T/images" -o 'linger=0,timeout=600,max_uploads=2'
D=$MNT/a.qcow2
is_sending() {
    wait_for 60 row_is "$1" sending || fail "'$1' is not sent: $(cat "$D/upload")"
}
poll() { # NAME: in the background; its process number is in $!
    bash -c 'trap : WINCH; echo "$1" >"$2"' - "now $1 --poll" "$D/upload" 2>"$T/poll.$1" &
}
poll one
one=$!
is_sending one
poll two
two=$!
is_sending two
assert_eq "$(upload 's1 three')" OK 'a third one'
assert_eq "$(row_of three)" 'queued 0' 'the third one'
assert_eq "$(status_value a.qcow2 'len(s["instants"])')" 1 'instants of two and a named snapshot'
assert_match "$(status_value a.qcow2 '[r["pid"] for r in s["instants"][0]["readers"]]')" "$one" \
    'readers'
reader='[r for r in s["instants"][0]["readers"] if r["pid"] == '$one'][0]'
assert_eq "$(status_value a.qcow2 "${reader}[\"upload\"]")" "$(grep -F one "$D/upload" | awk '{print $1}')" \
    'the upload that reads'
upload='[u for u in s["uploads"] if u["image_name"] == "one"][0]'
for key in attempt bytes size idle_s; do
    (($(status_value a.qcow2 "${upload}[\"$key\"]") >= 0)) || fail "no $key"
done
# shellcheck disable=SC2086
assert_match "$($VIRTSNAPFS --status "$MNT")" 'a.qcow2 +now +vda +upload [0-9]+ +- ' 'an upload as a reader'
assert_eq "$(list_images | wc -l)" 3 'images under way'

# A signal that ends nothing does not end an upload; one that does, does.
kill -WINCH "$one"
kill -TERM "$two"
status=0
wait "$two" || status=$?
assert_eq "$status" 143 'exit status of a poll that was terminated'
is_sending three
gone() {
    (($(list_images | wc -l) == $1))
}
wait_for 60 gone 2 || fail "images after a signal: $(list_images)"
assert_match "$(grep -F two "$D/upload")" 'failed.*cancelled: the writer was interrupted' \
    'row of two'
assert_match "$(row_of one)" 'sending' 'row of one'
kill -KILL "$one"
wait "$one" || true
wait_for 60 gone 1 || fail "images after a kill: $(list_images)"
assert_match "$(row_of three)" 'sending' 'row of three'

# An unmount cancels what is left, and says so.
mount_stop
assert_log '1 uploads have not ended: they are cancelled' 'unmount'
assert_no_images 'an unmount'
mount_start "dir:$T/images"
D=$MNT/a.qcow2
poll four
is_sending four
kill -TERM "$PID"
mount_wait_end 0
wait $! || true
assert_match "$(cat "$T/poll.four")" 'Input/output error' 'a poll at SIGTERM'
assert_no_images 'SIGTERM'

mount_start "dir:$T/images" -o ro
assert_errno EROFS open "$MNT/a.qcow2/upload" O_WRONLY
mount_stop
assert_eq "$(sha256sum <"$T/images/a.qcow2")" "$sum" 'the disk afterwards'
