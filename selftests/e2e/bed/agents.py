# SPDX-License-Identifier: GPL-2.0-or-later
"""
iovmd on both hosts: they make the devices, serve each other the LUN, and migrate the guest.

    host A                                            host B
    guest ── vm1-disk0 ─┬─ local: LUN     (pulled)    vm1-disk0 ─┬─ local: LUN ── guest, after its migration
                        └─ B ── NBD ── vm1-disk0.export ── LUN   └─ A
"""

import json
import os
import re

from .backend import LUN_IDENTITY, Iovm, wait_socket
from .util import BedError, quote, wait_for

DEVICE = "vm1-disk0"
GUEST = "vm1"
QMP = f"/run/{GUEST}.qmp"
SOCKET = f"/run/{DEVICE}.sock"

CONFIG = """\
[host]
name = {name}
listen = {address}
{host}
[peer {peer}]
address = {peer_address}
{peer_keys}

[device {device}]
disk = {disk}
peers = {peer}
identity = {identity}
{device_keys}
[guest {guest}]
devices = {device}
destination = {peer}
{way}
{guest_keys}
"""

# What an operator's script for a guest does, be it one that comes or not: the back end of its disk, then QEMU.
START = """\
#!/bin/sh
if [ ! -S {socket} ]; then
    setsid {bin}/iovm-vhost-user --device {device} --socket {socket} >/run/{device}-vhost-user.log 2>&1 &
    echo $! >/run/{device}-vhost-user.pid
    while [ ! -S {socket} ]; do sleep 0.1; done
fi
exec {qemu}
"""


class Iovmd:
    """iovmd on one host."""

    #: how the guest is migrated
    way = f"qmp = {QMP}\ncommand = /etc/iovm/{GUEST}.start"

    def __init__(self, host, peer, guest, host_keys="", peer_keys="", device_keys="", guest_keys=""):
        self.host, self.peer, self.guest = host, peer, guest
        self.keys = dict(host=host_keys, peer_keys=peer_keys, device_keys=device_keys, guest_keys=guest_keys)
        self.bin = os.path.join(host.rundir, "bin")
        self.pid = None
        self.tls = None     # what is in /etc/iovm/tls

    def configure(self):
        """What an operator writes."""
        text = CONFIG.format(name=self.host.name, address=self.host.address, peer=self.peer.name, peer_address=self.peer.address,
                             device=DEVICE, disk=self.host.disk(), identity=LUN_IDENTITY, guest=GUEST, way=self.way, **self.keys)
        self.host.agent.call(f"mkdir -p /etc/iovm && umask 022 && printf %s {quote(text)} >/etc/iovm/iovmd.conf && "
                             "{ getent group kvm >/dev/null || groupadd -r kvm; }")
        self.configure_start()

    def configure_start(self):
        """What starts a guest that comes."""
        qemu = quote(*self.guest.words(SOCKET, None, self.extra())) + ' ${IOVM_INCOMING:+-incoming "$IOVM_INCOMING" -S}'
        start = START.format(socket=SOCKET, bin=self.bin, device=DEVICE, qemu=qemu)
        self.host.agent.call(f"printf %s {quote(start)} >/etc/iovm/{GUEST}.start && chmod 755 /etc/iovm/{GUEST}.start")

    @staticmethod
    def extra():
        # the second is for the test: a monitor serves one client at a time
        return ("-qmp", f"unix:{QMP},server=on,wait=off", "-qmp", f"unix:/run/{GUEST}.look,server=on,wait=off")

    def boot(self):
        """On a host that has just been started."""
        self.configure()
        # /etc is not on a disk here
        if self.tls:
            self.host.agent.call(f"base64 -d <<'END' | tar -C / -xz\n{self.tls}\nEND")
        self.host.agent.call("modprobe vhost_iovm_blk", 60)
        self.start()

    def start(self):
        self.pid = self.host.spawn("iovmd", quote(f"{self.bin}/iovmd", "--iovmctl", f"{self.bin}/iovmctl"))

    def kill(self):
        """SIGKILL."""
        self.host.agent.call(f"kill -9 {self.pid}")
        wait_for(f"host {self.host.name}: end of iovmd", 10, lambda: not self.host.running(self.pid))

    def stop(self):
        self.host.end(self.pid)

    def ctl(self, *words, timeout=60):
        return self.host.agent.out(quote(f"{self.bin}/iovmctl", *words), timeout)

    def status(self):
        """As it sees things itself; None while it does not answer."""
        res = self.host.agent.call(quote(f"{self.bin}/iovmctl", "status", "--json"), check=False)
        if res.status:
            if not self.host.running(self.pid):
                raise BedError(f"host {self.host.name}: iovmd ended: {self.host.spawned_log('iovmd')}")
            return None
        return json.loads(res.out)["status"]

    def device(self):
        s = self.status()
        return s["devices"][0] if s else {}

    def guest_state(self):
        s = self.status()
        return s["guests"][0] if s else {}

    def ready(self):
        """Its device is there with both paths, and the peer is connected."""
        s = self.status()
        if not s or not s["peers"][0]["connected"]:
            return False
        d = s["devices"][0]
        return not d["trouble"] and d["state"] and len(d["paths"]) == 2

    def standing_by(self):
        """The device has its epoch here, and all paths are live, by TLS where the hosts are enrolled: the peer serves the holder alone."""
        d = self.device()
        return d.get("epoch_holder") == self.host.name and all(p["state"] == "live" and p.get("encrypted", True) in (True, bool(self.tls)) for p in d["paths"])

    def explain(self):
        s = self.status()
        return f"{s and s['peers']} {s and s['devices']} {self.host.spawned_log('iovmd')}"


