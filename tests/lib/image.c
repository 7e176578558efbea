/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/lib/image.h"

#include <assert.h>
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "qcow/format.h"

void image_poke(const struct image *image, uint64_t host_off, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        ssize_t n = pwrite(image->fd, at, len, (off_t)host_off);
        assert(n > 0);
        at += n;
        host_off += (uint64_t)n;
        len -= (size_t)n;
    }
}

void image_poke8(const struct image *image, uint64_t host_off, uint8_t value)
{
    image_poke(image, host_off, &value, sizeof(value));
}

void image_poke16(const struct image *image, uint64_t host_off, uint16_t value)
{
    value = htobe16(value);
    image_poke(image, host_off, &value, sizeof(value));
}

void image_poke32(const struct image *image, uint64_t host_off, uint32_t value)
{
    value = htobe32(value);
    image_poke(image, host_off, &value, sizeof(value));
}

void image_poke64(const struct image *image, uint64_t host_off, uint64_t value)
{
    value = htobe64(value);
    image_poke(image, host_off, &value, sizeof(value));
}

void image_truncate(const struct image *image, uint64_t host_size)
{
    int r = ftruncate(image->fd, (off_t)host_size);
    assert(r == 0);
    (void)r;
}

static int new_file(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    assert(fd >= 0);
    return fd;
}

uint64_t image_alloc(struct image *image, uint64_t n)
{
    uint64_t host_off = image->end;
    image->end += n * image->cluster_size;
    image_truncate(image, image->end);
    return host_off;
}

static unsigned l2_shift(const struct image *image)
{
    return 2 * image->cluster_bits - (image->has_extended_l2 ? 4 : 3);
}

static void put_header(struct image *image, const struct image_options *options)
{
    image_poke32(image, HDR_MAGIC, QCOW_MAGIC);
    image_poke32(image, HDR_VERSION, image->version);
    image_poke32(image, HDR_CLUSTER_BITS, image->cluster_bits);
    image_poke64(image, HDR_SIZE, image->guest_size);
    image_poke32(image, HDR_L1_ENTRIES, image->l1_entries);
    image_poke64(image, HDR_L1_OFF, image->l1_off);
    image_poke64(image, HDR_REFTABLE_OFF, image->cluster_size);
    image_poke32(image, HDR_REFTABLE_CLUSTERS, 1);
    image->ext_off = HDR_V2_LEN;
    if (image->version < 3)
        return;
    uint32_t header_len = options->header_len ? options->header_len : 112;
    image_poke64(image, HDR_INCOMPATIBLE, options->incompatible);
    image_poke32(image, HDR_REFCOUNT_ORDER, 4);
    image_poke32(image, HDR_LENGTH, header_len);
    if (header_len > HDR_COMPRESSION)
        image_poke8(image, HDR_COMPRESSION, options->compression);
    image->ext_off = header_len;
}

static void put_extensions(const struct image *image, const struct image_options *options)
{
    uint64_t at = image->ext_off;
    for (size_t i = 0; i < options->n_extensions; i++) {
        const struct image_extension *ext = &options->extensions[i];
        image_poke32(image, at, ext->type);
        image_poke32(image, at + 4, ext->len);
        image_poke(image, at + 8, ext->data, ext->len);
        at += 8 + (ext->len + 7) / 8 * 8;
    }
    at += 8; /* the end mark is zeros */
    if (!options->backing_name)
        return;
    assert(at + strlen(options->backing_name) <= image->cluster_size);
    image_poke64(image, HDR_BACKING_OFF, at);
    image_poke32(image, HDR_BACKING_LEN, (uint32_t)strlen(options->backing_name));
    image_poke(image, at, options->backing_name, strlen(options->backing_name));
}

void image_create(struct image *image, const struct image_options *options)
{
    *image = (struct image){
        .format = QCOW_FORMAT_QCOW2,
        .name = options->name ? options->name : "tiny.qcow2",
        .version = options->version ? options->version : 3,
        .cluster_bits = options->cluster_bits ? options->cluster_bits : 9,
        .guest_size = options->guest_size,
        .has_extended_l2 = (options->incompatible & INCOMPAT_EXTENDED_L2) != 0,
    };
    image->fd = new_file(image->name);
    image->cluster_size = 1ULL << image->cluster_bits;
    uint64_t covered = 1ULL << l2_shift(image);
    image->l1_entries = options->l1_entries;
    if (!image->l1_entries)
        image->l1_entries = (uint32_t)((image->guest_size + covered - 1) / covered);
    image_alloc(image, 2); /* header and refcount table, which readers do not look into */
    image->l1_off = image_alloc(image, (image->l1_entries * 8ULL + image->cluster_size - 1) /
                                           image->cluster_size);
    put_header(image, options);
    put_extensions(image, options);
}

void image_create_raw(struct image *image, const char *name, uint64_t host_size)
{
    *image = (struct image){.format = QCOW_FORMAT_RAW, .name = name, .fd = new_file(name)};
    image_truncate(image, host_size);
}

