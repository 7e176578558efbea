/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/format.h"

enum {
    OPS_MAX = 40,
    COMPRESSED_MAX = 4, /* a layer; packing takes its time */
    EDGE_LEN = 8192,    /* of large clusters, only so much at both ends is not zero */
    SNAPSHOT_EXTRA_LEN = 24,
};

/* ---- Content ---- */

static void fill(uint8_t *buf, size_t len, uint32_t seed, uint64_t from)
{
    for (size_t i = 0; i < len; i++) {
        uint32_t word = seed * 0x9e3779b1U + (uint32_t)((from + i) / 16) * 0x85ebca6bU;
        buf[i] = (uint8_t)((word >> ((from + i) % 4 * 8)) | 1);
    }
}

/* A sector of a cluster of that size. */
static void fill_sector(uint8_t *buf, uint32_t seed, uint64_t in_cluster, uint64_t cluster_size)
{
    bool is_edge = in_cluster < EDGE_LEN || cluster_size - in_cluster <= EDGE_LEN;
    if (seed && is_edge)
        fill(buf, SECTOR_SIZE, seed, in_cluster);
    else
        memset(buf, 0, SECTOR_SIZE);
}

static void poke_cluster(const struct image *file, uint64_t host_off, uint64_t cluster_size,
                         uint32_t seed)
{
    uint8_t buf[2 * EDGE_LEN] = {0};
    uint64_t edge = cluster_size < EDGE_LEN ? cluster_size : EDGE_LEN;
    fill(buf, edge, seed, 0);
    image_poke(file, host_off, buf, edge);
    uint64_t last = cluster_size > 2 * EDGE_LEN ? cluster_size - EDGE_LEN : edge;
    if (last < cluster_size) {
        fill(buf, cluster_size - last, seed, last);
        image_poke(file, host_off + last, buf, cluster_size - last);
    }
}

/* ---- One image ---- */

/* What is under way. */
struct maker {
    struct disk *disk;
    struct disk_view *view;
    struct fuzz_input *in;
    unsigned n_compressed;
    uint32_t next_seed;
};

static uint64_t clusters_of_table(const struct image *image)
{
    return image->cluster_size / (image->has_extended_l2 ? L2_EXTENDED_ENTRY_LEN : L2_ENTRY_LEN);
}

/* Eight clusters around the begin of each of three L2 tables. */
static void place_cells(const struct image *image, struct disk_view *view)
{
    uint64_t table = clusters_of_table(image);
    for (unsigned i = 0; i < DISK_CELLS; i++) {
        uint64_t idx = i < 8 ? i : (i / 8) * table - 4 + i % 8;
        view->cells[i].guest_off = idx * image->cluster_size;
    }
}

static void set_entry(struct maker *m, struct disk_cell *cell, uint64_t entry, uint64_t bitmap)
{
    struct image *image = &m->disk->image;
    cell->l2_place = image_l2_place(image, cell->guest_off);
    cell->entry = entry;
    image_poke64(image, cell->l2_place, entry);
    if (image->has_extended_l2)
        image_poke64(image, cell->l2_place + 8, bitmap);
}

/* The host cluster for it, with content. */
static uint64_t write_cluster(struct maker *m, struct disk_cell *cell)
{
    struct image *image = &m->disk->image;
    cell->seed = m->next_seed++;
    if (m->disk->data_file.fd >= 0) {
        poke_cluster(&m->disk->data_file, cell->guest_off, image->cluster_size, cell->seed);
        return cell->guest_off;
    }
    image_l2_place(image, cell->guest_off);
    uint64_t host_off = image_alloc(image, 1);
    poke_cluster(image, host_off, image->cluster_size, cell->seed);
    return host_off;
}

