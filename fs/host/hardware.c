/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/hardware.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/xml_internal.h"
#include "qcow/base/cleanup.h"

static bool has_value(const xmlNode *node, const char *name, const char *wanted)
{
    auto_free char *value = NULL;
    return node && xml_attr(node, name, &value, NULL) == 0 && value && strcmp(value, wanted) == 0;
}

/* An attribute of a node that may be missing. */
static int read_attr(const xmlNode *node, const char *name, char **ret_value, struct error *err)
{
    return node ? xml_attr(node, name, ret_value, err) : 0;
}

static int read_machine(const xmlNode *domain, struct hardware *hardware, struct error *err)
{
    const xmlNode *os = xml_child(domain, "os");
    const xmlNode *type = xml_child(os, "type");
    hardware->is_uefi =
        has_value(os, "firmware", "efi") || has_value(xml_child(os, "loader"), "type", "pflash");
    int r = read_attr(type, "arch", &hardware->arch, err);
    return r < 0 ? r : read_attr(type, "machine", &hardware->machine, err);
}

static const xmlNode *find_disk(const xmlNode *devices, const char *target)
{
    const xmlNode *disk = xml_child(devices, "disk");
    while (disk && !has_value(xml_child(disk, "target"), "dev", target))
        disk = xml_next(disk);
    return disk;
}

/* The controller that the disk's address names; the first one where it names none. */
static const xmlNode *find_scsi(const xmlNode *devices, const xmlNode *disk, struct error *err)
{
    auto_free char *index = NULL;
    const xmlNode *address = xml_child(disk, "address");
    if (address && xml_attr(address, "controller", &index, err) < 0)
        return NULL;
    const xmlNode *controller = xml_child(devices, "controller");
    while (controller && !(has_value(controller, "type", "scsi") &&
                           has_value(controller, "index", index ? index : "0")))
        controller = xml_next(controller);
    return controller;
}

static int read_bus(const xmlNode *devices, const char *target, struct hardware *hardware,
                    struct error *err)
{
    const xmlNode *disk = find_disk(devices, target);
    if (!disk)
        return 0;
    int r = read_attr(xml_child(disk, "target"), "bus", &hardware->disk_bus, err);
    if (r < 0 || !hardware->disk_bus || strcmp(hardware->disk_bus, "scsi") != 0)
        return r;
    return read_attr(find_scsi(devices, disk, err), "model", &hardware->scsi_model, err);
}

static bool has_agent(const xmlNode *devices)
{
    const xmlNode *channel = xml_child(devices, "channel");
    for (; channel; channel = xml_next(channel))
        if (has_value(xml_child(channel, "target"), "name", "org.qemu.guest_agent.0"))
            return true;
    return false;
}

int hardware_read(const char *xml, const char *target, struct hardware *ret_hardware,
                  struct error *err)
{
    auto_doc xmlDoc *doc = NULL;
    int r = xml_open(xml, "domain", &doc, err);
    if (r < 0)
        return r;
    const xmlNode *domain = xmlDocGetRootElement(doc);
    const xmlNode *devices = xml_child(domain, "devices");
    struct hardware hardware = {.has_agent = has_agent(devices)};
    r = read_machine(domain, &hardware, err);
    if (r == 0)
        r = read_bus(devices, target, &hardware, err);
    const xmlNode *interface = xml_child(devices, "interface");
    if (r == 0)
        r = read_attr(xml_child(interface, "model"), "type", &hardware.vif_model, err);
    if (r < 0) {
        hardware_fini(&hardware);
        return r;
    }
    *ret_hardware = hardware;
    return 0;
}

void hardware_fini(struct hardware *hardware)
{
    free(hardware->arch);
    free(hardware->machine);
    free(hardware->disk_bus);
    free(hardware->scsi_model);
    free(hardware->vif_model);
    *hardware = (struct hardware){0};
}
