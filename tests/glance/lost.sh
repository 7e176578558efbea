#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Connections that are cut or stand still, answers that get lost, a Glance that dies in the middle,
# and a Keystone that is not there.
. "$(dirname "$0")/../lib/openstack.sh"

cloud_start
relay_start 9393 9292
cloud_login snap
export OS_IMAGE_ENDPOINT_OVERRIDE=http://127.0.0.1:9393/v2/
head -c 3000000 /dev/urandom >"$T/disk"
head -c 100000 /dev/urandom >"$T/small"
head -c 20000000 /dev/urandom >"$T/large" # more than sockets hold

# assert_sent FILE WHAT: it is active, it is all there is, and it is FILE.
assert_sent() {
    assert_eq "$OUT" OK "$2"
    assert_eq "$(list_images)" "$IMAGE active" "images: $2"
    assert_same_bytes "$CLOUD/images/$IMAGE" "$1"
    remove_images
}

# sends FILE WHAT: through what the relay does now.
sends() {
    glance upload image raw "$1"
    assert_sent "$1" "$2"
}

count() {
    grep -Ec -- "$1" "$2" || true
}

# The answer to the record is lost: it is sent again, and found to be there.
relay answer 1
sends "$T/disk" 'the answer to POST is lost'
assert_match "$(<"$LOG")" 'POST [^ ]*: 409' 'the repeated POST'

# Cut once, and sent again from the beginning under the same id.
glance_begin 1500000 upload image raw "$T/disk"
relay after 1600000
glance_tell go
wait_for 30 relay_has_cut 2 || fail 'the relay does not cut'
relay free
glance_end
assert_eq "$(count '^again' "$T/out")" 1 'started again'
assert_eq "$(count '^replaced' "$T/out")" 0 'replaced'
assert_sent "$T/disk" 'cut once'

# Cut each time: three times, and that was it.
relay after 1000000
glance upload image raw "$T/disk"
assert_match "$OUT" '^EIO Glance at .*:9393' 'cut each time'
assert_eq "$(count 'PUT ' "$LOG")" 3 'times that it was sent'
assert_no_images 'cut each time'
relay free

# The answer to the data is lost: Glance has it all, and it is not sent again.
glance_begin 0 upload image raw "$T/small"
relay answer 1
glance_tell go
glance_end
assert_eq "$(count 'PUT ' "$LOG")" 1 'times that it was sent'
assert_sent "$T/small" 'the answer to PUT is lost'

# Nothing moves, and Glance does not notice: the image is stuck, and another one takes its place.
relay mute 1000000
n_cut=$(count cut "$RELAY_OUT")
glance_begin 500000 -s $((5 * DEADLINE_FACTOR)) upload image raw "$T/large"
glance_tell go
wait_for 30 relay_has_cut $((n_cut + 1)) || fail 'the relay does not stop'
relay free
glance_end
assert_eq "$(count '^replaced' "$T/out")" 1 'replaced'
assert_match "$(<"$LOG")" 'nothing moved for [0-9]+ s' 'the stall'
assert_sent "$T/large" 'stands still once'

# It is cancelled promptly where nothing moves.
relay mute 1000000
n_cut=$(count cut "$RELAY_OUT")
glance_begin 500000 -s $((60 * DEADLINE_FACTOR)) upload image raw "$T/large"
glance_tell go
wait_for 30 relay_has_cut $((n_cut + 1)) || fail 'the relay does not stop'
kill -USR1 "$CALL_PID"
relay free
glance_end
assert_match "$OUT" '^EINTR cancelled$' 'cancelled while nothing moves'
assert_no_images 'cancelled while nothing moves'

# Glance is killed, and comes back: it has forgotten that somebody was sending.
glance_begin 1500000 -s $((60 * DEADLINE_FACTOR)) upload image raw "$T/disk"
stuck=$(list_images)
glance_kill
glance_launch
glance_tell go
glance_end
assert_match "$stuck" ' saving$' 'the image before'
assert_eq "$(count '^replaced' "$T/out")" 1 'replaced'
[[ $IMAGE != "${stuck% *}" ]] || fail 'the id is the same'
assert_sent "$T/disk" 'Glance was killed'

# It does not come back: then the words say what may be left.
glance_begin 1500000 -s $((5 * DEADLINE_FACTOR)) upload image raw "$T/disk"
glance_kill
glance_tell go
glance_end
assert_match "$OUT" "^(EIO|ECONNREFUSED) .*image $IMAGE may be left there" 'Glance stays dead'
glance_start
remove_images

# No Keystone.
keystone_kill
glance upload image raw "$T/disk"
assert_match "$OUT" "^ECONNREFUSED Keystone at 'http://127.0.0.1:5000/v3': " 'no Keystone'
assert_no_images 'no Keystone'
