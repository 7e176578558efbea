#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# --status MOUNTPOINT: who reads how much of what, and what went wrong, for people and for programs.
. "$(dirname "$0")/../lib/mount.sh"
need qemu-img

mkdir "$T/images"
make_qcow2 "$T/images/a.qcow2"
# What a terminal would obey: ESC, and CSI as one character.
qemu-img snapshot -c $'red\e[31m\xc2\x9b31m' "$T/images/a.qcow2"
printf 'QFI\373 too short' >"$T/images/broken.qcow2"
truncate -s 8M "$T/images/still.raw"
mount_start "dir:$T/images"

# shellcheck disable=SC2086
show() {
    $VIRTSNAPFS --status "$@" "$MNT"
}
# A value of --json, by a python expression on s.
value() {
    show --json | python3 -c 'import json, sys; s = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"
}

text=$(show)
assert_match "$text" "^dir:$T/images on $MNT, " 'what is mounted where'
assert_match "$text" '3 domains, 0 instants, 0 uploads, 0 left over' 'the summary'
[[ $text != *Readers* && $text != *Instants* ]] || fail "headings of nothing: $text"
assert_match "$text" 'now +broken.qcow2 +vda +.*qcow2' 'what cannot be read'

size=$(stat -c %s "$MNT/a.qcow2/snapshots/now.raw")
exec {fd}<"$MNT/a.qcow2/snapshots/now.raw"
dd bs=64k count=1 status=none <&"$fd" >/dev/null
assert_match "$(show)" "a.qcow2 +shut off +vda +open +lock +[0-9]+s +- +shutdown" 'the instant'
assert_match "$(show)" "a.qcow2 +now +vda +bash +$$ +[0-9]+ " 'the reader'
reader='s["domains"][0]["instants"][0]["readers"][0]'
assert_eq "$(value "${reader}[\"size\"]")" "$size" 'size of what is read'
position=$(value "${reader}[\"position\"]")
((position >= 65536 && position <= size)) || fail "read up to $position of $size"
cat <&"$fd" >/dev/null
assert_eq "$(value "${reader}[\"position\"]")" "$size" 'read to the end'
bytes=$(value "${reader}[\"bytes\"]")
((bytes >= size)) || fail "$bytes bytes of $size were read"
(($(value "${reader}[\"open_ms\"]") >= 0)) || fail 'no time since the open'
assert_match "$(show)" "bash +$$ +100 " 'per cent at the end'
exec {fd}<&-

# One of a flat view has its own size.
exec {fd}<"$MNT/a.qcow2/snapshots/now.qcow2"
cat <&"$fd" >"$T/flat.qcow2"
assert_eq "$(value "${reader}[\"size\"]")" "$(stat -c %s "$T/flat.qcow2")" 'size of the flat view'
assert_eq "$(value "${reader}[\"position\"]")" "$(stat -c %s "$T/flat.qcow2")" 'all of the flat view'
exec {fd}<&-

# Names are data.
snapshot=$(find "$MNT/a.qcow2/snapshots" -name 'red*')
exec {fd}<"$snapshot"
text=$(show)
assert_match "$text" 'red.*31m' 'the reader of a named snapshot'
if LC_ALL=C grep -q $'[\x01-\x09\x0b-\x1f\x7f\x9b]' <<<"$text"; then
    fail "control characters: $(cat -v <<<"$text")"
fi
exec {fd}<&-

