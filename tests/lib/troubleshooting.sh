# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For the scripts named troubleshooting*: what a user gets to see is found on docs/troubleshooting.md, in one
# row, with the errno that the user got. All rows that name the script have to come up in it.

messages=$(realpath "$LIB_DIR/../lint/messages.py")

# on_page TEXT [ERRNO]: what was said. The row may leave the errno out.
on_page() {
    local row
    row=$("$messages" "$1" 2>"$T/on_page") || fail "$row $(<"$T/on_page")"
    if [[ -n ${2:-} && ${row%% *} != - ]]; then
        assert_eq "$2" "${row%% *}" "error of '$1'"
    fi
    echo "${row#* }" >>"$T/found"
}

# refused FILE ERRNO: opened or read for its first byte; the reason is what the attribute says, or if there is
# no file since nothing of the image can be read, status.
refused() {
    local reason domain
    assert_errno "$2" read "$1" 0 1
    domain=${1#"$MNT/"} domain=${domain%%/*}
    reason=$(status_value "$domain" 's["disks"][0].get("reason", "")')
    [[ -n $reason ]] || reason=$(probe getxattr "$1" user.virtsnapfs.error)
    wait_for 5 grep -Fq -- "$reason" "$LOG" || fail "$1: not in the log: $reason"
    on_page "$reason" "$2"
}

# A line of the log, the last one with these words.
logged() {
    assert_log "$1" 'what is to be on the page'
    on_page "$(grep -E -- "$1" "$LOG" | tail -n 1)"
}

# ends STATUS ARGUMENT...: the program ends at once; what it says goes with that status.
ends() {
    local wanted=$1 status=0
    shift
    # shellcheck disable=SC2086
    timeout $((60 * DEADLINE_FACTOR)) $VIRTSNAPFS "$@" >/dev/null 2>"$T/said" </dev/null || status=$?
    assert_eq "$status" "$wanted" "exit status of $*: $(<"$T/said")"
    on_page "$(tail -n 1 "$T/said")"
    grep -Fq "| \`$(tail -n 1 "$T/found")\` | $status |" "$LIB_DIR/../../docs/troubleshooting.md" ||
        fail "the page has another exit status than $status for: $(tail -n 1 "$T/found")"
}

# all_came_up TEST: whatever the page says of this test.
all_came_up() {
    diff <("$messages" --of "$1" | sort -u) <(sort -u "$T/found") ||
        fail 'the page says (<) that this test brings messages about, which it does not, or the other way round (>)'
}
