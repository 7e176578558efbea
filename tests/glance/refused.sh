#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What Keystone or Glance does not accept, and what is given up midway: an errno and words, and no
# image is left.
. "$(dirname "$0")/../lib/openstack.sh"

mkdir "$T/store"
mount -t tmpfs -o size=64m tmpfs "$T/store"
at_exit umount -l "$T/store"
STORE=$T/store GLANCE_DEFAULT='image_size_cap = 8000000
user_storage_quota = 20MB
image_property_quota = 5' cloud_start
for megabytes in 3 9 21; do
    head -c "${megabytes}000000" /dev/urandom >"$T/$megabytes"
done

# refuses ERRNO WORDS OPTION...: an upload.
refuses() {
    local errno=$1 words=$2
    shift 2
    glance "$@"
    assert_match "$OUT" "^$errno .*$words" "glance $*"
    assert_no_images "$*"
    assert_eq "$(ls "$T/store")" '' "what the store keeps after $*"
}

# Logins.
cloud_login snap
OS_PASSWORD=wrong-word refuses EACCES "Keystone refuses 'snap' for project 'vms': The request .*authentic" login
if grep -F wrong-word "$LOG" "$T/out"; then
    fail 'the password was shown'
fi
OS_PROJECT_NAME=none refuses EACCES "Keystone refuses 'snap' for project 'none'" upload image raw "$T/3"
OS_AUTH_URL=$IDENTITY/nowhere refuses EINVAL 'Keystone at .*/nowhere. says 404' login
OS_AUTH_URL=$IMAGES refuses EINVAL 'Keystone at .*:9292. says 300' login
OS_AUTH_URL=http://127.0.0.1:1/v3 refuses ECONNREFUSED 'Keystone at .*:1/v3' login
OS_AUTH_URL=http://nowhere.invalid/v3 refuses EHOSTUNREACH 'Keystone at .*nowhere' login
OS_INTERFACE=hidden refuses EINVAL "interface 'hidden'" login
OS_REGION_NAME=Other refuses EINVAL "no image service in region 'Other'" login
OS_IMAGE_ENDPOINT_OVERRIDE=http://127.0.0.1:5000 refuses EIO 'not Glance' upload i raw "$T/3"

# Records. What is known to be wrong is not sent at all.
refuses EPERM 'Glance refuses the image: 403 ' upload image raw "$T/3" visibility=public
refuses EDQUOT 'Glance refuses the image: 413 .*propert' upload image raw "$T/3" \
    a=1 b=2 c=3 d=4 e=5 f=6
refuses EINVAL 'Glance refuses the image: 400 ' upload image raw "$T/3" kernel_id=none
for name in '' $'two\nlines' "$(printf 'x%.0s' {1..256})" $'\xf0\x9f\x92\xbe' $'\xff'; do
    refuses EINVAL 'name' upload "$name" raw "$T/3"
    assert_eq "$(grep -c http: "$LOG" || true)" 0 'requests about a name that is none'
done
refuses EINVAL "'owner' is no property" upload image raw "$T/3" owner=me
refuses EINVAL "format 'vmdk'" upload image vmdk "$T/3"
refuses EINVAL "visibility 'hidden'" upload image raw "$T/3" visibility=hidden

# Data.
refuses EFBIG 'Glance refuses the data: 413 ' upload image raw "$T/9"
refuses EDQUOT 'Glance refuses the data: 413 .*quota' upload image raw "$T/21"
mount -o remount,size=2m "$T/store"
refuses ENOSPC 'Glance refuses the data: 413 .*full' upload image raw "$T/3"
mount -o remount,size=64m "$T/store"

# gives_up WORD OUTCOME: in the middle of sending.
gives_up() {
    glance_begin 1500000 upload image raw "$T/3"
    assert_match "$(list_images)" '^[-0-9a-f]* saving$' 'images meanwhile'
    glance_tell "$1"
    glance_end
    assert_match "$OUT" "$2" "told to $1"
    assert_no_images "$1"
}
gives_up cancel '^EINTR cancelled$'
gives_up fail '^EBADMSG the disk is damaged$'

# Deleted by somebody else meanwhile.
glance_begin 1500000 upload image raw "$T/3"
openstack image delete "$(list_images | cut -d ' ' -f 1)"
glance_tell go
glance_end
assert_match "$OUT" '^ECANCELED image [-0-9a-f]* was deleted meanwhile$' 'deleted meanwhile'
assert_no_images 'deleted meanwhile'

# All is well with the same cloud otherwise, and the OpenStack client agrees.
assert_eq "$(openstack image list -f value)" '' 'the list of the OpenStack client'
glance upload image raw "$T/3"
assert_eq "$OUT" OK 'an upload that nothing is against'
