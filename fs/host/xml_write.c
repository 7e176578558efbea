/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "fs/host/xml_internal.h"

xmlNode *xml_add_element(xmlNode *parent, const char *name)
{
    return parent ? xmlNewChild(parent, NULL, (const xmlChar *)name, NULL) : NULL;
}

bool xml_add_attr(xmlNode *node, const char *name, const char *value)
{
    return node && xmlNewProp(node, (const xmlChar *)name, (const xmlChar *)value);
}

int xml_dump(xmlDoc *doc, char **ret_xml, struct error *err)
{
    xmlChar *text = NULL;
    int len = 0;
    xmlDocDumpMemory(doc, &text, &len);
    char *copy = text ? strdup((const char *)text) : NULL;
    xmlFree(text);
    if (!copy)
        return error_set(err, -ENOMEM, "out of memory");
    *ret_xml = copy;
    return 0;
}
