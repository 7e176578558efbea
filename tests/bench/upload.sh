#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# bench/run's: `plain` is uploaded as one qcow2 file to a Glance on loopback, and curl sends the same
# bytes there from a file that is ready. Ours is the whole of it: the image's record, laying out the
# file, sending, and comparing with what Glance has. Prints rows: run, metric, image, program, value, unit.
export STORE=${BENCH_DIR:?}/work/store
. "$(dirname "$0")/../lib/openstack.sh"
. "$(dirname "$0")/../lib/upload.sh"
need curl

mkdir -p "$STORE"
at_exit "rm -rf $STORE $BENCH_DIR/work/ready.qcow2"
cloud_start
cloud_login snap
mount_start "dir:$BENCH_DIR/images"
# For upload().
# shellcheck disable=SC2034
D=$MNT/plain.qcow2
ready=$BENCH_DIR/work/ready.qcow2
cp "$MNT/plain.qcow2/snapshots/now.qcow2" "$ready"
size=$(stat -c %s "$ready")
token=$(ask_keystone new)

rate() { # RUN PROGRAM SINCE UNTIL
    awk -v OFS='\t' -v run="$1" -v program="$2" -v bytes="$size" -v start="$3" -v end="$4" \
        'BEGIN { print run, "upload", "plain", program, bytes / 1e6 / (end - start), "MB/s" }'
}

send_by_curl() {
    image=$(curl -sS -f -X POST "$IMAGES/v2/images" -H "X-Auth-Token: $token" \
        -H 'Content-Type: application/json' \
        -d '{"name": "ready", "disk_format": "qcow2", "container_format": "bare"}' |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
    timeout 600 curl -sS -f -X PUT -T "$ready" "$IMAGES/v2/images/$image/file" \
        -H "X-Auth-Token: $token" -H 'Content-Type: application/octet-stream'
}

for ((run = 1; run <= RUNS; run++)); do
    remove_images
    sync -f "$STORE"
    start=$EPOCHREALTIME
    assert_eq "$(upload 'now ours format=qcow2 --poll')" OK 'outcome of the upload'
    rate "$run" virtsnapfs "$start" "$EPOCHREALTIME"
    assert_same_bytes "$ready" "$STORE/$(image_of ours)"
    remove_images
    sync -f "$STORE"
    start=$EPOCHREALTIME
    send_by_curl
    rate "$run" curl "$start" "$EPOCHREALTIME"
    assert_same_bytes "$ready" "$STORE/$image"
done
mount_stop
