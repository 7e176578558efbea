# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# The programs that are compared. Each start_NAME gets the image's name as $1, its file as $2, and
# an empty folder $W with an empty folder mnt in it; it starts the server without waiting, and sets
# RAW (where the disk will be) and PIDS (its processes; left empty by those that detach themselves).

W='' RAW='' PIDS=''
# To sleep without a process.
exec {NAP}<> <(:)

start_virtsnapfs() {
    local snapshot=now
    [[ $1 != *@* ]] || snapshot=${1#*@}
    "$PROGRAM" -f -o "state=$W/state" "dir:$DIR/images" "$W/mnt" 2>"$W/log" &
    PIDS=$!
    RAW=$W/mnt/${2##*/}/snapshots/$snapshot.raw
}

start_qsd-fuse() {
    RAW=$W/disk.raw
    : >"$RAW"
    qemu-storage-daemon --blockdev \
        "driver=qcow2,node-name=n,read-only=on,file.driver=file,file.filename=$2,file.locking=off" \
        --export "type=fuse,id=e,node-name=n,mountpoint=$RAW,writable=off" 2>"$W/log" &
    PIDS=$!
}

# By a socket rather than socket activation, so that nbdfuse may use several connections.
start_nbdfuse() {
    local i server snapshot=()
    [[ $1 != *@* ]] || snapshot=(-l "snapshot.name=${1#*@}")
    RAW=$W/disk.raw
    : >"$RAW"
    qemu-nbd -r -t -e 16 -k "$W/socket" -f qcow2 "${snapshot[@]}" "$2" 2>"$W/log" &
    server=$!
    for ((i = 0; i < 5000; i++)); do
        [[ ! -S $W/socket ]] || break
        read -r -t 0.001 -u "$NAP" || true
    done
    nbdfuse "$RAW" "nbd+unix:///?socket=$W/socket" 2>>"$W/log" &
    PIDS="$! $server"
}

start_qcowmount() {
    timeout 30 qcowmount "$2" "$W/mnt" >"$W/log" 2>&1
    RAW=$W/mnt/qcow1
}

start_passthrough_hp() {
    "$PASSTHROUGH_HP" --foreground "$DIR/raw" "$W/mnt" >"$W/log" 2>&1 &
    PIDS=$!
    RAW=$W/mnt/$1.raw
}

start_bare() {
    "$BARE" "$DIR/raw/$1.raw" "$W/mnt" 2>"$W/log" &
    PIDS=$!
    RAW=$W/mnt/disk.raw
}

start_raw() {
    RAW=$DIR/raw/$1.raw
}

# The copying ones: copy_NAME IMAGE FILE TARGET sets COPY to the command.
# shellcheck disable=SC2034
copy_qemu-img() {
    COPY=(qemu-img convert -f qcow2 -O raw "$2" "$3")
}

# shellcheck disable=SC2034
copy_qemu-img-m16W() {
    COPY=(qemu-img convert -m 16 -W -f qcow2 -O raw "$2" "$3")
}

# shellcheck disable=SC2034
copy_nbdcopy() {
    COPY=(nbdcopy -- '[' qemu-nbd -r -t -e 16 -f qcow2 "$2" ']' "$3")
}

# has_program NAME: else it is not measured.
has_program() {
    case $1 in
    passthrough_hp) [[ -x $PASSTHROUGH_HP ]] ;;
    nbdfuse) command -v nbdfuse qemu-nbd >/dev/null ;;
    qsd-fuse) command -v qemu-storage-daemon >/dev/null ;;
    qemu-img*) command -v qemu-img >/dev/null ;;
    qcowmount | nbdcopy) command -v "$1" >/dev/null ;;
    esac
}

# The program and its libraries into the page cache: to read them from the disk is not to be measured.
peer_load() {
    case $1 in
    virtsnapfs) "$PROGRAM" --version ;;
    qsd-fuse) qemu-storage-daemon --version ;;
    nbdfuse) qemu-nbd --version && nbdfuse --version ;;
    qcowmount) qcowmount -V ;;
    passthrough_hp) "$PASSTHROUGH_HP" --help ;;
    bare) "$BARE" ;;
    esac >/dev/null 2>&1 || true
    "$METER" cpu $$ >/dev/null
}

# Processes of a server that detached itself: those that have our folder in their command line.
find_pids() {
    local file words pids=''
    for file in /proc/[0-9]*/cmdline; do
        mapfile -d '' -t words 2>/dev/null <"$file" || continue
        [[ " ${words[*]}" != *" $W/"* ]] || pids+=" $(basename "${file%/cmdline}")"
    done
    echo "$pids"
}

# Tells the largest requests that the kernel may make: as fs/fuse/mountpoint.c does.
raise_readahead() {
    local device
    device=$(timeout 10 mountpoint -d "$W/mnt") && echo 1024 >"/sys/class/bdi/$device/read_ahead_kb"
}

# up PROGRAM IMAGE: starts it; sets FIRST, the seconds until a byte could be read.
up() {
    local start
    W=$WORK/server.$((++n_servers)) RAW='' PIDS=''
    mkdir -p "$W/mnt"
    start=$EPOCHREALTIME
    # shellcheck disable=SC2034
    if ! "start_$1" "$2" "$DIR/images/${2%@*}.qcow2" ||
        ! FIRST=$(timeout 60 "$METER" first "$RAW" "$start"); then
        echo "$1 does not serve $2: $(tail -n 3 "$W/log")" >&2
        down
        return 1
    fi
    [[ $1 == raw || -n $PIDS ]] || PIDS=$(find_pids)
    [[ $1 != bare ]] || raise_readahead
}
n_servers=0

is_running() {
    local state
    state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) && [[ $state != Z ]]
}

# Ends what up started.
down() {
    local path pid i
    for path in "$W/mnt" "$W/disk.raw"; do
        timeout 30 umount "$path" 2>/dev/null || umount -l "$path" 2>/dev/null || true
    done
    # nbdfuse's server does not end by itself.
    for pid in $PIDS; do
        kill "$pid" 2>/dev/null || true
        for ((i = 0; i < 2000; i++)); do
            is_running "$pid" || break
            read -r -t 0.005 -u "$NAP" || true
        done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf --one-file-system "$W"
    PIDS=''
}
