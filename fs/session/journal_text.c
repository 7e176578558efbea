/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/session/journal_internal.h"
#include "qcow/base/cleanup.h"

/* Lines under way; once there is no memory, further ones are dropped and `lines` is NULL. */
struct page {
    json_t *lines;
};

static void add_line(struct page *page, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add_line(struct page *page, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int len = vasprintf(&text, fmt, ap);
    va_end(ap);
    json_t *line = len < 0 ? NULL : json_string(text);
    if (len >= 0)
        free(text);
    if (page->lines && json_array_append_new(page->lines, line) == 0)
        return;
    json_decref(page->lines);
    page->lines = NULL;
}

/* @text as one word of a shell's command line, in ASCII; caller frees. NULL: no memory. */
static char *quote(const char *text)
{
    size_t len = strlen(text);
    bool is_plain = true;
    for (size_t i = 0; i < len; i++)
        is_plain = is_plain && text[i] >= 0x20 && text[i] < 0x7f && text[i] != '\'';
    char *word = malloc(4 * len + sizeof("$''"));
    if (!word)
        return NULL;
    if (is_plain) {
        sprintf(word, "'%s'", text);
        return word;
    }
    char *at = word + sprintf(word, "$'");
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c >= 0x7f || c == '\'' || c == '\\')
            at += sprintf(at, "\\%03o", c);
        else
            *at++ = text[i];
    }
    memcpy(at, "'", 2);
    return word;
}

/* What each command says of the domain and of one disk, as words for a shell. */
struct words {
    char *virsh; /* with the connection */
    char *base, *file;
};

static void words_fini(struct words *words)
{
    free(words->virsh);
    free(words->base);
    free(words->file);
}

#define auto_words __attribute__((cleanup(words_fini)))

/* @disk may be NULL. False: no memory. */
static bool words_init(struct words *words, const char *source, const struct change_disk *disk)
{
    *words = (struct words){.base = quote(disk ? disk->base : ""),
                            .file = quote(disk && disk->file ? disk->file : "")};
    auto_free char *uri = quote(source);
    if (!uri || asprintf(&words->virsh, "virsh -c %s", uri) < 0)
        words->virsh = NULL;
    return words->virsh && words->base && words->file;
}

/* Lines for one disk, the same for all methods; nothing for some. */
static void explain_disk(struct page *page, const struct change *change, const char *source,
                         const struct change_disk *disk)
{
    auto_words struct words w = {0};
    if (!words_init(&w, source, disk)) {
        json_decref(page->lines);
        page->lines = NULL;
        return;
    }
    const char *id = change->domain_id, *target = disk->target;
    const char *format = qcow_format_name(disk->base_format);
    switch (change->method) {
    case CHANGE_OVERLAY:
    case CHANGE_COLD_OVERLAY:
        add_line(page,
                 "  %s: if the domain is on: %s blockcommit %s %s --base %s --top %s"
                 " --active --pivot --delete",
                 target, w.virsh, id, target, w.base, w.file);
        add_line(page,
                 "  %s: if it is off: qemu-img commit -d %s, then %s edit %s: the disk's"
                 " source is to be %s, its driver's type '%s'; then rm %s",
                 target, w.file, w.virsh, id, w.base, format, w.file);
        break;
    case CHANGE_COPY:
        add_line(page, "  %s: %s blockjob %s %s --abort; rm -f %s", target, w.virsh, id, target,
                 w.file);
        break;
    case CHANGE_BACKUP:
        if (disk->file)
            add_line(page, "  %s: rm -f %s", target, w.file);
        break;
    case CHANGE_MANAGEDSAVE:
    case CHANGE_INTERNAL:
        add_line(page, "  %s: if the domain is off: qemu-img snapshot -d %s %s", target,
                 change->mark, w.base);
        break;
    }
}

static const char *describe(enum change_method method)
{
    switch (method) {
    case CHANGE_OVERLAY:
    case CHANGE_COLD_OVERLAY:
        return "The domain's disks get overlays, which take what the guest writes, while the "
               "images "
               "below them are read. Never delete an overlay that the domain still uses: it holds "
               "the guest's data.";
    case CHANGE_BACKUP:
        return "The domain gets a backup job, which lets its disks be read as they were at one "
               "moment.";
    case CHANGE_COPY:
        return "The domain's disks are copied aside by block jobs.";
    case CHANGE_MANAGEDSAVE:
        return "The domain is saved, gets an internal snapshot in its images, and is started "
               "again.";
    case CHANGE_INTERNAL:
        return "The domain gets an internal snapshot in its images.";
    }
    return "";
}

/* What undoes it for the domain as a whole, before the lines for each disk. */
static void explain_method(struct page *page, const struct change *change, const char *virsh)
{
    const char *id = change->domain_id;
    if (change->is_frozen)
        add_line(page, "  if the guest's file systems are frozen: %s domfsthaw %s", virsh, id);
    if (change->is_halted && change->method == CHANGE_MANAGEDSAVE)
        add_line(page, "  if the domain is off with its memory saved: %s start %s%s", virsh, id,
                 change->was_paused ? " --paused" : "");
    else if (change->is_halted && !change->was_paused)
        add_line(page, "  if the domain is paused: %s resume %s", virsh, id);
    if (change->method == CHANGE_BACKUP)
        add_line(page, "  %s domjobabort %s", virsh, id);
    if (change->method == CHANGE_MANAGEDSAVE || change->method == CHANGE_INTERNAL)
        add_line(page, "  %s snapshot-delete %s %s", virsh, id, change->mark);
}

/* What to type, the same for all methods. */
static void explain_commands(struct page *page, const struct change *change, const char *source)
{
    auto_words struct words w = {0};
    auto_free char *socket = quote(change->socket ? change->socket : "");
    if (!socket || !words_init(&w, source, NULL)) {
        json_decref(page->lines);
        page->lines = NULL;
        return;
    }
    explain_method(page, change, w.virsh);
    for (size_t i = 0; i < change->n_disks; i++)
        explain_disk(page, change, source, &change->disks[i]);
    if (change->socket)
        add_line(page, "  rm -f %s", socket);
}

json_t *journal_commands(const struct change *change, const char *source)
{
    auto_free char *word = quote(source);
    struct page page = {.lines = json_array()};
    add_line(&page, "virtsnapfs --recover %s", word ? word : "SOURCE");
    add_line(&page, "or by hand, while no virtsnapfs uses the domain:");
    explain_commands(&page, change, source);
    return page.lines;
}

json_t *journal_explain(const struct change *change, const char *source)
{
    auto_words struct words w = {0};
    auto_free char *name = quote(change->domain_name);
    if (!name || !words_init(&w, source, NULL))
        return NULL;
    struct page page = {.lines = json_array()};
    char when[32] = "";
    time_t now = time(NULL);
    struct tm tm;
    if (gmtime_r(&now, &tm))
        strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
    add_line(&page, "virtsnapfs (process %d, %s) reads the disks of domain %s, uuid %s.",
             (int)getpid(), when, name, change->domain_id);
    add_line(&page, "%s", describe(change->method));
    add_line(&page, "If virtsnapfs runs no more, this undoes it: virtsnapfs --recover, with the"
                    " source and options of that mount; as does the next mount of that source.");
    add_line(&page,
             "By hand, and only while no virtsnapfs runs; look first what is there, with"
             " %s domblklist --details %s:",
             w.virsh, change->domain_id);
    explain_commands(&page, change, source);
    add_line(&page, "Then delete this file.");
    return page.lines;
}
