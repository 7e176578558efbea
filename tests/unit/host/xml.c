/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/xml.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>

/* A domain with one disk of these attributes and this content. */
#define DISK(attrs, content)                                                                       \
    "<domain type='qemu'><name>d</name><devices><disk " attrs ">" content                          \
    "<target dev='vda' bus='virtio'/></disk></devices></domain>"
#define FILE_DISK(content) DISK("type='file' device='disk'", content)
#define SOURCE "<source file='/i/top.qcow2' index='3'/>"
#define QCOW2 "<driver name='qemu' type='qcow2' cache='none'/>"

struct disks {
    struct disk *disks;
    size_t n;
};

static int find_path(void *ctx, const char *pool, const char *volume, char **ret_path,
                     struct error *err)
{
    (void)ctx;
    if (strcmp(pool, "p") != 0)
        return error_set(err, -EIO, "cannot find storage pool '%s'", pool);
    return asprintf(ret_path, "%s%s", strcmp(volume, "net") ? "/pool/" : "pool/", volume) < 0
               ? -ENOMEM
               : 0;
}

static const struct xml_volumes volumes = {.find_path = find_path};

static void read_disks(struct disks *ret, const char *xml)
{
    struct error err = {0};
    int r = xml_read_disks(xml, &volumes, &ret->disks, &ret->n, &err);
    if (r < 0)
        fail_msg("%s", err.text);
}

/* The domain has one disk, "vda", which cannot be served for a reason that says @why. */
static void check_unsupported(const char *xml, const char *why)
{
    struct disks d;
    read_disks(&d, xml);
    assert_int_equal(d.n, 1);
    assert_string_equal(d.disks[0].target, "vda");
    assert_non_null(d.disks[0].unsupported);
    if (!strstr(d.disks[0].unsupported, why))
        fail_msg("'%s' does not say '%s'", d.disks[0].unsupported, why);
    domain_free_disks(d.disks, d.n);
}

static void check_left_out(const char *xml)
{
    struct disks d;
    read_disks(&d, xml);
    assert_int_equal(d.n, 0);
    domain_free_disks(d.disks, d.n);
}

static void check_refused(const char *xml)
{
    struct disks d;
    struct error err = {0};
    assert_int_equal(xml_read_disks(xml, &volumes, &d.disks, &d.n, &err), -EBADMSG);
    assert_true(err.text[0]);
}

/* The domain has one disk of one layer. */
static void check_one(const char *xml, const char *path, enum qcow_format format)
{
    struct disks d;
    read_disks(&d, xml);
    assert_int_equal(d.n, 1);
    assert_null(d.disks[0].unsupported);
    assert_int_equal(d.disks[0].n_layers, 1);
    assert_string_equal(d.disks[0].layers[0].path, path);
    assert_int_equal(d.disks[0].layers[0].format, format);
    assert_false(d.disks[0].is_chain_complete);
    domain_free_disks(d.disks, d.n);
}

static void reads_local_disks_of_all_types(void **state)
{
    (void)state;
    check_one(FILE_DISK(QCOW2 SOURCE), "/i/top.qcow2", QCOW_FORMAT_QCOW2);
    check_one(DISK("type='file'", QCOW2 SOURCE), "/i/top.qcow2", QCOW_FORMAT_QCOW2);
    check_one(DISK("type='block' device='disk'", "<driver type='raw'/><source dev='/dev/x'/>"),
              "/dev/x", QCOW_FORMAT_RAW);
    check_one(DISK("type='volume'", QCOW2 "<source pool='p' volume='v'/>"), "/pool/v",
              QCOW_FORMAT_QCOW2);
    check_one(FILE_DISK("<source file='/a &amp; b&lt;'/>"), "/a & b<", QCOW_FORMAT_RAW);
}

static void a_disk_without_format_is_raw(void **state)
{
    (void)state;
    check_one(FILE_DISK(SOURCE), "/i/top.qcow2", QCOW_FORMAT_RAW);
    check_one(FILE_DISK("<driver name='qemu'/>" SOURCE), "/i/top.qcow2", QCOW_FORMAT_RAW);
}

static void reads_a_complete_chain(void **state)
{
    (void)state;
    struct disks d;
    read_disks(&d,
               FILE_DISK(QCOW2 SOURCE "<backingStore type='file' index='2'><format type='qcow2'/>"
                                      "<source file='/i/mid'/><backingStore type='block' index='1'>"
                                      "<format type='raw'/><source dev='/dev/base'/><backingStore/>"
                                      "</backingStore></backingStore>"));
    assert_int_equal(d.n, 1);
    const struct disk *disk = &d.disks[0];
    assert_null(disk->unsupported);
    assert_true(disk->is_chain_complete);
    assert_int_equal(disk->n_layers, 3);
    assert_string_equal(disk->layers[1].path, "/i/mid");
    assert_int_equal(disk->layers[1].format, QCOW_FORMAT_QCOW2);
    assert_string_equal(disk->layers[2].path, "/dev/base");
    assert_int_equal(disk->layers[2].format, QCOW_FORMAT_RAW);
    domain_free_disks(d.disks, d.n);
}