void image_destroy(struct image *image)
{
    close(image->fd);
    image->fd = -1;
}

struct qcow_file image_file(const struct image *image)
{
    struct qcow_file file = {.fd = fcntl(image->fd, F_DUPFD_CLOEXEC, 0), .format = image->format};
    /* not strdup(), which tests make fail */
    int len = asprintf(&file.name, "%s", image->name);
    assert(file.fd >= 0 && len >= 0);
    (void)len;
    return file;
}

void image_set_l1(const struct image *image, uint64_t idx, uint64_t entry)
{
    image_poke64(image, image->l1_off + idx * 8, entry);
}

uint64_t image_l2_place(struct image *image, uint64_t guest_off)
{
    uint64_t l1_place = image->l1_off + (guest_off >> l2_shift(image)) * 8;
    uint64_t entry = 0;
    ssize_t n = pread(image->fd, &entry, sizeof(entry), (off_t)l1_place);
    assert(n == sizeof(entry));
    (void)n;
    uint64_t l2_off = be64toh(entry) & 0x00fffffffffffe00ULL;
    if (!l2_off) {
        l2_off = image_alloc(image, 1);
        image_poke64(image, l1_place, l2_off | 1ULL << 63);
    }
    uint64_t entry_len = image->has_extended_l2 ? 16 : 8;
    uint64_t idx = (guest_off >> image->cluster_bits) % (image->cluster_size / entry_len);
    return l2_off + idx * entry_len;
}

void image_set_l2(struct image *image, uint64_t guest_off, uint64_t entry)
{
    image_poke64(image, image_l2_place(image, guest_off), entry);
}

void image_set_l2_extended(struct image *image, uint64_t guest_off, uint64_t entry, uint64_t bitmap)
{
    uint64_t place = image_l2_place(image, guest_off);
    image_poke64(image, place, entry);
    image_poke64(image, place + 8, bitmap);
}

void image_fill(void *buf, size_t len, uint32_t seed)
{
    uint8_t *at = buf;
    for (size_t i = 0; i < len; i++) {
        uint32_t word = seed * 0x9e3779b1U + (uint32_t)(i / 16) * 0x85ebca6bU;
        at[i] = (uint8_t)((word >> (i % 4 * 8)) | 1);
    }
}

uint64_t image_write(struct image *image, uint64_t guest_off, uint32_t seed)
{
    uint8_t *buf = malloc(image->cluster_size);
    assert(buf);
    image_fill(buf, image->cluster_size, seed);
    image_l2_place(image, guest_off); /* the table first: neighbours then follow one another */
    uint64_t host_off = image_alloc(image, 1);
    image_poke(image, host_off, buf, image->cluster_size);
    free(buf);
    if (image->has_extended_l2)
        image_set_l2_extended(image, guest_off, host_off | 1ULL << 63, 0xffffffffULL);
    else
        image_set_l2(image, guest_off, host_off | 1ULL << 63);
    return host_off;
}

size_t image_compress(unsigned compression, const void *in, size_t len, void *out, size_t room)
{
    if (compression != 0) {
        size_t n = ZSTD_compress(out, room, in, len, 3);
        assert(!ZSTD_isError(n));
        return n;
    }
    z_stream strm = {0};
    int r = deflateInit2(&strm, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY);
    assert(r == Z_OK);
    strm.next_in = (Bytef *)in;
    strm.avail_in = (uInt)len;
    strm.next_out = out;
    strm.avail_out = (uInt)room;
    r = deflate(&strm, Z_FINISH);
    assert(r == Z_STREAM_END);
    (void)r;
    deflateEnd(&strm);
    return room - strm.avail_out;
}

uint64_t image_compressed_entry(const struct image *image, uint64_t host_off, size_t len)
{
    uint64_t sectors = (host_off % 512 + len + 511) / 512;
    return 1ULL << 62 | (sectors - 1) << (70 - image->cluster_bits) | host_off;
}

uint64_t image_write_compressed(struct image *image, uint64_t guest_off, unsigned compression,
                                uint32_t seed)
{
    size_t room = image->cluster_size + 4096;
    uint8_t *buf = malloc(image->cluster_size), *packed = malloc(room);
    assert(buf && packed);
    image_fill(buf, image->cluster_size, seed);
    size_t len = image_compress(compression, buf, image->cluster_size, packed, room);
    uint64_t host_off = image_alloc(image, (len + image->cluster_size - 1) / image->cluster_size);
    image_poke(image, host_off, packed, len);
    free(buf);
    free(packed);
    uint64_t entry = image_compressed_entry(image, host_off, len);
    if (image->has_extended_l2)
        image_set_l2_extended(image, guest_off, entry, 0);
    else
        image_set_l2(image, guest_off, entry);
    return entry;
}

