/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/xml.h"

#include <errno.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/xml_internal.h"
#include "qcow/base/cleanup.h"

enum {
    XML_LEN_MAX = 8 << 20, /* bytes; libvirt sends strings of at most 4 MiB */
    LAYERS_MAX = 256,      /* of one disk; libvirt follows 200 */
};

static int no_memory(struct error *err)
{
    return error_set(err, -ENOMEM, "out of memory");
}

int xml_open(const char *xml, const char *root, xmlDoc **ret_doc, struct error *err)
{
    size_t len = strnlen(xml, XML_LEN_MAX + 1);
    if (len > XML_LEN_MAX)
        return error_set(err, -EBADMSG, "XML of more than %d bytes", XML_LEN_MAX);
    auto_doc xmlDoc *doc = xmlReadMemory(xml, (int)len, NULL, NULL,
                                         XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    if (!doc)
        return error_set(err, -EBADMSG, "malformed XML");
    /* Only a document type can define entities; libvirt's documents have none. */
    if (xmlGetIntSubset(doc))
        return error_set(err, -EBADMSG, "XML with a document type");
    const xmlNode *node = xmlDocGetRootElement(doc);
    if (!node || strcmp((const char *)node->name, root) != 0)
        return error_set(err, -EBADMSG, "XML whose root element is not <%s>", root);
    *ret_doc = take_ptr(doc);
    return 0;
}

static xmlNode *find_element(xmlNode *node, const xmlChar *name)
{
    for (; node; node = node->next)
        if (node->type == XML_ELEMENT_NODE && xmlStrEqual(node->name, name))
            return node;
    return NULL;
}

xmlNode *xml_child(const xmlNode *parent, const char *name)
{
    return parent ? find_element(parent->children, (const xmlChar *)name) : NULL;
}

xmlNode *xml_next(const xmlNode *node)
{
    return find_element(node->next, node->name);
}

int xml_attr(const xmlNode *node, const char *name, char **ret_value, struct error *err)
{
    *ret_value = NULL;
    if (!xmlHasProp(node, (const xmlChar *)name))
        return 0;
    xmlChar *value = xmlGetProp(node, (const xmlChar *)name);
    *ret_value = value ? strdup((const char *)value) : NULL;
    xmlFree(value);
    return *ret_value ? 0 : no_memory(err);
}

xmlNode *xml_first_disk(const xmlDoc *doc)
{
    return xml_child(xml_child(xmlDocGetRootElement(doc), "devices"), "disk");
}

int xml_disk_target(const xmlNode *disk, char **ret_target, struct error *err)
{
    const xmlNode *target = xml_child(disk, "target");
    auto_free char *dev = NULL;
    int r = target ? xml_attr(target, "dev", &dev, err) : 0;
    if (r < 0)
        return r;
    if (!dev || !*dev)
        return error_set(err, -EBADMSG, "a disk without a target");
    *ret_target = take_ptr(dev);
    return 0;
}

/* What nobody can serve counts more than what only a running hypervisor can; else the first. */
__attribute__((format(printf, 4, 0))) static int note_reason(struct disk *disk, bool is_remote,
                                                             struct error *err, const char *fmt,
                                                             va_list ap)
{
    if (disk->unsupported && (is_remote || !disk->is_remote))
        return 0;
    free(disk->unsupported);
    disk->is_remote = is_remote;
    if (vasprintf(&disk->unsupported, fmt, ap) >= 0)
        return 0;
    disk->unsupported = NULL;
    return no_memory(err);
}

/* Notes why a disk cannot be served. */
__attribute__((format(printf, 3, 4))) static int reject(struct disk *disk, struct error *err,
                                                        const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int r = note_reason(disk, false, err, fmt, ap);
    va_end(ap);
    return r;
}

/* Notes why a disk can be served only by way of a running hypervisor. */
__attribute__((format(printf, 3, 4))) static int reject_remote(struct disk *disk, struct error *err,
                                                               const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int r = note_reason(disk, true, err, fmt, ap);
    va_end(ap);
    return r;
}

/*
 * The path that a <source> names by its attribute @name; NULL, and the reason noted, if another
 * kind of path is meant. NULL without a reason: no medium.
 */
static int read_path(const xmlNode *source, const char *name, struct disk *disk, char **ret_path,
                     struct error *err)
{
    auto_free char *path = NULL;
    int r = xml_attr(source, name, &path, err);
    if (r < 0 || !path || !*path)
        return r;
    if (*path != '/')
        return reject(disk, err, "its source '%s' is not an absolute path", path);
    *ret_path = take_ptr(path);
    return 0;
}

static int find_volume(const xmlNode *source, const struct xml_volumes *volumes, struct disk *disk,
                       char **ret_path, struct error *err)
{
    auto_free char *pool = NULL;
    auto_free char *volume = NULL;
    auto_free char *mode = NULL;
    int r = xml_attr(source, "pool", &pool, err);
    if (r == 0)
        r = xml_attr(source, "volume", &volume, err);
    if (r == 0)
        r = xml_attr(source, "mode", &mode, err);
    if (r < 0 || !pool || !volume)
        return r;
    if (mode && strcmp(mode, "direct") == 0)
        return reject_remote(disk, err, "volume '%s' of pool '%s' is used over the network", volume,
                             pool);
    auto_free char *path = NULL;
    struct error why = {0};
    r = volumes->find_path(volumes->ctx, pool, volume, &path, &why);
    if (r < 0)
        return reject(disk, err, "%s", why.text);
    if (*path != '/')
        return reject(disk, err, "volume '%s' of pool '%s' is not a local file", volume, pool);
    *ret_path = take_ptr(path);
    return 0;
}

/*
 * Where @holder (a <disk> or <backingStore> with its type) has its data. No path and no reason
 * noted: no medium.
 */
static int read_location(const xmlNode *holder, const struct xml_volumes *volumes,
                         struct disk *disk, char **ret_path, struct error *err)
{
    const xmlNode *source = xml_child(holder, "source");
    if (!source)
        return 0;
    auto_free char *type = NULL;
    auto_free char *fdgroup = NULL;
    int r = xml_attr(holder, "type", &type, err);
    if (r == 0)
        r = xml_attr(source, "fdgroup", &fdgroup, err);
    if (r < 0)
        return r;
    if (xml_child(source, "encryption"))
        r = reject(disk, err, "it is encrypted");
    else if (xml_child(source, "slices"))
        r = reject(disk, err, "it is a slice of its source");
    else if (xml_child(source, "dataStore"))
        r = reject(disk, err, "it declares a data store");
    else if (fdgroup)
        r = reject(disk, err, "its source is passed in as a file descriptor");
    if (r < 0)
        return r;
    if (!type || strcmp(type, "file") == 0)
        return read_path(source, "file", disk, ret_path, err);
    if (strcmp(type, "block") == 0)
        return read_path(source, "dev", disk, ret_path, err);
    if (strcmp(type, "volume") == 0)
        return find_volume(source, volumes, disk, ret_path, err);
    if (strcmp(type, "network") == 0 || strcmp(type, "nvme") == 0)
        return reject_remote(disk, err, "its source of type '%s' is not a local file", type);
    return reject(disk, err, "its source of type '%s' is not a local file", type);
}

/* Takes @path. */
static int append_layer(struct disk *disk, char *path, enum qcow_format format, struct error *err)
{
    auto_free char *owned = path;
    struct disk_layer *grown =
        reallocarray(disk->layers, disk->n_layers + 1, sizeof(*disk->layers));
    if (!grown)
        return no_memory(err);
    disk->layers = grown;
    disk->layers[disk->n_layers++] = (struct disk_layer){take_ptr(owned), format};
    return 0;
}

/* Takes @path. @format as the XML spells it, or NULL. */
static int add_layer(struct disk *disk, char *path, const char *format, struct error *err)
{
    auto_free char *owned = path;
    enum qcow_format parsed;
    if (!format)
        return reject(disk, err, "'%s' has no declared format", owned);
    if (qcow_format_parse(format, &parsed) < 0)
        return reject_remote(disk, err, "'%s' has format '%s', not raw or qcow2", owned, format);
    return append_layer(disk, take_ptr(owned), parsed, err);
}

/* One <backingStore> that is not the final empty one. */
static int read_backing(const xmlNode *store, const struct xml_volumes *volumes, struct disk *disk,
                        struct error *err)
{
    if (disk->n_layers >= LAYERS_MAX)
        return reject(disk, err, "its chain has more than %d files", LAYERS_MAX);
    auto_free char *path = NULL;
    auto_free char *format = NULL;
    int r = read_location(store, volumes, disk, &path, err);
    const xmlNode *element = xml_child(store, "format");
    if (r == 0 && element)
        r = xml_attr(element, "type", &format, err);
    if (r < 0 || disk->unsupported)
        return r;
    if (!path)
        return reject(disk, err, "its chain has a file without a source");
    return add_layer(disk, take_ptr(path), format, err);
}

static int read_chain(const xmlNode *element, const struct xml_volumes *volumes, struct disk *disk,
                      struct error *err)
{
    const xmlNode *store = xml_child(element, "backingStore");
    for (; store && !disk->unsupported; store = xml_child(store, "backingStore")) {
        if (!xmlFirstElementChild((xmlNode *)store)) {
            disk->is_chain_complete = true;
            return 0;
        }
        int r = read_backing(store, volumes, disk, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int read_flags(const xmlNode *element, const char *device, struct disk *disk,
                      struct error *err)
{
    if (device && strcmp(device, "disk") != 0)
        return reject(disk, err, "it is a '%s' device", device);
    if (xml_child(element, "shareable"))
        return reject(disk, err, "it is shared with other domains");
    if (xml_child(element, "transient"))
        return reject(disk, err, "it is transient");
    if (xml_child(element, "encryption"))
        return reject(disk, err, "it is encrypted");
    return 0;
}

/* @ret_format: as declared; libvirt takes a disk without a format for raw. */
static int read_driver(const xmlNode *element, char **ret_format, struct error *err)
{
    const xmlNode *driver = xml_child(element, "driver");
    auto_free char *format = NULL;
    int r = driver ? xml_attr(driver, "type", &format, err) : 0;
    if (r < 0)
        return r;
    if (!format)
        format = strdup(qcow_format_name(QCOW_FORMAT_RAW));
    *ret_format = take_ptr(format);
    return *ret_format ? 0 : no_memory(err);
}

/* 0, or 1 if the disk is to be left out. */
static int read_disk(const xmlNode *element, const struct xml_volumes *volumes, struct disk *disk,
                     struct error *err)
{
    auto_free char *device = NULL;
    auto_free char *path = NULL;
    auto_free char *format = NULL;
    int r = xml_attr(element, "device", &device, err);
    if (r < 0)
        return r;
    if (device && (strcmp(device, "cdrom") == 0 || strcmp(device, "floppy") == 0))
        return 1;
    r = read_location(element, volumes, disk, &path, err);
    if (r < 0)
        return r;
    if (!path && !disk->unsupported)
        return 1;
    r = read_flags(element, device, disk, err);
    if (r == 0)
        r = xml_disk_target(element, &disk->target, err);
    if (r < 0 || !path)
        return r;
    r = read_driver(element, &format, err);
    if (r == 0)
        r = add_layer(disk, take_ptr(path), format, err);
    return r < 0 ? r : read_chain(element, volumes, disk, err);
}

struct disk_list {
    struct disk *disks;
    size_t n;
};

static void cleanup_list(struct disk_list *list)
{
    domain_free_disks(list->disks, list->n);
}

static bool has_target(const struct disk_list *list, const char *target)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->disks[i].target, target) == 0)
            return true;
    return false;
}

static int append_disk(struct disk_list *list, const xmlNode *element,
                       const struct xml_volumes *volumes, struct error *err)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    __attribute__((cleanup(cleanup_list))) struct disk_list owner = {disk, disk ? 1 : 0};
    if (!disk)
        return no_memory(err);
    int r = read_disk(element, volumes, disk, err);
    if (r != 0)
        return r < 0 ? r : 0;
    if (has_target(list, disk->target))
        return error_set(err, -EBADMSG, "two disks with target '%s'", disk->target);
    struct disk *grown = reallocarray(list->disks, list->n + 1, sizeof(*grown));
    if (!grown)
        return no_memory(err);
    list->disks = grown;
    list->disks[list->n++] = *disk;
    /* lint: cppcheck/unreadVariable: the cleanup reads it */
    owner.n = 0; /* the content has moved; only the shell is freed */
    return 0;
}

