/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/define_xml.h"

#include <errno.h>
#include <libxml/tree.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/host/xml_internal.h"
#include "qcow/base/cleanup.h"

static int no_memory(struct error *err)
{
    return error_set(err, -ENOMEM, "out of memory");
}

/* The path of a <disk> or <backingStore> that is a file or block device; NULL for others. */
static int read_path(const xmlNode *holder, char **ret_path, struct error *err)
{
    const xmlNode *source = xml_child(holder, "source");
    *ret_path = NULL;
    int r = source ? xml_attr(source, "file", ret_path, err) : 0;
    return r < 0 || *ret_path || !source ? r : xml_attr(source, "dev", ret_path, err);
}

static bool set_attr(xmlNode *node, const char *name, const char *value)
{
    return node && xmlSetProp(node, (const xmlChar *)name, (const xmlChar *)value);
}

static void drop(xmlNode *node)
{
    if (!node)
        return;
    xmlUnlinkNode(node);
    xmlFreeNode(node);
}

static bool is_block(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

/* Nothing is said of what is below: as the change has it. */
static int name_base(xmlNode *disk, const struct change_disk *overlay, struct error *err)
{
    xmlNode *source = xml_child(disk, "source");
    bool is_dev = is_block(overlay->base);
    xmlUnsetProp(source, (const xmlChar *)"file");
    xmlUnsetProp(source, (const xmlChar *)"index");
    bool is_set =
        set_attr(disk, "type", is_dev ? "block" : "file") &&
        set_attr(source, is_dev ? "dev" : "file", overlay->base) &&
        set_attr(xml_child(disk, "driver"), "type", qcow_format_name(overlay->base_format));
    drop(xml_child(disk, "backingStore"));
    return is_set ? 0 : no_memory(err);
}

/* What is kept with the disk though it stands in its <source>: it is not the image's. */
static int keep_policy(const xmlNode *from, xmlNode *to, struct error *err)
{
    auto_free char *policy = NULL;
    int r = xml_attr(from, "startupPolicy", &policy, err);
    if (r < 0 || !policy)
        return r;
    return set_attr(to, "startupPolicy", policy) ? 0 : no_memory(err);
}

/* The layer below takes the place of the overlay. */
static int raise_base(xmlNode *disk, xmlNode *store, const struct change_disk *overlay,
                      struct error *err)
{
    auto_free char *type = NULL;
    auto_free char *path = NULL;
    auto_free char *format = NULL;
    xmlNode *source = xml_child(store, "source"), *old = xml_child(disk, "source");
    const xmlNode *element = xml_child(store, "format");
    int r = xml_attr(store, "type", &type, err);
    if (r == 0)
        r = read_path(store, &path, err);
    if (r == 0 && element)
        r = xml_attr(element, "type", &format, err);
    if (r == 0)
        r = keep_policy(old, source, err);
    if (r < 0)
        return r;
    /* A volume of a pool is named by other words. */
    bool is_volume = type && strcmp(type, "volume") == 0;
    if (!type || !format || (!is_volume && (!path || strcmp(path, overlay->base) != 0)))
        return error_set(err, -EBADMSG, "below overlay '%s' the definition has '%s', not '%s'",
                         overlay->file, path ? path : "nothing known", overlay->base);
    if (!set_attr(disk, "type", type) || !set_attr(xml_child(disk, "driver"), "type", format))
        return no_memory(err);
    xmlUnlinkNode(source);
    xmlReplaceNode(old, source);
    xmlFreeNode(old);
    xmlNode *below = xml_child(store, "backingStore");
    if (below) {
        xmlUnlinkNode(below);
        xmlReplaceNode(store, below);
        xmlFreeNode(store);
    } else {
        drop(store);
    }
    return 0;
}

static bool is_empty_store(const xmlNode *store)
{
    return store && !xmlFirstElementChild((xmlNode *)store);
}

/* 1 if @disk was changed. */
static int restore_disk(xmlNode *disk, const struct change_disk *overlay, bool was_bare,
                        struct error *err)
{
    auto_free char *path = NULL;
    auto_free char *target = NULL;
    int r = read_path(disk, &path, err);
    if (r == 0)
        r = xml_disk_target(disk, &target, err);
    if (r != 0 || !path)
        return r;
    xmlNode *store = xml_child(disk, "backingStore");
    bool is_on_overlay = strcmp(path, overlay->file) == 0;
    bool is_on_base = strcmp(path, overlay->base) == 0 && strcmp(target, overlay->target) == 0;
    if (is_on_overlay && store && !is_empty_store(store))
        r = raise_base(disk, store, overlay, err);
    else if (is_on_overlay)
        r = name_base(disk, overlay, err);
    if (r < 0)
        return r;
    store = xml_child(disk, "backingStore");
    bool is_left_over = was_bare && (is_on_overlay || is_on_base) && store;
    if (is_left_over)
        drop(store);
    return is_on_overlay || is_left_over;
}

int define_xml_restore(const char *xml, const struct change_disk *overlay, bool was_bare,
                       char **ret_xml, struct error *err)
{
    auto_doc xmlDoc *doc = NULL;
    int r = xml_open(xml, "domain", &doc, err);
    if (r < 0)
        return r;
    bool is_changed = false;
    for (xmlNode *disk = xml_first_disk(doc); disk; disk = xml_next(disk)) {
        r = restore_disk(disk, overlay, was_bare, err);
        if (r < 0)
            return r;
        is_changed = is_changed || r > 0;
    }
    if (!is_changed)
        return 0;
    r = xml_dump(doc, ret_xml, err);
    return r < 0 ? r : 1;
}

static int check_source(const xmlNode *disk, const char *target, struct error *err)
{
    const xmlNode *source = xml_child(disk, "source");
    auto_free char *path = NULL;
    int r = read_path(disk, &path, err);
    if (r < 0)
        return r;
    if (!path || xmlFirstElementChild((xmlNode *)source))
        return error_set(err, -EOPNOTSUPP,
                         "the definition says more of the source of disk '%s' than a path, which "
                         "an overlay would lose",
                         target);
    if (!xml_child(disk, "driver") || xml_child(disk, "backingStore"))
        return error_set(err, -EOPNOTSUPP,
                         "the definition of disk '%s' has %s, which an overlay would lose", target,
                         xml_child(disk, "driver") ? "a <backingStore>" : "no <driver>");
    return 0;
}

int define_xml_check_plain(const char *xml, const char *target, struct error *err)
{
    auto_doc xmlDoc *doc = NULL;
    int r = xml_open(xml, "domain", &doc, err);
    if (r < 0)
        return r;
    for (const xmlNode *disk = xml_first_disk(doc); disk; disk = xml_next(disk)) {
        auto_free char *name = NULL;
        r = xml_disk_target(disk, &name, err);
        if (r < 0)
            return r;
        if (strcmp(name, target) == 0)
            return check_source(disk, target, err);
    }
    return error_set(err, -EBADMSG, "no disk with target '%s'", target);
}
