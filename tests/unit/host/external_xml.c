/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/external_xml.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>

#include "fs/host/external.h"

/* As libvirt 9.0 writes it, with what is not read left out. */
#define SNAPSHOT(time, disks, domain)                                                              \
    "<domainsnapshot><name>s1</name><state>disk-snapshot</state>" time                             \
    "<memory snapshot='no'/><disks>" disks "</disks>" domain "</domainsnapshot>"
#define TIME "<creationTime>1795315172</creationTime>"
#define DOMAIN(disks) "<domain type='qemu'><name>d</name><devices>" disks "</devices></domain>"
#define VDA                                                                                        \
    "<disk type='file' device='disk'><driver type='qcow2'/><source file='/i/a.s1'/>"               \
    "<backingStore type='file'><format type='raw'/><source file='/i/a.raw'/><backingStore/>"       \
    "</backingStore><target dev='vda'/></disk>"
#define VDB                                                                                        \
    "<disk type='block' device='disk'><driver type='raw'/><source dev='/dev/vg/b'/>"               \
    "<target dev='vdb'/></disk>"
#define VDC                                                                                        \
    "<disk type='network' device='disk'><driver type='raw'/><source protocol='nbd' name='x'/>"     \
    "<target dev='vdc'/></disk>"
#define FROZEN(target)                                                                             \
    "<disk name='" target "' snapshot='external' type='file'><driver type='qcow2'/>"               \
    "<source file='/i/" target ".s2'/></disk>"

static int find_path(void *ctx, const char *pool, const char *volume, char **ret_path,
                     struct error *err)
{
    (void)ctx;
    (void)err;
    return asprintf(ret_path, "/%s/%s", pool, volume) < 0 ? -ENOMEM : 0;
}

static const struct xml_volumes volumes = {.find_path = find_path};

static struct host_snapshot read_xml(const char *xml)
{
    struct host_snapshot snapshot = {0};
    struct error err = {0};
    if (external_xml_read(xml, &volumes, &snapshot, &err) < 0)
        fail_msg("%s", err.text);
    return snapshot;
}

static void check_disk(const struct frozen_disk *disk, const char *target, const char *path,
                       const char *overlay)
{
    assert_string_equal(disk->target, target);
    assert_string_equal(disk->path, path);
    assert_string_equal(disk->overlay, overlay);
}

static void frozen_is_what_the_domain_had_before(void **state)
{
    (void)state;
    struct host_snapshot s = read_xml(SNAPSHOT(TIME, FROZEN("vda") FROZEN("vdb"), DOMAIN(VDA VDB)));
    assert_int_equal(s.created.tv_sec, 1795315172);
    assert_int_equal(s.created.tv_nsec, 0);
    assert_int_equal(s.n_disks, 2);
    check_disk(&s.disks[0], "vda", "/i/a.s1", "/i/vda.s2");
    check_disk(&s.disks[1], "vdb", "/dev/vg/b", "/i/vdb.s2");
    host_snapshot_fini(&s);
}

/* A second domain in the XML is what it would start from, not what was running. */
static void the_inactive_domain_does_not_count(void **state)
{
    (void)state;
    struct host_snapshot s = read_xml(
        SNAPSHOT(TIME, FROZEN("vda"),
                 DOMAIN(VDA) "<inactiveDomain type='qemu'><devices>"
                             "<disk type='file'><source file='/other'/><target dev='vda'/></disk>"
                             "</devices></inactiveDomain>"));
    assert_int_equal(s.n_disks, 1);
    check_disk(&s.disks[0], "vda", "/i/a.s1", "/i/vda.s2");
    host_snapshot_fini(&s);
}

static void a_volume_is_looked_up(void **state)
{
    (void)state;
    struct host_snapshot s = read_xml(
        SNAPSHOT(TIME, FROZEN("vda"),
                 DOMAIN("<disk type='volume'><driver type='raw'/><source pool='p' volume='v'/>"
                        "<target dev='vda'/></disk>")));
    assert_int_equal(s.n_disks, 1);
    check_disk(&s.disks[0], "vda", "/p/v", "/i/vda.s2");
    host_snapshot_fini(&s);
}

static void disks_without_a_frozen_local_layer_are_left_out(void **state)
{
    (void)state;
    static const char *const rows[] = {
        SNAPSHOT(TIME, "<disk name='vda' snapshot='no'/>", DOMAIN(VDA)),
        SNAPSHOT(TIME, "<disk name='vda' snapshot='internal'/>", DOMAIN(VDA)),
        SNAPSHOT(TIME, "<disk name='vda' snapshot='external' type='file'/>", DOMAIN(VDA)),
        SNAPSHOT(TIME,
                 "<disk name='vda' snapshot='external' type='network'>"
                 "<source protocol='nbd' name='x'/></disk>",
                 DOMAIN(VDA)),
        SNAPSHOT(TIME, FROZEN("vdz"), DOMAIN(VDA)),
        SNAPSHOT(TIME, FROZEN("vdc"), DOMAIN(VDC)),
        SNAPSHOT(TIME, "<disk snapshot='external'><source file='/x'/></disk>", DOMAIN(VDA)),
        SNAPSHOT(TIME, FROZEN("vda"), ""),
        SNAPSHOT(TIME, "", DOMAIN(VDA)),
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct host_snapshot s = read_xml(rows[i]);
        if (s.n_disks != 0)
            fail_msg("row %zu: %zu disks", i, s.n_disks);
        host_snapshot_fini(&s);
    }
}

