# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# The measurements: cell_METRIC IMAGE PROGRAM makes one, each on a server of its own that was just
# started, and adds its rows (see aims.py) to $ROWS.

COPYING=(qemu-img qemu-img-m16W nbdcopy)
FIO_SECONDS=3 FIRST_STARTS=5
declare -A is_checked is_wrong

# A program that fails leaves no figure; of ours, that is a failure of the run.
row() { # METRIC IMAGE PROGRAM VALUE UNIT
    if [[ ! $4 =~ ^[0-9]+(\.[0-9]+)?$|^NA$ ]]; then
        echo "no figure: $1 $2 $3: '$4'" >&2
        [[ $3 != virtsnapfs ]] || n_bad=$((n_bad + 1))
        return 1
    fi
    printf '%s\t' "$RUN" "$GROUP" "$1" "$2" "$3" "$4" >>"$ROWS"
    printf '%s\n' "$5" >>"$ROWS"
    echo "   $1 $2 $3: $4 $5" >&2
}
n_bad=0

calc() { # EXPRESSION [DIGITS]
    awk "BEGIN { printf \"%.${2:-1}f\", $1 }"
}

# check PROGRAM IMAGE FILE: once; a program that gives other bytes than QEMU is not measured.
check() {
    local key=$1/$2
    [[ -z ${is_checked[$key]:-} ]] || return 0
    is_checked[$key]=yes
    local found
    found=$(timeout 300 "$HERE/sample.py" sum "$3" "$DIR/ref/$2.offsets")
    [[ $found != "$(<"$DIR/ref/$2.sum")" ]] || return 0
    echo "WRONG: $1 does not give the bytes of $2" >&2
    is_wrong[$key]=yes
    [[ $1 != virtsnapfs ]] || n_wrong=$((n_wrong + 1))
    return 1
}
n_wrong=0

server_cpu() {
    # shellcheck disable=SC2086
    "$METER" cpu $PIDS
}

# Of all the server's processes together, in KiB.
server_peak() {
    local pid kib sum=0
    for pid in $PIDS; do
        kib=$(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status") || continue
        sum=$((sum + ${kib:-0}))
    done
    echo "$sum"
}

# Seconds that all processors together did anything, for anybody.
machine_busy() {
    awk -v hz="$(getconf CLK_TCK)" '/^cpu / { print ($2 + $3 + $4 + $7 + $8) / hz }' /proc/stat
}

cell_seq() {
    local cpu busy bytes seconds _
    cpu=$(server_cpu) busy=$(machine_busy)
    read -r bytes seconds _ < <(timeout 600 "$METER" read "$RAW")
    row seq "$1" "$2" "$(calc "$bytes / 1e6 / $seconds")" MB/s
    [[ -n $PIDS ]] || return 0
    row cores "$1" "$2" "$(calc "($(machine_busy) - $busy) / $seconds / $(nproc)" 3)" ''
    row cpu "$1" "$2" "$(calc "($(server_cpu) - $cpu) / ($bytes / $GIB)" 3)" s/GiB
    row peak "$1" "$2" "$(calc "$(server_peak) / 1024")" MiB
}

# Copies go where the images are; what was written before is not written back meanwhile.
cell_cp() {
    local start target=$WORK/copy.raw
    rm -f "$target"
    sync -f "$WORK"
    start=$EPOCHREALTIME
    timeout 600 cp --reflink=never "$RAW" "$target"
    row cp "$1" "$2" "$(calc "$EPOCHREALTIME - $start" 3)" s
    rm -f "$target"
}

cell_copy() { # the same by a program that copies by itself
    local seconds cpu peak target=$WORK/copy.raw COPY=()
    rm -f "$target"
    sync -f "$WORK"
    "copy_$2" "$1" "$DIR/images/${1%@*}.qcow2" "$target"
    read -r seconds cpu peak < <(timeout 900 "$METER" run "${COPY[@]}" 2>>"$WORK/log.copies")
    row cp "$1" "$2" "$(calc "$seconds" 3)" s
    row cp_cpu "$1" "$2" "$cpu" s
    row cp_peak "$1" "$2" "$(calc "$peak / 1024")" MiB
    check "$2" "$1" "$target"
    rm -f "$target"
}

random_iops() { # READERS
    local size region
    size=$(stat -c %s "$RAW") region=$((size / $1 / 4096 * 4096))
    timeout $((FIO_SECONDS + 60)) fio --name=random --filename="$RAW" --readonly --rw=randread \
        --bs=4k --ioengine=psync --invalidate=0 --thread --numjobs="$1" --size="$region" \
        --offset_increment="$region" --randseed=4 --time_based --runtime="$FIO_SECONDS" \
        --group_reporting --output-format=json |
        python3 -c 'import json, sys
print(round(json.load(sys.stdin)["jobs"][0]["read"]["iops"]))'
}

cell_rand1() {
    row rand1 "$1" "$2" "$(random_iops 1)" IOPS
}

cell_rand8() {
    row rand8 "$1" "$2" "$(random_iops 8)" IOPS
}

cell_cold() {
    local bytes seconds _
    row first_cold "$1" "$2" "$(calc "$FIRST * 1000" 2)" ms
    read -r bytes seconds _ < <(timeout 600 "$METER" read "$RAW")
    row cold "$1" "$2" "$(calc "$bytes / 1e6 / $seconds")" MB/s
}

cell_first_cold() {
    row first_cold "$1" "$2" "$(calc "$FIRST * 1000" 2)" ms
}

# The median of some starts, since they cost little.
cell_first() {
    local i all=("$FIRST")
    for ((i = 1; i < FIRST_STARTS; i++)); do
        down
        up "$2" "$1"
        all+=("$FIRST")
    done
    row first "$1" "$2" "$(printf '%s\n' "${all[@]}" | sort -n |
        awk -v n=$((FIRST_STARTS / 2 + 1)) 'NR == n { print $1 * 1000 }')" ms
}

