/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/backup_xml.h"

#include <errno.h>
#include <libxml/tree.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/xml_internal.h"
#include "qcow/base/cleanup.h"

/* With all three, or libvirt 9.0 refuses it: the type, the format and the scratch file. */
static bool add_exported(xmlNode *element, const struct change_disk *disk)
{
    return xml_add_attr(element, "backup", "yes") && xml_add_attr(element, "type", "file") &&
           xml_add_attr(element, "exportname", disk->target) &&
           xml_add_attr(xml_add_element(element, "driver"), "type", "qcow2") &&
           xml_add_attr(xml_add_element(element, "scratch"), "file", disk->file);
}

static int add_disks(xmlNode *disks, const xmlDoc *domain, const struct change *change,
                     struct error *err)
{
    size_t n_exported = 0;
    for (const xmlNode *disk = xml_first_disk(domain); disk; disk = xml_next(disk)) {
        auto_free char *target = NULL;
        int r = xml_disk_target(disk, &target, err);
        if (r < 0)
            return r;
        const struct change_disk *exported = change_find_disk(change, target);
        xmlNode *element = xml_add_element(disks, "disk");
        if (!xml_add_attr(element, "name", target) ||
            !(exported ? add_exported(element, exported) : xml_add_attr(element, "backup", "no")))
            return error_set(err, -ENOMEM, "out of memory");
        n_exported += exported != NULL;
    }
    if (n_exported == change->n_disks)
        return 0;
    return error_set(err, -EBADMSG, "%zu of %zu disks are not there any more",
                     change->n_disks - n_exported, change->n_disks);
}

int backup_xml_build(const char *domain_xml, const struct change *change, char **ret_xml,
                     struct error *err)
{
    auto_doc xmlDoc *domain = NULL;
    int r = xml_open(domain_xml, "domain", &domain, err);
    if (r < 0)
        return r;
    auto_doc xmlDoc *doc = xmlNewDoc((const xmlChar *)"1.0");
    xmlNode *root = doc ? xmlNewNode(NULL, (const xmlChar *)"domainbackup") : NULL;
    if (!root)
        return error_set(err, -ENOMEM, "out of memory");
    xmlDocSetRootElement(doc, root);
    xmlNode *server = xml_add_element(root, "server");
    xmlNode *disks = xml_add_element(root, "disks");
    if (!xml_add_attr(root, "mode", "pull") || !xml_add_attr(server, "transport", "unix") ||
        !xml_add_attr(server, "socket", change->socket) || !disks)
        return error_set(err, -ENOMEM, "out of memory");
    r = add_disks(disks, domain, change, err);
    return r < 0 ? r : xml_dump(doc, ret_xml, err);
}

int backup_xml_find_socket(const char *backup_xml, char **ret_socket, struct error *err)
{
    auto_doc xmlDoc *doc = NULL;
    int r = xml_open(backup_xml, "domainbackup", &doc, err);
    if (r < 0)
        return r;
    *ret_socket = NULL;
    const xmlNode *server = xml_child(xmlDocGetRootElement(doc), "server");
    return server ? xml_attr(server, "socket", ret_socket, err) : 0;
}
