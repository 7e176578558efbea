/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/header.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/bytes.h"
#include "qcow/base/cleanup.h"
#include "qcow/format.h"

unsigned header_l2_entry_len(const struct qcow_header *hdr)
{
    return hdr->has_extended_l2 ? L2_EXTENDED_ENTRY_LEN : L2_ENTRY_LEN;
}

unsigned header_l2_bits(const struct qcow_header *hdr)
{
    return hdr->cluster_bits - (hdr->has_extended_l2 ? 4 : 3);
}

uint64_t header_l1_needed(const struct qcow_header *hdr, uint64_t guest_size)
{
    unsigned shift = hdr->cluster_bits + header_l2_bits(hdr);
    return (guest_size >> shift) + ((guest_size & ((1ULL << shift) - 1)) ? 1 : 0);
}

int header_check_table(const struct qcow_header *hdr, const char *image, const char *what,
                       uint64_t host_off, uint64_t entries, uint64_t entry_len, uint64_t max_bytes,
                       struct error *err)
{
    if (entries > max_bytes / entry_len)
        return error_set(err, -EBADMSG,
                         "'%s': %s at %#" PRIx64 " has %" PRIu64 " entries, more than the %" PRIu64
                         " allowed",
                         image, what, host_off, entries, max_bytes / entry_len);
    if (!is_aligned(host_off, hdr->cluster_size))
        return error_set(err, -EBADMSG,
                         "'%s': %s at %#" PRIx64 " is not aligned to the %" PRIu32 "-byte clusters",
                         image, what, host_off, hdr->cluster_size);
    if (host_off > INT64_MAX - entries * entry_len)
        return error_set(err, -EBADMSG, "'%s': %s at %#" PRIx64 " lies outside any file", image,
                         what, host_off);
    return 0;
}

/* "Header", fields of both versions. */
static int parse_fixed(const struct source *src, const uint8_t *raw, struct qcow_header *hdr,
                       struct error *err)
{
    if (load_be32(raw + HDR_MAGIC) != QCOW_MAGIC)
        return error_set(err, -EBADMSG,
                         "'%s': no qcow2 image: it begins with %#010" PRIx32 ", not %#010x",
                         src->name, load_be32(raw + HDR_MAGIC), QCOW_MAGIC);
    hdr->version = load_be32(raw + HDR_VERSION);
    if (hdr->version != 2 && hdr->version != 3)
        return error_set(err, -ENOTSUP,
                         "'%s': header: qcow version %u at %#x is not supported (2 and 3 are)",
                         src->name, hdr->version, HDR_VERSION);
    hdr->cluster_bits = load_be32(raw + HDR_CLUSTER_BITS);
    if (hdr->cluster_bits < CLUSTER_BITS_MIN || hdr->cluster_bits > CLUSTER_BITS_MAX)
        return error_set(err, -EBADMSG, "'%s': header: cluster_bits at %#x is %u, not %d to %d",
                         src->name, HDR_CLUSTER_BITS, hdr->cluster_bits, CLUSTER_BITS_MIN,
                         CLUSTER_BITS_MAX);
    hdr->cluster_size = 1U << hdr->cluster_bits;
    hdr->guest_size = align_down(load_be64(raw + HDR_SIZE), SECTOR_SIZE);
    hdr->crypt_method = load_be32(raw + HDR_CRYPT);
    if (hdr->crypt_method > CRYPT_LUKS)
        return error_set(err, -ENOTSUP,
                         "'%s': header: unknown encryption method %" PRIu32 " at %#x", src->name,
                         hdr->crypt_method, HDR_CRYPT);
    hdr->l1_entries = load_be32(raw + HDR_L1_ENTRIES);
    hdr->l1_off = load_be64(raw + HDR_L1_OFF);
    hdr->n_snapshots = load_be32(raw + HDR_N_SNAPSHOTS);
    hdr->snapshots_off = load_be64(raw + HDR_SNAPSHOTS_OFF);
    return 0;
}

/*
 * Finds what the image itself calls its incompatible feature number @bit, in the feature name
 * table among the extensions at @ext (@len bytes); "" if it has no word for it.
 */
