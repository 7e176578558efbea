#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Ways to a cloud: TLS with the right and with the wrong certificates, and Glance without Keystone.
. "$(dirname "$0")/../lib/openstack.sh"

make_ca "$T/tls"
make_ca "$T/other"
prepare_cloud
catalog_set https://127.0.0.1:9443
keystone_start
glance_start
relay_start 5443 5000 "$T/tls/server.pem" "$T/tls/server.key"
relay_start 9443 9292 "$T/tls/server.pem" "$T/tls/server.key"
head -c 3000000 /dev/urandom >"$T/disk"

# sends WHAT [OPTION...]
sends() {
    local what=$1
    shift
    glance "$@" upload image raw "$T/disk"
    assert_eq "$OUT" OK "$what"
    assert_match "$(<"$LOG")" "PUT https?://127.0.0.1:$port/v2/images/$IMAGE/file: 204" "$what"
    assert_eq "$(list_images | tail -n 1)" "$IMAGE active" "images: $what"
    assert_same_bytes "$CLOUD/images/$IMAGE" "$T/disk"
}

port=9443
cloud_login snap
export OS_AUTH_URL=https://127.0.0.1:5443/v3
OS_CACERT=$T/tls/ca.pem sends 'the right CA'
OS_INSECURE=true sends 'no check at all'
n_images=$(list_images | wc -l)
for ca in "$T/other/ca.pem" ''; do
    OS_CACERT=$ca glance upload image raw "$T/disk"
    assert_match "$OUT" '^EPROTO Keystone at .*certificate' "CA '$ca'"
done
OS_CACERT=$T/nothing.pem glance login
assert_match "$OUT" '^EINVAL Keystone at ' 'a CA that is not there'
# Keystone's name is known by a plain way, and Glance is not who it should be.
OS_AUTH_URL=$IDENTITY OS_CACERT=$T/other/ca.pem glance upload image raw "$T/disk"
assert_match "$OUT" '^EPROTO Glance at .*certificate' 'the wrong CA for Glance'
assert_eq "$(list_images | wc -l)" "$n_images" 'images after wrong certificates'

cloud_logout
cat >"$T/clouds.yaml" <<EOF
clouds:
  checked: &a
    auth: {auth_url: "https://127.0.0.1:5443", username: snap, password: of-snap, project_name: vms}
    cacert: ~/tls/ca.pem
  unchecked:
    <<: *a
    cacert: $T/other/ca.pem
    verify: false
EOF
export OS_CLIENT_CONFIG_FILE=$T/clouds.yaml
sends 'cacert' -c checked
sends 'verify: false' -c unchecked

# No Keystone at all.
port=9292
keystone_kill
GLANCE_FLAVOR='' glance_restart
cloud_logout
OS_AUTH_TYPE=none OS_ENDPOINT=$IMAGES/ sends 'no Keystone'