class UnitIovmd(Iovmd):
    """iovmd as its unit runs it, for a guest that something else starts: way says what."""

    def __init__(self, host, peer, guest, way, **kw):
        super().__init__(host, peer, guest, **kw)
        self.way = way
        self.bin = "/usr/sbin"

    def configure_start(self):
        """Nothing: it is none of its affairs."""

    def start(self):
        self.host.agent.call("systemctl daemon-reload && systemctl start iovmd.service", 60)
        self.pid = self.main_pid()

    def kill(self):
        """SIGKILL; the unit starts another one."""
        old = self.pid
        self.host.agent.call(f"kill -9 {old}")
        self.pid = wait_for(f"host {self.host.name}: another iovmd", 60, lambda: self.main_pid(old), 0.3)

    def main_pid(self, old=0):
        pid = int(self.host.agent.out("systemctl show -p MainPID --value iovmd.service"))
        return pid if pid != old else 0

    def holds(self):
        """Is the device's epoch here?"""
        return re.search('"epoch_held": ?true', self.ctl("show", DEVICE, "--json")) is not None

    def serve(self):
        """What QEMU connects to."""
        self.host.agent.call(f"systemctl start iovm-vhost-user@{DEVICE}.service", 60)

    def explain(self):
        s = self.status()
        return f"{s and s['peers']} {s and s['devices']} {s and s['guests']} {self.host.agent.out('journalctl -u iovmd -n 30 -o cat')}"


class Served(Iovm):
    """A device that iovmd made, with the process in front of it; what failover.Run expects of a back end."""

    def __init__(self, host, unmade=False):
        self.host, self.name, self.socket = host, DEVICE, SOCKET
        self.bin = os.path.join(host.rundir, "bin")
        self.unit = None
        if unmade:
            self.pid = int(host.agent.out(f"cat /run/{DEVICE}-vhost-user.pid"))
        else:
            self.start_front()

    def start_front(self):
        self.pid = self.host.spawn(f"{self.name}-vhost-user", quote(
            f"{self.bin}/iovm-vhost-user", "--device", self.name, "--socket", self.socket))
        wait_socket(self.host, self.socket, self.pid, f"{self.name}-vhost-user")

    def stop(self):
        """Everything down again; iovmd has ended before."""
        self.end_front()
        self.ctl("session", "end", f"{self.name}.export", "all")
        wait_for(f"host {self.host.name}: sessions end", 30,
                 lambda: not json.loads(self.ctl("session", "list", f"{self.name}.export", "--json")))
        self.ctl("destroy", f"{self.name}.export")
        self.ctl("destroy", self.name, *(["--force"] if self.lost() else []))
        self.unload()

    def lost(self):
        """Is its own disk gone?"""
        return self.host.agent.call(f"test -b $(sed -n 's/^disk = //p' /etc/iovm/iovmd.conf)", check=False).status != 0


def enrol(a, b):
    """The two hosts are made known to each other, by one command on each."""
    pid = a.host.spawn("enrol", quote(f"{a.bin}/iovmctl", "peers", "enrol", b.host.name, "--json"))
    log = wait_for(f"host {a.host.name}: the code", 30, lambda: a.host.spawned_log("enrol"))
    if not log.startswith("{"):
        raise BedError(f"host {a.host.name}: peers enrol: {log}")
    code = json.loads(log.splitlines()[0])["code"]
    b.ctl("peers", "enrol", a.host.name, "--at", a.host.address, "--code", code)
    wait_for(f"host {a.host.name}: end of peers enrol", 30, lambda: not a.host.running(pid))
    for x in (a, b):
        x.tls = x.host.agent.out("tar -C / -cz etc/iovm/tls | base64")


def pair(a, b, guest, **keys):
    """Started on both hosts, and ready."""
    agents = [Iovmd(a, b, guest, **keys), Iovmd(b, a, guest, **keys)]
    for x in agents:
        x.configure()
    if "plain-tcp" not in keys.get("host_keys", ""):
        enrol(*agents)
    for x in agents:
        x.boot()
    wait_ready(*agents)
    return agents


def wait_ready(*agents):
    """They run, and make what is configured."""
    for x in agents:
        try:
            wait_for(f"host {x.host.name}: iovmd ready", 90, x.ready, 0.5)
        except BedError as e:
            raise BedError(f"{e}: {x.explain()}") from None
