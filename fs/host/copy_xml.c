/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/copy_xml.h"

#include <errno.h>
#include <libxml/tree.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/xml_internal.h"
#include "qcow/base/cleanup.h"

int copy_xml_build(const char *delta, char **ret_xml, struct error *err)
{
    auto_doc xmlDoc *doc = xmlNewDoc((const xmlChar *)"1.0");
    xmlNode *root = doc ? xmlNewNode(NULL, (const xmlChar *)"disk") : NULL;
    if (root)
        xmlDocSetRootElement(doc, root);
    if (!xml_add_attr(root, "type", "file") ||
        !xml_add_attr(xml_add_element(root, "driver"), "type", "qcow2") ||
        !xml_add_attr(xml_add_element(root, "source"), "file", delta))
        return error_set(err, -ENOMEM, "out of memory");
    return xml_dump(doc, ret_xml, err);
}

/* Of a <mirror>; libvirt notes in `ready` what is being done with it, too. */
static int read_mirror(const xmlNode *mirror, const char *delta, enum copy_xml_state *ret_state,
                       struct error *err)
{
    auto_free char *job = NULL;
    auto_free char *file = NULL;
    auto_free char *ready = NULL;
    int r = xml_attr(mirror, "job", &job, err);
    if (r == 0)
        r = xml_attr(xml_child(mirror, "source"), "file", &file, err);
    if (r == 0)
        r = xml_attr(mirror, "ready", &ready, err);
    if (r < 0)
        return r;
    if (!job || strcmp(job, "copy") != 0 || !file || strcmp(file, delta) != 0)
        *ret_state = COPY_XML_NONE;
    else if (!ready)
        *ret_state = COPY_XML_FILLING;
    else
        *ret_state = strcmp(ready, "yes") == 0 ? COPY_XML_READY : COPY_XML_ENDING;
    return 0;
}

int copy_xml_find(const char *domain_xml, const char *target, const char *delta,
                  enum copy_xml_state *ret_state, struct error *err)
{
    auto_doc xmlDoc *doc = NULL;
    int r = xml_open(domain_xml, "domain", &doc, err);
    if (r < 0)
        return r;
    *ret_state = COPY_XML_NONE;
    for (const xmlNode *disk = xml_first_disk(doc); disk; disk = xml_next(disk)) {
        auto_free char *name = NULL;
        r = xml_disk_target(disk, &name, err);
        if (r < 0)
            return r;
        const xmlNode *mirror = xml_child(disk, "mirror");
        if (strcmp(name, target) == 0)
            return mirror && xml_child(mirror, "source")
                       ? read_mirror(mirror, delta, ret_state, err)
                       : 0;
    }
    return 0;
}