static void find_feature_name(const uint8_t *ext, size_t len, unsigned bit,
                              char ret_name[FEATURE_NAME_LEN + 1])
{
    ret_name[0] = '\0';
    size_t at = 0;
    while (len - at >= 8) {
        uint32_t type = load_be32(ext + at);
        uint32_t ext_len = load_be32(ext + at + 4);
        at += 8;
        if (type == EXT_END || ext_len > len - at)
            return;
        if (type == EXT_FEATURE_TABLE) {
            for (size_t i = 0; i + FEATURE_ENTRY_LEN <= ext_len; i += FEATURE_ENTRY_LEN) {
                const uint8_t *entry = ext + at + i;
                if (entry[0] != FEATURE_TYPE_INCOMPATIBLE || entry[1] != bit)
                    continue;
                memcpy(ret_name, entry + FEATURE_NAME_OFF, FEATURE_NAME_LEN);
                ret_name[FEATURE_NAME_LEN] = '\0'; /* it need not end in NUL on disk */
                return;
            }
        }
        if (align_up(ext_len, 8) > len - at)
            return;
        at += (size_t)align_up(ext_len, 8);
    }
}

static int refuse_features(const struct source *src, uint64_t unknown, const uint8_t *ext,
                           size_t ext_len, struct error *err)
{
    unsigned bit = (unsigned)__builtin_ctzll(unknown);
    char name[FEATURE_NAME_LEN + 1];
    find_feature_name(ext, ext_len, bit, name);
    return error_set(err, -ENOTSUP, "'%s': unknown incompatible feature: bit %u%s%s%s", src->name,
                     bit, name[0] ? " ('" : "", name, name[0] ? "')" : "");
}

/* "Header", compression_type: the field and its feature bit must agree. */
static int parse_compression(const struct source *src, const uint8_t *raw, size_t header_len,
                             uint64_t incompatible, struct qcow_header *hdr, struct error *err)
{
    hdr->compression = header_len > HDR_COMPRESSION ? raw[HDR_COMPRESSION] : COMPRESSION_ZLIB;
    if (hdr->compression > COMPRESSION_ZSTD)
        return error_set(err, -ENOTSUP, "'%s': unknown compression type %u", src->name,
                         hdr->compression);
    bool has_bit = (incompatible & INCOMPAT_COMPRESSION) != 0;
    if (has_bit != (hdr->compression != COMPRESSION_ZLIB))
        return error_set(err, -EBADMSG,
                         "'%s': header: compression type %u at %#x contradicts incompatible "
                         "feature bit 3, which is %d",
                         src->name, hdr->compression, HDR_COMPRESSION, has_bit);
    return 0;
}

/* What version 3 added. @ext: the bytes between header and end of the extensions. */
static int parse_v3(const struct source *src, const uint8_t *raw, size_t header_len,
                    const uint8_t *ext, size_t ext_len, struct qcow_header *hdr, struct error *err)
{
    uint64_t incompatible = load_be64(raw + HDR_INCOMPATIBLE);
    uint64_t unknown = incompatible & ~INCOMPAT_KNOWN;
    if (unknown)
        return refuse_features(src, unknown, ext, ext_len, err);
    hdr->is_dirty = (incompatible & INCOMPAT_DIRTY) != 0;
    hdr->is_corrupt = (incompatible & INCOMPAT_CORRUPT) != 0;
    hdr->has_data_file = (incompatible & INCOMPAT_DATA_FILE) != 0;
    hdr->has_extended_l2 = (incompatible & INCOMPAT_EXTENDED_L2) != 0;
    if (hdr->has_extended_l2 && hdr->cluster_bits < CLUSTER_BITS_MIN_EXTENDED)
        return error_set(err, -EBADMSG,
                         "'%s': header: cluster_bits at %#x is %u, too small for subclusters",
                         src->name, HDR_CLUSTER_BITS, hdr->cluster_bits);
    uint32_t refcount_order = load_be32(raw + HDR_REFCOUNT_ORDER);
    if (refcount_order > REFCOUNT_ORDER_MAX)
        return error_set(err, -EBADMSG,
                         "'%s': header: refcount_order at %#x is %" PRIu32 ", more than %d",
                         src->name, HDR_REFCOUNT_ORDER, refcount_order, REFCOUNT_ORDER_MAX);
    return parse_compression(src, raw, header_len, incompatible, hdr, err);
}

static int copy_extension(const uint8_t *data, uint32_t len, char **ret)
{
    if (len == 0)
        return 0; /* as good as none */
    char *text = strndup((const char *)data, len);
    if (!text)
        return -ENOMEM;
    free(*ret);
    *ret = text;
    return 0;
}