static void put_data(struct maker *m, struct disk_cell *cell, uint64_t odd_bits)
{
    uint64_t host_off = write_cluster(m, cell);
    bool must_be_copied = m->disk->data_file.fd >= 0; /* else offset 0 would mean none */
    uint64_t copied = must_be_copied || fuzz_u8(m->in) % 4 ? L2_COPIED : 0;
    cell->held = UINT32_MAX;
    cell->zero = 0;
    set_entry(m, cell, host_off | copied | odd_bits, UINT32_MAX);
}

static void put_zero(struct maker *m, struct disk_cell *cell, bool has_cluster)
{
    if (m->disk->image.version < 3)
        return;
    uint64_t host_off = has_cluster ? write_cluster(m, cell) | L2_COPIED : 0;
    bool is_extended = m->disk->image.has_extended_l2;
    cell->held = cell->seed = 0;
    cell->zero = UINT32_MAX;
    set_entry(m, cell, host_off | (is_extended ? 0 : L2_ZERO), (uint64_t)UINT32_MAX << SUBCLUSTERS);
}

/* A cluster with subclusters of each kind, or none with some that are zeros. */
static void put_subclusters(struct maker *m, struct disk_cell *cell, bool has_cluster)
{
    if (!m->disk->image.has_extended_l2)
        return;
    uint64_t entry = has_cluster ? write_cluster(m, cell) | L2_COPIED : 0;
    cell->held = has_cluster ? fuzz_u32(m->in) : 0;
    cell->zero = fuzz_u32(m->in) & ~cell->held;
    set_entry(m, cell, entry, (uint64_t)cell->zero << SUBCLUSTERS | cell->held);
}

static void put_nothing(struct maker *m, struct disk_cell *cell)
{
    cell->held = cell->zero = cell->seed = 0;
    set_entry(m, cell, 0, 0);
}

/* Compressed data may begin anywhere, and share its last sector with the next one's. */
static void put_compressed(struct maker *m, struct disk_cell *cell)
{
    struct image *image = &m->disk->image;
    if (m->disk->data_file.fd >= 0 || m->n_compressed == COMPRESSED_MAX)
        return;
    m->n_compressed++;
    cell->seed = m->next_seed++;
    size_t room = image->cluster_size + 8192;
    uint8_t *raw = calloc(1, image->cluster_size), *packed = malloc(room);
    fuzz_check(raw && packed);
    for (uint64_t at = 0; at < image->cluster_size; at += SECTOR_SIZE)
        fill_sector(raw + at, cell->seed, at, image->cluster_size);
    size_t len = image_compress(m->disk->compression, raw, image->cluster_size, packed, room - 512);
    image_l2_place(image, cell->guest_off);
    uint64_t shift = fuzz_u16(m->in) % 512;
    uint64_t n = (shift + len + image->cluster_size - 1) / image->cluster_size;
    uint64_t host_off = image_alloc(image, n) + shift;
    image_poke(image, host_off, packed, len);
    free(raw);
    free(packed);
    cell->held = UINT32_MAX;
    cell->zero = 0;
    /* Incompressible bytes may not fit what the entry can tell; then there is no such cluster. */
    uint64_t sectors = (host_off % 512 + len + 511) / 512;
    if (sectors > 1ULL << (image->cluster_bits - 8))
        put_nothing(m, cell);
    else
        set_entry(m, cell, image_compressed_entry(image, host_off, len), 0);
}

/* Another cluster's place in the file, as after a snapshot. */
static void put_shared(struct maker *m, struct disk_cell *cell)
{
    const struct disk_cell *other = &m->view->cells[fuzz_below(m->in, DISK_CELLS)];
    if (m->disk->data_file.fd >= 0 || !other->entry)
        return;
    cell->seed = other->seed;
    cell->held = other->held;
    cell->zero = other->zero;
    set_entry(m, cell, other->entry, (uint64_t)other->zero << SUBCLUSTERS | other->held);
    if (other->entry & L2_COMPRESSED && m->disk->image.has_extended_l2)
        image_poke64(&m->disk->image, cell->l2_place + 8, 0);
}

