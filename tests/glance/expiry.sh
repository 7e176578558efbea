#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Tokens that live for seconds, and tokens that are revoked while they are in use.
. "$(dirname "$0")/../lib/openstack.sh"

TOKEN_TTL=$((8 * DEADLINE_FACTOR)) TOKEN_CACHE=-1 cloud_start
cloud_login snap
head -c 3000000 /dev/urandom >"$T/disk"

is_refused() {
    sleep 0.5 # asking takes time away from the servers
    [[ $(ask_keystone check "$1") == 401 ]]
}

# By the time it is sent, no token from before is good any more.
glance_begin 1500000 upload image raw "$T/disk"
later=$(ask_keystone new)
wait_for 60 is_refused "$later" || fail 'tokens do not expire'
glance_tell go
glance_end
assert_eq "$OUT" OK 'upload longer than its token'
assert_eq "$(list_images)" "$IMAGE active" 'images'
assert_same_bytes "$CLOUD/images/$IMAGE" "$T/disk"

# The same for an upload that is cancelled: deleting takes a token too.
glance_begin 1500000 upload image raw "$T/disk"
later=$(ask_keystone new)
wait_for 60 is_refused "$later" || fail 'tokens do not expire'
glance_tell cancel
glance_end
assert_eq "$OUT" 'EINTR cancelled' 'cancelled after the token expired'
assert_eq "$(list_images | wc -l)" 1 'images after a cancel'

# A token that was given, and cannot be renewed, has run out.
cloud_logout
OS_AUTH_URL=$IDENTITY OS_TOKEN=$later glance upload image raw "$T/disk"
assert_match "$OUT" '^EACCES Keystone refuses' 'a token that has expired'

# Tokens live long now, and one is revoked by Keystone while it is thought to be good.
TOKEN_TTL=3600 keystone_restart
cloud_login snap
glance_begin 1500000 upload image raw "$T/disk"
used=$(ask_keystone new)
rm "$CLOUD"/fernet-keys/*
/usr/bin/keystone-manage --config-file "$CLOUD/keystone.conf" fernet_setup \
    --keystone-user root --keystone-group root
is_refused "$used" || fail 'the token is good after all'
glance_tell go
glance_end
assert_eq "$OUT" OK 'the token was revoked'
assert_match "$(<"$LOG")" 'GET [^ ]*: 401' 'the refused request'
assert_eq "$(grep -c 'POST .*/auth/tokens: 201' "$LOG")" 2 'logins'
