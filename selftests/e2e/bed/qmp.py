# SPDX-License-Identifier: GPL-2.0-or-later
"""A small QMP client."""

import json
import socket
import time

from .util import BedError


class Qmp:
    """A QMP session over a unix socket path or a loopback TCP port."""

    def __init__(self, name, address, timeout=60):
        self.name = name
        self.events = []
        self.buf = b""
        end = time.monotonic() + timeout
        while True:
            try:
                self.open(address)
                return
            except OSError as e:
                if time.monotonic() > end:
                    raise BedError(f"{name}: no QMP session: {e}") from None
                time.sleep(0.2)

    def open(self, address):
        if isinstance(address, int):
            self.sock = socket.create_connection(("127.0.0.1", address), timeout=5)
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(5)
            self.sock.connect(address)
        self.buf = b""
        self.read(5)
        self.send({"execute": "qmp_capabilities"})
        if "return" not in self.read(5):
            raise ConnectionError("capabilities refused")

    def send(self, obj):
        self.sock.sendall(json.dumps(obj).encode() + b"\n")

    def read(self, timeout):
        end = time.monotonic() + timeout
        while b"\n" not in self.buf:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("nothing from QMP")
            self.sock.settimeout(left)
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionError("QMP closed")
            self.buf += data
        line, _, self.buf = self.buf.partition(b"\n")
        return json.loads(line)

    def cmd(self, execute, timeout=60, **arguments):
        """One command; its return value."""
        try:
            self.send({"execute": execute, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}})
            end = time.monotonic() + timeout
            while True:
                obj = self.read(end - time.monotonic())
                if "event" in obj:
                    self.events.append(obj)
                elif "error" in obj:
                    raise BedError(f"{self.name}: QMP {execute}: {obj['error'].get('desc')}")
                elif "return" in obj:
                    return obj["return"]
        except OSError as e:
            raise BedError(f"{self.name}: QMP {execute}: {e}") from None

    def wait_event(self, name, timeout):
        """Wait for an event of this name, also one that came earlier and was not asked for yet."""
        end = time.monotonic() + timeout
        while True:
            for i, event in enumerate(self.events):
                if event["event"] == name:
                    return self.events.pop(i)
            try:
                obj = self.read(end - time.monotonic())
            except OSError:
                raise BedError(f"{self.name}: no QMP event {name} within {timeout:g} s") from None
            if "event" in obj:
                self.events.append(obj)

    def close(self):
        self.sock.close()
