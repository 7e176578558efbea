/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * changer [-u] [-s SCRATCH] [-t TIMEOUT-MS] [-w STEP] URI METHOD DOMAIN NOTES
 *
 * Takes an instant of a domain by one method of the libvirt host, without the file system: plans,
 * makes, says what it made, waits for the end of standard input, undoes. What the method notes is
 * kept in the file NOTES, in place of the journal; -u undoes what a run that was killed has left
 * there. -w: after that step ("plan", "note", "enter", "leave") says so and waits for a line of
 * standard input, so that a test can do harm there.
 *
 * Exit status: 0 done, 1 usage, 2 refused by plan, 3 make failed and was undone, 4 undo failed,
 * 5 undo was deferred.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/libvirt.h"
#include "qcow/base/cleanup.h"

struct run {
    const char *notes;
    const char *wait_after; /* or NULL */
};

static void say(const char *word)
{
    puts(word);
    fflush(stdout);
}

static void pass_step(const struct run *run, const char *step)
{
    say(step);
    if (run->wait_after && strcmp(run->wait_after, step) == 0) {
        char line[16];
        say("waiting");
        if (!fgets(line, sizeof(line), stdin))
            exit(1);
    }
}

static int keep_notes(void *ctx, const struct change *change, struct error *err)
{
    const struct run *run = ctx;
    FILE *file = fopen(run->notes, "we");
    if (!file)
        return error_set(err, -EIO, "cannot write '%s'", run->notes);
    fprintf(file, "%s\n%s\n%s\n%d %d %d\n", change->domain_id, change->domain_name, change->mark,
            change->is_persistent, change->was_paused, change->is_halted);
    for (size_t i = 0; i < change->n_disks; i++)
        fprintf(file, "%s\n%s\n%s\n%s\n", change->disks[i].target, change->disks[i].base,
                qcow_format_name(change->disks[i].base_format),
                change->disks[i].file ? change->disks[i].file : "");
    fclose(file);
    pass_step(run, change->is_halted ? "note halted" : "note");
    return 0;
}

static int enter(void *ctx, struct change *change, struct error *err)
{
    (void)change;
    (void)err;
    pass_step(ctx, "enter");
    return 0;
}

static void leave(void *ctx, struct change *change)
{
    (void)change;
    pass_step(ctx, "leave");
}

static bool is_cancelled(void *ctx)
{
    (void)ctx;
    return getenv("CHANGER_CANCELS") != NULL;
}

static char *read_line(FILE *file)
{
    char *line = NULL;
    size_t size = 0;
    if (getline(&line, &size, file) < 0) {
        free(line);
        return NULL;
    }
    line[strcspn(line, "\n")] = '\0';
    return line;
}

static bool read_disk(FILE *file, struct change *change)
{
    auto_free char *target = read_line(file);
    auto_free char *base = read_line(file);
    auto_free char *format = read_line(file);
    auto_free char *path = read_line(file);
    enum qcow_format parsed;
    struct error err = {0};
    return path && qcow_format_parse(format, &parsed) == 0 &&
           change_add_disk(change, target, base, parsed, *path ? path : NULL, &err) == 0;
}

/* The change that a run which was killed has noted, or NULL. */
static struct change *read_notes(const char *path, enum change_method method)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return NULL;
    auto_free char *id = read_line(file);
    auto_free char *name = read_line(file);
    char *mark = read_line(file);
    auto_free char *flags = read_line(file);
    int persistent = 0, paused = 0, halted = 0;
    struct change *change = NULL;
    struct error err = {0};
    if (flags && sscanf(flags, "%d %d %d", &persistent, &paused, &halted) == 3 &&
        change_create(method, id, name, &change, &err) == 0) {
        free(change->mark);
        change->mark = take_ptr(mark);
        change->is_persistent = persistent;
        change->was_paused = paused;
        change->is_halted = halted;
        while (read_disk(file, change))
            ;
    }
    free(mark);
    fclose(file);
    return change;
}

