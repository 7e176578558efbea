/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Entries of the journal, which tell root what to delete: as they are, or (first byte '#') as the
 * rest of one behind a checksum that is right. What is believed can be written and read again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/session/journal_internal.h"
#include "fs/state.h"
#include "tests/fuzz/fuzz.h"

static const char source[] = "qemu:///system", mark[] = "virtsnapfs-0123456789abcdef";

static bool is_same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static void check_same(const struct change *a, const struct change *b)
{
    fuzz_check(a->method == b->method && is_same_text(a->domain_id, b->domain_id));
    fuzz_check(is_same_text(a->domain_name, b->domain_name) && is_same_text(a->mark, b->mark));
    fuzz_check(a->is_persistent == b->is_persistent && a->was_paused == b->was_paused);
    fuzz_check(a->is_frozen == b->is_frozen && a->is_halted == b->is_halted);
    fuzz_check(a->is_made == b->is_made && is_same_text(a->socket, b->socket));
    fuzz_check(a->n_disks == b->n_disks);
    for (size_t i = 0; i < a->n_disks; i++) {
        const struct change_disk *x = &a->disks[i], *y = &b->disks[i];
        fuzz_check(is_same_text(x->target, y->target) && is_same_text(x->base, y->base));
        fuzz_check(is_same_text(x->file, y->file) && x->base_format == y->base_format);
        fuzz_check(x->merge == y->merge);
    }
}

/* Nothing is ever deleted that does not carry the mark in its last part. */
static void check_own(const char *path)
{
    if (path)
        fuzz_check(path[0] == '/' && strstr(strrchr(path, '/'), mark));
}

static void check_change(const struct change *change)
{
    struct error err = {0};
    char *text = NULL;
    struct change *again = NULL;
    check_own(change->socket);
    for (size_t i = 0; i < change->n_disks; i++)
        check_own(change->disks[i].file);
    int r = journal_encode(change, source, &text, &err);
    if (r == -EINVAL && strstr(err.text, "longer than"))
        return;
    fuzz_check(r == 0);
    if (journal_decode(text, strlen(text), source, mark, &again, &err) < 0)
        fuzz_fail("what was written cannot be read: %s", err.text);
    check_same(change, again);
    change_free(again);
    free(text);
}

static char *with_checksum(struct fuzz_input *in, size_t *ret_len)
{
    char hash[STATE_HASH_LEN], *text = NULL;
    state_hash(in->at, in->left, hash);
    int head = asprintf(&text, "{\"sha256\": \"%s\",\n%*s", hash, (int)in->left, "");
    fuzz_check(head >= 0);
    *ret_len = (size_t)head;
    if (in->left)
        memcpy(text + head - in->left, in->at, in->left);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_input in = {.at = data, .left = len};
    char *text;
    size_t text_len = len;
    if (len > 0 && data[0] == '#') {
        fuzz_u8(&in);
        text = with_checksum(&in, &text_len);
    } else {
        text = (char *)fuzz_copy(data, len);
    }
    struct change *change = NULL;
    struct error err = {0};
    int r = journal_decode(text, text_len, source, mark, &change, &err);
    fuzz_check(r == err.code && (r == 0 || (r == -EBADMSG && err.text[0])));
    if (r == 0)
        check_change(change);
    change_free(change);
    free(text);
    return 0;
}
