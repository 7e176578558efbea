# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For tests/run and tests/bench/run, which begin on a machine that has nothing yet: packages and
# builds. $logs is a folder that goes away at the end, as does whatever is added to @at_exit.

logs=$(mktemp -d)
at_exit=("$logs")
trap 'rm -rf --one-file-system "${at_exit[@]}"' EXIT
trap 'exit 143' TERM INT HUP

say() {
    printf '\n== %s (%d:%02d)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60))
}

# Runs a command that nobody needs to watch; shows what it said if it fails.
quietly() {
    "$@" >"$logs/quietly" 2>&1 </dev/null || {
        cat "$logs/quietly"
        echo "$0: failed: $*" >&2
        exit 1
    }
}

# install_packages PACKAGE...: those that are missing.
install_packages() {
    local missing=() package
    for package; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || {
        echo "$0: no apt-get here; wanted: ${missing[*]}" >&2
        return 0
    }
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Nothing that is installed here is started: what a test needs, it starts itself.
    local policy=/usr/sbin/policy-rc.d is_ours=''
    if [[ ! -e $policy ]]; then
        is_ours=yes
        at_exit+=("$policy")
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    quietly apt-get -q update
    quietly apt-get -q install -y --no-install-recommends "${missing[@]}"
    [[ -z $is_ours ]] || rm -f "$policy"
}

# build NAME OPTION...: sets up (once) and compiles build-tests/NAME.
build() {
    local name=$1
    shift
    [[ -e build-tests/$name/build.ninja ]] || quietly meson setup "build-tests/$name" "$@"
    quietly ninja -C "build-tests/$name"
}