/* Preallocated, past the end of the file: reads as zeros. */
static void put_past_end(struct maker *m, struct disk_cell *cell)
{
    if (m->disk->data_file.fd >= 0)
        return;
    cell->seed = 0;
    cell->held = UINT32_MAX;
    cell->zero = 0;
    set_entry(m, cell, (1ULL << (36 + fuzz_below(m->in, 19))) | L2_COPIED, UINT32_MAX);
}

static void do_op(struct maker *m)
{
    /* Bits that are reserved, which readers ignore. */
    static const uint64_t reserved = 0x3f000000000001fe;
    unsigned op = fuzz_below(m->in, 12);
    struct disk_cell *cell = &m->view->cells[fuzz_below(m->in, DISK_CELLS)];
    if (cell->guest_off >> m->disk->image.cluster_bits >=
        m->view->l1_entries * clusters_of_table(&m->disk->image))
        return;
    switch (op) {
    case 0:
        put_nothing(m, cell);
        break;
    case 1:
        put_zero(m, cell, false);
        break;
    case 2:
        put_zero(m, cell, true);
        break;
    case 3:
        put_subclusters(m, cell, false);
        break;
    case 4:
        put_subclusters(m, cell, true);
        break;
    case 5:
    case 6:
        put_compressed(m, cell);
        break;
    case 7:
        put_shared(m, cell);
        break;
    case 8:
        put_past_end(m, cell);
        break;
    case 9:
        put_data(m, cell, fuzz_u64(m->in) & reserved);
        break;
    default:
        put_data(m, cell, 0);
    }
}

static void make_view(struct maker *m, uint64_t guest_size, uint64_t l1_off, uint32_t l1_entries)
{
    *m->view =
        (struct disk_view){.guest_size = guest_size, .l1_off = l1_off, .l1_entries = l1_entries};
    place_cells(&m->disk->image, m->view);
    m->disk->image.l1_off = l1_off;
    for (unsigned n = fuzz_below(m->in, OPS_MAX); n > 0 && m->in->left > 0; n--)
        do_op(m);
}

static uint64_t choose_size(const struct image_options *o, struct fuzz_input *in)
{
    uint64_t cluster_size = 1ULL << o->cluster_bits;
    uint64_t table = cluster_size / ((o->incompatible & INCOMPAT_EXTENDED_L2) ? 16 : 8);
    uint64_t clusters = fuzz_below(in, o->cluster_bits < 14 ? 4 : 2) * table + fuzz_below(in, 12);
    return clusters * cluster_size + fuzz_below(in, 65536) % cluster_size / 512 * 512;
}

static void add_snapshots(struct maker *m, unsigned n)
{
    struct disk *disk = m->disk;
    struct image_snapshot snapshots[DISK_SNAPSHOTS_MAX] = {0};
    char *texts[2 * DISK_SNAPSHOTS_MAX];
    for (unsigned i = 0; i < n; i++) {
        /* Its disk may have had another size, and its L1 table be shorter than that needs. */
        uint64_t size = disk->views[0].guest_size;
        if (disk->image.version >= 3)
            size = fuzz_u8(m->in) % 2 ? size / 2 / 512 * 512 : size + fuzz_u16(m->in) * 512ULL;
        uint32_t entries = fuzz_below(m->in, 4);
        uint64_t l1_off = image_alloc(&disk->image, 1);
        m->view = &disk->views[disk->n_views++];
        make_view(m, size, l1_off, entries);
        texts[2 * i] = fuzz_text(m->in, '\n');
        texts[2 * i + 1] = fuzz_text(m->in, '\n');
        snapshots[i] = (struct image_snapshot){
            .id = texts[2 * i],
            .name = texts[2 * i + 1],
            .l1_off = l1_off,
            .l1_entries = entries,
            .sec = fuzz_u32(m->in),
            .nsec = fuzz_u32(m->in),
            .extra_len = disk->image.version >= 3 ? SNAPSHOT_EXTRA_LEN : 0,
            .disk_size = size,
            .vm_state_size_large = fuzz_u16(m->in),
        };
    }
    if (n > 0)
        disk->snapshots_off = image_add_snapshots(&disk->image, snapshots, n);
    for (unsigned i = 0; i < 2 * n; i++)
        free(texts[i]);
}

