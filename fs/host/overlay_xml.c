/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/overlay_xml.h"

#include <errno.h>
#include <libxml/tree.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/xml_internal.h"
#include "qcow/base/cleanup.h"

static bool add_overlay(xmlNode *disk, const char *overlay)
{
    return xml_add_attr(disk, "snapshot", "external") && xml_add_attr(disk, "type", "file") &&
           xml_add_attr(xml_add_element(disk, "driver"), "type", "qcow2") &&
           xml_add_attr(xml_add_element(disk, "source"), "file", overlay);
}

static int add_disks(xmlNode *disks, const xmlDoc *domain, const struct change *change,
                     struct error *err)
{
    size_t n_found = 0;
    for (const xmlNode *disk = xml_first_disk(domain); disk; disk = xml_next(disk)) {
        auto_free char *name = NULL;
        int r = xml_disk_target(disk, &name, err);
        if (r < 0)
            return r;
        const struct change_disk *frozen = change_find_disk(change, name);
        xmlNode *element = xml_add_element(disks, "disk");
        if (!xml_add_attr(element, "name", name) ||
            !(frozen ? add_overlay(element, frozen->file)
                     : xml_add_attr(element, "snapshot", "no")))
            return error_set(err, -ENOMEM, "out of memory");
        n_found += frozen != NULL;
    }
    if (n_found != change->n_disks)
        return error_set(err, -EBADMSG, "%zu disks are not in the domain's XML any more",
                         change->n_disks - n_found);
    return 0;
}