int xml_read_disk_elements(const xmlNode *domain, const struct xml_volumes *volumes,
                           struct disk **ret_disks, size_t *ret_n, struct error *err)
{
    __attribute__((cleanup(cleanup_list))) struct disk_list list = {0};
    const xmlNode *disk = xml_child(xml_child(domain, "devices"), "disk");
    for (; disk; disk = xml_next(disk)) {
        int r = append_disk(&list, disk, volumes, err);
        if (r < 0)
            return r;
    }
    *ret_disks = take_ptr(list.disks);
    *ret_n = list.n;
    list.n = 0;
    return 0;
}

int xml_read_disks(const char *xml, const struct xml_volumes *volumes, struct disk **ret_disks,
                   size_t *ret_n, struct error *err)
{
    auto_doc xmlDoc *doc = NULL;
    int r = xml_open(xml, "domain", &doc, err);
    return r < 0
               ? r
               : xml_read_disk_elements(xmlDocGetRootElement(doc), volumes, ret_disks, ret_n, err);
}

bool xml_has_manager(const char *xml)
{
    /* Parts of the names that those programs give their metadata. */
    static const char *const managers[] = {"openstack.org/xmlns/libvirt/nova", "ovirt.org/vm/",
                                           "kubevirt.io"};
    auto_doc xmlDoc *doc = NULL;
    if (xml_open(xml, "domain", &doc, NULL) < 0)
        return false;
    const xmlNode *metadata = xml_child(xmlDocGetRootElement(doc), "metadata");
    for (const xmlNode *node = metadata ? metadata->children : NULL; node; node = node->next) {
        if (node->type != XML_ELEMENT_NODE || !node->ns || !node->ns->href)
            continue;
        for (size_t i = 0; i < sizeof(managers) / sizeof(*managers); i++)
            if (strstr((const char *)node->ns->href, managers[i]))
                return true;
    }
    return false;
}
