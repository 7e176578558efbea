#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which pages of files are in the page cache, by mincore().

    resident.py can DIR         yes if a file there can be read without its pages staying in the
                                page cache (RWF_DONTCACHE: Linux 6.14, and the file system's help)
    resident.py list FILE       the numbers of the pages that are there, one a line
    resident.py load FILE FROM LEN    brings bytes there, and no others
"""
import ctypes
import mmap
import os
import sys
import tempfile

PAGE = mmap.PAGESIZE
RWF_DONTCACHE = 0x80


def can(folder):
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x")
        file.flush()
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, RWF_DONTCACHE)
        except OSError:
            return "no"
    return "yes"


def listing(path):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    size = os.path.getsize(path)
    found = (ctypes.c_ubyte * -(-size // PAGE))()
    with open(path, "rb") as file:
        address = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED,
                            file.fileno(), ctypes.c_long(0))
    if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), found) != 0:
        raise OSError(ctypes.get_errno(), "mincore", path)
    return "\n".join(str(i) for i, is_there in enumerate(found) if is_there & 1)


def load(path, first, length):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no readahead
    os.pread(fd, int(length), int(first))
    os.close(fd)


text = {"can": can, "list": listing, "load": load}[sys.argv[1]](*sys.argv[2:])
if text:
    print(text)
