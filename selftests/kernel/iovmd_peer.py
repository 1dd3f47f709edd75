#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""For t_iovmd*.sh: a stand-in of a peer's iovmd, and senders of what is not right.

    iovmd_peer.py peer FILE ADDRESS NAME       answers as a peer would; what it is asked is appended to FILE. FILE.answers, if it
                                               is there, is an object: by what is asked, more that is answered
    iovmd_peer.py proxy FROM TO PORT SOCKET    a unix socket whose connections go to TO:PORT, from FROM
    iovmd_peer.py bad TO FROM                  says wrong things on the channel
    iovmd_peer.py say TO FROM REQUEST          on the channel; prints the answer
    iovmd_peer.py hold TO FROM NAME            connects to the channel, says who it is, and stays; prints "held"
    iovmd_peer.py drain TO FROM DEVICE         has its sessions drained while it shakes hands for another one
    iovmd_peer.py control SOCKET               and on iovmctl's socket
    iovmd_peer.py stall TO FROM N FILE         N connections that begin TLS and stop in the middle, held until FILE is there
    iovmd_peer.py stall TO FROM N FILE PORT    the same at another port, without a word
    iovmd_peer.py garbage TO FROM PORT         what is no TLS, and what looks like it

With IOVMD_PEER_TLS=DIR in the environment, peer and say use TLS and show DIR/host.crt; they do not look at what they are shown.
"""

import json
import os
import socket
import ssl
import sys
import threading
import time

CHANNEL = 10808
DATA = 10809


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


def secure(sock, server=False):
    """The socket, with TLS when the environment says so."""
    where = os.environ.get("IOVMD_PEER_TLS")
    if not where:
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(f"{where}/host.crt", f"{where}/host.key")
    return context.wrap_socket(sock, server_side=server)


def send(sock, obj):
    sock.sendall(json.dumps(obj, separators=(",", ":")).encode() + b"\n")


def peer(path, address, name):
    with socket.create_server((address, CHANNEL)) as server:
        while True:
            sock, _ = server.accept()
            threading.Thread(target=peer_connection, args=(sock, path, name), daemon=True).start()


def peer_connection(sock, path, name):
    sock = secure(sock, True)
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
    with secure(socket.create_connection((to, CHANNEL), source_address=(source, 0), timeout=30)) as sock:
        send(sock, {"iovmd": 1, "host": "b", "to": "a", "release": "test"})
        answers = lines(sock)
        hello = next(answers)
        if "error" not in hello:
            send(sock, {"id": 1, **json.loads(text)})
            hello = next(answers)
        print(json.dumps(hello))


def hold(to, source, name):
    with secure(socket.create_connection((to, CHANNEL), source_address=(source, 0), timeout=30)) as sock:
        send(sock, {"iovmd": 1, "host": name, "to": "a", "release": "test"})
        sock.settimeout(None)
        for _ in lines(sock):
            print("held", flush=True)


def drain(to, source, device):
    """While a handshake is under way: it is cut short, and no other one gets anywhere until the drain is over."""
    def greeted():
        sock = socket.create_connection((to, DATA), source_address=(source, 0), timeout=10)
        return sock, sock.recv(18)

    with secure(socket.create_connection((to, CHANNEL), source_address=(source, 0), timeout=30)) as sock:
        send(sock, {"iovmd": 1, "host": "b", "to": "a", "release": "test"})
        answers = lines(sock)
        assert next(answers)["host"] == "a"
        under_way, greeting = greeted()
        assert greeting, "the first one was refused"
        send(sock, {"id": 1, "op": "drain", "device": device})
        assert under_way.recv(1) == b"", "the handshake goes on"
        assert not greeted()[1], "another one was admitted"
        assert next(answers)["ok"]


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


def hello_of_tls():
    """A client's first record."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(into, out, server_hostname="a").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def stall(to, source, count, path, port=0):
    hello = b"" if port else hello_of_tls()
    held = []
    while not os.path.exists(path):
        if len(held) < int(count):
            sock = socket.create_connection((to, int(port) or CHANNEL), source_address=(source, 0))
            # some say nothing at all, some half of the first message, some all of it
            sock.sendall(hello[:len(hello) * (len(held) % 3) // 2])
            held.append(sock)
        else:
            time.sleep(0.1)


def garbage(to, source, port):
    hello = hello_of_tls()
    for text in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, b"\x16\x03\x01\xff\xff" + b"x" * 70000, b"\x16\x03\x03\0\x05hello",
                 hello[:40] + b"\xff" * 400, hello + hello, hello + b"\x17\x03\x03\x00\x20" + b"\0" * 32, b"\x80" * 16, b"\x16" * 20000,
                 b'{"iovmd":1,"host":"b","to":"a","release":"test"}\n'):
        with socket.create_connection((to, int(port)), source_address=(source, 0), timeout=30) as sock:
            try:
                sock.sendall(text)
                sock.shutdown(socket.SHUT_WR)
                while data := sock.recv(65536):
                    if data.startswith(b"{"):
                        print(data.decode())
            except OSError as e:
                print(e)


if __name__ == "__main__":
    {"peer": peer, "proxy": proxy, "bad": bad, "say": say, "hold": hold, "drain": drain, "control": control, "stall": stall,
     "garbage": garbage}[sys.argv[1]](*sys.argv[2:])
    sys.exit(os.EX_OK)
