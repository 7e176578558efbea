# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For the tests of faults (mount/fault_*.sh, host/fault_*.sh), beside mount.sh or host.sh: what is
# expected each time. docs/faults.md is the table of them.
#
#   log_mark                          counts lines from here on
#   assert_fault EIO FILE ORACLE...   reading fails with that, in part or as a whole; no byte is wrong
#   assert_sound FILE ORACLE          and that one is read as if nothing were
#   assert_lines REGEX MIN MAX WHAT   as many lines since the mark
#
# FAULTS=all goes through the whole matrix; otherwise through a part of each kind.

FAULTS=${FAULTS:-some}

# Of a program with a sanitizer in it: the preload comes before it.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0

# faulty_start: from now on programs run with faulty.c, which $T/faulty tells what is to fail.
faulty_start() {
    : "${FAULTY:?is not set: run this by meson test}"
    python3 "$LIB_DIR/faulty.py" "$T/faulty" new
    # The loader's own, which the sanitizer knows by its caller, and that is faulty.c now.
    printf 'leak:%s\n' dl_open_worker _dl_ >"$T/leaks"
    export LSAN_OPTIONS=${LSAN_OPTIONS:+$LSAN_OPTIONS:}suppressions=$T/leaks:print_suppressions=0
    VIRTSNAPFS="env LD_PRELOAD=$FAULTY FAULTY_FILE=$T/faulty $VIRTSNAPFS"
}

# faulty NAME VALUE
faulty() {
    python3 "$LIB_DIR/faulty.py" "$T/faulty" "$@"
}

log_mark() {
    LOG_MARK=$(wc -l <"$LOG")
}

lines_since_mark() {
    tail -n "+$((LOG_MARK + 1))" "$LOG" | grep -cE -- "$1" || true
}

# assert_lines REGEX MIN MAX WHAT: "one log line a fault": not none, and no flood.
assert_lines() {
    local n
    n=$(lines_since_mark "$1")
    ((n >= $2 && n <= $3)) || fail "$4: $n lines '$1', wanted $2 to $3"
}

# assert_fault ERRNO FILE ORACLE...: sets FAILED, the number of pieces that could not be read.
assert_fault() {
    local wanted=$1 found outcome
    shift
    found=$(python3 "$LIB_DIR/fault_read.py" "$@") || fail "bytes of $1"
    # shellcheck disable=SC2034
    read -r outcome FAILED _ <<<"$found"
    # shellcheck disable=SC2053
    [[ ${outcome#open:} == $wanted ]] || fail "reading $1: $found, wanted $wanted"
}

assert_sound() {
    assert_fault OK "$@"
}

# assert_serving: the program is there, and lists $SERVED, or all files in $T/images.
assert_serving() {
    is_gone_or_zombie "$PID" && fail "the program is gone: $(tail -n 3 "$LOG")"
    assert_eq "$(probe list "$MNT")" "${SERVED:-$(probe list "$T/images")}" 'domains listed'
}
