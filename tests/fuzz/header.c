/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The first cluster of an image as it is: header and extensions. */
#include <string.h>
#include <unistd.h>

#include "qcow/format.h"
#include "qcow/header.h"
#include "tests/fuzz/fuzz.h"

static void check_name(const char *name, size_t len_max)
{
    fuzz_check(!name || (name[0] ? strlen(name) <= len_max : true));
}

/* What the decoder relies on from then on. */
static void check_header(const struct source *src, const struct qcow_header *hdr)
{
    fuzz_check(hdr->version == 2 || hdr->version == 3);
    fuzz_check(hdr->cluster_bits >= CLUSTER_BITS_MIN && hdr->cluster_bits <= CLUSTER_BITS_MAX);
    fuzz_check(hdr->cluster_size == 1U << hdr->cluster_bits);
    fuzz_check(!hdr->has_extended_l2 || hdr->cluster_bits >= CLUSTER_BITS_MIN_EXTENDED);
    fuzz_check(hdr->guest_size <= INT64_MAX && hdr->guest_size % SECTOR_SIZE == 0);
    fuzz_check(hdr->l1_entries <= L1_BYTES_MAX / L1_ENTRY_LEN);
    fuzz_check(hdr->l1_off <= src->host_size &&
               hdr->l1_entries * 8ULL <= src->host_size - hdr->l1_off);
    fuzz_check(hdr->l1_entries >= header_l1_needed(hdr, hdr->guest_size));
    fuzz_check(hdr->n_snapshots <= SNAPSHOTS_MAX);
    fuzz_check(hdr->compression <= COMPRESSION_ZSTD && hdr->crypt_method <= CRYPT_LUKS);
    check_name(hdr->backing_name, BACKING_NAME_MAX);
    check_name(hdr->backing_format, BACKING_FORMAT_MAX);
    check_name(hdr->data_name, hdr->cluster_size);
    fuzz_check(hdr->has_data_file || !hdr->data_name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_input in = {.at = data, .left = len};
    unsigned room_bits = fuzz_u8(&in) % 32; /* how long the file is beyond that */
    int fd = fuzz_file("header", in.at, in.left);
    fuzz_check(room_bits < 9 || ftruncate(fd, (off_t)((1ULL << room_bits) + in.left)) == 0);
    struct source src;
    struct qcow_header hdr;
    struct error err = {0};
    fuzz_check(source_init(&src, fd, "header", 1, &err) == 0);
    int r = header_read(&src, &hdr, &err);
    fuzz_check(r == err.code && (r == 0 || err.text[0]));
    if (r == 0) {
        check_header(&src, &hdr);
        header_fini(&hdr);
    }
    close(fd);
    return 0;
}