# On a terminal of 80 columns, names are shortened so that what is behind them is to be seen; elsewhere not.
long=a-file-with-a-name-that-is-as-long-as-a-line-of-a-terminal-or-even-a-bit-longer-00000042.raw
truncate -s 8M "$T/images/$long"
wait_for 30 test -e "$MNT/$long" || fail 'no domain of a new file'
exec {fd}<"$MNT/$long/snapshots/now.raw"
# on_terminal [OPTION...]: what a terminal gets; with --watch, as far as to the summary.
on_terminal() {
    # shellcheck disable=SC2086
    python3 - $VIRTSNAPFS --status "$@" "$MNT" <<'PY'
import fcntl, os, pty, signal, struct, sys, termios

master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
pid = os.fork()
if pid == 0:
    os.dup2(slave, 1)
    os.execvp(sys.argv[1], sys.argv[1:])
os.close(slave)
said = b""
try:
    while "--watch" not in sys.argv or b"left over" not in said:
        said += os.read(master, 65536)
except OSError:
    pass # EIO: it has ended
os.kill(pid, signal.SIGTERM)
os.waitpid(pid, 0)
print(said.decode(), end="")
PY
}
on_terminal=$(on_terminal)
assert_match "$on_terminal" '(^|.)a-f[a-z-]*\.\.\.[0-9]*2?.raw +now +vda +bash' 'a long name on a terminal'
while IFS= read -r line; do
    [[ $line != *READERS* && $line != *LEFT* ]] || ((${#line} <= 81)) || fail "too long for a terminal: $line"
done <<<"$on_terminal"
assert_match "$(show)" "$long +now +vda +bash" 'a long name elsewhere'
exec {fd}<&-
rm "$T/images/$long"

# Again and again, in place of what stands there; but for terminals that know nothing of that.
TERM=xterm on_terminal --watch >"$T/out"
grep -q $'\e\[H' "$T/out" || fail "nothing is drawn in its place: $(cat -v "$T/out")"
for term in dumb ''; do
    TERM=$term on_terminal --watch >"$T/out"
    grep -q '3 domains' "$T/out" || fail "TERM='$term': $(cat -v "$T/out")"
    ! grep $'\e' "$T/out" || fail "escape sequences with TERM='$term'"
done

# Again and again, until the mount ends; as lines for programs.
show --watch --json >"$T/watched" &
watcher=$!
wait_for 60 test -s "$T/watched" || fail 'nothing was watched'
mount_stop
timeout $((60 * DEADLINE_FACTOR)) tail --pid="$watcher" -f /dev/null
wait "$watcher" || fail "--watch ended with $?"
head -1 "$T/watched" | python3 -c 'import json, sys; assert len(json.loads(sys.stdin.readline())["domains"]) == 3'

# Paths are data, too, and may be of any bytes.
odd=$T/$'odd\e[31m\xc2\x9b\xff'
mkdir "$odd"
qemu-img create -q -f qcow2 -u -b $'/nowhere/\xc2\x9b31m' -F raw "$odd/a.qcow2" 1M
MNT=$odd/$'m\rnt' LOG=$T/log.odd
mkdir "$MNT"
mount_start_at "dir:$odd"
assert_errno EIO open "$MNT/a.qcow2/snapshots/now.raw" O_RDONLY
text=$(show)
assert_match "$text" '/odd\?\[31m[?]+ on .*/m\?nt, ' 'odd paths'
assert_match "$text" '1 domain,' 'domains at odd paths'
assert_eq "$(value 's["mountpoint"][-4:]')" $'m\rnt' 'the mountpoint for programs'
mount_stop
for file in "$LOG" <(echo "$text"); do
    ! LC_ALL=C grep $'[\x01-\x09\x0b-\x1f\x7f\x9b]' "$file" | cat -v | grep . || fail 'control characters'
done

# What is no mount, and what may not be read.
assert_exit() {
    local want=$1 pattern=$2 said status=0
    shift 2
    said=$("$@" 2>&1 >/dev/null) || status=$?
    assert_eq "$status" "$want" "exit status of $*"
    assert_match "$said" "$pattern" "what $* says"
}
# shellcheck disable=SC2086
{
    assert_exit 2 'not a mount of virtsnapfs' $VIRTSNAPFS --status "$T"
    assert_exit 2 'no such mountpoint' $VIRTSNAPFS --status "$T/nowhere/at/all"
    assert_exit 1 'go with --status' $VIRTSNAPFS --json "dir:$T/images" "$T"
    assert_exit 1 'exclude each other' $VIRTSNAPFS --status --wait "$T"
}
