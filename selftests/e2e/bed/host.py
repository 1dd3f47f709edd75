# SPDX-License-Identifier: GPL-2.0-or-later
"""
A virtual host: a TCG machine on Debian's kernel that sees the machine's own tree and can run KVM guests.

    this machine            host A  10.0.0.1                 host B  10.0.0.2
    agent, QMP  ── slirp ── 10.0.2.15                slirp ── 10.0.2.15
                            eth (52:54:00:00) ─── stream ─── eth      (made again when one of them is started again)
                            LUN as virtio disk ── one image ── LUN as virtio disk
"""

import os
import re
import signal
import subprocess
import time

from . import image
from .agent import Agent
from .qmp import Qmp
from .util import TOP, BedError, free_ports, qemu_program, quote, run, tool, wait_for

GUEST_PORTS = range(7001, 7009)
STARTS_MAX = 5
QEMU = 10                       # of the hosts: 7.2's TCG now and then forgets to wake a CPU that halted below a guest


def patterns(name):
    """A list of regular expressions, one a line, that the test machines share."""
    with open(os.path.join(TOP, "selftests", "env", name)) as f:
        lines = [line.strip() for line in f]
    return re.compile("|".join(f"(?:{line})" for line in lines if line and not line.startswith("#")))


class Host:
    """
    One of the two hosts. Files of the run (console, QMP socket) go to rundir.

    One CPU by default: with more, multi-threaded TCG now and then runs a stale breakpoint while the kernel patches a static
    key on another CPU, and the host dies with "Oops: int3". Without address space randomisation, because TCG keeps a translation
    for each virtual address: a page of the C library that ran at thousands of addresses takes minutes to clear when it is freed.

    install: a directory that make install was given; what is in it is put in place, and systemd boots the host. Else the agent
    is its process 1.

    state: it has a disk for what must outlive it, see keep_state(); all else of its file system is in memory.

    tree: a directory that lies over the machine's own tree.
    """

    def __init__(self, name, rundir, lun, net, kernel="6.12", cpus=1, memory=1024, modules=None, install=None, state=False,
                 tree=None):
        self.name, self.rundir, self.net = name, rundir, net
        self.kernel = image.Kernel(kernel)
        self.agent = Agent(f"host {name}", None)
        self.index = "AB".index(name) + 1
        self.address = f"10.0.0.{self.index}"
        self.console = os.path.join(rundir, f"host{name}.console")
        self.qmp_path = os.path.join(rundir, f"host{name}.qmp")
        append = (f"console=ttyS0 quiet loglevel=5 panic=-1 oops=panic norandmaps net.ifnames=0 "
                  # a busy machine may not run it for as long as the first waits for a stall, and the second for a timer interrupt
                  f"rcupdate.rcu_cpu_stall_timeout=120 no_timer_check e2e.root=9p:root "
                  f"e2e.init={image.SELF}/src/host-init e2e.name={name} e2e.net={self.address}/24 "
                  f"e2e.modules={modules or os.path.realpath(self.kernel.modules)} e2e.agent={image.tools()['agent']} "
                  f"e2e.top={TOP}" + (f" e2e.install={install}" if install else "") + (" e2e.more=more" if tree else ""))
        # setpriv: the machine ends with this program, even when that is killed.
        self.words = [
            tool("setpriv"), "--pdeathsig", "KILL", qemu_program(QEMU), "-name", f"host{name}", "-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off",
            "-smp", cpus, "-m", memory, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-kernel", self.kernel.image, "-initrd", self.kernel.host_initramfs(), "-append", append,
            "-serial", f"file:{self.console}", "-qmp", f"unix:{self.qmp_path},server=on,wait=off",
            "-device", "virtio-rng-pci",
            "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
            "-netdev", f"stream,id=net,{net}", "-device", f"virtio-net-pci,netdev=net,mac=52:54:00:00:00:0{self.index}",
            "-netdev", self.forwards(), "-device", f"virtio-net-pci,netdev=ctl,mac=52:54:00:01:00:0{self.index}",
            "-blockdev", f"driver=file,node-name=lun,filename={lun},locking=off,cache.direct=on,aio=threads,discard=unmap",
            "-device", "virtio-blk-pci,id=lun,drive=lun,serial=lun0,num-queues=1,write-cache=on",
        ]
        if state:
            path = os.path.join(rundir, f"host{name}.state.img")
            run(tool("mke2fs"), "-q", "-t", "ext4", path, "16M")
            self.words += ["-blockdev", f"driver=file,node-name=state,filename={path},locking=off",
                           "-device", "virtio-blk-pci,drive=state,serial=state"]
        if tree:
            self.words += ["-fsdev", f"local,id=more,path={os.path.realpath(tree)},security_model=none,readonly=on,multidevs=remap",
                           "-device", "virtio-9p-pci,fsdev=more,mount_tag=more"]
        self.proc = None
        self.booted = False

    def forwards(self):
        """Chooses ports of this machine, by which those in there are reached: QEMU's word for it."""
        self.ports = dict(zip((7000, *GUEST_PORTS), free_ports(1 + len(GUEST_PORTS))))
        self.agent.port = self.ports[7000]
        return "user,id=ctl,restrict=on" + "".join(f",hostfwd=tcp:127.0.0.1:{mine}-:{theirs}" for theirs, mine in self.ports.items())

    def start(self):
        """Starts it, again if somebody has taken one of its ports meanwhile: by others, unless they are known already."""
        for _ in range(STARTS_MAX):
            self.log = open(os.path.join(self.rundir, f"host{self.name}.qemu"), "ab")
            begin = self.log.tell()
            self.proc = subprocess.Popen([str(w) for w in self.words], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
            try:
                self.proc.wait(1)
            except subprocess.TimeoutExpired:
                return
            with open(self.log.name, "rb") as f:
                f.seek(begin)
                if b"host forwarding rule" not in f.read():
                    return      # whoever waits for it is told
            self.log.close()
            if not self.booted:
                self.words[self.words.index("-netdev", self.words.index("-netdev") + 1) + 1] = self.forwards()

    def alive(self):
        if self.proc.poll() is not None:
            raise BedError(f"host {self.name} ended (status {self.proc.returncode}): {self.tail()}")

    def tail(self):
        """The last words of its console and of QEMU."""
        text = b""
        for path in (self.log.name, self.console):
            if os.path.exists(path):
                with open(path, "rb") as f:
                    text += f.read()[-1500:]
        return text.decode(errors="replace").strip()

    def wait_booted(self, timeout=400):
        self.agent.wait(timeout, self.alive)
        self.booted = True
        self.qmp = Qmp(f"host {self.name}", self.qmp_path)

    def disk(self, serial="lun0"):
        """The LUN's device node in this host, or another one's."""
        return self.agent.out(f"for d in /sys/block/*; do [ \"$(cat $d/serial 2>/dev/null)\" = {serial} ] && echo /dev/${{d##*/}} && exit; done; exit 1")

    def keep_state(self, directory):
        """What is in this directory outlives the host."""
        self.agent.call(f"modprobe ext4 && mkdir -p {directory} && mount -t ext4 {self.disk('state')} {directory}", 60)

    def pull_disk(self):
        """Hot-unplug the LUN, from outside as a person would; our CLOCK_MONOTONIC at that moment."""
        now = time.monotonic_ns()
        self.qmp.cmd("device_del", id="lun")
        return now

    def plug_disk(self):
        """Put the LUN back."""
        self.qmp.cmd("device_add", driver="virtio-blk-pci", id="lun", drive="lun", serial="lun0")
        wait_for(f"host {self.name}: LUN back", 30, lambda: self.agent.call("grep -qsx lun0 /sys/block/*/serial", check=False).status == 0)

    def grow_disk(self, size):
        """The LUN grows to size bytes, in this host's eyes."""
        self.qmp.cmd("block_resize", node_name="lun", size=size)
        path = f"/sys/class/block/{os.path.basename(self.disk())}/size"
        wait_for(f"host {self.name}: LUN of {size} bytes", 30, lambda: int(self.agent.out(f"cat {path}")) * 512 == size)

    def kvm(self):
        """Make /dev/kvm there."""
        self.agent.call("modprobe kvm_amd && test -c /dev/kvm", 60)

    def spawn(self, name, command):
        """Run a command in the background there; its output goes to /run/NAME.log. Its process id."""
        script = f"mkdir -p /run; {{ exec {command}; }} >/run/{name}.log 2>&1 & echo $!"
        return int(self.agent.out(script))

    def end(self, pid):
        """Have a process end, and wait until it has."""
        self.agent.call(f"kill {pid}")
        wait_for(f"host {self.name}: end of process {pid}", 30, lambda: not self.running(pid))

    def running(self, pid):
        return self.agent.call(f"kill -0 {pid} 2>/dev/null && ! grep -q '^State:.Z' /proc/{pid}/status", check=False).status == 0

    def spawned_log(self, name):
        return self.agent.call(f"tail -c 2000 /run/{name}.log", check=False).out.strip()

    def fetch(self, path, name):
        """Copy a file of this host into the run's directory; False if it is not there."""
        res = self.agent.call(f"cat {quote(path)}", check=False)
        if res.status == 0:
            with open(os.path.join(self.rundir, name), "wb") as f:
                f.write(res.raw)
        return res.status == 0

    def trouble(self):
        """Lines of the host's kernel log that tell of a defect."""
        reports, harmless = patterns("kernel-log.reports"), patterns("kernel-log.harmless")
        return [line for line in self.agent.out("dmesg").splitlines() if reports.search(line) and not harmless.search(line)]

    def save_logs(self):
        """Keep what tells about a failure; never fails itself."""
        try:
            self.agent.close()
            for path in self.agent.call("dmesg >/run/dmesg.log; [ ! -d /run/log/journal ] || journalctl >/run/journal.log; ls /run/*.log",
                                        20, check=False).out.split():
                self.fetch(path, f"host{self.name}.{os.path.basename(path)}")
        except (BedError, OSError):
            pass

    def die(self):
        """As when its power fails."""
        self.agent.close()
        self.proc.kill()
        self.proc.wait()
        self.log.close()
        self.proc = None

    def stop(self):
        """End the machine, by its process id."""
        if not self.proc:
            return
        self.agent.close()
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(5)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
        self.log.close()
        self.proc = None


def pair(rundir, lun, only_b=None, **kw):
    """Hosts A and B on one network, sharing the LUN; not started. only_b: what is otherwise at B."""
    port, = free_ports(1)
    net = f"addr.type=inet,addr.host=127.0.0.1,addr.port={port}"
    a = Host("A", rundir, lun, f"server=on,{net}", **kw)
    b = Host("B", rundir, lun, f"server=off,reconnect-ms=500,{net}", **{**kw, **(only_b or {})})
    return a, b


def start(*hosts, timeout=400):
    """Start hosts together and wait until all have booted."""
    for i, host in enumerate(hosts):
        if i:
            time.sleep(0.5)
        host.start()
    for host in hosts:
        host.wait_booted(timeout)
