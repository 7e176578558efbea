/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/session/nbd_known.h"

#include <stdlib.h>

void nbd_known_init(struct nbd_known *known)
{
    mutex_init(&known->lock);
    mutex_lock(&known->lock);
    known->list = (struct nbd_run_list){0};
    mutex_unlock(&known->lock);
}

void nbd_known_fini(struct nbd_known *known)
{
    nbd_known_replace(known, &(struct nbd_run_list){0});
    mutex_fini(&known->lock);
}

static bool find_locked(const struct nbd_run_list *list, uint64_t host_off, struct nbd_run *ret_run)
{
    size_t low = 0, high = host_off >= list->begin ? list->n : 0;
    size_t end = high;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (list->runs[mid].end <= host_off)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == end)
        return false;
    *ret_run = list->runs[low];
    return true;
}

bool nbd_known_find(struct nbd_known *known, uint64_t host_off, struct nbd_run *ret_run)
{
    mutex_lock(&known->lock);
    bool is_known = find_locked(&known->list, host_off, ret_run);
    mutex_unlock(&known->lock);
    return is_known;
}

void nbd_known_replace(struct nbd_known *known, struct nbd_run_list *list)
{
    mutex_lock(&known->lock);
    struct nbd_run *before = known->list.runs;
    known->list = *list;
    mutex_unlock(&known->lock);
    *list = (struct nbd_run_list){0};
    free(before);
}
