#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Scripts pass shellcheck. Prints each finding.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v shellcheck >/dev/null || { echo 'skipped: no shellcheck' && exit 77; }

scripts=()
while IFS= read -r -d '' file; do
    if [[ $file == *.sh ]] || head -n 1 "$file" | grep -Eaq '^#!.*\b(ba)?sh\b'; then
        scripts+=("$file")
    fi
done < <(tests/lint/files.sh)
shellcheck --external-sources --source-path=SCRIPTDIR "${scripts[@]}"
echo "${#scripts[@]} scripts"