static int fail(const char *what, const struct error *err, int status)
{
    printf("%s: %s: %s\n", what, strerrorname_np(-err->code), err->text);
    fflush(stdout);
    return status;
}

static int undo(const struct host_method *method, struct host *host, struct change *change,
                const struct change_steps *steps)
{
    struct error err = {0};
    int r = method->undo(host, change, steps, &err);
    if (r < 0)
        return fail("undo", &err, r == -EAGAIN ? 5 : 4);
    say("undone");
    return 0;
}

static int make(const struct host_method *method, struct host *host, struct change *change,
                const struct change_steps *steps)
{
    struct error err = {0};
    if (keep_notes(steps->ctx, change, &err) < 0)
        return fail("notes", &err, 1);
    int r = method->make(host, change, steps, &err);
    if (r < 0) {
        fail("make", &err, 3);
        r = undo(method, host, change, steps);
        return r ? r : 3;
    }
    printf("mark %s\n", change->mark);
    for (size_t i = 0; i < change->n_disks; i++)
        printf("disk %s %s %s\n", change->disks[i].target, change->disks[i].base,
               change->disks[i].file ? change->disks[i].file : "-");
    say("made");
    while (getchar() != EOF)
        ;
    return undo(method, host, change, steps);
}

static int take(const struct host_method *method, struct host *host, const char *name,
                const struct change_steps *steps)
{
    struct error err = {0};
    struct change *change = NULL;
    struct domain *domain = host->ops->find_name(host, name);
    if (!domain) {
        error_set(&err, -ESTALE, "no domain '%s'", name);
        return fail("find", &err, 1);
    }
    int r = method->can(host, domain, &err);
    if (r == 0)
        r = change_create(method->method, domain->id, domain->name, &change, &err);
    if (r == 0)
        r = method->plan(host, domain, change, &err);
    if (r == 0) {
        pass_step(steps->ctx, "plan");
        r = make(method, host, change, steps);
    } else {
        r = fail("plan", &err, 2);
    }
    change_free(change);
    domain_unref(domain);
    return r;
}

static int usage(void)
{
    fputs("usage: changer [-u] [-s SCRATCH] [-t MS] [-w STEP] URI METHOD DOMAIN NOTES\n", stderr);
    return 1;
}

int main(int argc, char **argv)
{
    struct libvirt_config config = {.timeout_ms = 30000};
    struct run run = {0};
    bool undoes = false;
    signal(SIGPIPE, SIG_IGN); /* a libvirtd that dies */
    for (int c; (c = getopt(argc, argv, "us:t:w:")) != -1;) {
        switch (c) {
        case 'u':
            undoes = true;
            break;
        case 's':
            config.scratch_dir = optarg;
            break;
        case 't':
            config.timeout_ms = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'w':
            run.wait_after = optarg;
            break;
        default:
            return usage();
        }
    }
    enum change_method word;
    if (argc - optind != 4 || change_method_parse(argv[optind + 1], &word) < 0)
        return usage();
    struct error err = {0};
    struct host *host;
    config.uri = argv[optind];
    run.notes = argv[optind + 3];
    if (libvirt_open(&config, &host, &err) < 0)
        return fail("libvirt", &err, 1);
    const struct host_method *method = host->ops->method(host, word);
    const struct change_steps steps = {.note = keep_notes,
                                       .enter = enter,
                                       .leave = leave,
                                       .is_cancelled = is_cancelled,
                                       .ctx = &run};
    struct change *change = method && undoes ? read_notes(run.notes, method->method) : NULL;
    int r = 1;
    if (!method)
        puts("no such method");
    else if (!undoes)
        r = take(method, host, argv[optind + 2], &steps);
    else if (change)
        r = undo(method, host, change, &steps);
    change_free(change);
    host->ops->close(host);
    return r;
}