static void a_chain_without_an_end_is_not_complete(void **state)
{
    (void)state;
    struct disks d;
    read_disks(&d, FILE_DISK(QCOW2 SOURCE "<backingStore type='file'><format type='raw'/>"
                                          "<source file='/i/base'/></backingStore>"));
    assert_false(d.disks[0].is_chain_complete);
    assert_int_equal(d.disks[0].n_layers, 2);
    domain_free_disks(d.disks, d.n);
    read_disks(&d, FILE_DISK(QCOW2 SOURCE "<backingStore/>"));
    assert_true(d.disks[0].is_chain_complete);
    assert_int_equal(d.disks[0].n_layers, 1);
    domain_free_disks(d.disks, d.n);
}

static void keeps_the_order_and_leaves_removable_drives_out(void **state)
{
    (void)state;
    struct disks d;
    read_disks(&d,
               "<domain><devices>"
               "<disk type='file' device='cdrom'><source file='/c.iso'/><target dev='sda'/></disk>"
               "<disk type='file'><source file='/b'/><target dev='vdb'/></disk>"
               "<disk type='file' device='floppy'><source file='/f'/><target dev='fda'/></disk>"
               "<interface type='user'/>"
               "<disk type='network'><source protocol='rbd' name='x'/><target dev='vdc'/></disk>"
               "<disk type='file'><source file='/a'/><target dev='vda'/></disk>"
               "</devices></domain>");
    assert_int_equal(d.n, 3);
    assert_string_equal(d.disks[0].target, "vdb");
    assert_string_equal(d.disks[1].target, "vdc");
    assert_string_equal(d.disks[2].target, "vda");
    domain_free_disks(d.disks, d.n);
}

static void leaves_drives_without_medium_out(void **state)
{
    (void)state;
    check_left_out(FILE_DISK(QCOW2));
    check_left_out(FILE_DISK("<source startupPolicy='optional'/>"));
    check_left_out(FILE_DISK("<source file=''/>"));
    check_left_out(DISK("type='block'", "<source/>"));
    check_left_out("<domain><devices/></domain>");
    check_left_out("<domain/>");
}

static void says_why_a_disk_cannot_be_served(void **state)
{
    (void)state;
    check_unsupported(DISK("type='block' device='lun'", "<source dev='/dev/x'/>"), "lun");
    check_unsupported(FILE_DISK(QCOW2 SOURCE "<shareable/>"), "shared");
    check_unsupported(FILE_DISK(QCOW2 SOURCE "<transient/>"), "transient");
    check_unsupported(FILE_DISK(QCOW2 SOURCE "<encryption format='luks'/>"), "encrypted");
    check_unsupported(FILE_DISK("<source file='/x'><encryption format='luks'/></source>"),
                      "encrypted");
    check_unsupported(
        FILE_DISK("<source file='/x'><slices><slice type='storage'/></slices></source>"), "slice");
    check_unsupported(FILE_DISK("<source file='/x' fdgroup='f'/>"), "descriptor");
    check_unsupported(FILE_DISK("<driver type='vmdk'/>" SOURCE), "'vmdk'");
    check_unsupported(FILE_DISK("<source file='relative'/>"), "absolute");
    check_unsupported(DISK("type='network'", "<source protocol='nbd' name='x'/>"), "'network'");
    check_unsupported(DISK("type='nvme'", "<source type='pci' managed='yes'/>"), "'nvme'");
    check_unsupported(DISK("type='vhostuser'", "<source type='unix' path='/s'/>"), "'vhostuser'");
    check_unsupported(DISK("type='dir'", "<source dir='/d'/>"), "'dir'");
    check_unsupported(DISK("type='volume'", "<source pool='q' volume='v'/>"), "pool 'q'");
    check_unsupported(DISK("type='volume'", "<source pool='p' volume='net'/>"), "not a local file");
    check_unsupported(DISK("type='volume'", "<source pool='p' volume='v' mode='direct'/>"),
                      "network");
}

static void check_remote(const char *xml, bool is_remote)
{
    struct disks d;
    read_disks(&d, xml);
    assert_int_equal(d.n, 1);
    assert_non_null(d.disks[0].unsupported);
    assert_int_equal(d.disks[0].is_remote, is_remote);
    domain_free_disks(d.disks, d.n);
}

