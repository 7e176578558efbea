/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qcow/snapshots.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/bytes.h"
#include "qcow/base/cleanup.h"
#include "qcow/format.h"

int qcow_snapshot_copy(const struct qcow_snapshot *from, struct qcow_snapshot *ret)
{
    struct qcow_snapshot copy = *from;
    copy.id = strdup(from->id);
    copy.name = strdup(from->name);
    if (!copy.id || !copy.name) {
        qcow_snapshot_fini(&copy);
        return -ENOMEM;
    }
    *ret = copy;
    return 0;
}

void qcow_snapshot_fini(struct qcow_snapshot *snapshot)
{
    free(snapshot->id);
    free(snapshot->name);
    *snapshot = (struct qcow_snapshot){0};
}

static void free_all(struct qcow_snapshot *snapshots, size_t n)
{
    for (size_t i = 0; i < n; i++)
        qcow_snapshot_fini(&snapshots[i]);
    free(snapshots);
}

bool qcow_snapshot_is_same(const struct qcow_snapshot *a, const struct qcow_snapshot *b)
{
    return !strcmp(a->id, b->id) && !strcmp(a->name, b->name) && a->guest_size == b->guest_size &&
           a->vm_state_size == b->vm_state_size && a->created.tv_sec == b->created.tv_sec &&
           a->created.tv_nsec == b->created.tv_nsec && a->l1_off == b->l1_off &&
           a->l1_entries == b->l1_entries;
}

/* A longest entry: header, extra data, id and name, padding. */
enum { ENTRY_MAX = SNAP_HEADER_LEN + SNAPSHOT_EXTRA_MAX + 2 * UINT16_MAX + 8 };

/* A stretch of the table in memory, so that short entries do not cost a system call each. */
struct window {
    const struct source *src;
    uint64_t host_off; /* of buf[0] */
    size_t len;
    uint8_t buf[ENTRY_MAX + 65536];
};

/* Makes @len bytes at @host_off available; NULL on failure. */
static const uint8_t *window_get(struct window *w, uint64_t host_off, size_t len, struct error *err)
{
    if (host_off >= w->host_off && host_off + len <= w->host_off + w->len)
        return w->buf + (host_off - w->host_off);
    uint64_t end = w->src->host_size;
    size_t want = host_off < end ? (size_t)min_u64(sizeof(w->buf), end - host_off) : 0;
    if (want < len)
        want = len; /* let the read say what is missing */
    w->len = 0;
    if (source_read(w->src, host_off, w->buf, want, "snapshot table", err) < 0)
        return NULL;
    w->host_off = host_off;
    w->len = want;
    return w->buf;
}

static int parse_entry(const struct source *src, const struct qcow_header *hdr, uint32_t idx,
                       const uint8_t *entry, struct qcow_snapshot *snapshot, struct error *err)
{
    const uint8_t *extra = entry + SNAP_HEADER_LEN;
    uint32_t extra_len = load_be32(entry + SNAP_EXTRA_LEN);
    uint16_t id_len = load_be16(entry + SNAP_ID_LEN);
    uint16_t name_len = load_be16(entry + SNAP_NAME_LEN);
    *snapshot = (struct qcow_snapshot){
        .guest_size = hdr->guest_size, /* version 2 does not record it */
        .vm_state_size = load_be32(entry + SNAP_VM_STATE_LEN),
        .created = {.tv_sec = load_be32(entry + SNAP_DATE_SEC),
                    .tv_nsec = load_be32(entry + SNAP_DATE_NSEC)},
        .l1_off = load_be64(entry + SNAP_L1_OFF),
        .l1_entries = load_be32(entry + SNAP_L1_ENTRIES),
    };
    if (snapshot->created.tv_nsec >= 1000000000)
        snapshot->created.tv_nsec = 0;
    if (extra_len >= SNAP_EXTRA_VM_STATE + 8)
        snapshot->vm_state_size = load_be64(extra + SNAP_EXTRA_VM_STATE);
    if (extra_len >= SNAP_EXTRA_DISK_SIZE + 8)
        snapshot->guest_size = align_down(load_be64(extra + SNAP_EXTRA_DISK_SIZE), SECTOR_SIZE);
    if (snapshot->guest_size > INT64_MAX ||
        header_l1_needed(hdr, snapshot->guest_size) > L1_INDEX_MAX)
        return error_set(err, -EBADMSG,
                         "'%s': snapshot table at %#" PRIx64 ": entry %" PRIu32
                         " has a disk of %" PRIu64 " bytes, too large",
                         src->name, hdr->snapshots_off, idx, snapshot->guest_size);
    /* Cut: they are kept with each node that the kernel knows, so that `ls` would cost memory. */
    snapshot->id =
        strndup((const char *)extra + extra_len, (size_t)min_u64(id_len, SNAPSHOT_ID_MAX));
    snapshot->name = strndup((const char *)extra + extra_len + id_len,
                             (size_t)min_u64(name_len, SNAPSHOT_NAME_MAX));
    if (!snapshot->id || !snapshot->name) {
        qcow_snapshot_fini(snapshot);
        return error_set(err, -ENOMEM, "out of memory");
    }
    return 0;
}

