#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Lists the files of the project, NUL-terminated: what git knows or would add; all but build
# folders where there is no git.
set -euo pipefail
cd "$(dirname "$0")/../.."
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
        if [[ -f $file && ! -L $file ]]; then
            printf '%s\0' "$file"
        fi
    done
else
    find . -path ./.git -prune -o -path './build*' -prune -o -type f -printf '%P\0'
fi
