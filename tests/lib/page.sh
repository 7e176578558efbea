# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For the scripts in docs/, behind host.sh: a page's commands are run as they stand there. A block
# of commands is a fence "```sh" behind a line with its name, which readers of the page do not see:
#
#   <!-- run: NAME -->
#
# page_run takes it over word for word, in the test's own shell, so that variables live from one block
# to the next as in a person's; any command that fails ends the test. Other fences are "```text",
# and nobody's to type. /mnt and /srv are this test's own, and so is all that is written to /etc.

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/system.sh"

PAGES=$LIB_DIR/../../docs
PAGE='' PAGE_STATUS='' page_ran=()

# fresh_folder FOLDER [OPTION...]: this test's own, and empty. What the machine has mounted below it, which
# mountpoint(1) would go on to find there, is taken away in this namespace.
fresh_folder() {
    local path
    awk -v below="$1/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | tac >"$T/covered"
    while read -r path; do
        umount -l "$path"
    done <"$T/covered"
    mount -t tmpfs "${@:2}" tmpfs "$1"
    at_exit "umount -l '$1'"
}

# page_begin PAGE: from docs/. The program is installed, with the page's line of fstab.
page_begin() {
    PAGE=$PAGES/$1
    install_program
    fresh_folder /mnt
    fresh_folder /srv
    mkdir -p /mnt/vms /var/lib/libvirt/images "$T/home" "$T/state"
    chmod 711 /var/lib/libvirt/images
    export HOME=$T/home
    # What is this machine's: room for small disks is enough, and the journal is not in /var.
    echo "qemu:///system /mnt/vms virtsnapfs noauto,min_free=1M,state=$T/state${2:+,$2} 0 0" >/etc/fstab
    MNT=/mnt/vms
    page_blocks >"$T/blocks" || fail "$(cat "$T/blocks")"
}

# Names of all blocks; fails with what is wrong in the page.
page_blocks() {
    awk '
        /^<!-- run: / { if (marked != "") wrong("no fence behind " marked); marked = $3; next }
        /^ *```/ && !inside {
            inside = 1
            if ($0 == "```sh" && marked == "") wrong("a block of commands without a name")
            else if ($0 == "```sh" && seen[marked]++) wrong("two blocks " marked)
            else if ($0 == "```sh") names = names marked "\n"
            else if ($0 != "```text" || marked != "") wrong("a fence that is neither sh with a name nor text")
            marked = ""
            next
        }
        /^ *```/ { inside = 0; next }
        !inside && marked != "" { wrong("no fence behind " marked) }
        function wrong(what) { printf "%s:%d: %s\n", FILENAME, NR, what; bad = 1; exit }
        END { if (bad || inside || marked != "") exit 1; printf "%s", names }
    ' "$PAGE"
}

# page_run NAME: runs the block; what it says goes where the caller wants.
page_run() {
    page_ran+=("$1")
    page_borrow "$PAGE" "$1"
}

# page_borrow FILE NAME: a block of another page.
page_borrow() {
    # shellcheck disable=SC2016
    awk -v name="$2" '
        $0 == "<!-- run: " name " -->" { getline; inside = 1; next }
        inside && $0 == "```" { exit }
        inside' "$1" >"$T/block.$2"
    [[ -s $T/block.$2 ]] || fail "$(basename "$1") has no block $2"
    # shellcheck disable=SC1090
    . "$T/block.$2"
}

# page_status NAME: a block that may fail; sets PAGE_STATUS.
page_status() {
    # (In the condition of || the shell would not end at a command that fails.)
    set +e
    (set -e; page_run "$1")
    # shellcheck disable=SC2034
    PAGE_STATUS=$?
    set -e
    page_ran+=("$1")
}

# page_end: unmounts, and wants each block of the page to have been run.
page_end() {
    cd /
    umount "$MNT"
    wait_for 60 is_served_by_none || fail 'the program does not end'
    assert_eq "$(printf '%s\n' "${page_ran[@]}" | sort -u)" "$(sort "$T/blocks")" "blocks of $(basename "$PAGE") that were run"
}
