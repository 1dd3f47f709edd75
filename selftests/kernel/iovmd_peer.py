#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""For t_iovmd.sh and t_iovmd_ops.sh: a stand-in of a peer's iovmd, and senders of what is not right.

    iovmd_peer.py peer FILE ADDRESS NAME       answers as a peer would; what it is asked is appended to FILE. FILE.answers, if it
                                               is there, is an object: by what is asked, more that is answered
    iovmd_peer.py proxy FROM TO PORT SOCKET    a unix socket whose connections go to TO:PORT, from FROM
    iovmd_peer.py bad TO FROM                  says wrong things on the channel
    iovmd_peer.py say TO FROM REQUEST          on the channel; prints the answer
    iovmd_peer.py control SOCKET               and on iovmctl's socket
"""

import json
import os
import socket
import sys
import threading

CHANNEL = 10808


def lines(sock):
    buf = b""
    while True:
        data = sock.recv(65536)
        if not data:
            return
        buf += data
        while b"\n" in buf:
            line, _, buf = buf.partition(b"\n")
            yield json.loads(line)


def send(sock, obj):
    sock.sendall(json.dumps(obj, separators=(",", ":")).encode() + b"\n")


def peer(path, address, name):
    with socket.create_server((address, CHANNEL)) as server:
        while True:
            sock, _ = server.accept()
            threading.Thread(target=peer_connection, args=(sock, path, name), daemon=True).start()


def peer_connection(sock, path, name):
    for o in lines(sock):
        with open(path, "a") as f:
            f.write(json.dumps(o, separators=(",", ":")) + "\n")
        if "iovmd" in o:
            send(sock, {"iovmd": 1, "host": name, "to": o["host"], "release": "test"})
        elif o["op"] == "status":
            send(sock, {"id": o["id"], "ok": True, "status": {"host": name}})
        elif o["op"] == "arrivals":
            send(sock, {"id": o["id"], "ok": True, "guests": []})
        else:
            send(sock, {"id": o["id"], "ok": True, "epoch": 0, **more(path, o["op"])})


def more(path, op):
    try:
        with open(path + ".answers") as f:
            return json.load(f).get(op, {})
    except (OSError, ValueError):
        return {}


def proxy(source, address, port, path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(16)
        while True:
            near, _ = server.accept()
            far = socket.create_connection((address, int(port)), source_address=(source, 0))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=carry, args=(a, b), daemon=True).start()


def carry(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    try:
        b.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def answer(sock):
    """The next line, or None when there is none any more."""
    try:
        return next(lines(sock), None)
    except (OSError, ValueError):
        return None


def bad(to, source):
    hello = {"iovmd": 1, "host": "b", "to": "a", "release": "test"}

    def channel(text, where=source):
        sock = socket.create_connection((to, CHANNEL), source_address=(where, 0), timeout=10)
        sock.sendall(text if isinstance(text, bytes) else json.dumps(text).encode() + b"\n")
        return sock

    def refused(why, text, **kw):
        o = answer(channel(text, **kw))
        if why is None:
            assert o is None, o
        else:
            assert o and why in o.get("error", ""), (why, o)

    refused("no [peer c]", {**hello, "host": "c"})
    refused("this is host 'a'", {**hello, "to": "x"})
    refused("known by its address", hello, where=to)
    for text in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b"{}\n", b'{"iovmd":2,"host":"b"}\n', b"\0" * 100 + b"\n", b"{" * 100 + b"\n",
                 b'{"iovmd":1,"host":7}\n'):
        refused(None, text)
    sock = channel(hello)
    assert answer(sock)["host"] == "a"
    for text, why in (({"id": 1}, "without 'op'"), ({"id": 2, "op": "frobnicate"}, "not known here"),
                      ({"id": 3, "op": "prepare"}, "no [guest ?]"), ({"id": 4, "op": "accept", "guest": "x"}, "no [guest x]"),
                      ({"id": 5, "op": "abort", "guest": ["x"]}, "no [guest ?]")):
        send(sock, text)
        o = answer(sock)
        assert o and o["id"] == text["id"] and why in o["error"], (text, o)
    sock.sendall(b"no json\n")
    assert answer(sock) is None
    # one line without an end
    sock = channel(hello)
    assert answer(sock)["host"] == "a"
    try:
        for _ in range(64):
            sock.sendall(b"x" * 65536)
        assert answer(sock) is None
    except OSError:
        pass


def say(to, source, text):
    with socket.create_connection((to, CHANNEL), source_address=(source, 0), timeout=30) as sock:
        send(sock, {"iovmd": 1, "host": "b", "to": "a", "release": "test"})
        answers = lines(sock)
        next(answers)
        send(sock, {"id": 1, **json.loads(text)})
        print(json.dumps(next(answers)))


def control(path):
    def ask(text):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(path)
            sock.sendall(text)
            return answer(sock)

    for text in (b"no json\n", b"[]\n", b"\xff\n", b"{" * 300 + b"\n"):
        assert ask(text) is None, text
    for text, why in ((b"{}\n", "'?' is not known"), (b'{"id":1,"op":"x"}\n', "'x' is not known"),
                      (b'{"id":1,"op":"migrate"}\n', "guest '?' is not configured"),
                      (b'{"id":1,"op":"cancel","guest":{}}\n', "guest '?' is not configured")):
        o = ask(text)
        assert o and not o["ok"] and why in o["error"], (text, o)


if __name__ == "__main__":
    {"peer": peer, "proxy": proxy, "bad": bad, "say": say, "control": control}[sys.argv[1]](*sys.argv[2:])
    sys.exit(os.EX_OK)
