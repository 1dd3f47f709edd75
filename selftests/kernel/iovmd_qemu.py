#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""For t_iovmd_ops.sh: the monitor of a QEMU that has no guest, and says of one what a test wants to hear.

    iovmd_qemu.py SOCKET LOG [ANSWERS [PID]]

Commands are appended to LOG, an object a line. ANSWERS is a file that is read at each command, if it is there: an object whose members
are what commands return, {"error": TEXT} an error; and "hold": true, while which a migration does not converge. With IOVM_INCOMING in
the environment it is one that waits for its guest. PID is that of the guest: it ends with its QEMU.
"""

import json
import os
import signal
import socket
import sys
import time

CAPS = ("events", "pause-before-switchover", "return-path", "late-block-activate", "multifd", "auto-converge")
NUMS = {"max-bandwidth": 134217728, "downtime-limit": 300, "multifd-channels": 2, "cpu-throttle-initial": 20, "cpu-throttle-increment": 10,
        "max-cpu-throttle": 99}


class Qemu:
    """One guest, and its migration."""

    def __init__(self, log, answers):
        self.log, self.answers = log, answers
        self.state, self.migration, self.looks = "inmigrate" if "IOVM_INCOMING" in os.environ else "running", "none", 0
        self.listens = []
        self.caps = dict.fromkeys(CAPS, False)
        self.params = dict(NUMS)
        self.over = False

    def wanted(self):
        try:
            with open(self.answers) as f:
                return json.load(f)
        except (OSError, ValueError):
            return {}

    def look(self, hold):
        """As time goes by: it becomes active, then it stands before the switch-over."""
        self.looks += 1
        if self.migration == "setup":
            self.migration = "active"
        elif self.migration == "active" and self.looks > 2 and not hold:
            self.migration, self.state = "pre-switchover", "finish-migrate"
        elif self.migration == "device":
            self.migration, self.state = "completed", "postmigrate"
        if self.listens:
            return {"status": "setup", "socket-address": self.listens}
        ram = {"transferred": 1 << 20, "remaining": 4096, "total": 1 << 24, "dirty-pages-rate": 1, "page-size": 4096}
        return {"status": self.migration, "ram": ram, "total-time": 10, "downtime": 5, "expected-downtime": 5}

    def run(self, command, arguments):
        with open(self.log, "a") as f:
            f.write(json.dumps({"execute": command, **arguments}, separators=(",", ":")) + "\n")
        wanted = self.wanted()
        if command in wanted and command != "query-migrate":
            return wanted[command]
        if command == "query-status":
            return {"status": self.state, "running": self.state == "running"}
        if command == "query-migrate":
            return {**self.look(wanted.get("hold")), **wanted.get(command, {})}
        if command == "query-migrate-capabilities":
            return [{"capability": c, "state": on} for c, on in self.caps.items()]
        if command == "migrate-set-capabilities":
            self.caps.update({c["capability"]: c["state"] for c in arguments["capabilities"]})
        elif command == "query-migrate-parameters":
            return {**self.params, "tls-creds": "", "tls-hostname": ""}
        elif command == "migrate-set-parameters":
            self.params.update(arguments)
        elif command == "migrate":
            self.migration, self.looks = "setup", 0
        elif command == "migrate-incoming":
            self.listens = [{"type": "inet", "host": "127.0.0.1", "port": "5555"}]
        elif command == "migrate-continue":
            self.migration = "device"
        elif command == "migrate_cancel":
            self.migration, self.state = "cancelled", "running"
        elif command == "cont":
            self.state = "running"
        elif command == "quit":
            self.over = True
        elif command != "qmp_capabilities":
            return {"error": f"The command {command} has not been found"}
        return {}

    def answer(self, text):
        o = json.loads(text)
        value = self.run(o["execute"], o.get("arguments", {}))
        if isinstance(value, dict) and set(value) == {"error"}:
            return {"id": o.get("id"), "error": {"class": "GenericError", "desc": value["error"]}}
        return {"id": o.get("id"), "return": value}

    def serve(self, sock):
        def send(o):
            sock.sendall(json.dumps(o).encode() + b"\r\n")

        send({"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 0}, "package": ""}, "capabilities": []}})
        for line in sock.makefile("rb"):
            send(self.answer(line))
            if self.over:
                return


def end_guest(pid):
    try:
        os.kill(pid, signal.SIGTERM)
        for _ in range(200):
            time.sleep(0.05)
            os.kill(pid, 0)
    except ProcessLookupError:
        pass


def main(path, log, answers="", guest=None):
    qemu = Qemu(log, answers)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(4)
        while not qemu.over:
            sock, _ = server.accept()
            with sock:
                try:
                    qemu.serve(sock)
                except OSError:
                    pass
    if guest:
        end_guest(int(guest))
    os.unlink(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
