/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lines of /proc/self/mountinfo: anybody may mount at a path of any bytes. */
#include <errno.h>
#include <stdlib.h>

#include "fs/fuse/mountpoint.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_input in = {.at = data, .left = len};
    while (in.left > 0) {
        char *line = fuzz_text(&in, '\n');
        struct mountinfo info;
        int r = mountinfo_parse(line, &info);
        fuzz_check(r == 0 || r == -EINVAL);
        if (r == 0) {
            fuzz_check(info.path && info.type && info.type[0]);
            mountinfo_fini(&info);
        }
        free(line);
    }
    return 0;
}
