/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is written to `upload`: parsed, and made into the record that Glance would be sent. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/glance/image_internal.h"
#include "fs/glance/record.h"
#include "tests/fuzz/fuzz.h"

static void check_line(const struct upload_line *line)
{
    fuzz_check(line->snapshot && line->snapshot[0]);
    fuzz_check(!line->image_name || line_is_name(line->image_name));
    fuzz_check(!line->format || !strcmp(line->format, "raw") || !strcmp(line->format, "qcow2"));
    fuzz_check(line->visibility);
    fuzz_check(line->n_properties <= LINE_PROPERTIES_MAX);
    for (size_t i = 0; i < line->n_properties; i++)
        for (size_t j = 0; j < i; j++)
            fuzz_check(strcmp(line->properties[i].name, line->properties[j].name) != 0);
}

/* What the line allows, Glance's record takes, or says why not. */
static void check_record(const struct upload_line *line)
{
    char *name = record_default_name(line->snapshot, "web-1");
    fuzz_check(name && line_is_name(name));
    struct record_machine machine = {.uuid = (char *)"0b7b2a5e-6d7a-4a39-9a64-25a2c4bd1c0b"};
    struct record_request request = {.line = line,
                                     .machine = &machine,
                                     .name = line->image_name ? line->image_name : name,
                                     .disk_format = line->format ? line->format : "raw",
                                     .guest_size = 1 << 30};
    struct glance_record record;
    json_t *json = NULL;
    struct error err = {0};
    fuzz_check(record_make(&request, &record) == 0);
    int r = image_record_make(&record, &json, &err);
    fuzz_check(r == err.code && (r == 0 || (r == -EINVAL && err.text[0])));
    json_decref(json);
    record_fini(&record);
    free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *bytes = (char *)fuzz_copy(data, len), *snapshot = NULL, *image_name = NULL;
    struct upload_line line = {0};
    struct error err = {0};
    int r = line_parse(bytes, len, &line, &err);
    fuzz_check(r == err.code && (r == 0 || (r == -EINVAL && err.text[0])));
    if (r == 0) {
        fuzz_check(len <= LINE_LEN_MAX);
        check_line(&line);
        check_record(&line);
        line_fini(&line);
    }
    line_peek(bytes, len, &snapshot, &image_name);
    free(snapshot);
    free(image_name);
    free(bytes);
    return 0;
}
