#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""One system call on a file, and what came of it, for the shell scripts.

    probe.py OPERATION ARGUMENT...

Prints "OK" (or the operation's result) or the name of the errno, such as "EACCES".
"""
import errno
import os
import sys

import view_ranges


def read(path, off, length):
    fd = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(fd, int(length), int(off))
    finally:
        os.close(fd)
    return None if len(data) == int(length) else f"{len(data)} bytes"


def seek(path, whence, off):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(fd, int(off), {"data": os.SEEK_DATA, "hole": os.SEEK_HOLE}[whence])
    finally:
        os.close(fd)


def ranges(path):
    """Data ranges as START-END, separated by blanks."""
    fd = os.open(path, os.O_RDONLY)
    try:
        found = view_ranges.seek_ranges(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)
    return " ".join(f"{start}-{end}" for start, end in found) or "none"


def open_with(path, *flags):
    value = 0
    for flag in flags:
        value |= getattr(os, flag)
    os.close(os.open(path, value))


def stat(path):
    """What backup programs compare."""
    st = os.stat(path)
    entry = next(e for e in os.scandir(os.path.dirname(path) or ".")
                 if e.name == os.path.basename(path))
    if entry.inode() != st.st_ino:
        return f"d_ino {entry.inode()} but st_ino {st.st_ino}"
    return (f"ino={st.st_ino} mode={st.st_mode:o} nlink={st.st_nlink} uid={st.st_uid} "
            f"gid={st.st_gid} size={st.st_size} blocks={st.st_blocks} mtime={st.st_mtime_ns} "
            f"ctime={st.st_ctime_ns} atime={st.st_atime_ns}")


def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def set_times(path):
    os.utime(path, (1, 1))


OPERATIONS = {
    "read": read,
    "seek": seek,
    "ranges": ranges,
    "write": write,
    "open": open_with,
    "stat": stat,
    "list": lambda path: "|".join(sorted(os.listdir(path))),
    "getxattr": lambda path, name: os.getxattr(path, name).decode(),
    "listxattr": lambda path: " ".join(os.listxattr(path)) or "none",
    "setxattr": lambda path, name: os.setxattr(path, name, b"x"),
    "removexattr": os.removexattr,
    "create": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)),
    "mkdir": os.mkdir,
    "mkfifo": os.mkfifo,
    "unlink": os.unlink,
    "rmdir": os.rmdir,
    "rename": os.rename,
    "link": os.link,
    "symlink": os.symlink,
    "chmod": lambda path, mode: os.chmod(path, int(mode, 8)),
    "chown": lambda path: os.chown(path, 1, 1),
    "truncate": lambda path, size: os.truncate(path, int(size)),
    "utime": set_times,
    "lstat": lambda path: os.lstat(path) and None,
}


def main():
    try:
        result = OPERATIONS[sys.argv[1]](*sys.argv[2:])
    except OSError as e:
        # Two names for one number: the contract has this one.
        is_unsupported = e.errno == errno.EOPNOTSUPP
        result = "EOPNOTSUPP" if is_unsupported else errno.errorcode.get(e.errno, str(e))
    print("OK" if result is None else result)


if __name__ == "__main__":
    main()
