#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Each header compiles alone, begins with #pragma once after its comment, and says what it is for.
set -euo pipefail
cd "$(dirname "$0")/../.."

fault=0
flags=(-std=gnu17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -Wall -Wextra -Werror -fsyntax-only)
read -ra packages < <(pkg-config --cflags fuse3 libvirt libxml-2.0 jansson)
while IFS= read -r -d '' file; do
    [[ $file == *.h ]] || continue
    # cmocka's header wants four others before it, so tests' headers are left out.
    if [[ $file != tests/* ]]; then
        "${CC:-cc}" "${flags[@]}" "${packages[@]}" -x c - <<<"#include \"$file\"" || fault=1
    fi
    if [[ $(sed '/^\/\*/,/\*\//d; /^$/d' "$file" | head -n 1) != '#pragma once' ]]; then
        echo "$file: does not begin with #pragma once"
        fault=1
    fi
    if ! sed -n 2p "$file" | grep -q '^/\*'; then
        echo "$file: does not say what it is for"
        fault=1
    fi
done < <(tests/lint/files.sh)
exit "$fault"