/* "Header extensions". @host_off: where @ext lies in the file, for messages. */
static int parse_extensions(const struct source *src, const uint8_t *ext, size_t len,
                            uint64_t host_off, struct qcow_header *hdr, struct error *err)
{
    size_t at = 0;
    while (len - at >= 8) {
        uint32_t type = load_be32(ext + at);
        uint32_t ext_len = load_be32(ext + at + 4);
        if (type == EXT_END)
            return 0;
        if (ext_len > len - at - 8)
            return error_set(err, -EBADMSG,
                             "'%s': header extension %#" PRIx32 " at %#" PRIx64 " has %" PRIu32
                             " bytes, more than the %zu left",
                             src->name, type, host_off + at, ext_len, len - at - 8);
        if (type == EXT_BACKING_FORMAT && ext_len > BACKING_FORMAT_MAX)
            return error_set(err, -EBADMSG,
                             "'%s': backing format at %#" PRIx64 " has %" PRIu32
                             " bytes, more than %d",
                             src->name, host_off + at, ext_len, BACKING_FORMAT_MAX);
        int r = 0;
        if (type == EXT_BACKING_FORMAT)
            r = copy_extension(ext + at + 8, ext_len, &hdr->backing_format);
        else if (type == EXT_DATA_FILE)
            r = copy_extension(ext + at + 8, ext_len, &hdr->data_name);
        if (r < 0)
            return error_set(err, r, "out of memory");
        uint64_t step = 8 + align_up(ext_len, 8);
        if (step > len - at)
            return 0; /* the last one may lack its padding */
        at += (size_t)step;
    }
    return 0;
}