/* The entry at @host_off as a whole; its length without padding in @ret_len. */
static const uint8_t *get_entry(struct window *w, const struct qcow_header *hdr, uint32_t idx,
                                uint64_t host_off, size_t *ret_len, struct error *err)
{
    const uint8_t *entry = window_get(w, host_off, SNAP_HEADER_LEN, err);
    if (!entry)
        return NULL;
    uint32_t extra_len = load_be32(entry + SNAP_EXTRA_LEN);
    if (extra_len > SNAPSHOT_EXTRA_MAX) {
        error_set(err, -EBADMSG,
                  "'%s': snapshot table at %#" PRIx64 ": entry %" PRIu32 " has %" PRIu32
                  " bytes of extra data, more than %d",
                  w->src->name, hdr->snapshots_off, idx, extra_len, SNAPSHOT_EXTRA_MAX);
        return NULL;
    }
    *ret_len = SNAP_HEADER_LEN + extra_len + load_be16(entry + SNAP_ID_LEN) +
               load_be16(entry + SNAP_NAME_LEN);
    return window_get(w, host_off, *ret_len, err);
}

/* Called for each entry; nonzero ends the walk and is returned. Owns @snapshot. */
typedef int visit_fn(void *ctx, struct qcow_snapshot *snapshot, uint64_t entry_off,
                     const uint8_t *entry, size_t entry_len);

static int walk(const struct source *src, const struct qcow_header *hdr, visit_fn *visit, void *ctx,
                struct error *err)
{
    if (hdr->n_snapshots == 0)
        return 0;
    auto_free struct window *w = malloc(sizeof(*w));
    if (!w)
        return error_set(err, -ENOMEM, "out of memory");
    w->src = src;
    w->host_off = 0;
    w->len = 0;
    uint64_t at = hdr->snapshots_off;
    struct error local = {0};
    for (uint32_t i = 0; i < hdr->n_snapshots; i++) {
        at = align_up(at, 8);
        size_t len;
        const uint8_t *entry = get_entry(w, hdr, i, at, &len, &local);
        if (!entry)
            return error_set(err, local.code, "%s", local.text);
        struct qcow_snapshot snapshot;
        int r = parse_entry(src, hdr, i, entry, &snapshot, err);
        if (r < 0)
            return r;
        r = visit(ctx, &snapshot, at, entry, len);
        if (r != 0)
            return r < 0 ? error_set(err, r, "out of memory") : r;
        at += len;
        if (at - hdr->snapshots_off > SNAPSHOT_TABLE_BYTES_MAX)
            return error_set(err, -EBADMSG,
                             "'%s': snapshot table at %#" PRIx64 " is longer than %llu bytes",
                             src->name, hdr->snapshots_off, SNAPSHOT_TABLE_BYTES_MAX);
    }
    return 0;
}

