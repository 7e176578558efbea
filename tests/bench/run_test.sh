#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The benchmark works, on tiny images: what it measured stands in its table; wrong bytes make it
# fail; and when it is stopped in the middle, nothing of it is left. How fast anything was is not
# asked.
. "$(dirname "$0")/../lib/mount.sh"
((EUID == 0)) || skip 'not root'
need qemu-img unshare setpriv

bench() {
    timeout 300 "$LIB_DIR/../bench/run" --no-install --no-cold --build "$BUILD" --dir "$T/data" \
        --results "$T/results" --scale 256 --runs 2 "$@" >"$T/log.run" 2>&1
}

# All that it starts for measuring has this variable of its.
is_left() {
    local found
    # (grep fails because of processes that ended meanwhile, too.)
    found=$(grep -lsxzF "DIR=$T/data" /proc/[0-9]*/environ || true)
    [[ -n $found ]] || grep -qF "$T/data" /proc/self/mountinfo
}

# median METRIC IMAGE PROGRAM: and the number of its measurements (`plain` is in two groups).
median() {
    awk -F '\t' -v key="$1 $2 $3" '$1 " " $2 " " $3 == key { print $4, $7 }' "$T/results/medians.tsv"
}

bench --only seq --only hole --only flat || fail 'the benchmark fails'
for key in 'seq plain virtsnapfs' 'seq plain bare' 'cpu plain bare' 'hole sparse1t virtsnapfs' \
    'flat plain virtsnapfs' 'data zlib virtsnapfs'; do
    # shellcheck disable=SC2086
    assert_match "$(median $key)" '^[0-9.]*[1-9][0-9.]* [24]$' "$key"
done
assert_match "$(<"$T/results/table.md")" 'a bare FUSE server +\| [0-9]' 'the table'
assert_match "$(<"$T/results/table.md")" 'read from the disk +\| [^|]+\| 0 .* met' 'a hole is read from the disk'
python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$T/results/speed.svg" ||
    fail 'the plot is no SVG'
! is_left || fail 'something is left'

# Into the docs, twice: in place of what was there.
cp -r "$LIB_DIR/../../docs" "$T/docs"
for _ in 1 2; do
    "$LIB_DIR/../bench/figures.py" docs "$T/results/rows.tsv" "$T/docs" 2 256
done
assert_eq "$(grep -c 'a bare FUSE server  *| [0-9]' "$T/docs/speed.md")" 1 'tables in the docs'
assert_eq "$(grep -c '^<!-- figures: ' "$T/docs/speed.md")" 2 'marks in the docs'
assert_same_bytes "$T/docs/speed.svg" "$T/results/speed.svg"

# Images are kept; bytes that QEMU has otherwise.
echo 0123 >"$T/data/ref/plain.sum"
if bench --only seq; then
    fail 'wrong bytes are measured'
fi
grep -q 'WRONG: virtsnapfs does not give the bytes of plain' "$T/log.run" || fail 'it does not say so'

has_begun() {
    grep -q 'seq plain' "$T/log.run"
}
"$LIB_DIR/../bench/run" --no-install --build "$BUILD" --dir "$T/data" --results "$T/results" \
    --scale 256 --runs 1000 --only seq >"$T/log.run" 2>&1 &
pid=$!
wait_for 60 has_begun || fail 'it does not begin'
kill -TERM "$pid"
wait "$pid" && fail 'it ends well after SIGTERM'
! is_left || fail 'something is left after SIGTERM'