static void what_a_running_hypervisor_can_read_is_remote(void **state)
{
    (void)state;
    check_remote(DISK("type='network'", "<source protocol='nbd' name='x'/>"), true);
    check_remote(DISK("type='nvme'", "<source type='pci' managed='yes'/>"), true);
    check_remote(DISK("type='volume'", "<source pool='p' volume='v' mode='direct'/>"), true);
    check_remote(FILE_DISK("<driver type='vmdk'/>" SOURCE), true);
    check_remote(FILE_DISK(QCOW2 SOURCE "<backingStore type='network'><format type='raw'/>"
                                        "<source protocol='nbd'/></backingStore>"),
                 true);
    check_remote(DISK("type='vhostuser'", "<source type='unix' path='/s'/>"), false);
    check_remote(FILE_DISK("<source file='relative'/>"), false);
}

static void what_nobody_may_read_is_not_remote(void **state)
{
    (void)state;
    check_remote(DISK("type='network'", "<source protocol='nbd' name='x'>"
                                        "<encryption format='luks'/></source>"),
                 false);
    check_remote(DISK("type='network'", "<source protocol='nbd' name='x'/>"
                                        "<encryption format='luks'/>"),
                 false);
    check_unsupported(DISK("type='network'", "<source protocol='nbd' name='x'/><shareable/>"),
                      "shared");
    check_remote(DISK("type='network'", "<source protocol='nbd' name='x'/><shareable/>"), false);
    check_remote(DISK("type='network' device='lun'", "<source protocol='iscsi' name='x'/>"), false);
}

static void one_foreign_layer_spoils_the_chain(void **state)
{
    (void)state;
    check_unsupported(FILE_DISK(QCOW2 SOURCE "<backingStore type='file'><format type='vmdk'/>"
                                             "<source file='/b'/><backingStore/></backingStore>"),
                      "'vmdk'");
    check_unsupported(FILE_DISK(QCOW2 SOURCE "<backingStore type='file'>"
                                             "<source file='/b'/><backingStore/></backingStore>"),
                      "no declared format");
    check_unsupported(FILE_DISK(QCOW2 SOURCE "<backingStore type='network'><format type='raw'/>"
                                             "<source protocol='nbd'/></backingStore>"),
                      "'network'");
    check_unsupported(FILE_DISK(QCOW2 SOURCE "<backingStore type='file'><format type='raw'/>"
                                             "</backingStore>"),
                      "without a source");
}

static void refuses_what_is_no_domain(void **state)
{
    (void)state;
    check_refused("");
    check_refused("<domain>");
    check_refused("<network/>");
    check_refused(
        "<domain><devices><disk type='file'><source file='/a'/></disk></devices></domain>");
    check_refused("<domain><devices>"
                  "<disk type='file'><source file='/a'/><target dev='vda'/></disk>"
                  "<disk type='file'><source file='/b'/><target dev='vda'/></disk>"
                  "</devices></domain>");
}

static void expands_no_entities(void **state)
{
    (void)state;
    check_refused("<!DOCTYPE domain [<!ENTITY e SYSTEM 'file:///etc/hostname'>]>"
                  "<domain><name>&e;</name></domain>");
    check_refused("<!DOCTYPE domain SYSTEM 'http://127.0.0.1:1/x.dtd'><domain/>");
    check_refused("<!DOCTYPE domain [<!ENTITY a 'x'><!ENTITY b '&a;&a;'>]>" FILE_DISK(
        "<source file='/&b;'/>"));
}

static void refuses_xml_of_unreasonable_size(void **state)
{
    (void)state;
    size_t len = (8 << 20) + 1;
    char *xml = malloc(len + 1);
    assert_non_null(xml);
    memset(xml, ' ', len);
    memcpy(xml, "<domain/>", strlen("<domain/>"));
    xml[len] = '\0';
    check_refused(xml);
    free(xml);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_local_disks_of_all_types),
        cmocka_unit_test(a_disk_without_format_is_raw),
        cmocka_unit_test(reads_a_complete_chain),
        cmocka_unit_test(a_chain_without_an_end_is_not_complete),
        cmocka_unit_test(keeps_the_order_and_leaves_removable_drives_out),
        cmocka_unit_test(leaves_drives_without_medium_out),
        cmocka_unit_test(says_why_a_disk_cannot_be_served),
        cmocka_unit_test(what_a_running_hypervisor_can_read_is_remote),
        cmocka_unit_test(what_nobody_may_read_is_not_remote),
        cmocka_unit_test(one_foreign_layer_spoils_the_chain),
        cmocka_unit_test(refuses_what_is_no_domain),
        cmocka_unit_test(expands_no_entities),
        cmocka_unit_test(refuses_xml_of_unreasonable_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
