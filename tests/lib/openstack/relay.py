#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stands between a client and a server on 127.0.0.1, for openstack.sh: with TLS towards the
client, or as a line that can be cut.

  relay.py PORT TARGET-PORT [CERTIFICATE KEY]   TLS
  relay.py PORT TARGET-PORT                     plain; commands come from standard input:
      after N     from now on connections are reset once N bytes have come from the client
      mute N      the same, but nothing is reset: nothing moves any more
      answer N    the next N connections on which the server answers are reset before the client
                  hears of it
      spoil N REQUEST FAULT   the next N answers to requests that begin with REQUEST (blanks
                  written as '+'):
                      silent         are kept back for ever
                      half           end in the middle, as if all were there
                      slow           come a few bytes at a time
                      lie FROM TO    have TO in place of FROM, a regular expression
      free        nothing of all that
  Each command is answered by "ok"; each connection that was spoiled is told as "cut".
"""
import re
import socket
import ssl
import struct
import sys
import threading
import time

SLOW_BYTES, SLOW_S = 10, 0.005

rule = ("free", 0)
spoiling = None
spoiling_lock = threading.Lock()


class Spoiling:
    def __init__(self, n_left, request, fault, *args):
        self.n_left = int(n_left)
        self.request = request.replace("+", " ").encode()
        self.fault = fault
        self.args = [arg.encode() for arg in args]


def say(text):
    print(text, flush=True)


def reset(sock):
    """Closes it so that the other end sees ECONNRESET."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # It is closed once nobody waits in recv() any more.
        sock.shutdown(socket.SHUT_RD)
        sock.close()
    except OSError:
        pass


def shut(*socks):
    for sock in socks:
        try:
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            pass


def takes_answer():
    global rule
    kind, n_left = rule
    if kind == "answer" and n_left > 0:
        rule = ("answer", n_left - 1)
        return True
    return False


def take_spoiling(request):
    """How the answer to that request is spoiled, or None."""
    with spoiling_lock:
        if not spoiling or spoiling.n_left == 0 or not request.startswith(spoiling.request):
            return None
        spoiling.n_left -= 1
        return spoiling


class Line:
    def __init__(self, client, port):
        self.client = client
        self.server = socket.create_connection(("127.0.0.1", port))
        self.n_up = 0
        self.request = b""
        self.spoiled = None
        self.is_answered = True

    def spoil(self):
        say("cut")
        # Both ways: the server must see that nobody is there any more.
        shut(self.server)
        shut(self.client) if isinstance(self.client, ssl.SSLSocket) else reset(self.client)

    def up(self):
        try:
            while data := self.client.recv(65536):
                self.n_up += len(data)
                if self.is_answered and re.match(b"[A-Z]+ /", data):
                    self.request, self.is_answered = data, False
                kind, limit = rule
                if kind == "after" and self.n_up > limit:
                    return self.spoil()
                if kind == "mute" and self.n_up > limit:
                    say("cut")
                    threading.Event().wait()
                self.server.sendall(data)
        except OSError:
            pass
        shut(self.client, self.server)

    def down(self):
        try:
            while data := self.server.recv(65536):
                if takes_answer():
                    return self.spoil()
                if not data.startswith(b"HTTP/1.1 100 "):
                    data = self.change(data)
                self.client.sendall(data)
        except OSError:
            pass
        shut(self.client, self.server)

    def change(self, data):
        """A piece of an answer as the client is to have it."""
        if not self.is_answered:
            self.is_answered = True
            self.spoiled = take_spoiling(self.request)
            if self.spoiled:
                say("cut")
        if not self.spoiled:
            return data
        if self.spoiled.fault == "silent":
            threading.Event().wait()
        elif self.spoiled.fault == "half":
            self.client.sendall(data[:len(data) // 2])
            raise OSError("in the middle of an answer")
        elif self.spoiled.fault == "slow":
            for i in range(0, len(data), SLOW_BYTES):
                self.client.sendall(data[i:i + SLOW_BYTES])
                time.sleep(SLOW_S)
            return b""
        return re.sub(*self.spoiled.args, data) if self.spoiled.fault == "lie" else data


def serve(client, port, context):
    try:
        if context:
            client = context.wrap_socket(client, server_side=True)
        line = Line(client, port)
    except OSError:
        client.close()
        return
    threading.Thread(target=line.up, daemon=True).start()
    line.down()


def listen(port, target, context):
    with socket.create_server(("127.0.0.1", port), backlog=64) as server:
        while True:
            client, _ = server.accept()
            threading.Thread(target=serve, args=(client, target, context), daemon=True).start()


def main():
    global rule, spoiling
    context = None
    if len(sys.argv) > 3:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[3], sys.argv[4])
    args = (int(sys.argv[1]), int(sys.argv[2]), context)
    threading.Thread(target=listen, args=args, daemon=True).start()
    for command in sys.stdin:
        words = command.split()
        spoiling = Spoiling(*words[1:]) if words[0] == "spoil" else None
        rule = ("free", 0) if spoiling else (words[0], int(words[1]) if len(words) > 1 else 0)
        say("ok")
    threading.Event().wait()


if __name__ == "__main__":
    main()