# Programs that have no lseek show one extent, or none.
cell_walk() {
    local extents seconds wanted _
    [[ -e $DIR/ref/$1.extents ]] ||
        "$HERE/sample.py" extents "$DIR/images/$1.qcow2" >"$DIR/ref/$1.extents"
    wanted=$(<"$DIR/ref/$1.extents")
    read -r extents _ seconds < <(timeout 300 "$METER" walk "$RAW" 2>>"$W/log" || echo 0 0 0)
    if ((extents * 10 < wanted * 9)); then
        row walk "$1" "$2" NA ms
        return
    fi
    row walk "$1" "$2" "$(calc "$seconds * 1000" 2)" ms
    row walk_each "$1" "$2" "$(calc "$seconds * 1e6 / $extents" 2)" us
}

server_read_bytes() {
    awk '/^read_bytes/ { print $2 }' "/proc/$PIDS/io"
}

# Takes a file out of the page cache: dd's own idiom.
evict() {
    dd if="$1" iflag=nocache count=0 status=none
}

# The same hole twice, of one instant: then its tables are known, and neither the image's pages nor
# the disk's are in memory.
# As long as the disk of `plain`, which it is compared with: of 4 GiB in place of 1, each GiB took
# 2.4 to 4.4 times the processor time, since more pages are wanted than were free a moment ago.
cell_hole() {
    local from len bytes seconds before fd _
    read -r from len < <("$HERE/sample.py" hole "$DIR/images/$1.qcow2" $((8 * GIB / SCALE)))
    exec {fd}<"$RAW"
    read -r bytes seconds _ < <(timeout 600 "$METER" read "$RAW" "$from" "$len")
    row hole "$1" "$2" "$(calc "$bytes / 1e6 / $seconds")" MB/s
    sync -f "$DIR/images"
    evict "$DIR/images/$1.qcow2"
    evict "$RAW"
    before=$(server_read_bytes)
    timeout 600 "$METER" read "$RAW" "$from" "$len" >/dev/null
    row hole_io "$1" "$2" $((($(server_read_bytes) - before) / KIB)) KiB
    exec {fd}<&-
}

# Sequential and random readers of different images, and of the same, at once on one mount.
cell_memory() {
    local name pid threads most=0 readers=() folder=${RAW%/*/snapshots/*}
    for name in plain zlib frag chain5 plain zlib; do
        timeout 300 "$METER" read "$folder/$name.qcow2/snapshots/now.raw" >/dev/null &
        readers+=($!)
    done
    for name in plain zlib sparse1t; do
        RAW=$folder/$name.qcow2/snapshots/now.raw random_iops 8 >/dev/null &
        readers+=($!)
    done
    for pid in "${readers[@]}"; do
        while is_running "$pid"; do
            threads=$(awk '/^Threads/ { print $2 }' "/proc/$PIDS/status")
            most=$((threads > most ? threads : most))
            read -r -t 0.02 -u "$NAP" || true
        done
        wait "$pid"
    done
    row memory all "$2" "$(calc "$(server_peak) / 1024")" MiB
    row memory_limit all "$2" $((CACHE_MIB + 2 * most)) MiB
    row threads all "$2" "$most" ''
}

# The view as a qcow2 file, from its open() on, and what is data of the view as a raw file.
cell_flat() {
    local bytes seconds open
    read -r bytes seconds open < <(timeout 600 "$METER" read "${RAW%.raw}.qcow2")
    row flat "$1" "$2" "$(calc "$bytes / 1e6 / ($seconds + $open)")" MB/s
}

cell_data() {
    local bytes seconds open
    read -r bytes seconds open < <(timeout 600 "$METER" data "$RAW")
    row data "$1" "$2" "$(calc "$bytes / 1e6 / ($seconds + $open)")" MB/s
}

drop_caches() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
}

# Those that make all runs of a group, in namespaces of their own.
run_script() { # SCRIPT
    # shellcheck disable=SC2153
    env -u IN_NAMESPACE VIRTSNAPFS="$PROGRAM" METER="$METER" BENCH_DIR="$DIR" \
        LIBVIRT_CACHE="$BUILD/libvirt-cache" CLOUD_CACHE="$BUILD/cloud-cache" \
        timeout $((600 + RUNS * 300)) "$HERE/$1.sh" >"$WORK/rows" 2>"$WORK/log.$1" || {
        echo "$1.sh failed:" >&2
        tail -n 20 "$WORK/log.$1" >&2
        return 1
    }
    local metric image program value unit
    while read -r RUN metric image program value unit; do
        row "$metric" "$image" "$program" "$value" "$unit"
    done <"$WORK/rows"
}

# cell METRIC IMAGE PROGRAM: brings everything into the state that is wanted, and measures.
cell() {
    local metric=$1 image=$2 program=$3 served=$2
    [[ -z ${is_wrong[$program/$image]:-} ]] && has_program "$program" || return 0
    if [[ " ${COPYING[*]} " == *" $program "* ]]; then
        image_warm "$image" "$program"
        cell_copy "$image" "$program"
        return
    fi
    [[ $image != all ]] || served=plain
    case $metric in
    cold | first_cold) drop_caches ;;
    *) image_warm "$served" "$program" ;;
    esac
    peer_load "$program"
    up "$program" "$served" || return
    "cell_$metric" "$image" "$program"
    check "$program" "$served" "$RAW" || true
    down
}
