/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * XML of domains, snapshots and jobs, through all that reads it and all that makes further XML of
 * it; what is made must be fit to be read.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/agent_xml.h"
#include "fs/host/backup_xml.h"
#include "fs/host/copy_xml.h"
#include "fs/host/define_xml.h"
#include "fs/host/external_xml.h"
#include "fs/host/hardware.h"
#include "fs/host/overlay_xml.h"
#include "fs/host/snapshot_xml.h"
#include "fs/host/xml_internal.h"
#include "tests/fuzz/fuzz.h"

#define MARK "virtsnapfs-0123456789abcdef"
#define OVERLAY "/img/a.qcow2." MARK ".overlay"

static int find_path(void *ctx, const char *pool, const char *volume, char **ret_path,
                     struct error *err)
{
    (void)ctx;
    if (!*pool || !*volume)
        return error_set(err, -ENOENT, "no such volume");
    *ret_path = strdup("/pool/volume");
    return 0;
}

static const struct xml_volumes volumes = {.find_path = find_path};

static void check_result(int r, const struct error *err)
{
    fuzz_check(r >= 0 || (r == err->code && err->text[0]));
}

/* XML that was made here. */
static void check_made(int r, const struct error *err, char *xml, const char *root)
{
    check_result(r, err);
    if (!xml)
        return;
    xmlDoc *doc = NULL;
    struct error why = {0};
    if (xml_open(xml, root, &doc, &why) < 0)
        fuzz_fail("what was made is refused: %s\n%s", why.text, xml);
    xmlFreeDoc(doc);
    free(xml);
}

static void read_disks(const char *xml)
{
    struct disk *disks = NULL;
    size_t n = 0;
    struct error err = {0};
    int r = xml_read_disks(xml, &volumes, &disks, &n, &err);
    check_result(r, &err);
    if (r < 0)
        return;
    for (size_t i = 0; i < n; i++) {
        fuzz_check(disks[i].target && disks[i].target[0]);
        fuzz_check(disks[i].unsupported || disks[i].n_layers > 0);
        for (size_t j = 0; j < i; j++)
            fuzz_check(strcmp(disks[i].target, disks[j].target) != 0);
        struct hardware hardware;
        fuzz_check(hardware_read(xml, disks[i].target, &hardware, &err) == 0);
        hardware_fini(&hardware);
    }
    domain_free_disks(disks, n);
}

static void read_snapshot(const char *xml)
{
    struct host_snapshot snapshot = {.name = strdup("s")};
    struct error err = {0};
    check_result(external_xml_read(xml, &volumes, &snapshot, &err), &err);
    host_snapshot_fini(&snapshot);
}

static void read_states(const char *xml)
{
    struct error err = {0};
    enum agent_state agent;
    enum copy_xml_state copy;
    enum overlay_xml_job job;
    bool is_readonly;
    uid_t uid;
    gid_t gid;
    char *socket = NULL, **targets = NULL;
    size_t n = 0;
    xml_has_manager(xml);
    check_result(agent_xml_read(xml, &agent, &err), &err);
    check_result(copy_xml_find(xml, "vda", "/img/a.delta", &copy, &err), &err);
    check_result(overlay_xml_find_job(xml, "vda", "/img/a.qcow2", &job, &err), &err);
    check_result(overlay_xml_is_readonly(xml, "vda", &is_readonly, &err), &err);
    overlay_xml_find_user(xml, &uid, &gid);
    check_result(backup_xml_find_socket(xml, &socket, &err), &err);
    free(socket);
    check_result(snapshot_xml_check(xml, &err), &err);
    check_result(snapshot_xml_check_save(xml, &err), &err);
    check_result(define_xml_check_plain(xml, "vda", &err), &err);
    if (snapshot_xml_targets(xml, &targets, &n, &err) == 0)
        snapshot_xml_free_targets(targets, n);
}

static void build(const char *xml, const struct change *change)
{
    struct error err = {0};
    char *made = NULL;
    int r = snapshot_xml_build(change, xml, &made, &err);
    check_made(r, &err, made, "domainsnapshot");
    made = NULL;
    r = overlay_xml_build(xml, change, &made, &err);
    check_made(r, &err, made, "domainsnapshot");
    made = NULL;
    r = backup_xml_build(xml, change, &made, &err);
    check_made(r, &err, made, "domainbackup");
    for (int was_bare = 0; was_bare < 2; was_bare++) {
        made = NULL;
        r = define_xml_restore(xml, &change->disks[0], was_bare, &made, &err);
        fuzz_check((r == 1) == (made != NULL));
        check_made(r, &err, made, "domain");
    }
}

static void check_shown(const struct disk *disks, size_t n, const char *made)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(disks[i].target, "vda") == 0 && disks[i].n_layers > 0 &&
            strcmp(disks[i].layers[0].path, OVERLAY) == 0)
            fuzz_fail("the overlay is still named:\n%s", made);
}

/* What stands behind a form feed, which no XML can contain, is the definition before. */
static void hide(char *xml)
{
    const char *before =
        "<domain><devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        "<source file='/img/a.qcow2'/><target dev='vda'/></disk></devices></domain>";
    char *other = strchr(xml, '\f');
    if (other) {
        *other = '\0';
        before = other + 1;
    }
    char *made = NULL;
    struct error err = {0};
    int r = overlay_xml_hide_ours(xml, before, &made, &err);
    fuzz_check((r == 1) == (made != NULL));
    struct disk *disks = NULL;
    size_t n = 0;
    if (made && !other && xml_read_disks(made, &volumes, &disks, &n, &err) == 0)
        check_shown(disks, n, made);
    domain_free_disks(disks, n);
    check_made(r, &err, made, "domain");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct change_disk disk = {.target = (char *)"vda",
                               .base = (char *)"/img/a.qcow2",
                               .base_format = QCOW_FORMAT_QCOW2,
                               .file = (char *)OVERLAY};
    struct change change = {.method = CHANGE_OVERLAY,
                            .domain_id = (char *)"0b7b2a5e-6d7a-4a39-9a64-25a2c4bd1c0b",
                            .domain_name = (char *)"web",
                            .mark = (char *)MARK,
                            .socket = (char *)"/run/" MARK ".socket",
                            .disks = &disk,
                            .n_disks = 1};
    struct fuzz_input in = {.at = data, .left = len};
    char *xml = fuzz_rest(&in);
    read_disks(xml);
    read_snapshot(xml);
    read_states(xml);
    build(xml, &change);
    hide(xml);
    free(xml);
    return 0;
}
