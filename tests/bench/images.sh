# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# The images of the benchmark, made by QEMU from content.c's bytes, each with a seed of its own. In
# $DIR/images the images alone, since it is mounted; in $DIR/ref, for each of them, NAME.offsets and
# NAME.sum (see sample.py): what QEMU decodes there; in $DIR/raw what is read without a decoder.
#
# Of the size that --scale divides: 8 GiB, half of it data, in extents of 64 KiB to 16 MiB.
#
#   plain             64 KiB clusters           sparse1t  1 TiB, 1 GiB of it data
#   zlib, zstd        the same, compressed      c2m       2 MiB clusters
#   chain2            plain under an overlay that holds 30 % of the disk, in random order
#   chain5            plain under four overlays of 8 %
#   frag              half of the clusters, in random order
#   subcl             128 KiB clusters with subclusters of 4 KiB; of 60 % of them the first 40 KiB
#   snap3@s2          one of three internal snapshots, a tenth is overwritten after each

KIB=1024 MIB=$((1024 * 1024)) GIB=$((1024 * 1024 * 1024))

# scatter IMAGE PERCENT PIECE SEED [LEN]: content pieces, through QEMU's own FUSE export.
scatter() {
    local image=$1 server status=0
    shift
    : >"$DIR/work/disk"
    qemu-storage-daemon --blockdev \
        "driver=qcow2,node-name=n,file.driver=file,file.filename=$image" \
        --export "type=fuse,id=e,node-name=n,mountpoint=$DIR/work/disk,writable=on" &
    server=$!
    timeout 60 "$METER" first "$DIR/work/disk" "$EPOCHREALTIME" >/dev/null &&
        timeout 1800 "$CONTENT" pieces "$DIR/work/disk" "$VIRTUAL" "$@" || status=$?
    kill "$server"
    wait "$server" || true
    rm -f "$DIR/work/disk"
    return "$status"
}

# Those made of extents are converted from one raw file.
convert_content() {
    local target=$1
    shift
    [[ -e $DIR/work/content.raw ]] ||
        "$CONTENT" extents "$DIR/work/content.raw" "$VIRTUAL" "$DATA" 1 $((64 * KIB)) $((16 * MIB))
    timeout 1800 qemu-img convert -f raw -O qcow2 "$@" "$DIR/work/content.raw" "$target"
}

create() {
    timeout 60 qemu-img create -q -f qcow2 "$@"
}

make_chain5() {
    local base=plain.qcow2 i
    for i in 1 2 3; do
        create -b "$base" -F qcow2 "$DIR/images/.chain5-$i.qcow2"
        scatter "$DIR/images/.chain5-$i.qcow2" 8 $((64 * KIB)) $((50 + i))
        base=.chain5-$i.qcow2
    done
    create -b "$base" -F qcow2 "$1"
    scatter "$1" 8 $((64 * KIB)) 54
}

make_snap3() {
    local i
    create "$1" "$VIRTUAL"
    scatter "$1" 50 $((64 * KIB)) 61
    for i in 1 2 3; do
        timeout 60 qemu-img snapshot -c "s$i" "$1"
        scatter "$1" 10 $((64 * KIB)) $((61 + i))
    done
}

make_sparse1t() {
    "$CONTENT" extents "$DIR/work/sparse.raw" $((1024 * GIB)) $((GIB / SCALE)) 9 \
        $((64 * KIB)) $((512 * KIB))
    timeout 600 qemu-img convert -f raw -O qcow2 "$DIR/work/sparse.raw" "$1"
    rm -f "$DIR/work/sparse.raw"
}

make_image() { # NAME FILE
    case $1 in
    plain) convert_content "$2" -o cluster_size=64k ;;
    zlib | zstd) convert_content "$2" -c -o "cluster_size=64k,compression_type=$1" ;;
    c2m) convert_content "$2" -o cluster_size=2M ;;
    sparse1t) make_sparse1t "$2" ;;
    chain2)
        create -b plain.qcow2 -F qcow2 "$2"
        scatter "$2" 30 $((64 * KIB)) 22
        ;;
    chain5) make_chain5 "$2" ;;
    frag)
        create -o cluster_size=64k "$2" "$VIRTUAL"
        scatter "$2" 50 $((64 * KIB)) 81
        ;;
    subcl)
        create -o extended_l2=on,cluster_size=128k "$2" "$VIRTUAL"
        scatter "$2" 60 $((128 * KIB)) 71 $((40 * KIB))
        ;;
    snap3@s2) make_snap3 "$2" ;;
    *) die "there is no image '$1'" ;;
    esac
}

# What QEMU decodes; the raw file is kept of those that are read without a decoder.
make_reference() { # NAME FILE
    local raw=$DIR/raw/$1.raw snapshot=()
    [[ $1 != *@* ]] || snapshot=(-l "snapshot.name=${1#*@}")
    timeout 1800 qemu-img convert -f qcow2 -O raw "${snapshot[@]}" "$2" "$raw"
    "$HERE/sample.py" choose "$2" 512 >"$DIR/ref/$1.offsets"
    "$HERE/sample.py" sum "$raw" "$DIR/ref/$1.offsets" >"$DIR/ref/$1.sum.new"
    [[ $1 == plain || $1 == sparse1t ]] || rm -f "$raw"
    # Its presence says that the image is complete.
    mv "$DIR/ref/$1.sum.new" "$DIR/ref/$1.sum"
}

# images_make NAME...: those that are not there yet.
images_make() {
    local name file
    VIRTUAL=$((8 * GIB / SCALE)) DATA=$((4 * GIB / SCALE))
    mkdir -p "$DIR/images" "$DIR/ref" "$DIR/raw"
    [[ -e $DIR/ref/scale ]] || echo "$SCALE" >"$DIR/ref/scale"
    [[ $(<"$DIR/ref/scale") == "$SCALE" ]] ||
        die "$DIR has images of --scale $(<"$DIR/ref/scale")"
    for name; do
        [[ ! -e $DIR/ref/$name.sum ]] || continue
        say "making image $name"
        file=$DIR/images/${name%@*}.qcow2
        make_image "$name" "$file"
        make_reference "$name" "$file"
    done
    rm -f "$DIR/work/content.raw"
}

# Into the page cache: the file that PROGRAM reads for IMAGE, and what is below it.
image_warm() { # IMAGE PROGRAM
    local file how=data files=("$DIR/images/${1%@*}.qcow2")
    case $2 in
    bare | passthrough_hp | raw)
        files=("$DIR/raw/$1.raw")
        # Of a hole, too, pages are kept.
        [[ $1 == sparse1t ]] || how='read'
        ;;
    *)
        case $1 in
        chain5) files+=("$DIR"/images/.chain5-*.qcow2 "$DIR/images/plain.qcow2") ;;
        chain2) files+=("$DIR/images/plain.qcow2") ;;
        esac
        ;;
    esac
    for file in "${files[@]}"; do
        timeout 600 "$METER" "$how" "$file" >/dev/null
    done
}
