/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/snapshot_xml.h"

#include <errno.h>
#include <libxml/tree.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/xml_internal.h"
#include "qcow/base/cleanup.h"

static int no_memory(struct error *err)
{
    return error_set(err, -ENOMEM, "out of memory");
}

/* ---- what a domain has ---- */

/* 1 if the attribute @name of @node (NULL is fine) is @value, 0 if not, -ENOMEM. */
static int has_value(const xmlNode *node, const char *name, const char *value, struct error *err)
{
    auto_free char *found = NULL;
    int r = node ? xml_attr(node, name, &found, err) : 0;
    if (r < 0)
        return r;
    return found && strcmp(found, value) == 0;
}

int snapshot_xml_check(const char *domain_xml, struct error *err)
{
    auto_doc xmlDoc *doc = NULL;
    int r = xml_open(domain_xml, "domain", &doc, err);
    if (r < 0)
        return r;
    const xmlNode *os = xml_child(xmlDocGetRootElement(doc), "os");
    r = has_value(os, "firmware", "efi", err);
    if (r == 0)
        r = has_value(xml_child(os, "loader"), "type", "pflash", err);
    if (r > 0)
        return error_set(
            err, -EOPNOTSUPP,
            "it has UEFI firmware in flash memory, which internal snapshots leave out");
    return r;
}

/* 1 if a child of @devices called @name has @attr (of @child, if that is given) = @value. */
static int has_device(const xmlNode *devices, const char *name, const char *child, const char *attr,
                      const char *value, struct error *err)
{
    for (const xmlNode *node = xml_child(devices, name); node; node = xml_next(node)) {
        int r = has_value(child ? xml_child(node, child) : node, attr, value, err);
        if (r != 0)
            return r;
    }
    return 0;
}

int snapshot_xml_check_save(const char *domain_xml, struct error *err)
{
    auto_doc xmlDoc *doc = NULL;
    int r = xml_open(domain_xml, "domain", &doc, err);
    if (r < 0)
        return r;
    const xmlNode *devices = xml_child(xmlDocGetRootElement(doc), "devices");
    if (xml_child(devices, "hostdev"))
        r = 1;
    if (r == 0)
        r = has_device(devices, "interface", NULL, "type", "hostdev", err);
    if (r > 0)
        return error_set(err, -EOPNOTSUPP, "it has a device of the host, so it cannot be saved");
    if (r == 0)
        r = has_device(devices, "filesystem", "driver", "type", "virtiofs", err);
    if (r > 0)
        return error_set(err, -EOPNOTSUPP, "it has a virtiofs file system, so it cannot be saved");
    return r;
}

/* ---- drives ---- */

static int is_covered(const xmlNode *disk, struct error *err)
{
    if (!xml_child(disk, "source") || xml_child(disk, "readonly"))
        return 0;
    int r = has_value(disk, "device", "cdrom", err);
    return r < 0 ? r : !r;
}

void snapshot_xml_free_targets(char **targets, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(targets[i]);
    free(targets);
}

int snapshot_xml_targets(const char *domain_xml, char ***ret_targets, size_t *ret_n,
                         struct error *err)
{
    auto_doc xmlDoc *doc = NULL;
    int r = xml_open(domain_xml, "domain", &doc, err);
    if (r < 0)
        return r;
    size_t n_max = 1, n = 0;
    for (const xmlNode *disk = xml_first_disk(doc); disk; disk = xml_next(disk))
        n_max++;
    char **targets = calloc(n_max, sizeof(*targets));
    if (!targets)
        return no_memory(err);
    for (const xmlNode *disk = xml_first_disk(doc); disk && r >= 0; disk = xml_next(disk)) {
        r = is_covered(disk, err);
        if (r > 0)
            r = xml_disk_target(disk, &targets[n], err);
        n += r >= 0 && targets[n];
    }
    if (r < 0) {
        snapshot_xml_free_targets(targets, n);
        return r;
    }
    *ret_targets = targets;
    *ret_n = n;
    return 0;
}

/* ---- <domainsnapshot> ---- */

static xmlNode *add_text(xmlNode *parent, const char *name, const char *text)
{
    /* xmlNewTextChild escapes what xmlNewChild would take for entities. */
    return xmlNewTextChild(parent, NULL, (const xmlChar *)name, (const xmlChar *)text);
}

/* Each disk by name: one may be kept out of snapshots by its definition. */
static bool add_disks(xmlNode *root, const struct change *change)
{
    xmlNode *disks = xml_add_element(root, "disks");
    for (size_t i = 0; i < change->n_disks; i++) {
        xmlNode *disk = xml_add_element(disks, "disk");
        if (!xml_add_attr(disk, "name", change->disks[i].target) ||
            !xml_add_attr(disk, "snapshot", "internal"))
            return false;
    }
    return disks;
}

/* What libvirt wants to be told of a snapshot that it did not make. */
static int add_past(xmlNode *root, const char *domain_xml, struct error *err)
{
    auto_doc xmlDoc *domain = NULL;
    int r = xml_open(domain_xml, "domain", &domain, err);
    if (r < 0)
        return r;
    if (!add_text(root, "state", "shutoff") || !add_text(root, "creationTime", "0"))
        return no_memory(err);
    xmlNode *copy = xmlDocCopyNode(xmlDocGetRootElement(domain), root->doc, 1);
    if (!copy || !xmlAddChild(root, copy)) {
        xmlFreeNode(copy);
        return no_memory(err);
    }
    return 0;
}

int snapshot_xml_build(const struct change *change, const char *domain_xml, char **ret_xml,
                       struct error *err)
{
    auto_doc xmlDoc *doc = xmlNewDoc((const xmlChar *)"1.0");
    xmlNode *root = doc ? xmlNewNode(NULL, (const xmlChar *)"domainsnapshot") : NULL;
    if (!root)
        return no_memory(err);
    xmlDocSetRootElement(doc, root);
    if (!add_text(root, "name", change->mark) ||
        !xml_add_attr(xml_add_element(root, "memory"), "snapshot", "no") ||
        !add_disks(root, change))
        return no_memory(err);
    int r = domain_xml ? add_past(root, domain_xml, err) : 0;
    if (r < 0)
        return r;
    return xml_dump(doc, ret_xml, err);
}
