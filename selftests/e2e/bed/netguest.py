# SPDX-License-Identifier: GPL-2.0-or-later
"""
A KVM guest with a NIC and no disk, and the bridge of its host.

    guest eth0 10.0.7.2 ── virtio-net ── node ── tap0 ─┐
                                                       br0 10.0.7.1
    the same guest, where it is migrated to:   tap1 ───┘
"""

import json
import lzma
import os
import subprocess

from . import image
from .guest import Guest
from .util import CACHE, SELF, BedError, Lock, quote, run, tool, wait_for

BRIDGE = "10.0.7.1"
ADDRESS = "10.0.7.2"
MAC = "52:54:00:07:00:02"
KERNEL = "6.12"
MODULES = ("virtio_pci", "virtio_net", "virtio_console")
PROGRAMS = ("iperf3",)
FLOW_PORT = 7700

#: virtio feature bits that the guest must have negotiated
FEATURES = {0: "CSUM", 1: "GUEST_CSUM", 5: "MAC", 7: "GUEST_TSO4", 8: "GUEST_TSO6", 11: "HOST_TSO4", 12: "HOST_TSO6", 15: "MRG_RXBUF",
            28: "INDIRECT_DESC", 29: "EVENT_IDX", 32: "VERSION_1"}


def libraries(program):
    """What the dynamic linker loads for it, itself too."""
    out = subprocess.run(["ldd", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    return [word for line in out.splitlines() for word in line.split() if word.startswith("/")]


def flow_program():
    """src/flow.c, built."""
    src = os.path.join(SELF, "src", "flow.c")
    out = os.path.join(CACHE, f"flow-{image.digest(src)}")
    with Lock("tools"):
        if not os.path.exists(out):
            run(os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", out + ".new", src)
            os.rename(out + ".new", out)
    return out


def archive(out, files):
    """Write an initramfs of these files: {where: what}."""
    cpio = image.Cpio(out + ".new")
    known = set()
    for name in ("dev", "proc", "sys", *files):
        parents = name.split("/") if name not in files else name.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            directory = "/".join(parents[:depth])
            if directory not in known:
                known.add(directory)
                cpio.add(directory, 0o040755)
        if name in files:
            with (lzma.open if files[name].endswith(".xz") else open)(files[name], "rb") as f:
                cpio.add(name, 0o100755, f.read())
    cpio.add("dev/console", 0o020600, rdev=(5, 1))
    cpio.close()
    os.rename(out + ".new", out)


def initramfs():
    """The guest's kernel and whole system: busybox, the programs of a test, modules; cached."""
    kernel = image.Kernel(KERNEL)
    files = {"init": os.path.join(SELF, "src", "net-guest-init"), "bin/busybox": "/bin/busybox", "bin/agent": image.tools()["agent"],
             "bin/flow": flow_program()}
    for name in PROGRAMS:
        path = tool(name)
        files[f"bin/{name}"] = path
        files.update((lib.lstrip("/"), lib) for lib in libraries(path))
    for i, path in enumerate(image.module_files(os.path.realpath(kernel.modules), MODULES)):
        files[f"modules/{i:02}-{os.path.basename(path).removesuffix('.xz')}"] = path
    with Lock("net-guest"):
        out = os.path.join(CACHE, f"net-guest-{image.digest(__file__, *files.values())}.cpio")
        if not os.path.exists(out):
            archive(out, files)
    return kernel.image, out


def bridge(host, taps=2):
    """br0 with so many taps on a host."""
    host.agent.call(f"""
        set -e
        modprobe -a tun bridge
        # or what a guest's TCP went through is held against the next one with its address
        echo 1 >/proc/sys/net/ipv4/tcp_no_metrics_save
        ip link add br0 type bridge stp_state 0 forward_delay 0
        echo 1 >/proc/sys/net/ipv6/conf/br0/disable_ipv6
        ip addr add {BRIDGE}/24 dev br0
        ip link set br0 up
        for i in $(seq 0 {taps - 1}); do
            ip tuntap add tap$i mode tap vnet_hdr
            echo 1 >/proc/sys/net/ipv6/conf/tap$i/disable_ipv6
            ip link set tap$i master br0 up
        done""")


class NetGuest(Guest):
    """A guest whose NIC is on a node and a tap; slot: also the tap's number."""

    def __init__(self, name, node, version=7, slot=0, memory=160):
        super().__init__(name, memory=memory, version=version, slot=slot)
        self.node = node

    def twin(self, slot):
        return NetGuest(self.name, self.node, self.version, slot, self.memory)

    def tag(self):
        return f"{self.name}-{self.slot}"

    def words(self, tap, incoming=None, extra=()):
        kernel, initrd = initramfs()
        words = [
            os.path.join(SELF, "src", "with-tap"), tap, self.node, *self.machine(), "-m", self.memory,
            "-kernel", kernel, "-initrd", initrd, "-append", f"console=ttyS0 quiet loglevel=4 norandmaps net.ifnames=0 e2e.net={ADDRESS}/24",
            # what vhost=on says too: without it QEMU would serve the tap itself, were the node no good
            "-netdev", "tap,id=net0,fd=20,vhostfd=21,vhost=on,vhostforce=on",
            "-device", f"virtio-net-pci,netdev=net0,mac={MAC},romfile=",
            *self.channel(),
            *extra,
        ]
        return words + (["-incoming", incoming] if incoming else [])

    def worker(self):
        """CPU time, in ns, of the kernel's threads that serve the NIC."""
        out = self.host.agent.out(f"""
            for t in /proc/{self.pid}/task/* /proc/[0-9]*; do
                case $(cat $t/comm 2>/dev/null) in vhost-{self.pid}* | iovm-{self.pid}*) cat $t/schedstat ;; esac
            done""")
        if not out:
            raise BedError(f"guest {self.name}: nothing in the kernel serves its NIC")
        return sum(int(line.split()[0]) for line in out.splitlines())

    def features(self):
        """The bits that its driver has negotiated, as a string of 0 and 1."""
        return self.agent.out("cat /sys/class/net/eth0/device/features")


class Flow:
    """A connection from guest to host that is kept open and checked at both ends (src/flow.c)."""

    def __init__(self, guest):
        self.guest = guest
        self.files = {"host": "/run/flow.json", "guest": "/run/flow.json"}
        host, port = guest.host, FLOW_PORT
        host.agent.call(f"rm -f {self.files['host']}")
        self.pid = host.spawn("flow", quote(flow_program(), "listen", port, self.files["host"]))
        wait_for("flow listens", 30, lambda: host.agent.call(f"ss -Htln 'sport = :{port}' | grep -q .", check=False).status == 0)
        guest.agent.call(f"rm -f /run/flow.json; flow connect {BRIDGE} {port} {self.files['guest']} >/run/flow.log 2>&1 & echo $! >/run/flow.pid")
        wait_for("the connection", 30, lambda: self.host_file() is not None)

    def host_file(self):
        """What the host's end has seen; None: nothing yet."""
        text = self.guest.host.agent.call(f"cat {self.files['host']}", check=False).out
        return json.loads(text) if text else None

    def check(self, end, state):
        if state["wrong_at"] >= 0:
            raise BedError(f"the connection, at the {end}'s end: byte {state['wrong_at']} is wrong")
        return state

    def go_on(self, size=200000, timeout=60):
        """Wait until so many more bytes came through in each direction."""
        begin = self.check("host", self.host_file())

        def done():
            state = self.check("host", self.host_file())
            if state["end"]:
                raise BedError(f"the connection ended: {state['end']}")
            # what it sent more than what fits into buffers has come in
            return all(state[k] - begin[k] >= size for k in ("sent", "received"))
        wait_for(f"{size} bytes more through the connection", timeout, done, 0.2)

    def finish(self):
        """End it in order; what the host's end has seen."""
        self.guest.agent.call("kill $(cat /run/flow.pid)")
        wait_for("the connection's end", 60, lambda: (self.host_file() or {}).get("end"))
        wait_for("the connection's end at the guest", 60, lambda: self.guest.agent.call("grep -q 'end\": \"' /run/flow.json", check=False).status == 0)
        host, guest = self.host_file(), json.loads(self.guest.agent.out(f"cat {self.files['guest']}"))
        for end, state, other in (("host", host, guest), ("guest", guest, host)):
            self.check(end, state)
            if state["end"] != "in order" or state["received"] != other["sent"]:
                raise BedError(f"the connection, at the {end}'s end: {state}, and the other: {other}")
        return host