int overlay_xml_build(const char *domain_xml, const struct change *change, char **ret_xml,
                      struct error *err)
{
    auto_doc xmlDoc *domain = NULL;
    int r = xml_open(domain_xml, "domain", &domain, err);
    if (r < 0)
        return r;
    auto_doc xmlDoc *doc = xmlNewDoc((const xmlChar *)"1.0");
    xmlNode *root = doc ? xmlNewNode(NULL, (const xmlChar *)"domainsnapshot") : NULL;
    if (!root)
        return error_set(err, -ENOMEM, "out of memory");
    xmlDocSetRootElement(doc, root);
    /* By this name libvirt calls what it puts over a disk that comes to the domain meanwhile. */
    auto_free char *name = NULL;
    if (asprintf(&name, "%s.overlay", change->mark) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    /* xmlNewTextChild escapes what xmlNewChild would take for entities. */
    xmlNode *disks = xmlNewTextChild(root, NULL, (const xmlChar *)"name", (const xmlChar *)name)
                         ? xml_add_element(root, "disks")
                         : NULL;
    if (!disks)
        return error_set(err, -ENOMEM, "out of memory");
    r = add_disks(disks, domain, change, err);
    return r < 0 ? r : xml_dump(doc, ret_xml, err);
}

static int find_disk(const xmlDoc *domain, const char *target, const xmlNode **ret_disk,
                     struct error *err)
{
    for (const xmlNode *disk = xml_first_disk(domain); disk; disk = xml_next(disk)) {
        auto_free char *name = NULL;
        int r = xml_disk_target(disk, &name, err);
        if (r < 0)
            return r;
        if (strcmp(name, target) == 0) {
            *ret_disk = disk;
            return 0;
        }
    }
    return error_set(err, -EBADMSG, "no disk with target '%s'", target);
}

/* Does a <mirror> write to @path? */
static int is_mirror_into(const xmlNode *mirror, const char *path, bool *ret_is, struct error *err)
{
    const xmlNode *source = xml_child(mirror, "source");
    auto_free char *file = NULL;
    auto_free char *dev = NULL;
    int r = source ? xml_attr(source, "file", &file, err) : 0;
    if (r == 0 && source)
        r = xml_attr(source, "dev", &dev, err);
    *ret_is = (file && strcmp(file, path) == 0) || (dev && strcmp(dev, path) == 0);
    return r;
}

int overlay_xml_find_job(const char *domain_xml, const char *target, const char *base,
                         enum overlay_xml_job *ret_job, struct error *err)
{
    auto_doc xmlDoc *domain = NULL;
    const xmlNode *disk = NULL;
    int r = xml_open(domain_xml, "domain", &domain, err);
    if (r == 0)
        r = find_disk(domain, target, &disk, err);
    if (r < 0)
        return r;
    const xmlNode *mirror = xml_child(disk, "mirror");
    if (!mirror) {
        *ret_job = OVERLAY_XML_NO_JOB;
        return 0;
    }
    auto_free char *job = NULL;
    auto_free char *ready = NULL;
    r = xml_attr(mirror, "job", &job, err);
    if (r == 0)
        r = xml_attr(mirror, "ready", &ready, err);
    bool is_ours = false;
    if (r == 0)
        r = is_mirror_into(mirror, base, &is_ours, err);
    if (r < 0)
        return r;
    if (!is_ours || !job || strcmp(job, "active-commit") != 0)
        *ret_job = OVERLAY_XML_OTHER_JOB;
    else if (!ready)
        *ret_job = OVERLAY_XML_COMMIT;
    else
        *ret_job = strcmp(ready, "yes") == 0 ? OVERLAY_XML_COMMIT_READY : OVERLAY_XML_COMMIT_ENDING;
    return 0;
}

int overlay_xml_is_readonly(const char *domain_xml, const char *target, bool *ret_is_readonly,
                            struct error *err)
{
    auto_doc xmlDoc *domain = NULL;
    const xmlNode *disk = NULL;
    int r = xml_open(domain_xml, "domain", &domain, err);
    if (r == 0)
        r = find_disk(domain, target, &disk, err);
    if (r == 0)
        *ret_is_readonly = xml_child(disk, "readonly") != NULL;
    return r;
}

static bool is_disk_on_ours(const xmlNode *disk)
{
    const xmlNode *source = xml_child(disk, "source");
    auto_free char *file = NULL;
    struct error why = {0};
    return source && xml_attr(source, "file", &file, &why) == 0 && file && change_is_overlay(file);
}

/* The disk of that target in @doc, if it is not on an overlay of ours. */
static xmlNode *find_lasting_disk(const xmlDoc *doc, const char *target)
{
    for (xmlNode *disk = xml_first_disk(doc); disk; disk = xml_next(disk)) {
        auto_free char *name = NULL;
        struct error why = {0};
        if (xml_disk_target(disk, &name, &why) == 0 && strcmp(name, target) == 0)
            return is_disk_on_ours(disk) ? NULL : disk;
    }
    return NULL;
}

/* Puts the disk of @before in place of @disk: 1, or 0 if there is none. */
static int put_back_disk(xmlDoc *doc, xmlNode *disk, const xmlDoc *before, struct error *err)
{
    auto_free char *target = NULL;
    int r = xml_disk_target(disk, &target, err);
    const xmlNode *lasting = r == 0 ? find_lasting_disk(before, target) : NULL;
    if (!lasting)
        return r;
    xmlNode *copy = xmlDocCopyNode((xmlNode *)lasting, doc, 1);
    if (!copy)
        return error_set(err, -ENOMEM, "out of memory");
    xmlFreeNode(xmlReplaceNode(disk, copy));
    return 1;
}

static int put_back_disks(xmlDoc *doc, const xmlDoc *before, struct error *err)
{
    bool is_changed = false;
    for (xmlNode *disk = xml_first_disk(doc), *next; disk; disk = next) {
        next = xml_next(disk);
        int r = is_disk_on_ours(disk) ? put_back_disk(doc, disk, before, err) : 0;
        if (r < 0)
            return r;
        is_changed = is_changed || r > 0;
    }
    return is_changed;
}

/* libvirt's own text where nothing but our overlays made a difference: its form stays the same. */
static int dump_as_before(xmlDoc *doc, xmlDoc *before, const char *before_xml, char **ret_xml,
                          struct error *err)
{
    auto_free char *text = NULL;
    auto_free char *text_before = NULL;
    int r = xml_dump(doc, &text, err);
    if (r == 0)
        r = xml_dump(before, &text_before, err);
    if (r < 0)
        return r;
    /* lint: gcc-analyzer/null-argument: xml_dump() has set both */
    *ret_xml = strcmp(text, text_before) == 0 ? strdup(before_xml) : take_ptr(text);
    return *ret_xml ? 1 : error_set(err, -ENOMEM, "out of memory");
}

int overlay_xml_hide_ours(const char *domain_xml, const char *before_xml, char **ret_xml,
                          struct error *err)
{
    auto_doc xmlDoc *doc = NULL;
    auto_doc xmlDoc *before = NULL;
    int r = xml_open(domain_xml, "domain", &doc, err);
    if (r == 0)
        r = xml_open(before_xml, "domain", &before, err);
    if (r == 0)
        r = put_back_disks(doc, before, err);
    return r <= 0 ? r : dump_as_before(doc, before, before_xml, ret_xml, err);
}

bool overlay_xml_find_user(const char *domain_xml, uid_t *ret_uid, gid_t *ret_gid)
{
    auto_doc xmlDoc *domain = NULL;
    struct error why = {0};
    if (xml_open(domain_xml, "domain", &domain, &why) < 0)
        return false;
    const xmlNode *seclabel = xml_child(xmlDocGetRootElement(domain), "seclabel");
    for (; seclabel; seclabel = xml_next(seclabel)) {
        auto_free char *model = NULL;
        const xmlNode *label = xml_child(seclabel, "label");
        if (!label || xml_attr(seclabel, "model", &model, &why) < 0 || !model ||
            strcmp(model, "dac") != 0)
            continue;
        xmlChar *text = xmlNodeGetContent(label);
        unsigned uid, gid;
        /* lint: clang-tidy/cert-err34-c: libvirt writes no user id that does not fit */
        bool is_read = text && sscanf((const char *)text, "+%u:+%u", &uid, &gid) == 2;
        xmlFree(text);
        if (is_read) {
            *ret_uid = uid;
            *ret_gid = gid;
        }
        return is_read;
    }
    return false;
}