static void choose_options(struct image_options *o, struct fuzz_input *in)
{
    /* Small ones more often, since the tables of large ones take long to walk. */
    static const uint8_t bits[] = {9,  9,  9,  9, 9, 9,  9,  10, 10, 10, 11, 11, 12, 12, 12,
                                   13, 13, 14, 9, 9, 14, 14, 14, 14, 14, 14, 9,  15, 16, 14};
    unsigned shape = fuzz_u8(in), size = fuzz_u8(in);
    *o = (struct image_options){.version = 3, .cluster_bits = bits[size % sizeof(bits)]};
    if (size > 250)
        o->cluster_bits = CLUSTER_BITS_MAX - (255 - size);
    if (shape % 4 == 0)
        o->version = 2;
    if (o->version < 3)
        return;
    o->compression = shape / 4 % 2;
    o->incompatible = o->compression ? INCOMPAT_COMPRESSION : 0;
    if (shape / 8 % 2 && o->cluster_bits >= CLUSTER_BITS_MIN_EXTENDED)
        o->incompatible |= INCOMPAT_EXTENDED_L2;
    if (shape / 16 % 4 == 0)
        o->incompatible |= INCOMPAT_DATA_FILE;
    o->incompatible |= shape / 64 % 4; /* dirty, corrupt: read all the same */
}

static void make_disk(struct disk *disk, const char *backing_name, struct fuzz_input *in)
{
    struct image_options options;
    choose_options(&options, in);
    options.name = "layer.qcow2";
    options.backing_name = backing_name;
    options.guest_size = choose_size(&options, in);
    static const struct image_extension extensions[] = {{EXT_BACKING_FORMAT, "qcow2", 5},
                                                        {EXT_DATA_FILE, "data.raw", 8}};
    bool has_data_file = (options.incompatible & INCOMPAT_DATA_FILE) != 0;
    options.extensions = extensions;
    options.n_extensions = has_data_file ? 2 : 1;
    *disk = (struct disk){.data_file = {.fd = -1}, .compression = options.compression};
    image_create(&disk->image, &options);
    if (has_data_file)
        image_create_raw(&disk->data_file, "data.raw", fuzz_below(in, 2) * options.guest_size);
    struct maker m = {.disk = disk, .in = in, .view = &disk->views[0], .next_seed = 1};
    m.next_seed += fuzz_u8(in) * 256U;
    disk->n_views = 1;
    uint64_t l1_off = disk->image.l1_off;
    make_view(&m, options.guest_size, l1_off, disk->image.l1_entries);
    /* With an external data file there are none. */
    unsigned n = fuzz_below(in, DISK_SNAPSHOTS_MAX + 1);
    add_snapshots(&m, has_data_file ? 0 : n);
}

/* The lowest layer, of any number of bytes. */
static void make_raw(struct disk *disk, struct fuzz_input *in)
{
    uint64_t host_size = fuzz_u16(in) * 8ULL;
    *disk = (struct disk){.data_file = {.fd = -1}, .n_views = 1};
    image_create_raw(&disk->image, "layer.raw", host_size);
    disk->image.cluster_bits = 12;
    disk->image.cluster_size = 4096;
    struct disk_view *view = &disk->views[0];
    view->guest_size = (host_size + 511) / 512 * 512;
    for (unsigned i = 0; i < DISK_CELLS; i++) {
        struct disk_cell *cell = &view->cells[i];
        *cell = (struct disk_cell){.guest_off = i * 4096ULL, .held = UINT32_MAX};
        if (fuzz_u8(in) % 2 && cell->guest_off + 4096 <= host_size) {
            cell->seed = i + 7;
            poke_cluster(&disk->image, cell->guest_off, 4096, cell->seed);
        }
    }
}

