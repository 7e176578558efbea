/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/glance/record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qcow/base/cleanup.h"

/* Ours, at most; the line's come on top. */
enum { OWN_PROPERTIES_MAX = 16, GIB_BITS = 30 };

/*
 * nova refuses to start an image with a value that it does not know, so only those get there
 * (nova/objects/fields.py: DiskBus, SCSIModel, VIFModel).
 */
static const char *const disk_buses[] = {"fdc", "ide",    "sata", "scsi",
                                         "usb", "virtio", "xen",  NULL};
static const char *const scsi_models[] = {"buslogic",   "ibmvscsi",    "lsilogic", "lsisas1068",
                                          "lsisas1078", "virtio-scsi", "vmpvscsi", NULL};
static const char *const vif_models[] = {"virtio", "ne2k_pci",   "pcnet",   "rtl8139", "e1000",
                                         "e1000e", "spapr-vlan", "lan9118", "vmxnet3", NULL};

void record_machine_fini(struct record_machine *machine)
{
    free(machine->uuid);
    free(machine->arch);
    free(machine->machine_type);
    free(machine->disk_bus);
    free(machine->scsi_model);
    free(machine->vif_model);
    *machine = (struct record_machine){0};
}

/* A value that is in the list, or NULL. */
static const char *if_known(const char *value, const char *const *known)
{
    for (; value && *known; known++)
        if (strcmp(value, *known) == 0)
            return value;
    return NULL;
}

static bool line_has(const struct upload_line *line, const char *name)
{
    for (size_t i = 0; i < line->n_properties; i++)
        if (strcmp(line->properties[i].name, name) == 0)
            return true;
    return false;
}

/* Unless @value is NULL, or the line says otherwise. */
static void add(const struct record_request *request, const char *name, const char *value,
                struct glance_property *properties, size_t *n)
{
    if (value && *value && !line_has(request->line, name))
        properties[(*n)++] = (struct glance_property){.name = name, .value = value};
}

/* BIOS or UEFI is a question of PCs only. */
static const char *firmware_of(const struct record_machine *machine)
{
    if (machine->is_uefi)
        return "uefi";
    bool is_pc = machine->arch &&
                 (strcmp(machine->arch, "x86_64") == 0 || strcmp(machine->arch, "i686") == 0);
    return is_pc ? "bios" : NULL;
}

static size_t add_own(const struct record_request *request, struct glance_property *properties)
{
    const struct record_machine *machine = request->machine;
    const struct glance_property own[] = {
        {"image_type", "snapshot"},
        {"image_location", "snapshot"},
        {"image_state", "available"},
        {"owner_id", request->project_id},
        {"user_id", request->user_id},
        {"instance_uuid", machine->uuid},
        {"architecture", machine->arch},
        {"hw_architecture", machine->arch},
        {"hw_machine_type", machine->machine_type},
        {"hw_firmware_type", firmware_of(machine)},
        {"hw_disk_bus", if_known(machine->disk_bus, disk_buses)},
        {"hw_scsi_model", if_known(machine->scsi_model, scsi_models)},
        {"hw_vif_model", if_known(machine->vif_model, vif_models)},
        {"hw_qemu_guest_agent", machine->has_agent ? "yes" : NULL},
    };
    _Static_assert(sizeof(own) / sizeof(*own) <= OWN_PROPERTIES_MAX, "room for all");
    size_t n = 0;
    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++)
        add(request, own[i].name, own[i].value, properties, &n);
    return n;
}

int record_make(const struct record_request *request, struct glance_record *ret_record)
{
    const struct upload_line *line = request->line;
    struct glance_property *properties =
        calloc(OWN_PROPERTIES_MAX + line->n_properties, sizeof(*properties));
    if (!properties)
        return -ENOMEM;
    size_t n = add_own(request, properties);
    for (size_t i = 0; i < line->n_properties; i++)
        if (*line->properties[i].value)
            properties[n++] = line->properties[i];
    uint64_t gib = request->guest_size >> GIB_BITS;
    gib += (request->guest_size & ((1 << GIB_BITS) - 1)) != 0;
    *ret_record = (struct glance_record){
        .name = request->name,
        .disk_format = request->disk_format,
        .visibility = line->visibility,
        .min_disk_gib =
            line->has_min_disk ? line->min_disk_gib : (uint32_t)(gib < INT32_MAX ? gib : INT32_MAX),
        .min_ram_mib = line->min_ram_mib,
        .is_protected = line->is_protected,
        .properties = properties,
        .n_properties = n,
    };
    return 0;
}

void record_fini(struct glance_record *record)
{
    free((void *)record->properties);
    *record = (struct glance_record){0};
}

/* Cuts @name after its last character that may stay, putting '_' for bytes that may not. */
static void mend_name(char *name)
{
    size_t end = 0;
    while (name[end]) {
        size_t len = 1;
        while ((name[end] & 0x80) && len < 4 && (name[end + len] & 0xc0) == 0x80)
            len++;
        char saved = name[end + len];
        name[end + len] = '\0';
        if (!line_is_name(name + end))
            memset(name + end, '_', len);
        name[end + len] = saved;
        end += len;
    }
    while (*name && !line_is_name(name)) {
        while (end > 1 && (name[end - 1] & 0xc0) == 0x80)
            end--;
        name[--end] = '\0';
    }
}

char *record_default_name(const char *snapshot, const char *domain_name)
{
    char *name;
    if (asprintf(&name, "%s-of-%s", snapshot, domain_name) < 0)
        return NULL;
    mend_name(name);
    return name;
}