/* "Header", backing_file_offset and backing_file_size. @raw holds the whole first cluster. */
static int parse_backing_name(const struct source *src, const uint8_t *raw, size_t raw_len,
                              struct qcow_header *hdr, struct error *err)
{
    uint64_t off = load_be64(raw + HDR_BACKING_OFF);
    uint32_t len = load_be32(raw + HDR_BACKING_LEN);
    if (off == 0)
        return 0;
    if (len > min_u64(BACKING_NAME_MAX, hdr->cluster_size - off))
        return error_set(err, -EBADMSG,
                         "'%s': header: backing file name at %#" PRIx64 " has %" PRIu32
                         " bytes, too many",
                         src->name, off, len);
    if (off + len > raw_len)
        return error_set(err, -EBADMSG,
                         "'%s': backing file name at %#" PRIx64 " lies outside the %" PRIu64
                         "-byte file",
                         src->name, off, src->host_size);
    if (len == 0)
        return 0;
    hdr->backing_name = strndup((const char *)raw + off, len);
    return hdr->backing_name ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int check_tables(const struct source *src, const uint8_t *raw, const struct qcow_header *hdr,
                        struct error *err)
{
    uint32_t clusters = load_be32(raw + HDR_REFTABLE_CLUSTERS);
    if (clusters == 0)
        return error_set(err, -EBADMSG, "'%s': header: no refcount table (field at %#x is 0)",
                         src->name, HDR_REFTABLE_CLUSTERS);
    int r = header_check_table(hdr, src->name, "refcount table", load_be64(raw + HDR_REFTABLE_OFF),
                               clusters, hdr->cluster_size, REFTABLE_BYTES_MAX, err);
    if (r < 0)
        return r;
    r = header_check_table(hdr, src->name, "snapshot table", hdr->snapshots_off, hdr->n_snapshots,
                           SNAP_HEADER_LEN, (uint64_t)SNAPSHOTS_MAX * SNAP_HEADER_LEN, err);
    if (r < 0)
        return r;
    r = header_check_table(hdr, src->name, "L1 table", hdr->l1_off, hdr->l1_entries, L1_ENTRY_LEN,
                           L1_BYTES_MAX, err);
    if (r < 0)
        return r;
    uint64_t needed = header_l1_needed(hdr, hdr->guest_size);
    if (hdr->guest_size > INT64_MAX || needed > L1_INDEX_MAX)
        return error_set(err, -EBADMSG, "'%s': header: size at %#x is %" PRIu64 " bytes, too large",
                         src->name, HDR_SIZE, hdr->guest_size);
    if (hdr->l1_entries < needed)
        return error_set(err, -EBADMSG,
                         "'%s': L1 table at %#" PRIx64 " has %" PRIu32
                         " entries, too few for a disk of %" PRIu64 " bytes (%" PRIu64 ")",
                         src->name, hdr->l1_off, hdr->l1_entries, hdr->guest_size, needed);
    uint64_t l1_end = hdr->l1_off + (uint64_t)hdr->l1_entries * L1_ENTRY_LEN;
    /* asked again: the table of a running guest may just have moved to the end of a grown file */
    if (l1_end > src->host_size && l1_end > source_size_now(src))
        return error_set(err, -EBADMSG,
                         "'%s': L1 table at %#" PRIx64 " (%" PRIu32
                         " entries) lies outside the %" PRIu64 "-byte file",
                         src->name, hdr->l1_off, hdr->l1_entries, src->host_size);
    return 0;
}

/* All checks, on @raw: the first cluster as far as the file has it. */
static int parse(const struct source *src, const uint8_t *raw, size_t raw_len,
                 struct qcow_header *hdr, struct error *err)
{
    int r = parse_fixed(src, raw, hdr, err);
    if (r < 0)
        return r;
    size_t header_len = HDR_V2_LEN;
    if (hdr->version >= 3) {
        if (raw_len < HDR_V3_LEN)
            return error_set(err, -EBADMSG, "'%s': the file ends within its header (%zu bytes)",
                             src->name, raw_len);
        header_len = load_be32(raw + HDR_LENGTH);
        if (header_len < HDR_V3_LEN || header_len > hdr->cluster_size)
            return error_set(err, -EBADMSG,
                             "'%s': header: header_length at %#x is %zu, not %d to %" PRIu32,
                             src->name, HDR_LENGTH, header_len, HDR_V3_LEN, hdr->cluster_size);
    }
    uint64_t backing_off = load_be64(raw + HDR_BACKING_OFF);
    if (backing_off > hdr->cluster_size)
        return error_set(err, -EBADMSG,
                         "'%s': header: backing_file_offset at %#x is %#" PRIx64
                         ", outside the first cluster",
                         src->name, HDR_BACKING_OFF, backing_off);
    uint64_t ext_end = min_u64(backing_off ? backing_off : hdr->cluster_size, raw_len);
    const uint8_t *ext = raw + min_u64(header_len, ext_end);
    size_t ext_len = ext_end > header_len ? (size_t)(ext_end - header_len) : 0;
    if (hdr->version >= 3) {
        if (raw_len < header_len)
            return error_set(err, -EBADMSG, "'%s': the file ends within its header (%zu bytes)",
                             src->name, raw_len);
        r = parse_v3(src, raw, header_len, ext, ext_len, hdr, err);
        if (r < 0)
            return r;
    }
    r = check_tables(src, raw, hdr, err);
    if (r < 0)
        return r;
    r = parse_extensions(src, ext, ext_len, header_len, hdr, err);
    if (r < 0)
        return r;
    if (!hdr->has_data_file)
        free(take_ptr(hdr->data_name)); /* a name alone means nothing */
    return parse_backing_name(src, raw, raw_len, hdr, err);
}

/* Enough for the fixed fields of both versions; decides how much more to read. */
enum { FIRST_READ = HDR_V3_LEN + 1 };

int header_read(const struct source *src, struct qcow_header *ret_hdr, struct error *err)
{
    uint8_t first[FIRST_READ];
    if (src->host_size < HDR_V2_LEN)
        return error_set(err, -EBADMSG, "'%s': %" PRIu64 " bytes are too few for a qcow2 image",
                         src->name, src->host_size);
    size_t len = (size_t)min_u64(sizeof(first), src->host_size);
    int r = source_read(src, 0, first, len, "header", err);
    if (r < 0)
        return r;
    struct qcow_header hdr = {0};
    r = parse_fixed(src, first, &hdr, err);
    if (r < 0)
        return r;
    size_t raw_len = (size_t)min_u64(hdr.cluster_size, src->host_size);
    auto_free uint8_t *raw = malloc(raw_len);
    if (!raw)
        return error_set(err, -ENOMEM, "out of memory");
    r = source_read(src, 0, raw, raw_len, "header", err);
    if (r < 0)
        return r;
    hdr = (struct qcow_header){0};
    r = parse(src, raw, raw_len, &hdr, err);
    if (r < 0) {
        header_fini(&hdr);
        return r;
    }
    *ret_hdr = hdr;
    return 0;
}

void header_fini(struct qcow_header *hdr)
{
    free(hdr->backing_name);
    free(hdr->backing_format);
    free(hdr->data_name);
    *hdr = (struct qcow_header){0};
}
