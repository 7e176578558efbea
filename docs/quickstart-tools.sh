# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# What docs/quickstart stands on, and what is not worth watching: words on the screen, cleaning up,
# libvirt, the guest's second serial line, copying with a bar. It sets $tree and $program before.
: "${tree:?}" "${program:?}"

last='' # command shown last
step='' # heading shown last
# What the clean-up has to undo; set when it is there to be undone.
work='' domain='' uuid='' mounted='' kvm_lent=''
pids=() # daemons that we started, in the order to stop them

# --- words on the screen -------------------------------------------------------------------------

bold='' plain=''
[ ! -t 1 ] || { bold=$'\e[1m' plain=$'\e[0m'; }

heading() {
    step=$*
    printf '\n%s%s%s\n' "$bold" "$*" "$plain"
}

say() {
    printf '  %s\n' "$@"
}

die() {
    last=''
    printf '\nquickstart: %s\n' "$*" >&2
    exit 1
}

# A command as one would type it; words that need quotes get them.
show() {
    local word
    last=''
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
        last+=" $word"
    done
    printf '  $%s\n' "$last"
}

# Sets in what a command prints.
set_in() {
    sed -e '/^$/d' -e 's/^/    /'
}

# Shows a command, then runs it with its output set in.
run() {
    show "$@"
    "$@" 2>&1 | set_in
}

# Without a terminal: there, virsh looks for a polkit agent, which root does not need.
virsh() {
    setsid --wait virsh "$@"
}

# Runs a command that nobody needs to watch; if it fails, its last lines are shown.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || status=$?
    ((status == 0)) || tail -n 25 "$log" >&2
    rm -f "$log"
    ((status == 0)) || die "failed: $*"
}

# wait_for SECONDS COMMAND...: until it succeeds; false after that time.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# Time in microseconds, to be taken from another; and so many as seconds.
now_us() {
    echo "${EPOCHREALTIME/[.,]/}"
}

seconds() {
    printf '%d.%02d' $(($1 / 1000000)) $(($1 % 1000000 / 10000))
}

# --- cleaning up ---------------------------------------------------------------------------------

