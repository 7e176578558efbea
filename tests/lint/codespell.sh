#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Words that codespell knows as misspelt, in sources, scripts and pages.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v codespell >/dev/null || { echo 'skipped: no codespell' && exit 77; }

files=()
while IFS= read -r -d '' file; do
    [[ $file == LICENSE || $file == tests/fuzz/c*/* ]] || files+=("$file") # (corpora are no words)
done < <(tests/lint/files.sh)
codespell "${files[@]}"
echo "${#files[@]} files"