static void other_xml_is_refused(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "",
        "<domainsnapshot>",
        "<domain type='qemu'><creationTime>1</creationTime></domain>",
        SNAPSHOT("", FROZEN("vda"), DOMAIN(VDA)),
        SNAPSHOT("<creationTime/>", FROZEN("vda"), DOMAIN(VDA)),
        SNAPSHOT("<creationTime>soon</creationTime>", FROZEN("vda"), DOMAIN(VDA)),
        SNAPSHOT("<creationTime>99999999999999999999</creationTime>", FROZEN("vda"), DOMAIN(VDA)),
        SNAPSHOT(TIME, FROZEN("vda"), DOMAIN("<disk type='file'><source file='/x'/></disk>")),
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct host_snapshot s = {0};
        struct error err = {0};
        int r = external_xml_read(rows[i], &volumes, &s, &err);
        if (r != -EBADMSG)
            fail_msg("row %zu gives %d", i, r);
        host_snapshot_fini(&s);
    }
}

/* A record with one disk on these files, of which NULL ends the list. */
static struct domain *make_domain(const char *const *paths)
{
    struct domain *domain = domain_create("id", "d");
    domain->disks = calloc(1, sizeof(*domain->disks));
    domain->n_disks = 1;
    struct disk *disk = &domain->disks[0];
    disk->target = strdup("vda");
    disk->layers = calloc(8, sizeof(*disk->layers));
    for (; *paths; paths++)
        disk->layers[disk->n_layers++].path = strdup(*paths);
    return domain;
}

static void a_chain_with_our_own_overlay_is_the_same(void **state)
{
    (void)state;
    static const char ours[] = "/i/a.virtsnapfs-0123456789abcdef.overlay";
    static const struct {
        const char *before[4], *now[4];
        bool is_changed;
    } rows[] = {
        {{"/i/a"}, {"/i/a"}, false},
        {{"/i/a"}, {ours, "/i/a"}, false},
        {{ours, "/i/a"}, {"/i/a"}, false},
        {{"/i/a"}, {"/i/a.s1", "/i/a"}, true},
        {{"/i/a.s1", "/i/a"}, {"/i/a.s2", "/i/a"}, true},
        {{"/i/a.s1", "/i/a"}, {"/i/a.s1"}, true},
        {{ours, "/i/a"}, {"/i/a.s1", ours, "/i/a"}, true},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct domain *before = make_domain(rows[i].before), *now = make_domain(rows[i].now);
        if (external_are_chains_changed(before, now) != rows[i].is_changed)
            fail_msg("row %zu", i);
        domain_unref(before);
        domain_unref(now);
    }
}

static void records_differ_by_their_snapshots(void **state)
{
    (void)state;
    static const char *const paths[] = {"/i/a", NULL};
    struct host_snapshot s = {.name = strdup("s"), .created = {.tv_sec = 5}};
    assert_int_equal(host_snapshot_add(&s, "vda", "/i/a", "/i/a.s"), 0);
    struct domain *with = make_domain(paths), *without = make_domain(paths);
    struct domain *later = make_domain(paths), *same = make_domain(paths);
    assert_int_equal(domain_copy_snapshots(with, &s, 1), 0);
    assert_int_equal(domain_copy_snapshots(same, with->snapshots, with->n_snapshots), 0);
    s.created.tv_sec = 6;
    assert_int_equal(domain_copy_snapshots(later, &s, 1), 0);
    assert_true(domain_is_same(with, same));
    assert_false(domain_is_same(with, without));
    assert_false(domain_is_same(with, later));
    host_snapshot_fini(&s);
    domain_unref(with);
    domain_unref(without);
    domain_unref(later);
    domain_unref(same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frozen_is_what_the_domain_had_before),
        cmocka_unit_test(the_inactive_domain_does_not_count),
        cmocka_unit_test(a_volume_is_looked_up),
        cmocka_unit_test(disks_without_a_frozen_local_layer_are_left_out),
        cmocka_unit_test(other_xml_is_refused),
        cmocka_unit_test(a_chain_with_our_own_overlay_is_the_same),
        cmocka_unit_test(records_differ_by_their_snapshots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
