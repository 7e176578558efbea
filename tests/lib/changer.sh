# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For the scripts in host/ that try a method of the libvirt host alone, by way of tests/lib/changer.c:
#
#   changer_start copy dom          plans and makes; its words are in $T/changer
#   changer_wait made
#   changer_end 0                   undoes; 0 is the exit status wanted
#
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/host.sh"
: "${CHANGER:?is not set: run this by meson test, or set it to the program}"
CHANGER="${VIRTSNAPFS_WRAPPER:+$VIRTSNAPFS_WRAPPER }$CHANGER"

CHANGER_PID='' CHANGER_IN=''

# changer_start METHOD DOMAIN [OPTION...]
changer_start() {
    local method=$1 domain=$2
    shift 2
    rm -f "$T/changer.in" "$T/changer"
    mkfifo "$T/changer.in"
    $CHANGER "$@" "$LIBVIRT_DEFAULT_URI" "$method" "$domain" "$T/notes" \
        <"$T/changer.in" >"$T/changer" 2>"$T/log.changer" &
    CHANGER_PID=$!
    pids+=("$CHANGER_PID")
    exec {CHANGER_IN}>"$T/changer.in"
}

has_said() {
    grep -q "^$1" "$T/changer" || is_gone_or_zombie "$CHANGER_PID"
}

# changer_wait WORD: at the begin of a line.
changer_wait() {
    wait_for 120 has_said "$1" || fail "the changer does not say '$1': $(cat "$T/changer")"
    grep -q "^$1" "$T/changer" || fail "the changer ended without '$1': $(cat "$T/changer" "$T/log.changer")"
}

# Lets a changer that was started with -w go on.
changer_go_on() {
    echo >&"$CHANGER_IN"
}

changer_end() {
    exec {CHANGER_IN}>&-
    wait_for 120 is_gone_or_zombie "$CHANGER_PID" || fail 'the changer does not end'
    local status=0
    wait "$CHANGER_PID" || status=$?
    unset "pids[-1]"
    assert_eq "$status" "$1" "exit status of the changer, which said: $(cat "$T/changer")"
    if grep -E 'ERROR: [A-Za-z]+Sanitizer|runtime error:' "$T/log.changer"; then
        fail 'a sanitizer complained'
    fi
}

# changer_refuses METHOD DOMAIN ERRNO REGEX: the plan, with nothing changed.
changer_refuses() {
    local before after
    before=$(virsh dumpxml "$2" | live_xml loosely; probe list "$T/disks")
    changer_start "$1" "$2"
    changer_end 2
    assert_match "$(<"$T/changer")" "^plan: $3: .*$4" "refusal of $1 for $2"
    after=$(virsh dumpxml "$2" | live_xml loosely; probe list "$T/disks")
    assert_eq "$after" "$before" "$2 after a refusal"
}

changer_kill() {
    kill -KILL "$CHANGER_PID"
    wait "$CHANGER_PID" 2>/dev/null || true
    unset "pids[-1]"
    exec {CHANGER_IN}>&-
}

# changer_undo METHOD STATUS: what a changer that was killed has left.
changer_undo() {
    local status=0
    $CHANGER -u "$LIBVIRT_DEFAULT_URI" "$1" - "$T/notes" >"$T/changer" 2>"$T/log.changer" || status=$?
    assert_eq "$status" "$2" "exit status of the undoing, which said: $(cat "$T/changer" "$T/log.changer")"
}

# hold_writers_off FILE: the lock of a QEMU that reads the image, until $HOLDER is killed.
hold_writers_off() {
    rm -f "$T/held"
    python3 - "$1" "$T/held" <<'PY' &
import fcntl, struct, sys, time

image = open(sys.argv[1], "rb")
lock = struct.pack("hhqqi", fcntl.F_RDLCK, 0, 201, 1, 0)
fcntl.fcntl(image, 37, lock)  # F_OFD_SETLK
open(sys.argv[2], "w").close()
time.sleep(1000)
PY
    HOLDER=$!
    pids+=("$HOLDER")
    wait_for 20 test -e "$T/held" || fail "cannot lock '$1'"
}

# Not asked: libvirtd dies, and comes back.
libvirtd_restart() {
    kill -KILL "$LIBVIRTD_PID"
    wait_for 20 is_gone_or_zombie "$LIBVIRTD_PID"
    libvirtd_start
}

# delta_of TARGET, mark: of the instant that was made.
delta_of() {
    sed -n "s/^disk $1 [^ ]* //p" "$T/changer"
}

mark() {
    sed -n 's/^mark //p' "$T/changer"
}

# domain_note NAME: the domain and the files in $T/disks as they are now, for domain_check.
domain_note() {
    virsh dumpxml "$1" >"$T/$1.live"
    virsh dumpxml --inactive "$1" >"$T/$1.inactive"
    virsh domstate "$1" >"$T/$1.state"
    virsh snapshot-list --tree "$1" >"$T/$1.snapshots"
    virsh snapshot-current --name "$1" >"$T/$1.current" 2>/dev/null || true
    probe list "$T/disks" >"$T/files"
}

# live_xml [loosely] <XML: without the id, which is another after a save. Loosely: and without what
# a libvirtd that was restarted numbers anew or adds.
live_xml() {
    python3 - "${1:-exactly}" "$(cat)" <<'PY'
import re, sys

text = re.sub(r"^(<domain [^>]*) id='[0-9]+'", r"\1", sys.argv[2])
if sys.argv[1] == "loosely":
    text = re.sub(r"(<(?:source|backingStore) [^>]*) index='[0-9]+'", r"\1", text)
    text = re.sub(r"(<controller type='usb'[^>]*)>\s*<alias name='usb'/>\s*</controller>", r"\1/>", text)
print(text)
PY
}

# domain_check NAME [loosely]: it is as it was.
domain_check() {
    diff <(live_xml "${2:-}" <"$T/$1.live") <(virsh dumpxml "$1" | live_xml "${2:-}") ||
        fail "$1: the live XML is another"
    diff "$T/$1.inactive" <(virsh dumpxml --inactive "$1") || fail "$1: the inactive XML is another"
    diff "$T/$1.state" <(virsh domstate "$1") || fail "$1: the state is another"
    diff "$T/$1.snapshots" <(virsh snapshot-list --tree "$1") || fail "$1: other snapshots"
    diff "$T/$1.current" <(virsh snapshot-current --name "$1" 2>/dev/null) ||
        fail "$1: another current snapshot"
    diff "$T/files" <(probe list "$T/disks") || fail "$1: other files"
}

# check_raw FILE RUNS WHAT: RUNS is a Python list of (byte, length).
check_raw() {
    python3 - "$@" <<'PY' || fail "$3"
import sys

data = open(sys.argv[1], "rb").read()
at = 0
for byte, length in eval(sys.argv[2]):
    piece = data[at:at + length]
    if piece != bytes([byte]) * length:
        bad = next((i for i, b in enumerate(piece) if b != byte), len(piece))
        found = piece[bad] if bad < len(piece) else "missing"
        sys.exit(f"byte {at + bad} is {found}, wanted {byte}")
    at += length
if at != len(data):
    sys.exit(f"{len(data)} bytes, wanted {at}")
PY
}
