/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The verbs of fs/glance, for scripts:
 *
 *   glancecall [OPTION...] config|login
 *   glancecall [OPTION...] upload NAME FORMAT FILE [KEY=VALUE...]
 *
 *   -c CLOUD    of clouds.yaml
 *   -s SECONDS  stall timeout (10)
 *   -j N        so many uploads at once, of one file
 *   -p BYTE     at that place of the data it says "at BYTE", and waits for a line of standard
 *               input: go, fail (the disk cannot be read), cancel
 *
 * SIGUSR1 cancels at any time.
 *
 * KEY is visibility, min_disk, min_ram, protected, or else a property's name. It prints "id ID" and
 * "replaced ID" as it goes, and at last a line for each upload: "OK", or the errno's name and the
 * reason. Debug lines go to standard error.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/glance/image.h"
#include "fs/log.h"

enum { PROPERTIES_MAX = 256, JOBS_MAX = 16 };

static struct {
    const char *cloud;
    unsigned stall_s;
    int n_jobs;
    long long pause_at;
} options = {.stall_s = 10, .n_jobs = 1, .pause_at = -1};

static struct glance *glance;
static struct glance_record record = {.visibility = "private"};
static struct glance_property properties[PROPERTIES_MAX];
static int data_fd;
static uint64_t data_size;
static atomic_bool is_paused_once, is_cancelled, is_failing;

static bool check_cancelled(void *ctx)
{
    (void)ctx;
    return atomic_load(&is_cancelled);
}

static void on_signal(int signal)
{
    (void)signal;
    atomic_store(&is_cancelled, true);
}

static void pause_here(uint64_t off)
{
    char line[64];
    printf("at %llu\n", (unsigned long long)off);
    if (!fgets(line, sizeof(line), stdin) || strcmp(line, "cancel\n") == 0)
        atomic_store(&is_cancelled, true);
    else if (strcmp(line, "fail\n") == 0)
        atomic_store(&is_failing, true);
}

static int read_data(void *ctx, uint64_t off, void *buf, size_t len, struct error *err)
{
    (void)ctx;
    uint64_t at = (uint64_t)options.pause_at;
    if (options.pause_at >= 0 && off >= at && !atomic_exchange(&is_paused_once, true))
        pause_here(off);
    if (atomic_load(&is_failing))
        return error_set(err, -EBADMSG, "the disk is damaged");
    ssize_t n = pread(data_fd, buf, len, (off_t)off);
    return n == (ssize_t)len ? 0 : error_set(err, -EIO, "cannot read the file");
}

static void on_moved(void *ctx, enum glance_phase phase, uint64_t n_sent)
{
    uint64_t *last = ctx;
    if (phase == GLANCE_VERIFYING)
        printf("verifying %llu\n", (unsigned long long)n_sent);
    else if (n_sent < *last)
        printf("again\n");
    *last = n_sent;
}

static void on_replaced(void *ctx, const char *new_id)
{
    (void)ctx;
    printf("replaced %s\n", new_id);
}

static const struct glance_cancel cancel = {.is_cancelled = check_cancelled};

static int upload(struct error *err)
{
    struct glance_image *image;
    int r = glance_image_create(glance, &record, &cancel, &image, err);
    if (r < 0)
        return r;
    printf("id %s\n", glance_image_id(image));
    uint64_t last = 0;
    const struct glance_body body = {.size = data_size, .read = read_data};
    const struct glance_progress progress = {
        .moved = on_moved, .replaced = on_replaced, .ctx = &last};
    r = glance_image_send(image, &body, &progress, &cancel, err);
    glance_image_free(image);
    return r;
}

static void print_outcome(int r, const struct error *err)
{
    if (r < 0)
        printf("%s %s\n", strerrorname_np(-r), err->text);
    else
        printf("OK\n");
}

static void *run_upload(void *arg)
{
    (void)arg;
    struct error err = {0};
    int r = upload(&err);
    print_outcome(r, &err);
    return NULL;
}

static void run_uploads(void)
{
    pthread_t threads[JOBS_MAX];
    for (int i = 0; i < options.n_jobs; i++)
        if (pthread_create(&threads[i], NULL, run_upload, NULL) != 0)
            abort();
    for (int i = 0; i < options.n_jobs; i++)
        pthread_join(threads[i], NULL);
}

static void take_key(char *word)
{
    char *value = strchr(word, '=');
    if (!value)
        exit(1);
    *value++ = '\0';
    if (strcmp(word, "visibility") == 0)
        record.visibility = value;
    else if (strcmp(word, "min_disk") == 0)
        record.min_disk_gib = (uint32_t)strtoul(value, NULL, 10);
    else if (strcmp(word, "min_ram") == 0)
        record.min_ram_mib = (uint32_t)strtoul(value, NULL, 10);
    else if (strcmp(word, "protected") == 0)
        record.is_protected = strcmp(value, "true") == 0;
    else if (record.n_properties < PROPERTIES_MAX)
        properties[record.n_properties++] = (struct glance_property){word, value};
}

static int prepare_upload(int argc, char **argv)
{
    struct stat st;
    if (argc < 4)
        return -1;
    record.name = argv[1];
    record.disk_format = argv[2];
    record.properties = properties;
    for (int i = 4; i < argc; i++)
        take_key(argv[i]);
    data_fd = open(argv[3], O_RDONLY | O_CLOEXEC);
    if (data_fd < 0 || fstat(data_fd, &st) < 0)
        return -1;
    data_size = (uint64_t)st.st_size;
    return 0;
}

static void log_in(void)
{
    struct error err = {0};
    char *project_id = NULL, *user_id = NULL;
    int r = glance_login(glance, &cancel, &project_id, &user_id, &err);
    if (r == 0)
        printf("project %s\nuser %s\n", project_id ? project_id : "-", user_id ? user_id : "-");
    print_outcome(r, &err);
    free(project_id);
    free(user_id);
}

static int take_options(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "+c:s:j:p:")) != -1) {
        switch (option) {
        case 'c':
            options.cloud = optarg;
            break;
        case 's':
            options.stall_s = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'j':
            options.n_jobs = atoi(optarg) > JOBS_MAX ? JOBS_MAX : atoi(optarg);
            break;
        case 'p':
            options.pause_at = atoll(optarg);
            break;
        default:
            return -1;
        }
    }
    return optind < argc ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct error err = {0};
    struct glance_config *config;
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGUSR1, on_signal);
    log_init(LOG_LEVEL_DEBUG);
    if (take_options(argc, argv) < 0)
        return 1;
    int r = glance_config_load(options.cloud, environ, &config, &err);
    glance_config_wipe_env(environ);
    if (r == 0 && strcmp(argv[optind], "config") != 0)
        r = glance_create(config, options.stall_s, &glance, &err);
    if (r < 0 || !glance) {
        print_outcome(r, &err);
        if (r == 0)
            glance_config_free(config);
        return 0;
    }
    if (strcmp(argv[optind], "login") == 0)
        log_in();
    else if (prepare_upload(argc - optind, argv + optind) < 0)
        return 1;
    else
        run_uploads();
    glance_destroy(glance);
    return 0;
}
