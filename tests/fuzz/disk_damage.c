/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes a sound image one that is not: fields, tables, stray bytes, its end. */
#include "qcow/format.h"
#include "tests/fuzz/disk.h"

static uint64_t end_of_file(const struct disk *disk)
{
    struct qcow_file file = image_file(&disk->image);
    struct qcow_info info;
    file.format = QCOW_FORMAT_RAW;
    int r = qcow_inspect(&file, &info, NULL);
    fuzz_check(r == 0);
    uint64_t end = info.guest_size;
    qcow_info_fini(&info);
    qcow_file_close(&file);
    return end;
}

static uint64_t odd_value(const struct disk *disk, struct fuzz_input *in)
{
    unsigned kind = fuzz_u8(in) % 4;
    if (kind == 0)
        return fuzz_edge(in);
    uint64_t cluster = (uint64_t)fuzz_u8(in) << disk->image.cluster_bits;
    return kind == 1 ? cluster : cluster | (uint64_t)fuzz_u16(in) << (kind == 2 ? 48 : 0);
}

static void damage_header(const struct disk *disk, struct fuzz_input *in)
{
    static const struct {
        uint8_t off, len;
    } fields[] = {
        {HDR_VERSION, 4},      {HDR_BACKING_OFF, 8},    {HDR_BACKING_LEN, 4},
        {HDR_CLUSTER_BITS, 4}, {HDR_SIZE, 8},           {HDR_CRYPT, 4},
        {HDR_L1_ENTRIES, 4},   {HDR_L1_OFF, 8},         {HDR_REFTABLE_OFF, 8},
        {HDR_N_SNAPSHOTS, 4},  {HDR_SNAPSHOTS_OFF, 8},  {HDR_REFTABLE_CLUSTERS, 4},
        {HDR_INCOMPATIBLE, 8}, {HDR_COMPATIBLE, 8},     {HDR_AUTOCLEAR, 8},
        {HDR_LENGTH, 4},       {HDR_REFCOUNT_ORDER, 4}, {HDR_COMPRESSION, 8},
        {HDR_V3_LEN + 8, 4},   {HDR_V3_LEN + 12, 4},    {HDR_V3_LEN + 24, 4},
        {HDR_V3_LEN + 28, 4},
    };
    unsigned i = fuzz_below(in, sizeof(fields) / sizeof(*fields));
    if (fields[i].len == 8)
        image_poke64(&disk->image, fields[i].off, odd_value(disk, in));
    else
        image_poke32(&disk->image, fields[i].off, (uint32_t)fuzz_edge(in));
}

static void damage_tables(const struct disk *disk, struct fuzz_input *in)
{
    const struct disk_view *view = &disk->views[fuzz_below(in, disk->n_views)];
    const struct disk_cell *cell = &view->cells[fuzz_below(in, DISK_CELLS)];
    unsigned what = fuzz_u8(in) % 4;
    if (what == 0 && view->l1_entries > 0)
        image_poke64(&disk->image, view->l1_off + fuzz_u32(in) % view->l1_entries * 8ULL,
                     odd_value(disk, in));
    else if (what == 1 && cell->l2_place && disk->image.has_extended_l2)
        image_poke64(&disk->image, cell->l2_place + 8, fuzz_u64(in));
    else if (what == 2 && cell->l2_place)
        image_poke64(&disk->image, cell->l2_place, cell->entry ^ 1ULL << fuzz_u8(in) % 64);
    else if (cell->l2_place)
        image_poke64(&disk->image, cell->l2_place, odd_value(disk, in));
}

void disk_damage(const struct disk *disk, struct fuzz_input *in)
{
    uint64_t end = end_of_file(disk);
    uint64_t at = disk->snapshots_off + fuzz_u8(in);
    switch (fuzz_u8(in) % 8) {
    case 0:
    case 1:
        damage_header(disk, in);
        break;
    case 2:
    case 3:
        damage_tables(disk, in);
        break;
    case 4:
        if (end > 0)
            image_poke8(&disk->image, fuzz_u32(in) % end, fuzz_u8(in));
        break;
    case 5:
        image_truncate(&disk->image, fuzz_u32(in) % (end + (fuzz_u8(in) % 2 ? 64U << 20 : 1)));
        break;
    case 6:
        if (disk->snapshots_off)
            image_poke8(&disk->image, at, fuzz_u8(in));
        break;
    default:
        if (disk->snapshots_off)
            image_poke64(&disk->image, at / 8 * 8, odd_value(disk, in));
    }
}
