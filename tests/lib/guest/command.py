#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A command for the test guest (init) by the socket of its second serial line.

    command.py SOCKET COMMAND

Prints what the command prints and ends with its status; 124 if the guest does not answer.
"""
import re
import socket
import sys

TIMEOUT_S = 20


def main():
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(TIMEOUT_S)
        line.connect(sys.argv[1])
        line.sendall(sys.argv[2].encode() + b"\n")
        answer = b""
        while not (end := re.search(rb"^== (\d+)\r?\n", answer, re.M)):
            more = line.recv(4096)
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
