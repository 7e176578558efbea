# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For the scripts of glance/ that write to a mount's `upload`, on top of openstack.sh. $D is the
# directory of the domain.

# upload LINE: what echo says of it, or OK.
upload() {
    local said
    if said=$(bash -c 'echo "$1" >"$2"' - "$1" "$D/upload" 2>&1); then
        echo OK
    else
        echo "${said##*: }"
    fi
}

# The newest row with that text in it, without its speed and time: "STATE PERCENT".
row_of() {
    grep -F -- "$1" "$D/upload" | head -n 1 | awk '{print $5, $6}'
}

# Id of the image in the newest row with that text.
image_of() {
    grep -F -- "$1" "$D/upload" | head -n 1 | awk '{print $4}'
}

# row_is TEXT STATE: for wait_for.
row_is() {
    [[ $(row_of "$1") == "$2 "* ]]
}

# stored ID NAME: a property as Glance keeps it; the OpenStack client does not show them all.
stored() {
    /usr/bin/python3 - "$CLOUD/glance.db" "$@" <<'PY'
import sqlite3
import sys

for row in sqlite3.connect(sys.argv[1]).execute(
        "SELECT value FROM image_properties WHERE image_id = ? AND name = ? AND deleted = 0",
        sys.argv[2:]):
    print(*row)
PY
}

# refused LINE STRERROR REASON: echo fails with that, and the reason stands where it is looked for.
refused() {
    assert_eq "$(upload "$1")" "$2" "outcome of '$1'"
    assert_match "$(sed -n 2p "$D/upload")" "failed.*$3" "row of '$1'"
    assert_log "upload [0-9]+: .*$3" "log of '$1'"
    grep -Eq "\"text\": \".*$3" "$D/status" || fail "status of '$1': $(cat "$D/status")"
}

assert_no_secrets() {
    cat "$LOG" "$MNT"/*/status "$MNT"/*/upload "/proc/$PID/cmdline" >"$T/shown-all"
    # valgrind gives the program a copy of its own environment, and the kernel shows valgrind's.
    [[ -n ${VIRTSNAPFS_WRAPPER:-} ]] || cat "/proc/$PID/environ" >>"$T/shown-all"
    if grep -aE 'of-(snap|admin|credential)|gAAAA' "$T/shown-all"; then
        fail 'a secret was shown'
    fi
}