static void put_be(uint8_t *at, uint64_t value, unsigned len)
{
    while (len-- > 0) {
        at[len] = (uint8_t)value;
        value >>= 8;
    }
}

size_t image_snapshot_entry(const struct image_snapshot *snapshot, uint8_t *buf, size_t room)
{
    size_t id_len = snapshot->id ? strlen(snapshot->id) : 0;
    size_t name_len = snapshot->name ? strlen(snapshot->name) : 0;
    size_t len = SNAP_HEADER_LEN + snapshot->extra_len + id_len + name_len;
    len = (len + 7) / 8 * 8;
    assert(len <= room);
    memset(buf, 0, len);
    put_be(buf + SNAP_L1_OFF, snapshot->l1_off, 8);
    put_be(buf + SNAP_L1_ENTRIES, snapshot->l1_entries, 4);
    put_be(buf + SNAP_ID_LEN, id_len, 2);
    put_be(buf + SNAP_NAME_LEN, name_len, 2);
    put_be(buf + SNAP_DATE_SEC, snapshot->sec, 4);
    put_be(buf + SNAP_DATE_NSEC, snapshot->nsec, 4);
    put_be(buf + SNAP_VM_STATE_LEN, snapshot->vm_state_size, 4);
    put_be(buf + SNAP_EXTRA_LEN, snapshot->extra_len, 4);
    uint8_t *at = buf + SNAP_HEADER_LEN;
    if (snapshot->extra_len >= 8)
        put_be(at, snapshot->vm_state_size_large, 8);
    if (snapshot->extra_len >= 16)
        put_be(at + 8, snapshot->disk_size, 8);
    if (snapshot->extra_len >= 24)
        memset(at + 16, 0xff, 8); /* no instruction count */
    at += snapshot->extra_len;
    if (id_len)
        memcpy(at, snapshot->id, id_len);
    if (name_len)
        memcpy(at + id_len, snapshot->name, name_len);
    return len;
}

size_t image_put_snapshots(const struct image *image, uint64_t host_off,
                           const struct image_snapshot *snapshots, size_t n)
{
    enum { ROOM = 140000 };
    uint8_t *buf = malloc(ROOM);
    assert(buf);
    size_t done = 0;
    for (size_t i = 0; i < n; i++) {
        size_t len = image_snapshot_entry(&snapshots[i], buf, ROOM);
        image_poke(image, host_off + done, buf, len);
        done += len;
    }
    free(buf);
    return done;
}

void image_point_to_snapshots(const struct image *image, uint64_t host_off, uint32_t n)
{
    uint8_t fields[12];
    put_be(fields, n, 4);
    put_be(fields + 4, host_off, 8);
    image_poke(image, HDR_N_SNAPSHOTS, fields, sizeof(fields));
}

uint64_t image_add_snapshots(struct image *image, const struct image_snapshot *snapshots, size_t n)
{
    uint64_t host_off = image->end;
    size_t len = image_put_snapshots(image, host_off, snapshots, n);
    image_alloc(image, (len + image->cluster_size - 1) / image->cluster_size);
    image_point_to_snapshots(image, host_off, (uint32_t)n);
    return host_off;
}

struct qcow_snapshot image_snapshot_view(const struct image *image,
                                         const struct image_snapshot *snapshot)
{
    return (struct qcow_snapshot){
        .id = (char *)(snapshot->id ? snapshot->id : ""),
        .name = (char *)(snapshot->name ? snapshot->name : ""),
        .guest_size = snapshot->extra_len >= 16 ? snapshot->disk_size : image->guest_size,
        .vm_state_size =
            snapshot->extra_len >= 8 ? snapshot->vm_state_size_large : snapshot->vm_state_size,
        .created = {.tv_sec = snapshot->sec, .tv_nsec = snapshot->nsec},
        .l1_off = snapshot->l1_off,
        .l1_entries = snapshot->l1_entries,
    };
}

int image_answer(void *ctx, const struct qcow_ref *ref, struct qcow_file *ret_file,
                 struct error *err)
{
    (void)err;
    const struct image_answers *answers = ctx;
    const struct image *image = NULL;
    if (ref->kind == QCOW_REF_DATA)
        image = answers->data;
    else if (ref->depth < IMAGE_ANSWERS_MAX)
        image = answers->backing[ref->depth];
    if (!image)
        return 1;
    *ret_file = image_file(image);
    return 0;
}

struct qcow_image *image_open(const struct image *image, const struct image_answers *answers,
                              struct qcow_cache *cache, const struct qcow_snapshot *snapshot)
{
    struct image_answers none = {0};
    struct qcow_opener opener = {.open_ref = image_answer,
                                 .ctx = answers ? (void *)answers : &none};
    struct qcow_file file = image_file(image);
    struct qcow_image *opened = NULL;
    struct error err = {0};
    if (qcow_open(&file, &opener, cache, snapshot, &opened, &err) != 0)
        fprintf(stderr, "cannot open: %s\n", err.text);
    assert(opened);
    return opened;
}
