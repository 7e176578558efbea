/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The verbs freeze and thaw on a domain of the system's libvirt, for scripts:
 *
 *   agentcall freeze|thaw DOMAIN
 *
 * Prints "OK" or the errno's name, then the milliseconds it took and the reason.
 */
#include <stdio.h>
#include <string.h>

#include "fs/host/eventloop.h"
#include "fs/host/libvirt.h"

static void on_domain_changed(void *ctx, const struct domain *domain)
{
    (void)ctx;
    (void)domain;
}

static void on_domain_gone(void *ctx, const char *id)
{
    (void)ctx;
    (void)id;
}

static int call(struct host *host, const char *verb, const char *name)
{
    struct domain *domain = host->ops->find_name(host, name);
    if (!domain) {
        fprintf(stderr, "agentcall: no domain '%s'\n", name);
        return 1;
    }
    struct error err = {0};
    int r = strcmp(verb, "freeze") == 0 ? host->ops->freeze(host, domain->id, &err)
                                        : host->ops->thaw(host, domain->id, &err);
    printf("%s %s\n", r < 0 ? strerrorname_np(-r) : "OK", err.text);
    domain_unref(domain);
    return 0;
}

int main(int argc, char **argv)
{
    struct libvirt_config config = {
        .uri = "qemu:///system",
        .timeout_ms = 10000,
        .events = {.domain_changed = on_domain_changed, .domain_gone = on_domain_gone},
    };
    struct error err = {0};
    struct host *host;
    if (argc != 3 || eventloop_init_library(&err) < 0 || libvirt_open(&config, &host, &err) < 0) {
        fprintf(stderr, "agentcall: %s\n", argc == 3 ? err.text : "agentcall freeze|thaw DOMAIN");
        return 1;
    }
    int status = call(host, argv[1], argv[2]);
    host->ops->close(host);
    return status;
}
