/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What those that read and write libvirt's XML share. Any thread. */
#pragma once

#include <libxml/tree.h>
#include <stdbool.h>

#include "fs/host/xml.h"
#include "qcow/base/error.h"

static inline void xml_cleanup_doc(xmlDoc **doc)
{
    if (*doc)
        xmlFreeDoc(*doc);
}
#define auto_doc __attribute__((cleanup(xml_cleanup_doc)))

/* 0 and the document (caller frees), -EBADMSG if it is not XML with that root element. */
int xml_open(const char *xml, const char *root, xmlDoc **ret_doc, struct error *err);

/* The first child element of that name, or NULL; @parent may be NULL. */
xmlNode *xml_child(const xmlNode *parent, const char *name);
/* The next sibling element of the same name, or NULL. */
xmlNode *xml_next(const xmlNode *node);

/* The attribute (caller frees), NULL if it is absent. 0 or -ENOMEM. */
int xml_attr(const xmlNode *node, const char *name, char **ret_value, struct error *err);

/*
 * xml_read_disks() of a <domain> element, which may lie inside another document. 0 and an array
 * for domain_free_disks(); -EBADMSG; -ENOMEM.
 */
int xml_read_disk_elements(const xmlNode *domain, const struct xml_volumes *volumes,
                           struct disk **ret_disks, size_t *ret_n, struct error *err);

/* The first <disk> of a domain, or NULL. */
xmlNode *xml_first_disk(const xmlDoc *doc);
/* @dev of a disk's <target>: 0, -EBADMSG if there is none, -ENOMEM. */
int xml_disk_target(const xmlNode *disk, char **ret_target, struct error *err);

/*
 * For documents that are made here: a new last child, or an attribute. NULL and false if there is
 * no memory, or if @parent or @node is NULL, so that calls can be nested.
 */
xmlNode *xml_add_element(xmlNode *parent, const char *name);
bool xml_add_attr(xmlNode *node, const char *name, const char *value);
/* The whole document as text (caller frees). 0 or -ENOMEM. */
int xml_dump(xmlDoc *doc, char **ret_xml, struct error *err);
