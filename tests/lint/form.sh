#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The form of files: SPDX line first, under 500 lines, no blanks at line ends, clang-format.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v clang-format >/dev/null || { echo 'skipped: no clang-format' && exit 77; }

fault=0
complain() {
    echo "$*"
    fault=1
}

sources=()
while IFS= read -r -d '' file; do
    case $file in
    LICENSE | .gitignore | .clang-format | .editorconfig | debian/* | docs/* | *.md) continue ;;
    tests/fuzz/corpus/* | tests/fuzz/crashes/*) continue ;; # of any bytes
    *.c | *.h) sources+=("$file") ;;
    esac
    # Behind a "#!" line where there is one.
    head -n 2 "$file" | grep -q 'SPDX-License-Identifier: LGPL-2.1-or-later' ||
        complain "$file: no SPDX line at its begin"
    lines=$(wc -l <"$file")
    ((lines < 500)) || complain "$file: $lines lines, 499 are allowed"
    if grep -nE '[[:blank:]]+$' "$file" | sed "s|^|$file:|; s|\$| (blanks at the end)|" | grep .; then
        fault=1
    fi
    [[ -z $(tail -c 1 "$file") ]] || complain "$file: no newline at the end"
done < <(tests/lint/files.sh)

clang-format --dry-run -Werror "${sources[@]}" || fault=1
echo "${#sources[@]} C files"
exit "$fault"