struct collected {
    struct qcow_snapshot *items;
    size_t n, room;
};

static int collect(void *ctx, struct qcow_snapshot *snapshot, uint64_t entry_off,
                   const uint8_t *entry, size_t entry_len)
{
    (void)entry_off, (void)entry, (void)entry_len;
    struct collected *list = ctx;
    if (list->n == list->room) {
        /* grown as entries turn up: a header may claim 65536 of them */
        size_t room = list->room ? list->room * 2 : 16;
        struct qcow_snapshot *items = reallocarray(list->items, room, sizeof(*items));
        if (!items) {
            qcow_snapshot_fini(snapshot);
            return -ENOMEM;
        }
        list->items = items;
        list->room = room;
    }
    list->items[list->n++] = *snapshot;
    return 0;
}

int snapshots_read(const struct source *src, const struct qcow_header *hdr,
                   struct qcow_snapshot **ret_snapshots, size_t *ret_n, struct error *err)
{
    struct collected list = {0};
    int r = walk(src, hdr, collect, &list, err);
    if (r < 0) {
        free_all(list.items, list.n);
        return r;
    }
    *ret_snapshots = list.items;
    *ret_n = list.n;
    return 0;
}

struct search {
    const struct qcow_snapshot *wanted;
    uint64_t entry_off;
    uint8_t *entry; /* a copy */
    size_t entry_len;
};

static int search_visit(void *ctx, struct qcow_snapshot *snapshot, uint64_t entry_off,
                        const uint8_t *entry, size_t entry_len)
{
    struct search *search = ctx;
    bool found = qcow_snapshot_is_same(snapshot, search->wanted);
    qcow_snapshot_fini(snapshot);
    if (!found)
        return 0;
    search->entry = malloc(entry_len);
    if (!search->entry)
        return -ENOMEM;
    memcpy(search->entry, entry, entry_len);
    search->entry_off = entry_off;
    search->entry_len = entry_len;
    return 1;
}

/* The two header fields that QEMU writes together when the table changes. */
struct table_place {
    uint32_t n_snapshots;
    uint64_t table_off;
};

static bool is_same_place(const struct table_place *a, const struct table_place *b)
{
    return a->n_snapshots == b->n_snapshots && a->table_off == b->table_off;
}

static int read_place(const struct source *src, struct table_place *ret, struct error *err)
{
    uint8_t raw[12];
    int r = source_read(src, HDR_N_SNAPSHOTS, raw, sizeof(raw), "header", err);
    if (r < 0)
        return r;
    ret->n_snapshots = load_be32(raw);
    ret->table_off = load_be64(raw + 4);
    return 0;
}

/* A table that moves faster than it can be read this often is not waited for any longer. */
enum { TABLE_TRIES = 16 };

/*
 * One look at the table as it is now: 1 found, 0 not there. Counts only if *ret_is_steady: the
 * header still points to that table afterwards, since QEMU frees the old one for reuse.
 */
static int look(const struct source *src, struct search *search, struct table_place *ret_place,
                bool *ret_is_steady, struct error *err)
{
    /* the file may have grown since the image was opened, and the table be at its new end */
    struct source now;
    int r = source_init(&now, src->fd, src->name, src->id, err);
    if (r < 0)
        return r;
    *ret_is_steady = false;
    struct qcow_header hdr;
    int found = header_read(&now, &hdr, err);
    if (found < 0) {
        *ret_is_steady = true;
        return found;
    }
    *ret_place = (struct table_place){hdr.n_snapshots, hdr.snapshots_off};
    found = walk(&now, &hdr, search_visit, search, err);
    header_fini(&hdr);
    struct table_place after;
    r = read_place(src, &after, err);
    if (r < 0)
        return r;
    *ret_is_steady = is_same_place(ret_place, &after);
    return found;
}

