#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A command for the test guest (init) by its second serial line: a socket or a pty.

    command.py LINE COMMAND

Prints what the command prints and ends with its status; 124 if the guest does not answer.
"""
import os
import re
import select
import socket
import stat
import sys
import tty

TIMEOUT_S = 20


def open_line(path):
    """Connected; a descriptor."""
    if stat.S_ISCHR(os.stat(path).st_mode):
        line = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(line)
        return line
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(TIMEOUT_S)
        line.connect(path)
        return line.detach()


def main():
    line = open_line(sys.argv[1])
    os.write(line, sys.argv[2].encode() + b"\n")
    answer = b""
    while not (end := re.search(rb"^== (\d+)\r?\n", answer, re.M)):
        if not select.select([line], [], [], TIMEOUT_S)[0]:
            raise TimeoutError("the guest does not answer")
        more = os.read(line, 4096)
        if not more:
            sys.exit("the guest hung up")
        answer += more
    sys.stdout.buffer.write(answer[:end.start()])
    return int(end[1])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as e:
        print(f"guest: {e}", file=sys.stderr)
        sys.exit(124)
