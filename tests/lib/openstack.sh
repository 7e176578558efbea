# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For the scripts in glance/: a real Keystone and a real Glance from Debian's packages, on
# 127.0.0.1 of a network namespace of this script's own. All their state is in $T/cloud, and when
# the script ends, however, nothing of them is left.
#
#   . "$(dirname "$0")/../lib/openstack.sh"
#   cloud_start                          # ready when it returns; some 5 s
#   cloud_login snap                     # sets the OS_* variables
#   glance upload 'a name' raw "$T/disk" # glancecall.c, outcome in $OUT
#   assert_no_images
#
# What cloud_start takes from the environment:
#   TOKEN_TTL=SECONDS    life of a token (3600)
#   TOKEN_CACHE=SECONDS  Glance believes in a token for so long (300); -1: asks each time
#   GLANCE_DEFAULT=TEXT  more lines for [DEFAULT] of glance-api.conf
#   GLANCE_FLAVOR=       empty: Glance without Keystone
#   STORE=FOLDER         where Glance keeps its data ($T/cloud/images)
#
# Users: snap (of-snap) of project vms, admin (of-admin) of project admin; snap's application
# credential: secret of-credential, id in $CREDENTIAL.

for tool in /usr/bin/glance-api /usr/bin/keystone-manage ip openssl unshare; do
    command -v "$tool" >/dev/null || { echo "skipped: no $tool" && exit 77; }
done
if [[ -z ${IN_NAMESPACE:-} ]]; then
    IN_NAMESPACE=yes exec unshare --mount --net --pid --fork --kill-child --mount-proc \
        bash "$0" "$@"
fi
# shellcheck source-path=SCRIPTDIR
declare -F mount_start >/dev/null || . "$(dirname "${BASH_SOURCE[0]}")/mount.sh"
ip link set lo up

CLOUD_DIR=$LIB_DIR/openstack
CLOUD=$T/cloud
# shellcheck disable=SC2034
IDENTITY=http://127.0.0.1:5000/v3 IMAGES=http://127.0.0.1:9292
# Nothing of the caller's own cloud, or proxy, comes in.
for variable in $(compgen -e | grep -E '^OS_|_proxy$|_PROXY$|^PYTHON' || true); do
    unset "$variable"
done
export PYTHONDONTWRITEBYTECODE=1 HOME=$T

write_keystone_conf() {
    cat >"$1/keystone.conf" <<EOF
[DEFAULT]
log_file = $1/log.keystone
[identity]
password_hash_rounds = 4
[database]
connection = sqlite:///$1/keystone.db
sqlite_synchronous = false
[token]
provider = fernet
expiration = ${TOKEN_TTL:-3600}
allow_expired_window = 0
[fernet_tokens]
key_repository = $1/fernet-keys
[fernet_receipts]
key_repository = $1/fernet-keys
[credential]
key_repository = $1/credential-keys
[oslo_policy]
policy_dirs = $1/policy.d
EOF
}

write_glance_conf() {
    # Its schema lies beside the configuration, or some properties are taken that are not.
    cp /usr/share/glance-common/schema-image.json "$1"
    cat >"$1/glance-api.conf" <<EOF
[DEFAULT]
bind_host = 127.0.0.1
bind_port = 9292
workers = 0
log_file = $1/log.glance-api
enabled_backends = fs:file
${GLANCE_DEFAULT:-}
[database]
connection = sqlite:///$1/glance.db
sqlite_synchronous = false
[glance_store]
default_backend = fs
[fs]
filesystem_store_datadir = ${STORE:-$1/images}
[os_glance_staging_store]
filesystem_store_datadir = $1/staging
[os_glance_tasks_store]
filesystem_store_datadir = $1/tasks
[oslo_concurrency]
lock_path = $1/lock
[oslo_policy]
policy_dirs = $1/policy.d
[paste_deploy]
config_file = /usr/share/glance-common/glance-api-paste.ini
EOF
    [[ -n ${GLANCE_FLAVOR-keystone} ]] || return 0
    cat >>"$1/glance-api.conf" <<EOF
flavor = keystone
[keystone_authtoken]
www_authenticate_uri = $IDENTITY
auth_url = $IDENTITY
auth_type = password
username = glance
password = of-glance
user_domain_name = Default
project_name = service
project_domain_name = Default
region_name = RegionOne
token_cache_time = ${TOKEN_CACHE:-300}
EOF
}

