/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/external.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/change.h"
#include "fs/host/external_xml.h"
#include "fs/host/fault.h"
#include "fs/host/record.h"
#include "fs/log.h"
#include "qcow/base/cleanup.h"

struct listing {
    virDomainSnapshotPtr *snapshots;
    size_t n;
};

static void cleanup_listing(struct listing *listing)
{
    for (size_t i = 0; i < listing->n; i++)
        virDomainSnapshotFree(listing->snapshots[i]);
    free(listing->snapshots);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(virDomainSnapshotGetName(*(const virDomainSnapshotPtr *)a),
                  virDomainSnapshotGetName(*(const virDomainSnapshotPtr *)b));
}

static int list_snapshots(virDomainPtr dom, struct listing *ret_listing, struct error *err)
{
    int n =
        virDomainListAllSnapshots(dom, &ret_listing->snapshots, VIR_DOMAIN_SNAPSHOT_LIST_EXTERNAL);
    if (n < 0)
        return fault_set(err, "cannot list the snapshots of a domain");
    ret_listing->n = (size_t)n;
    if (n > 1)
        qsort(ret_listing->snapshots, ret_listing->n, sizeof(virDomainSnapshotPtr), compare_names);
    return 0;
}

static bool are_names_same(const struct domain *before, const struct listing *listing)
{
    if (before->n_snapshots != listing->n)
        return false;
    for (size_t i = 0; i < listing->n; i++)
        if (strcmp(before->snapshots[i].name, virDomainSnapshotGetName(listing->snapshots[i])) != 0)
            return false;
    return true;
}

static size_t count_ours(const struct disk *disk)
{
    size_t n = 0;
    while (n < disk->n_layers && change_is_overlay(disk->layers[n].path))
        n++;
    return n;
}

static bool is_chain_changed(const struct disk *a, const struct disk *b)
{
    size_t i = count_ours(a), j = count_ours(b);
    if (strcmp(a->target, b->target) != 0 || a->n_layers - i != b->n_layers - j)
        return true;
    for (; i < a->n_layers; i++, j++)
        if (strcmp(a->layers[i].path, b->layers[j].path) != 0)
            return true;
    return false;
}

bool external_are_chains_changed(const struct domain *before, const struct domain *domain)
{
    if (before->n_disks != domain->n_disks)
        return true;
    for (size_t i = 0; i < domain->n_disks; i++)
        if (is_chain_changed(&before->disks[i], &domain->disks[i]))
            return true;
    return false;
}

/*
 * What libvirt does not give is left out, so that it is asked for again with the next record. What
 * is not understood stays without disks: it would not be understood then either.
 */
static int read_snapshot(virDomainPtr dom, virDomainSnapshotPtr from, struct domain *domain)
{
    const char *name = virDomainSnapshotGetName(from);
    struct error err = {0};
    auto_free char *xml = virDomainSnapshotGetXMLDesc(from, 0);
    if (!xml) {
        fault_set(&err, "cannot read snapshot '%s' of domain '%s'", name, domain->name);
        log_debug("%s", err.text);
        return 0;
    }
    struct host_snapshot *to = &domain->snapshots[domain->n_snapshots++];
    to->name = strdup(name);
    /* lint: gcc-analyzer/malloc-leak: kept at an index that gcc loses sight of */
    struct xml_volumes volumes = record_volumes(virDomainGetConnect(dom));
    int r = to->name ? external_xml_read(xml, &volumes, to, &err) : -ENOMEM;
    if (r < 0)
        log_debug("snapshot '%s' of domain '%s': %s", name, domain->name, err.text);
    return r == -ENOMEM ? r : 0;
}

static int read_listed(virDomainPtr dom, const struct listing *listing, struct domain *domain)
{
    domain->snapshots = calloc(listing->n + 1, sizeof(*domain->snapshots));
    if (!domain->snapshots)
        return -ENOMEM;
    int r = 0;
    for (size_t i = 0; i < listing->n && r == 0; i++)
        r = read_snapshot(dom, listing->snapshots[i], domain);
    return r;
}

static int keep(const struct domain *before, struct domain *domain)
{
    return domain_copy_snapshots(domain, before->snapshots, before->n_snapshots);
}

int external_read_all(virDomainPtr dom, const struct domain *before, struct domain *domain,
                      struct error *err)
{
    __attribute__((cleanup(cleanup_listing))) struct listing listing = {0};
    struct error why = {0};
    int r = list_snapshots(dom, &listing, &why);
    if (r == -ESTALE || r == -ENOMEM)
        return error_set(err, r, "%s", why.text);
    if (r < 0 && r != -EOPNOTSUPP)
        log_debug("domain '%s': %s", domain->name, why.text);
    if (r < 0)
        r = before ? keep(before, domain) : 0;
    /*
     * A snapshot's XML holds that of a whole domain, and there may be hundreds of them. One made
     * anew under an old name has made a chain longer.
     */
    else if (before && are_names_same(before, &listing) &&
             !external_are_chains_changed(before, domain))
        r = keep(before, domain);
    else
        r = read_listed(dom, &listing, domain);
    return r < 0 ? error_set(err, r, "out of memory") : 0;
}
