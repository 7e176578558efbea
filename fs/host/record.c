/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/record.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/capacity.h"
#include "fs/host/external.h"
#include "fs/host/fault.h"
#include "fs/host/overlay_xml.h"
#include "fs/log.h"
#include "qcow/base/cleanup.h"

static void cleanup_pool(virStoragePoolPtr *pool)
{
    if (*pool)
        virStoragePoolFree(*pool);
}

static void cleanup_volume(virStorageVolPtr *volume)
{
    if (*volume)
        virStorageVolFree(*volume);
}

static void cleanup_domain(struct domain **domain)
{
    domain_unref(*domain);
}

static int find_volume_path(void *ctx, const char *pool_name, const char *volume_name,
                            char **ret_path, struct error *err)
{
    virConnectPtr conn = ctx;
    __attribute__((cleanup(cleanup_pool))) virStoragePoolPtr pool =
        virStoragePoolLookupByName(conn, pool_name);
    if (!pool)
        return fault_set(err, "cannot find storage pool '%s'", pool_name);
    __attribute__((cleanup(cleanup_volume))) virStorageVolPtr volume =
        virStorageVolLookupByName(pool, volume_name);
    if (!volume)
        return fault_set(err, "cannot find volume '%s' of storage pool '%s'", volume_name,
                         pool_name);
    char *path = virStorageVolGetPath(volume);
    if (!path)
        return fault_set(err, "cannot find volume '%s' of storage pool '%s'", volume_name,
                         pool_name);
    *ret_path = path;
    return 0;
}

struct xml_volumes record_volumes(virConnectPtr conn)
{
    return (struct xml_volumes){.find_path = find_volume_path, .ctx = conn};
}

static int read_state(virDomainPtr dom, struct domain *domain, struct error *err)
{
    int state;
    int is_active = virDomainIsActive(dom);
    int is_persistent = virDomainIsPersistent(dom);
    if (is_active < 0 || is_persistent < 0 || virDomainGetState(dom, &state, NULL, 0) < 0)
        return fault_set(err, "cannot read domain '%s'", domain->name);
    if (!is_active)
        domain->state = DOMAIN_SHUTOFF;
    else if (state == VIR_DOMAIN_RUNNING || state == VIR_DOMAIN_BLOCKED)
        domain->state = DOMAIN_RUNNING;
    else
        domain->state = DOMAIN_PAUSED;
    domain->is_persistent = is_persistent;
    /* Drivers without managed save have no such image. */
    domain->has_managed_save = virDomainHasManagedSaveImage(dom, 0) > 0;
    return 0;
}

static int read_xml(virDomainPtr dom, unsigned flags, char **ret_xml, struct error *err)
{
    *ret_xml = virDomainGetXMLDesc(dom, flags);
    return *ret_xml ? 0 : fault_set(err, "cannot read the XML of a domain");
}

static int read_disks(virDomainPtr dom, const char *xml, struct domain *domain, struct error *err)
{
    struct xml_volumes volumes = record_volumes(virDomainGetConnect(dom));
    struct error why = {0};
    int r = xml_read_disks(xml, &volumes, &domain->disks, &domain->n_disks, &why);
    if (r == -ENOMEM)
        return error_set(err, r, "out of memory");
    if (r < 0)
        log_warn("domain '%s': %s; it is shown without disks", domain->name, why.text);
    return 0;
}

/*
 * The image of such a disk cannot be asked. Nothing comes of it if libvirt does not know either; of
 * a guest that does not answer, what was known before counts.
 */
static void read_capacities(virDomainPtr dom, const struct domain *before, struct domain *domain)
{
    for (size_t i = 0; i < domain->n_disks && domain->state != DOMAIN_SHUTOFF; i++) {
        struct disk *disk = &domain->disks[i];
        struct error why = {0};
        if (!disk->is_remote || disk->n_layers > 0)
            continue;
        int r = capacity_read(dom, disk->target, &disk->capacity, &why);
        if (r < 0)
            log_debug("domain '%s': no size of disk '%s': %s", domain->name, disk->target,
                      why.text);
        const struct disk *known = before ? domain_find_disk(before, disk->target) : NULL;
        if (r == -ETIMEDOUT && known && known->is_remote)
            disk->capacity = known->capacity;
    }
}

/*
 * While an instant is there the definition names overlays that are gone afterwards. A backup that
 * reads it just then, beside the disks, wants what was there before and will be again.
 */
static int hide_overlays(const struct domain *before, struct domain *domain, struct error *err)
{
    auto_free char *xml = NULL;
    if (!before || !before->xml)
        return 0;
    int r = overlay_xml_hide_ours(domain->xml, before->xml, &xml, err);
    if (r <= 0)
        return r;
    free(domain->xml);
    domain->xml = take_ptr(xml);
    return 0;
}

/* The disks are those of the running domain, `xml` is what it starts from next time. */
static int read_definition(virDomainPtr dom, const struct domain *before, struct domain *domain,
                           struct error *err)
{
    auto_free char *live = NULL;
    auto_free char *inactive = NULL;
    int r = 0;
    if (domain->state != DOMAIN_SHUTOFF || !domain->is_persistent)
        r = read_xml(dom, 0, &live, err);
    if (r == 0 && domain->is_persistent)
        r = read_xml(dom, VIR_DOMAIN_XML_INACTIVE, &inactive, err);
    if (r == 0)
        r = read_disks(dom, live ? live : inactive, domain, err);
    if (r < 0)
        return r;
    read_capacities(dom, before, domain);
    domain->xml = inactive ? take_ptr(inactive) : take_ptr(live);
    domain->has_manager = xml_has_manager(domain->xml);
    return hide_overlays(before, domain, err);
}

int record_read(virDomainPtr dom, const struct domain *before, struct domain **ret_domain,
                struct error *err)
{
    char id[VIR_UUID_STRING_BUFLEN];
    const char *name = virDomainGetName(dom);
    if (!name || virDomainGetUUIDString(dom, id) < 0)
        return fault_set(err, "cannot read a domain");
    __attribute__((cleanup(cleanup_domain))) struct domain *domain = domain_create(id, name);
    if (!domain)
        return error_set(err, -ENOMEM, "out of memory");
    int r = read_state(dom, domain, err);
    if (r == 0)
        r = read_definition(dom, before, domain, err);
    if (r == 0)
        r = external_read_all(dom, before, domain, err);
    if (r < 0)
        return r;
    *ret_domain = take_ptr(domain);
    return 0;
}
