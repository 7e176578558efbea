/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/external_xml.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/xml_internal.h"
#include "qcow/base/cleanup.h"

static int read_time(const xmlNode *root, struct timespec *ret_time, struct error *err)
{
    xmlNode *element = xml_child(root, "creationTime");
    xmlChar *text = element ? xmlNodeGetContent(element) : NULL;
    if (!text)
        return error_set(err, -EBADMSG, "a snapshot without a time");
    char *end;
    errno = 0;
    long long seconds = strtoll((const char *)text, &end, 10);
    bool is_number = errno == 0 && end != (const char *)text && !*end;
    xmlFree(text);
    if (!is_number)
        return error_set(err, -EBADMSG, "a snapshot whose time is no number");
    *ret_time = (struct timespec){.tv_sec = seconds};
    return 0;
}

/* The file that the guest was given to write to; NULL if the disk was left out or it is remote. */
static int read_overlay(const xmlNode *disk, char **ret_overlay, struct error *err)
{
    auto_free char *how = NULL;
    auto_free char *path = NULL;
    const xmlNode *source = xml_child(disk, "source");
    int r = xml_attr(disk, "snapshot", &how, err);
    if (r < 0 || !how || strcmp(how, "external") != 0 || !source)
        return r;
    r = xml_attr(source, "file", &path, err);
    if (r == 0 && !path)
        r = xml_attr(source, "dev", &path, err);
    if (r == 0 && path && *path == '/')
        *ret_overlay = take_ptr(path);
    return r;
}

static const struct disk *find_disk(const struct disk *disks, size_t n, const char *target)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(disks[i].target, target) == 0)
            return disks[i].n_layers > 0 && !disks[i].unsupported ? &disks[i] : NULL;
    return NULL;
}

static int read_disk(const xmlNode *element, const struct disk *disks, size_t n,
                     struct host_snapshot *snapshot, struct error *err)
{
    auto_free char *target = NULL;
    auto_free char *overlay = NULL;
    int r = xml_attr(element, "name", &target, err);
    if (r == 0)
        r = read_overlay(element, &overlay, err);
    const struct disk *disk = r == 0 && target && overlay ? find_disk(disks, n, target) : NULL;
    if (!disk)
        return r;
    r = host_snapshot_add(snapshot, target, disk->layers[0].path, overlay);
    return r < 0 ? error_set(err, r, "out of memory") : 0;
}

int external_xml_read(const char *xml, const struct xml_volumes *volumes,
                      struct host_snapshot *snapshot, struct error *err)
{
    auto_doc xmlDoc *doc = NULL;
    int r = xml_open(xml, "domainsnapshot", &doc, err);
    if (r < 0)
        return r;
    const xmlNode *root = xmlDocGetRootElement(doc);
    r = read_time(root, &snapshot->created, err);
    if (r < 0)
        return r;
    struct disk *disks = NULL;
    size_t n = 0;
    r = xml_read_disk_elements(xml_child(root, "domain"), volumes, &disks, &n, err);
    const xmlNode *element = xml_child(xml_child(root, "disks"), "disk");
    for (; element && r == 0; element = xml_next(element))
        r = read_disk(element, disks, n, snapshot, err);
    domain_free_disks(disks, n);
    return r;
}
