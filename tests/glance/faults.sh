#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Keystone and Glance that keep an answer back, break off in the middle of it, send it a few bytes at
# a time, and lie: about a size, a hash, a status, a token. Each answer of an upload is spoiled in
# each way, once and each time. There is an image that is right, or none, and an errno with a reason.
. "$(dirname "$0")/../lib/openstack.sh"
. "$(dirname "$0")/../lib/upload.sh"

cloud_start
relay_start 5555 5000
keystone_in=$RELAY_IN keystone_out=$RELAY_OUT
relay_start 9393 9292
glance_in=$RELAY_IN glance_out=$RELAY_OUT
cloud_login snap
export OS_AUTH_URL=http://127.0.0.1:5555/v3 OS_IMAGE_ENDPOINT_OVERRIDE=http://127.0.0.1:9393/v2/
head -c 300000 /dev/urandom >"$T/disk"

# at SERVICE COMMAND...: to its relay.
at() {
    RELAY_IN=$glance_in RELAY_OUT=$glance_out
    [[ $1 != keystone ]] || RELAY_IN=$keystone_in RELAY_OUT=$keystone_out
    shift
    n_cut=$(grep -c cut "$RELAY_OUT" || true)
    relay "$@"
}
# Something was spoiled since then; Keystone may take its time.
wait_spoilt() {
    wait_for 30 relay_has_cut $((n_cut + 1)) || fail "$1: nothing was spoiled"
}

# spoilt SERVICE COMMAND OUTCOME [LEFT]: an upload while the answers are like that. LEFT: Glance
# cannot be told to delete the image, which the reason says.
ALWAYS=99
spoilt() {
    local found patience=5
    [[ $2 != *' silent' ]] || patience=2
    at "$1" "spoil $2"
    glance -s $((patience * DEADLINE_FACTOR)) upload image raw "$T/disk"
    assert_match "$OUT" "^$3" "$1: $2"
    wait_spoilt "$1: $2"
    at "$1" free
    found=$(list_images)
    if [[ $OUT == OK ]]; then
        assert_eq "$found" "$IMAGE active" "images: $1: $2"
        assert_same_bytes "$CLOUD/images/$IMAGE" "$T/disk"
    elif [[ -z ${4:-} ]]; then
        assert_eq "$found" '' "images after: $1: $2"
    fi
    remove_images
    echo "$1: $2: ${OUT:0:150}"
}

TOKENS=POST+/v3/auth/tokens
RECORD=POST+/v2/images DATA=PUT+/v2/images/ SHOW=GET+/v2/images/ DELETE=DELETE+/v2/images/
KEEPS="EIO Glance keeps other data"

# ---- Keystone ----
spoilt keystone "$ALWAYS $TOKENS silent" 'ETIMEDOUT Keystone at '
spoilt keystone "$ALWAYS $TOKENS half" 'EIO .*5555'
spoilt keystone "$ALWAYS $TOKENS slow" 'OK'
spoilt keystone "$ALWAYS $TOKENS lie (?i)X-Subject-Token X-Subject-Nothing" 'EIO .*as no Keystone does'
spoilt keystone "$ALWAYS $TOKENS lie \"token\" \"tokem\"" 'EIO .*as no Keystone does'
# One that says it has expired is tried all the same: clocks differ, and Glance will tell.
spoilt keystone "$ALWAYS $TOKENS lie (\"expires_at\":.\")20 \\g<1>19" 'OK'

# ---- Glance: the record ----
spoilt glance "$ALWAYS $RECORD silent" 'ETIMEDOUT Glance at '
spoilt glance "1 $RECORD half" 'OK'
spoilt glance "$ALWAYS $RECORD half" 'OK' # asked again by the same id, Glance says that it has it
spoilt glance "$ALWAYS $RECORD slow" 'OK'

# ---- Glance: the data ----
spoilt glance "1 $DATA silent" 'OK'
spoilt glance "1 $DATA half" 'OK'
spoilt glance "$ALWAYS $DATA slow" 'OK'
spoilt glance "$ALWAYS $DATA lie 204.No 400.No" 'EINVAL Glance refuses the data: 400'

# ---- Glance: what it says of the image ----
spoilt glance "1 $SHOW half" 'OK'
spoilt glance "$ALWAYS $SHOW half" 'EIO'
spoilt glance "$ALWAYS $SHOW silent" 'ETIMEDOUT'
spoilt glance "$ALWAYS $SHOW slow" 'OK'
spoilt glance "$ALWAYS $SHOW lie (\"size\":.)300000 \\g<1>\"3000\"" 'EIO'
spoilt glance "$ALWAYS $SHOW lie (\"size\":.)300000 \\g<1>300001" 'EIO .*300001 bytes of the 300000'
spoilt glance "$ALWAYS $SHOW lie \"active\" \"killed\"" "EIO .*'killed', not active"
spoilt glance "$ALWAYS $SHOW lie (\"os_hash_value\":.\").... \\1-no-" "$KEEPS"
spoilt glance "$ALWAYS $SHOW lie (\"checksum\":.\").... \\1-no-" 'OK' # the better hash is right

# ---- Glance: even the deletion ----
at glance "spoil $ALWAYS $DELETE silent"
glance_begin 100000 -s $((2 * DEADLINE_FACTOR)) upload image raw "$T/disk"
glance_tell fail
glance_end
assert_match "$OUT" "image $IMAGE may be left there" 'a deletion that is not answered'
at glance free
remove_images

# ---- A mount, while nobody answers ----
mkdir "$T/images"
make_qcow2 "$T/images/a.qcow2"
make_qcow2 "$T/images/b.qcow2"
oracle "$T/images/b.qcow2" qcow2 "$T/b.raw"
mount_start "dir:$T/images" -o "timeout=$((2 * DEADLINE_FACTOR)),linger=0"
D=$MNT/a.qcow2
for service in keystone glance; do
    case $service in
    keystone) at keystone "spoil $ALWAYS $TOKENS silent" ;;
    glance) at glance "spoil $ALWAYS $SHOW silent" ;;
    esac
    bash -c 'echo "now '$service' --poll" >"$1"' - "$D/upload" 2>"$T/said" &
    writer=$!
    wait_spoilt "$service"
    timeout $((20 * DEADLINE_FACTOR)) cmp "$MNT/b.qcow2/snapshots/now.raw" "$T/b.raw" || fail "$service: another file hangs"
    timeout $((20 * DEADLINE_FACTOR)) cat "$D/status" "$D/upload" >/dev/null || fail "$service: status hangs"
    is_gone_or_zombie "$writer" && fail "$service: nothing was waited for"
    wait_for 60 is_gone_or_zombie "$writer" || fail "$service: the writer waits for ever"
    ! wait "$writer" || fail "$service: an upload without an answer"
    assert_match "$(cat "$T/said")" 'timed out' "$service: what the writer is told"
    assert_eq "$(grep -c 'error: .*upload' "$LOG")" 1 "$service: lines in the log"
    at $service free
    assert_no_images "$service is silent"
    : >"$LOG"
done
assert_no_secrets
mount_stop