# False for one that has ended but whose parent does not care, as in some containers.
is_running() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) && [[ ${stat##*) } != Z* ]]
}

# wait_gone PID [SECONDS]: waits for a process to end.
wait_gone() {
    local i
    for ((i = 0; i < ${2:-20} * 10; i++)); do
        is_running "$1" || return 0
        sleep 0.1
    done
    return 1
}

stop_pid() {
    kill "$1" 2>/dev/null || return 0
    wait_gone "$1" "${2:-20}" || { kill -KILL "$1" 2>/dev/null && wait_gone "$1"; }
}

# The server of our mount: the one virtsnapfs (that for libvirt) that has our folder in its environment.
server_pid() {
    local proc
    for proc in /proc/[0-9]*; do
        if [ "$(readlink "$proc/exe")" = "${program%/*}/full/virtsnapfs" ] &&
            grep -qzx "VIRTSNAPFS_DEMO=$work" "$proc/environ"; then
            echo "${proc#/proc/}"
            return
        fi
    done 2>/dev/null
}

clean_up() {
    local status=$? pid
    set +e
    if ((status > 0 && status < 129)) && [ -n "$last" ]; then
        echo "quickstart: this did not work:$last" >&2
    fi
    trap '' INT TERM HUP
    trap - EXIT
    cd /
    exec 3<&- 4>&-
    for pid in $(jobs -p); do
        stop_pid "$pid"
    done
    # The server first: it puts the domain back before it ends.
    if [ -n "$mounted" ]; then
        pid=$(server_pid)
        [ -z "$pid" ] || stop_pid "$pid" 60
        ! mountpoint -q "$work/mnt" || umount -l "$work/mnt" 2>/dev/null
    fi
    # By its UUID, which nobody else's domain can have.
    if [ -n "$uuid" ] && virsh -q domname "$uuid" >/dev/null 2>&1; then
        virsh -q destroy "$uuid" >/dev/null 2>&1
        virsh -q undefine --managed-save --snapshots-metadata "$uuid" >/dev/null ||
            echo "quickstart: domain $domain is left: virsh undefine --managed-save --snapshots-metadata $domain" >&2
    fi
    [ ! -s "$work/export.pid" ] || stop_pid "$(cat "$work/export.pid")"
    for pid in "${pids[@]}"; do
        stop_pid "$pid"
    done
    [ -z "$kvm_lent" ] || { chgrp root /dev/kvm && chmod 600 /dev/kvm; }
    [ -z "$work" ] || rm -rf --one-file-system "$work"
    if ((status > 0)); then
        echo "quickstart: ended within \"$step\"; what is above it worked. The domain, its disks and the mount" \
            'are removed again; packages and the build stay, so another run is quicker.' >&2
    fi
    exit "$status"
}

# --- packages, libvirt ---------------------------------------------------------------------------

# install_packages NAME...: those that are missing.
install_packages() {
    if ! command -v apt-get >/dev/null; then
        say 'This is no Debian. Wanted, by the names they have there:' "$*"
        return
    fi
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            missing+=("$package")
    done
    ((${#missing[@]})) || { say 'All packages are there.' && return; }
    say 'Installing what is missing; this may take a few minutes.'
    show apt-get install --no-install-recommends "${missing[@]}"
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get -q update
    quietly apt-get -q -y install --no-install-recommends "${missing[@]}"
}

libvirt_answers() {
    timeout 20 virsh -q uri >/dev/null 2>&1
}

# Running, or started by systemd as soon as somebody asks for it.
virtlogd_is_there() {
    { [ -S /run/libvirt/virtlogd-sock ] && grep -qsx virtlogd /proc/[0-9]*/comm; } ||
        { [ -d /run/systemd/system ] && systemctl -q is-active virtlogd.socket; }
}

# Starts one daemon of libvirt's that is to be stopped again; it writes its pid once it is ready.
start_daemon() {
    quietly "/usr/sbin/$1" -d -p "$work/$1.pid"
    wait_for 10 test -s "$work/$1.pid" || die "$1 was started but is not ready"
    pids=("$(cat "$work/$1.pid")" "${pids[@]}")
}

# Where no udev has given /dev/kvm to the group of QEMU's user, libvirt takes what it knows of QEMU
# for outdated at each call and asks it again, for tens of seconds: do as udev does, until the end.
lend_kvm() {
    [ "$(stat -c '%a %G' /dev/kvm 2>/dev/null)" = '600 root' ] || return 0
    getent group kvm >/dev/null || return 0
    kvm_lent=yes
    chgrp kvm /dev/kvm
    chmod 660 /dev/kvm
}

start_libvirt() {
    lend_kvm
    if libvirt_answers; then
        say 'libvirtd is running.'
        return
    fi
    # Starting libvirtd would start these guests, which is not for a demonstration to decide.
    if compgen -G '/etc/libvirt/qemu/autostart/*.xml' >/dev/null; then
        die 'libvirtd is not running, and this machine has guests that would start with it.
            Please start libvirtd yourself first.'
    fi
    # QEMU's own messages go through virtlogd, so that comes first.
    virtlogd_is_there || start_daemon virtlogd
    start_daemon libvirtd
    libvirt_answers || die 'libvirtd was started but does not answer (virsh -c qemu:///system uri)'
    say 'libvirtd was not running: started, and stopped again at the end.'
}

# --- the guest -----------------------------------------------------------------------------------

# in_guest COMMAND: by its second serial line; prints what it prints.
in_guest() {
    python3 "$tree/tests/lib/guest/command.py" "$guest_line" "$1"
}

# Every QEMU has a pty of its own. It looks for somebody at the other end once a second as long as
# there is nobody; so it is held open.
guest_connect() {
    guest_line=$(virsh dumpxml "$domain" |
        sed -n "/<serial type='pty'>/,/<\/serial>/ s|.*<source path='\(.*\)'/>.*|\1|p" | sed -n 2p)
    [ -c "$guest_line" ] || return 1
    exec 4<>"$guest_line"
}

guest_answers() {
    [ "$(in_guest 'echo up' 2>/dev/null)" = up ]
}

guest_has_agent() {
    virsh dumpxml "$domain" | grep -q "name='org.qemu.guest_agent.0' state='connected'"
}

# guest_number started|synced|gap_us: of the program that writes; gap_us is the longest time between
# two synced writes since the last in_guest 'writer reset'.
guest_number() {
    in_guest 'writer ask' | grep -o "$1 [0-9]*" | cut -d ' ' -f 2
}

guest_has_synced() {
    (($(guest_number synced) > $1))
}

# --- copies --------------------------------------------------------------------------------------

# A bar for so many bytes of so many.
progress_line() {
    local at=$1 size=$2 width=40 filled
    filled=$((at * width / size))
    printf '    [%-*s] %3d%% of %d MiB' "$width" "$(printf '%*s' "$filled" '' | tr ' ' '#')" \
        $((100 * at / size)) $((size / 1048576))
}

# Where a process is in the files that it reads one after the other.
read_position() {
    local pid=$1 fd file name before=0
    shift
    for fd in /proc/"$pid"/fd/*; do
        name=$(readlink "$fd")
        before=0
        for file; do
            if [ "$name" = "$work/$file" ]; then
                echo $((before + $(awk '$1 == "pos:" { print $2 }' "/proc/$pid/fdinfo/${fd##*/}")))
                return
            fi
            before=$((before + $(stat -c %s "$file")))
        done
    done 2>/dev/null
}

# copy FILE...: into backup/ as one would by hand, and shows how far it is. Sets $copy_us.
copy() {
    local file size=0 taken=0 pid at=0 more started
    show cp "$@" backup/
    for file; do
        size=$((size + $(stat -c %s "$file")))
    done
    started=$(now_us)
    cp "$@" backup/ &
    pid=$!
    if [ -t 1 ]; then
        while kill -0 "$pid" 2>/dev/null; do
            more=$(read_position "$pid" "$@") || true
            at=${more:-$at}
            printf '\r%s' "$(progress_line "$at" "$size")"
            sleep 0.05
        done
        printf '\r'
    fi
    wait "$pid" || die "cp failed: $(getfattr --only-values -n user.virtsnapfs.error "$1")"
    copy_us=$(($(now_us) - started))
    for file; do
        taken=$((taken + $(stat -c %b "backup/${file##*/}") / 2048))
    done
    printf '%s, %d MiB of it data, %s s\n' "$(progress_line "$size" "$size")" "$taken" \
        "$(seconds "$copy_us")"
}
