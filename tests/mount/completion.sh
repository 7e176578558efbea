#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What bash offers behind virtsnapfs: options, their values, sources, folders, mounts of ours; by the
# function alone, and by the Tab key in an interactive bash. (tests/lint/options.py has each option.)
. "$(dirname "$0")/../lib/mount.sh"

script=$(realpath "$(dirname "$0")/../../mount-helpers/virtsnapfs.bash")
mkdir -p "$T/bin" "$T/images" "$T/some/inner one" "$T/some/other" "$T/a mount"
printf '#!/bin/sh\nexec %s "$@"\n' "$VIRTSNAPFS" >"$T/bin/virtsnapfs"
chmod +x "$T/bin/virtsnapfs"
PATH=$T/bin:$PATH
truncate -s 1M "$T/images/a.raw" "$T/some/file"
# shellcheck source=mount-helpers/virtsnapfs.bash
. "$script"
cd "$T"

# complete_line LINE: sets COMPREPLY; the cursor stands at its end. Words are cut at = and : as bash does.
complete_line() {
    local line=$1 rest=$1
    COMP_WORDBREAKS=$' \t\n"\'><=;|&(:' COMP_WORDS=() COMP_LINE=$line COMP_POINT=${#line} COMPREPLY=()
    while [[ $rest =~ ^[[:blank:]]*([=:]+|[^[:blank:]=:]+)(.*)$ ]]; do
        COMP_WORDS+=("${BASH_REMATCH[1]}")
        rest=${BASH_REMATCH[2]}
    done
    [[ $line != *[[:blank:]] ]] || COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _virtsnapfs virtsnapfs || true # compopt fails without a Tab key
}
# offers LINE WANTED...
offers() {
    local line=$1 found wanted
    shift
    complete_line "$line"
    found=$(printf '%s\n' "${COMPREPLY[@]}" | sort | paste -sd '|')
    wanted=$(printf '%s\n' "$@" | sort | paste -sd '|')
    assert_eq "$found" "$wanted" "offered for '$line'"
}

offers 'virtsnapfs -o live=' auto overlay backup copy managedsave
offers 'virtsnapfs -o live=o' overlay
offers 'virtsnapfs -f -o ro,list=qc' qcow2
offers 'virtsnapfs -o live=auto,co' auto,cold=
offers 'virtsnapfs -o li' linger= list= live=
offers 'virtsnapfs -olist=r' raw
offers 'virtsnapfs -fo quiesce=t' try
offers 'virtsnapfs --cold=i' internal
offers 'virtsnapfs --cold i' internal
offers 'virtsnapfs --max' --max_hold= --max_open= --max_uploads=
offers 'virtsnapfs --w' --wait --watch
offers 'virtsnapfs --re' --recover
offers 'virtsnapfs --format=x'
offers 'virtsnapfs --frobnicate='
offers 'virtsnapfs -o ='
offers 'virtsnapfs --linger '
# Sources, folders; what stands in front may have a value of its own.
offers 'virtsnapfs ' qemu:///system qemu:///session dir:
offers 'virtsnapfs --linger 5 --umask=027 -f q' qemu:///system qemu:///session
offers 'virtsnapfs qemu:///s' ///system ///session
offers 'virtsnapfs qemu:///sys' ///system
offers 'virtsnapfs dir:some/' 'some/inner one' some/other
offers 'virtsnapfs --recover dir:some/o' some/other
offers 'virtsnapfs -o state=some/o' some/other
offers 'virtsnapfs --backing-dir=some/o' some/other
offers 'virtsnapfs -o ro,scratch=some/o' some/other
offers 'virtsnapfs dir:some some/o' some/other
offers 'virtsnapfs -- qemu:///system some/o' some/other
offers 'virtsnapfs dir:some some more'
offers 'virtsnapfs --recover dir:some so'

# Mounts of ours, and any folder where none fits.
mount_start "dir:$T/images"
first=$MNT
MNT="$T/a mount"
mount_start_at "dir:$T/images"
offers "virtsnapfs --wait $T/" "$first" "$T/a mount"
complete_line 'virtsnapfs --wait ' # and those of other tests
for mount in "$first" "$T/a mount"; do
    printf '%s\n' "${COMPREPLY[@]}" | grep -Fqx -- "$mount" || fail "$mount is not offered: ${COMPREPLY[*]}"
done
offers "virtsnapfs --status --watch $T/mn" "$first"
offers 'virtsnapfs --wait some/o' some/other
offers "virtsnapfs --wait $first so"

# In front of what follows the cursor.
COMP_LINE='virtsnapfs -o live=over dir:some' COMP_POINT=21 COMPREPLY=() COMP_CWORD=4
COMP_WORDS=(virtsnapfs -o live "=" over dir : some)
_virtsnapfs virtsnapfs || true
assert_eq "${COMPREPLY[*]}" overlay 'offered within a line'

# The Tab key: bash cuts words and puts candidates in their place by itself. What is typed is run then.
tab() {
    python3 - "$script" "$1" <<'PY'
import os
import pty
import re
import select
import signal
import sys

script, line = sys.argv[1:]
pid, fd = pty.fork()
if pid == 0:
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])


def read_until(mark):
    seen = ""
    while not re.search(mark, seen):
        if not select.select([fd], [], [], 60)[0]:
            sys.exit(f"bash says nothing more than {seen!r}")
        seen += os.read(fd, 4096).decode()
    return re.search(mark, seen)


# (Marks are written in pieces, since what is typed is seen as well.)
os.write(fd, f". '{script}'; bind 'set bell-style none'; bind 'set enable-bracketed-paste off'; "
             "PS1=; args() { printf '<%s>' \"$@\"; }; echo rea''dy\n".encode())
read_until("ready\r\n")
# (An X shows whether there is a blank.)
os.write(fd, line.encode() + b"\tX\x01args \x05; echo en''ded\n")
print(read_until("(<.*>)ended").group(1))
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
PY
}
assert_eq "$(tab 'virtsnapfs -o live=ov')" '<virtsnapfs><-o><live=overlay><X>' 'a value'
assert_eq "$(tab 'virtsnapfs -o ro,col')" '<virtsnapfs><-o><ro,cold=X>' 'a name, and no blank behind it'
assert_eq "$(tab 'virtsnapfs --cold=lock,')" '<virtsnapfs><--cold=lock,X>' 'nothing'
assert_eq "$(tab 'virtsnapfs qemu:///sy')" '<virtsnapfs><qemu:///system><X>' 'a source'
assert_eq "$(tab 'virtsnapfs -f dir:some/in')" '<virtsnapfs><-f><dir:some/inner one/X>' 'a folder'
assert_eq "$(tab "virtsnapfs --wait $T/a")" "<virtsnapfs><--wait><$T/a mount/X>" 'a mount'

mount_stop
PID=${pids[-1]} MNT=$first
mount_stop