/*
 * Looks for @search->wanted until the answer can be relied on: 1 found, 0 not there. "Not there"
 * or damage must be seen twice in a row, for a table that was freed, overwritten and made again
 * within one look seems to stand still.
 */
static int find_entry(const struct source *src, struct search *search,
                      struct table_place *ret_place, struct error *err)
{
    int n_negative = 0;
    for (int i = 0; i < TABLE_TRIES; i++) {
        bool is_steady = false;
        int r = look(src, search, ret_place, &is_steady, err);
        if (is_steady && r == 1)
            return 1;
        free(take_ptr(search->entry));
        n_negative = is_steady ? n_negative + 1 : 0;
        if (n_negative == 2 || r == -EIO || r == -ENOMEM)
            return r;
    }
    return error_set(err, -EIO, "'%s': the snapshot table keeps moving", src->name);
}

static int say_gone(const struct source *src, const struct qcow_snapshot *snapshot,
                    struct error *err)
{
    return error_set(err, -ESTALE, "'%s': snapshot '%s' (id %s) is gone", src->name, snapshot->name,
                     snapshot->id);
}

int snapshot_watch_init(struct snapshot_watch *watch, const struct source *src,
                        const struct qcow_snapshot *snapshot, struct error *err)
{
    struct search search = {.wanted = snapshot};
    struct table_place place;
    int r = find_entry(src, &search, &place, err);
    if (r < 0)
        return r;
    if (r == 0)
        return say_gone(src, snapshot, err);
    *watch = (struct snapshot_watch){
        .entry = search.entry,
        .entry_len = search.entry_len,
        .table_off = place.table_off,
        .n_snapshots = place.n_snapshots,
        .entry_off = search.entry_off,
    };
    if (qcow_snapshot_copy(snapshot, &watch->snapshot) < 0) {
        free(search.entry);
        return error_set(err, -ENOMEM, "out of memory");
    }
    mutex_init(&watch->lock);
    return 0;
}

void snapshot_watch_fini(struct snapshot_watch *watch)
{
    qcow_snapshot_fini(&watch->snapshot);
    free(watch->entry);
    mutex_fini(&watch->lock);
}

/* 1 if the entry stands where it was seen last, under the same table. */
static int is_where_it_was(struct snapshot_watch *watch, const struct source *src,
                           struct error *err)
{
    struct table_place now;
    int r = read_place(src, &now, err);
    if (r < 0)
        return r;
    mutex_lock(&watch->lock);
    bool same = now.table_off == watch->table_off && now.n_snapshots == watch->n_snapshots;
    uint64_t entry_off = watch->entry_off;
    mutex_unlock(&watch->lock);
    if (!same)
        return 0;
    uint8_t small[512];
    bool is_large = watch->entry_len > sizeof(small);
    auto_free uint8_t *large = is_large ? malloc(watch->entry_len) : NULL;
    uint8_t *buf = is_large ? large : small;
    if (!buf)
        return error_set(err, -ENOMEM, "out of memory");
    r = source_read(src, entry_off, buf, watch->entry_len, "snapshot table", err);
    if (r < 0)
        return r == -EBADMSG ? 0 : r;
    return memcmp(buf, watch->entry, watch->entry_len) == 0;
}

int snapshot_watch_check(struct snapshot_watch *watch, const struct source *src, struct error *err)
{
    int r = is_where_it_was(watch, src, err);
    if (r != 0)
        return r < 0 ? r : 0;
    struct search search = {.wanted = &watch->snapshot};
    struct table_place place;
    r = find_entry(src, &search, &place, err);
    if (r < 0)
        return r;
    if (r == 0)
        return say_gone(src, &watch->snapshot, err);
    free(search.entry);
    mutex_lock(&watch->lock);
    watch->table_off = place.table_off;
    watch->n_snapshots = place.n_snapshots;
    watch->entry_off = search.entry_off;
    mutex_unlock(&watch->lock);
    return 0;
}
