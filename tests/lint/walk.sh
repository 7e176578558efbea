#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The walk of docs/architecture.md: each function that a row names is defined in a file of that row.
# A row has three cells: step, functions in backquotes, files in backquotes.
set -euo pipefail
cd "$(dirname "$0")/../.."
page=docs/architecture.md
[[ -e $page ]] || { echo "skipped: no $page" && exit 77; }

fault=0 rows=0
while IFS='|' read -r _ step functions files _; do
    step=$(xargs <<<"${step//[\'\"]/}")
    # shellcheck disable=SC2016
    mapfile -t functions < <(grep -o '`[a-z_]*[(]*[)]*`' <<<"$functions" | tr -d '`()')
    # shellcheck disable=SC2016
    mapfile -t files < <(grep -o '`[^`]*`' <<<"$files" | tr -d '`')
    ((${#functions[@]} && ${#files[@]})) || continue
    rows=$((rows + 1))
    # A file without a folder lies in the folder of the one before; "*.c" stands for all.
    folder='' paths=()
    for file in "${files[@]}"; do
        [[ $file == */* ]] && folder=${file%/*} || file=$folder/$file
        [[ $file == */ ]] && file+='*.c'
        # shellcheck disable=SC2206
        paths+=($file)
    done
    for path in "${paths[@]}"; do
        if [[ ! -e $path ]]; then
            echo "$page: '$step': no file $path"
            fault=1
        fi
    done
    for function in "${functions[@]}"; do
        # A definition: the name at the begin of a line or after a type, and no ';' at the end.
        if ! grep -Eqs "^([a-z].*[ *])?$function\(" "${paths[@]}"; then
            echo "$page: '$step': no function $function in ${paths[*]}"
            fault=1
        fi
    done
done < <(grep '^|.*|.*|.*|' "$page")
if ((rows == 0)); then
    echo "$page: no walk was found"
    fault=1
fi
echo "$rows steps"
exit "$fault"
