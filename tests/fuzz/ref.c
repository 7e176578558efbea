/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * References as images record them (first line: the image, the rest: the reference): an absolute
 * path or nothing, never a protocol, and inside a directory only if it is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/file.h"
#include "tests/fuzz/fuzz.h"

static const char folder[] = "/var/lib/images";

static void check_beneath(const char *path)
{
    const char *const dirs[] = {folder};
    if (!file_is_beneath(path, dirs, 1))
        return;
    size_t len = strlen(folder);
    fuzz_check(!strncmp(path, folder, len) && (path[len] == '/' || !path[len]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_input in = {.at = data, .left = len};
    char *image = fuzz_text(&in, '\n'), *name = fuzz_rest(&in), *path = NULL, *from = NULL;
    struct error err = {0};
    fuzz_check(asprintf(&from, "%s/%s", folder, image) > 0);
    int r = file_resolve_ref(from, name, &path, &err);
    fuzz_check(r == err.code && (r == 0 || err.text[0]));
    if (r == 0) {
        fuzz_check(path[0] == '/');
        fuzz_check(!strncmp(name, "nbd:", 4) || !strncmp(name, "json:", 5) ? r < 0 : true);
        check_beneath(path);
    }
    free(path);
    free(from);
    free(name);
    free(image);
    return 0;
}
