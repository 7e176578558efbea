/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The qcow2 layout on disk: offsets, masks and limits, nothing else. Numbers on disk are big
 * endian. Spec: docs/interop/qcow2.txt of QEMU 7.2; limits: block/qcow2.h of the same.
 */
#pragma once

#include <stdint.h>

/* "Header" */
#define QCOW_MAGIC 0x514649fbU /* "QFI\xfb" */
enum {
    HDR_MAGIC = 0,
    HDR_VERSION = 4,
    HDR_BACKING_OFF = 8,
    HDR_BACKING_LEN = 16,
    HDR_CLUSTER_BITS = 20,
    HDR_SIZE = 24,
    HDR_CRYPT = 32,
    HDR_L1_ENTRIES = 36,
    HDR_L1_OFF = 40,
    HDR_REFTABLE_OFF = 48,
    HDR_REFTABLE_CLUSTERS = 56,
    HDR_N_SNAPSHOTS = 60,
    HDR_SNAPSHOTS_OFF = 64,
    HDR_V2_LEN = 72,
    HDR_INCOMPATIBLE = 72,
    HDR_COMPATIBLE = 80,
    HDR_AUTOCLEAR = 88,
    HDR_REFCOUNT_ORDER = 96,
    HDR_LENGTH = 100,
    HDR_V3_LEN = 104,
    HDR_COMPRESSION = 104, /* only if the header is longer than this */
};

/* "Header", incompatible_features */
#define INCOMPAT_DIRTY (1ULL << 0)
#define INCOMPAT_CORRUPT (1ULL << 1)
#define INCOMPAT_DATA_FILE (1ULL << 2)
#define INCOMPAT_COMPRESSION (1ULL << 3)
#define INCOMPAT_EXTENDED_L2 (1ULL << 4)
#define INCOMPAT_KNOWN                                                                             \
    (INCOMPAT_DIRTY | INCOMPAT_CORRUPT | INCOMPAT_DATA_FILE | INCOMPAT_COMPRESSION |               \
     INCOMPAT_EXTENDED_L2)

enum { COMPRESSION_ZLIB = 0, COMPRESSION_ZSTD = 1 };
enum { CRYPT_NONE = 0, CRYPT_AES = 1, CRYPT_LUKS = 2 };

/* "Header extensions" */
#define EXT_END 0x00000000U
#define EXT_BACKING_FORMAT 0xe2792acaU
#define EXT_FEATURE_TABLE 0x6803f857U
#define EXT_DATA_FILE 0x44415441U

/* "Feature name table" */
enum { FEATURE_ENTRY_LEN = 48, FEATURE_NAME_OFF = 2, FEATURE_NAME_LEN = 46 };
enum { FEATURE_TYPE_INCOMPATIBLE = 0 };

/* "Cluster mapping" */
#define L1_OFF_MASK 0x00fffffffffffe00ULL
#define L2_OFF_MASK 0x00fffffffffffe00ULL
#define L2_COPIED (1ULL << 63)
#define L2_COMPRESSED (1ULL << 62)
#define L2_ZERO (1ULL << 0)
enum { L1_ENTRY_LEN = 8, L2_ENTRY_LEN = 8, L2_EXTENDED_ENTRY_LEN = 16 };
enum { SUBCLUSTERS = 32 }; /* "Extended L2 Entries" */

/* "Snapshots" */
enum {
    SNAP_L1_OFF = 0,
    SNAP_L1_ENTRIES = 8,
    SNAP_ID_LEN = 12,
    SNAP_NAME_LEN = 14,
    SNAP_DATE_SEC = 16,
    SNAP_DATE_NSEC = 20,
    SNAP_VM_STATE_LEN = 32,
    SNAP_EXTRA_LEN = 36,
    SNAP_HEADER_LEN = 40,
    SNAP_EXTRA_VM_STATE = 0, /* within the extra data */
    SNAP_EXTRA_DISK_SIZE = 8,
};

/* Limits, all of them QEMU's: what it would refuse to open is refused here too. */
enum { CLUSTER_BITS_MIN = 9, CLUSTER_BITS_MAX = 21, CLUSTER_BITS_MIN_EXTENDED = 14 };
enum { REFCOUNT_ORDER_MAX = 6 };
enum { BACKING_NAME_MAX = 1023, BACKING_FORMAT_MAX = 15 };
enum { SNAPSHOTS_MAX = 65536, SNAPSHOT_EXTRA_MAX = 1024 };
/* What QEMU shows of longer ones (QEMUSnapshotInfo); the format has room for 64 KiB each. */
enum { SNAPSHOT_ID_MAX = 127, SNAPSHOT_NAME_MAX = 255 };
#define L1_BYTES_MAX (32ULL << 20)
#define REFTABLE_BYTES_MAX (8ULL << 20)
#define SNAPSHOT_TABLE_BYTES_MAX (64ULL << 20)
#define L1_INDEX_MAX ((uint64_t)INT32_MAX)

/* libvirt's limit of a backing chain (VIR_STORAGE_MAX_CHAIN_DEPTH); QEMU has none. */
enum { CHAIN_DEPTH_MAX = 200 };

/* A guest sector: virtual sizes are whole sectors, as QEMU shows them. */
enum { SECTOR_SIZE = 512 };