# Empty databases with their users take seconds: they are made once, and copied.
make_databases() {
    local folder=$1 keystone TOKEN_TTL='' GLANCE_DEFAULT='' STORE=''
    mkdir -p "$folder"/{fernet-keys,credential-keys,images,staging,tasks,lock,policy.d}
    chmod 700 "$folder"/*-keys
    write_keystone_conf "$folder"
    write_glance_conf "$folder"
    /usr/bin/python3 "$CLOUD_DIR/identity.py" prepare "$folder/keystone.conf" >"$T/log.prepare" 2>&1 &
    keystone=$!
    /usr/bin/glance-manage --config-file "$folder/glance-api.conf" db_sync \
        >"$T/log.glance-manage" 2>&1 || fail 'no database for Glance'
    wait "$keystone" || fail 'no database for Keystone'
    /usr/bin/python3 - "$folder/glance.db" <<'PY'
import sqlite3, sys
sqlite3.connect(sys.argv[1]).execute("PRAGMA journal_mode=WAL")
PY
    rm -f "$folder"/log.* "$T"/log.prepare "$T"/log.glance-manage
    : >"$folder/is-complete"
}

prepare_cloud() {
    local cache=${CLOUD_CACHE:-$T/cloud-cache}
    mkdir -p "$cache"
    # Several scripts may come at the same time, and another version may have been before.
    cache+=/$(cat "$CLOUD_DIR/identity.py" "${BASH_SOURCE[0]}" | sha256sum | cut -c 1-16)
    exec {lock}>"$cache.lock"
    flock "$lock"
    if [[ ! -e $cache/is-complete ]]; then
        rm -rf "$cache"
        make_databases "$cache"
    fi
    exec {lock}>&-
    cp -a "$cache" "$CLOUD"
    # shellcheck disable=SC2034
    CREDENTIAL=$(<"$CLOUD/credential")
    # The configuration names its own folder.
    write_keystone_conf "$CLOUD"
    write_glance_conf "$CLOUD"
    ln -sf "$CLOUD/log.keystone" "$T/log.keystone"
    ln -sf "$CLOUD/log.glance-api" "$T/log.glance-api"
}

is_listening() {
    (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

listening_or_dead() {
    is_listening "$2" || is_gone_or_zombie "$1"
}

wait_listening() { # PID PORT NAME
    local seconds=${LISTEN_DEADLINE_S:-60}
    wait_for "$seconds" listening_or_dead "$1" "$2" || fail "$3 does not listen after $seconds s"
    is_listening "$2" || fail "$3 ended at once"
}

keystone_launch() {
    /usr/bin/python3 "$CLOUD_DIR/identity.py" serve "$CLOUD/keystone.conf" \
        >>"$T/log.keystone.out" 2>&1 </dev/null &
    KEYSTONE_PID=$!
}

glance_launch() {
    /usr/bin/python3 /usr/bin/glance-api --config-file "$CLOUD/glance-api.conf" \
        >>"$T/log.glance-api.out" 2>&1 </dev/null &
    GLANCE_PID=$!
}

keystone_start() {
    keystone_launch
    wait_listening "$KEYSTONE_PID" 5000 Keystone
}

glance_start() {
    glance_launch
    wait_listening "$GLANCE_PID" 9292 Glance
}

keystone_kill() {
    kill -KILL "$KEYSTONE_PID"
    wait "$KEYSTONE_PID" 2>/dev/null || true
}

glance_kill() {
    kill -KILL "$GLANCE_PID"
    wait "$GLANCE_PID" 2>/dev/null || true
}

cloud_start() {
    prepare_cloud
    [[ -z ${GLANCE_FLAVOR-keystone} ]] || keystone_launch
    glance_start
    [[ -z ${GLANCE_FLAVOR-keystone} ]] || wait_listening "$KEYSTONE_PID" 5000 Keystone
}

# Another configuration: GLANCE_DEFAULT and STORE are looked at again.
glance_restart() {
    glance_kill
    write_glance_conf "$CLOUD"
    glance_start
}

keystone_restart() {
    keystone_kill
    write_keystone_conf "$CLOUD"
    keystone_start
}

# cloud_login USER [PROJECT]
cloud_login() {
    local project=${2:-vms}
    [[ $1 != admin ]] || project=${2:-admin}
    cloud_logout
    export OS_AUTH_URL=$IDENTITY OS_USERNAME=$1 OS_PASSWORD=of-$1 OS_PROJECT_NAME=$project
    export OS_USER_DOMAIN_NAME=Default OS_PROJECT_DOMAIN_NAME=Default
    export OS_REGION_NAME=RegionOne OS_INTERFACE=public OS_IDENTITY_API_VERSION=3
}

cloud_logout() {
    local variable
    for variable in $(compgen -e | grep '^OS_' || true); do
        unset "$variable"
    done
}

# ask_keystone new|check TOKEN: a token, or the status that Keystone has for one.
ask_keystone() {
    /usr/bin/python3 - "$IDENTITY" "$@" <<'PY'
import json, sys, urllib.error, urllib.request

url, verb, *token = sys.argv[1:]
domain = {"name": "Default"}
body = {"auth": {"identity": {"methods": ["password"], "password": {
    "user": {"name": "snap", "domain": domain, "password": "of-snap"}}},
    "scope": {"project": {"name": "vms", "domain": domain}}}}
headers = {"Content-Type": "application/json"}
if verb == "check":
    headers["X-Auth-Token"] = token[0]
request = urllib.request.Request(
    url + ("/auth/tokens" if verb == "new" else "/auth/catalog"),
    None if verb == "check" else json.dumps(body).encode(), headers)
try:
    with urllib.request.urlopen(request) as answer:
        print(answer.headers["X-Subject-Token"] if verb == "new" else answer.status)
except urllib.error.HTTPError as error:
    print(error.code)
PY
}

# Makes a CA in FOLDER, and a certificate by it for 127.0.0.1.
make_ca() {
    mkdir "$1"
    {
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
            -subj '/CN=CA of a test' -keyout "$1/ca.key" -out "$1/ca.pem"
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=127.0.0.1 \
            -keyout "$1/server.key" -out "$1/server.csr"
        echo 'subjectAltName=IP:127.0.0.1,DNS:localhost' >"$1/names"
        openssl x509 -req -in "$1/server.csr" -CA "$1/ca.pem" -CAkey "$1/ca.key" \
            -CAcreateserial -days 30 -extfile "$1/names" -out "$1/server.pem"
    } 2>"$T/log.openssl" || fail 'openssl made no certificate'
}

# relay_start PORT TARGET-PORT [CERTIFICATE KEY]: see openstack/relay.py; relay COMMAND speaks to
# the one without TLS.
relay_start() {
    local pipe=$T/relay.$1
    mkfifo "$pipe.in"
    /usr/bin/python3 "$CLOUD_DIR/relay.py" "$@" <"$pipe.in" >"$pipe.out" 2>"$T/log.relay.$1" &
    exec {RELAY_IN}>"$pipe.in"
    RELAY_OUT=$pipe.out
    wait_listening $! "$1" 'the relay'
}

relay_has_answered() {
    (($(grep -c ok "$RELAY_OUT" || true) > $1))
}

relay() {
    local before
    before=$(grep -c ok "$RELAY_OUT" || true)
    echo "$*" >&"$RELAY_IN"
    wait_for 10 relay_has_answered "$before" || fail "the relay does not answer to '$*'"
}

relay_has_cut() { # N: connections, by now
    (($(grep -c cut "$RELAY_OUT" || true) >= $1))
}

# catalog_set URL [IDENTITY-URL]: what Keystone's catalog says from now on (it may cache it: before
# it starts).
catalog_set() {
    /usr/bin/python3 - "$CLOUD/keystone.db" "$@" <<'PY'
import sqlite3
import sys

with sqlite3.connect(sys.argv[1]) as database:
    database.execute("UPDATE endpoint SET url = ? WHERE service_id IN "
                     "(SELECT id FROM service WHERE type = 'image')", (sys.argv[2],))
PY
}

# What Glance knows, whoever asks: lines "ID STATUS" of images that are not deleted.
list_images() {
    /usr/bin/python3 - "$CLOUD/glance.db" <<'PY'
import sqlite3
import sys

for row in sqlite3.connect(sys.argv[1]).execute(
        "SELECT id, status FROM images WHERE deleted = 0 ORDER BY created_at"):
    print(*row)
PY
}

# Takes all away, without the seconds that a client needs.
remove_images() {
    /usr/bin/python3 - "$CLOUD/glance.db" <<'PY'
import sqlite3
import sys

with sqlite3.connect(sys.argv[1]) as database:
    database.execute("UPDATE images SET deleted = 1, status = 'deleted'")
PY
    rm -f "${STORE:-$CLOUD/images}"/*
}

assert_no_images() {
    assert_eq "$(list_images)" '' "images after: ${1:-all}"
}

# glance VERB...: glancecall.c; all it said is in $T/out, the last line in $OUT. Fails never.
glance() {
    n_calls=$((${n_calls:-0} + 1))
    # shellcheck disable=SC2086
    ${VIRTSNAPFS_WRAPPER:-} "$GLANCECALL" -s $((10 * DEADLINE_FACTOR)) "$@" >"$T/out" 2>"$T/log.call.$n_calls" </dev/null || true
    check_call
}

check_call() {
    LOG=$T/log.call.$n_calls
    # shellcheck disable=SC2034
    OUT=$(tail -n 1 "$T/out")
    # shellcheck disable=SC2034
    IMAGE=$(sed -n 's/^\(id\|replaced\) //p' "$T/out" | tail -n 1)
    assert_no_sanitizer_report
    if grep -E 'of-(snap|admin|credential)|gAAAA' "$T/out" "$LOG"; then
        fail 'a secret was shown'
    fi
}

# The same in the background, which stops at byte AT until glance_go or glance_cancel: then come
# other things, and glance_end.
glance_begin() { # AT VERB...
    n_calls=$((${n_calls:-0} + 1))
    local pipe=$T/call.$n_calls at=$1
    shift
    mkfifo "$pipe"
    # shellcheck disable=SC2086
    ${VIRTSNAPFS_WRAPPER:-} "$GLANCECALL" -s $((10 * DEADLINE_FACTOR)) -p "$at" "$@" <"$pipe" >"$T/out" 2>"$T/log.call.$n_calls" &
    CALL_PID=$!
    exec {CALL_IN}>"$pipe"
    wait_for 60 is_paused || fail "it does not get to byte $at: $(cat "$T/out")"
    grep -q '^at ' "$T/out" || fail "it ends before byte $at: $(cat "$T/out")"
}

is_paused() {
    grep -q '^at ' "$T/out" || is_gone_or_zombie "$CALL_PID"
}

glance_tell() { # go, cancel or fail
    echo "$1" >&"$CALL_IN"
}

glance_end() {
    wait_for 120 is_gone_or_zombie "$CALL_PID" || fail "it does not end: $(cat "$T/out")"
    wait "$CALL_PID" || true
    exec {CALL_IN}>&-
    check_call
}

# show ID FIELD...: of an image, as the OpenStack client has it.
show() {
    openstack image show "$1" -f json >"$T/shown"
    /usr/bin/python3 -c 'import json, sys
s = json.load(open(sys.argv[1]))
s |= s.pop("properties")
print("|".join(str(s.get(k)) for k in sys.argv[2:]))' "$T/shown" "${@:2}"
}