/* ---- The chain ---- */

void disk_chain_create(struct disk_chain *chain, struct fuzz_input *in)
{
    unsigned shape = fuzz_u8(in);
    *chain = (struct disk_chain){.n_layers = 1 + shape % DISK_LAYERS_MAX};
    bool is_raw_below = shape / 4 % 4 == 0;
    chain->is_loop = shape / 16 == 0;
    for (unsigned i = 0; i < chain->n_layers; i++) {
        bool is_last = i + 1 == chain->n_layers;
        if (is_last && i > 0 && is_raw_below)
            make_raw(&chain->layers[i], in);
        else
            make_disk(&chain->layers[i], is_last ? NULL : "next", in);
    }
    chain->is_loop &= chain->layers[chain->n_layers - 1].image.format == QCOW_FORMAT_QCOW2;
    for (unsigned n = fuzz_u8(in) % 4; n > 0; n--) {
        chain->is_damaged = true;
        disk_damage(&chain->layers[fuzz_below(in, chain->n_layers)], in);
    }
}

void disk_chain_destroy(struct disk_chain *chain)
{
    for (unsigned i = 0; i < chain->n_layers; i++) {
        image_destroy(&chain->layers[i].image);
        if (chain->layers[i].data_file.fd >= 0)
            image_destroy(&chain->layers[i].data_file);
    }
}

struct qcow_file disk_chain_file(const struct disk_chain *chain)
{
    return image_file(&chain->layers[0].image);
}

int disk_chain_answer(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                      struct error *err)
{
    const struct disk_chain *chain = ctx;
    fuzz_check(ref->depth < chain->n_layers);
    const struct disk *disk = &chain->layers[ref->depth];
    if (ref->kind == QCOW_REF_DATA) {
        if (disk->data_file.fd < 0)
            return error_set(err, -ENOENT, "no such data file");
        *ret_file = image_file(&disk->data_file);
        return 0;
    }
    if (ref->depth + 1 == chain->n_layers && !chain->is_loop)
        return 1;
    *ret_file = image_file(&chain->layers[(ref->depth + 1) % chain->n_layers].image);
    return 0;
}

/* False: this layer has nothing there. */
static bool expect_sector(const struct disk *disk, const struct disk_view *view, uint64_t guest_off,
                          uint8_t *buf)
{
    uint64_t cluster_size = disk->image.cluster_size;
    for (unsigned i = 0; i < DISK_CELLS; i++) {
        const struct disk_cell *cell = &view->cells[i];
        if (guest_off < cell->guest_off || guest_off - cell->guest_off >= cluster_size)
            continue;
        uint64_t in_cluster = guest_off - cell->guest_off;
        uint32_t bit = 1U << (in_cluster * SUBCLUSTERS / cluster_size);
        if (cell->held & bit)
            fill_sector(buf, cell->seed, in_cluster, cluster_size);
        return (cell->held | cell->zero) & bit;
    }
    return disk->image.format == QCOW_FORMAT_RAW;
}

void disk_chain_expect(const struct disk_chain *chain, unsigned view, uint64_t guest_off,
                       uint8_t *buf, size_t len)
{
    memset(buf, 0, len);
    for (size_t at = 0; at < len; at += SECTOR_SIZE) {
        for (unsigned i = 0; i < chain->n_layers; i++) {
            const struct disk *disk = &chain->layers[i];
            const struct disk_view *v = &disk->views[i == 0 ? view : 0];
            if (guest_off + at >= v->guest_size || expect_sector(disk, v, guest_off + at, buf + at))
                break;
        }
    }
}
