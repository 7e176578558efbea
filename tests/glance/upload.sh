#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Uploads that work: by password, application credential, clouds.yaml with secure.yaml, token and
# discovery, several at once; what Glance gives back is what was sent, says the OpenStack client.
. "$(dirname "$0")/../lib/openstack.sh"

cloud_start
make_qcow2 "$T/disk.qcow2"
head -c 3000001 /dev/urandom >"$T/disk.raw"

# By password, with all that a record may have.
cloud_login snap
glance upload 'café "1"' qcow2 "$T/disk.qcow2" min_disk=8 min_ram=64 visibility=shared \
    hw_disk_bus=virtio image_type=snapshot 'note=two
lines' protected=true
assert_eq "$OUT" OK 'upload by password'
assert_eq "$(show "$IMAGE" name status disk_format container_format min_disk min_ram visibility protected \
    hw_disk_bus image_type note)" \
    $'café "1"|active|qcow2|bare|8|64|shared|True|virtio|snapshot|two\nlines' 'the record'
openstack image save --file "$T/saved" "$IMAGE"
assert_same_bytes "$T/saved" "$T/disk.qcow2"
remove_images

# logins: how many times Keystone was asked for a token by the last glance.
logins() {
    grep -c 'POST .*/auth/tokens: 201' "$LOG"
}

# sends WHAT OPTION...: uploads, by what the environment says, and deletes.
sends() {
    local what=$1
    shift
    glance "$@" upload image raw "$T/disk.raw"
    assert_eq "$OUT" OK "upload by $what"
    assert_eq "$(list_images)" "$IMAGE active" "images: $what"
    assert_same_bytes "$CLOUD/images/$IMAGE" "$T/disk.raw"
    remove_images
}

# An application credential, which needs no more to be said.
cloud_logout
export OS_AUTH_URL=http://127.0.0.1:5000 OS_APPLICATION_CREDENTIAL_ID=$CREDENTIAL
export OS_APPLICATION_CREDENTIAL_SECRET=of-credential
sends 'application credential, v3 found by discovery'
unset OS_APPLICATION_CREDENTIAL_ID
export OS_APPLICATION_CREDENTIAL_NAME=snapshots OS_USERNAME=snap OS_USER_DOMAIN_NAME=Default
export OS_AUTH_URL=http://127.0.0.1:5000/
sends 'application credential by name'

# A token: for its own project, and for one that is named.
cloud_login snap
token=$(ask_keystone new)
cloud_logout
export OS_AUTH_URL=$IDENTITY OS_TOKEN=$token
glance login
assert_eq "$OUT" OK 'login by token'
who=$(<"$T/out")
export OS_AUTH_TYPE=v3token OS_PROJECT_NAME=vms
sends 'token with a project'
if grep -qF "$token" "$LOG" "$T/out"; then
    fail 'the token was shown'
fi
export OS_TOKEN=${token%???}AAA
glance login
assert_match "$OUT" '^EACCES Keystone refuses .the token. for project .vms.: ' 'login by a token that is none'

# clouds.yaml, with its secrets elsewhere; a named cloud wins over the environment.
cloud_logout
mkdir -p "$T/.config/openstack"
cat >"$T/.config/openstack/clouds.yaml" <<EOF
clouds:
  snap: &snap
    region_name: RegionOne
    auth: {auth_url: "$IDENTITY", username: snap, project_name: vms,
           user_domain_name: Default, project_domain_name: Default}
  elsewhere:
    <<: *snap
    region_name: Mars
EOF
cat >"$T/.config/openstack/secure.yaml" <<EOF
clouds: {snap: {auth: {password: of-snap}}, elsewhere: {auth: {password: of-snap}}}
EOF
sends 'cloud=' -c snap
cloud_login admin
export OS_CLOUD=snap
glance login
assert_eq "$(<"$T/out")" "$who" 'who OS_CLOUD logs in'
OS_CLOUD=elsewhere OS_REGION_NAME=Pluto glance login
assert_match "$OUT" "^EINVAL no image service in region 'Pluto'.*RegionOne \(public\)" 'wrong region'
cloud_logout
glance login
assert_match "$OUT" '^ENOENT .*2 clouds' 'two clouds and no choice'

# Several at once take one login, and only one.
cloud_login snap
glance -j 4 upload image raw "$T/disk.raw"
assert_eq "$(grep -c '^OK$' "$T/out")" 4 'uploads at once'
assert_eq "$(list_images | grep -c active)" 4 'images of uploads at once'
assert_eq "$(logins)" 1 'logins of uploads at once'
for file in "$CLOUD"/images/*; do
    assert_same_bytes "$file" "$T/disk.raw"
done
remove_images

# Nothing at all is an image too.
: >"$T/empty"
glance upload "$(printf 'é%.0s' {1..255})" raw "$T/empty"
assert_eq "$OUT" OK 'an empty disk, and the longest name'
