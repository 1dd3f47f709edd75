# SPDX-License-Identifier: GPL-2.0-or-later
"""A KVM guest inside a host, booted by BIOS from a vhost-user-blk disk."""

import os
import re
import time

from .agent import Agent
from .qmp import Qmp
from .util import BedError, qemu_program, quote, tool, wait_for

MIGRATE_PORT = 7100

#: Kernel messages of a guest that noticed something about its disk, or broke.
TROUBLE = re.compile(
    r"I/O error|blk_update_request|Buffer I/O|EXT4-fs (error|warning)|JBD2|Remounting|Aborting journal|hung task|"
    r"blocked for more than|timed? ?out|virtio_blk|critical (target|medium|space)|lost async page write|BUG:|Oops|WARNING:|"
    r"Call Trace|Kernel panic|rcu_sched self-detected|soft lockup", re.I)
#: What the same kernel says without any fault, and has no bearing on its disk.
HARMLESS = re.compile(r"virtio_blk virtio\d+: (\[vd|\d+/\d+/\d+ default)|EXT4-fs \([^)]*\): (mounted|re-mounted|orphan|recovery)|RETBleed|Spectre|"
                      r"clocksource")


class Guest:
    """A guest; slot tells guests on one host apart (their ports)."""

    def __init__(self, name, memory=320, cpus=1, queues=1, version=7, slot=0):
        self.name, self.memory, self.cpus, self.queues, self.version = name, memory, cpus, queues, version
        self.slot = slot
        self.agent_port, self.qmp_port = 7001 + 2 * slot, 7002 + 2 * slot
        self.host = None

    def twin(self, slot):
        """The same guest, for another host or in another slot."""
        return Guest(self.name, self.memory, self.cpus, self.queues, self.version, slot)

    def tag(self):
        """What the logs of its QEMU and console are called."""
        return self.name

    def machine(self):
        """The first words of its QEMU's command line: all that is the same whatever disk or NIC it has."""
        return [
            qemu_program(self.version), "-name", self.name, "-M", "pc", "-accel", "kvm", "-cpu", "host,-svm,-xsave", "-smp", self.cpus,
            "-nodefaults", "-no-user-config", "-display", "none",
            "-serial", f"file:/run/{self.tag()}-console.log",
            "-qmp", f"tcp:0.0.0.0:{self.qmp_port},server=on,wait=off",
        ]

    def channel(self):
        """More of it: the port by which its agent is reached."""
        return [
            "-device", "virtio-serial-pci,id=vser",
            "-chardev", f"socket,id=agent,host=0.0.0.0,port={self.agent_port},server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=agent",
        ]

    def words(self, socket_path, incoming=None, extra=()):
        """The command line of its QEMU, with the disk behind a vhost-user socket."""
        words = [
            *self.machine(), "-m", self.memory,
            "-object", f"memory-backend-memfd,id=mem,size={self.memory}M,share=on", "-machine", "memory-backend=mem",
            "-chardev", f"socket,id=disk,path={socket_path},reconnect=1",
            "-device", f"vhost-user-blk-pci,id=disk0,chardev=disk,num-queues={self.queues},bootindex=1",
            *self.channel(),
            *extra,
        ]
        return words + (["-incoming", incoming] if incoming else [])

    def start(self, host, socket_path, incoming=None, extra=()):
        """Start its QEMU on a host."""
        self.attach(host, host.spawn(f"{self.tag()}-qemu", quote(*self.words(socket_path, incoming, extra))))

    def attach(self, host, pid):
        """Its QEMU runs on a host, as that process."""
        self.host, self.pid = host, pid
        self.qmp = Qmp(self.name, host.ports[self.qmp_port])
        self.agent = Agent(f"guest {self.name}", host.ports[self.agent_port], self.look)

    def look(self):
        """What is to be seen of it from its host, when it does not answer; never an error."""
        ticks = f"cat /proc/{self.pid}/stat | cut -d' ' -f14-15"
        shows = f"for d in $(ls /dev/vhost-iovm 2>/dev/null); do {self.host.rundir}/bin/iovmctl show $d; done"
        seen = []
        for what, see in (("QEMU's monitor", lambda: self.qmp.cmd("query-status")["status"]),
                          ("QEMU's processor ticks, 3 s apart", lambda: self.host.agent.out(f"{ticks}; sleep 3; {ticks}", 30).split("\n")),
                          ("devices", lambda: " ".join(self.host.agent.out(shows, 30).split())[:1500]),
                          ("console", lambda: self.console_tail()[-400:])):
            try:
                seen.append(f"{what}: {see()}")
            except (BedError, OSError, KeyError) as e:
                seen.append(f"{what}: {e}")
        return "; ".join(seen)

    def alive(self):
        self.host.alive()
        if not self.host.running(self.pid):
            raise BedError(f"guest {self.name}: QEMU ended: {self.host.spawned_log(self.tag() + '-qemu')} {self.console_tail()}")

    def console_tail(self):
        return self.host.agent.call(f"tail -c 1500 /run/{self.tag()}-console.log", check=False).out.strip()

    def wait_booted(self, timeout=400):
        try:
            self.agent.wait(timeout, self.alive)
        except BedError as e:
            raise BedError(f"{e}; console: {self.console_tail()!r}") from None

    def migrate(self, host, socket_path, timeout=400, slot=None):
        """
        Live-migrate to another host, to a disk behind a socket there (or what else words() takes); on the same one to another slot. What
        QEMU tells about it. self is then the guest there.
        """
        there = self.twin(self.slot if slot is None else slot)
        there.start(host, socket_path, incoming=f"tcp:0.0.0.0:{MIGRATE_PORT}")
        self.qmp.cmd("migrate-set-parameters", max_bandwidth=0, downtime_limit=1000)
        self.qmp.cmd("migrate", uri=f"tcp:{host.address}:{MIGRATE_PORT}")
        end = time.monotonic() + timeout
        while True:
            info = self.qmp.cmd("query-migrate")
            if info.get("status") == "completed":
                break
            if info.get("status") in ("failed", "cancelled") or time.monotonic() > end:
                there.kill()
                raise BedError(f"guest {self.name}: migration: {info.get('status')}: {info.get('error-desc', '')} "
                               f"{info.get('ram', {})}; there: {host.spawned_log(there.tag() + '-qemu')}")
            time.sleep(0.2)
        wait_for(f"guest {self.name}: runs on host {host.name}", 30, lambda: there.qmp.cmd("query-status")["status"] == "running")
        self.agent.close()
        self.qmp.cmd("quit")
        self.__dict__.update(there.__dict__)
        self.agent.wait(60, self.alive)
        return info

    def boot_seconds(self):
        return float(self.agent.out("cut -d' ' -f1 /proc/uptime"))

    def trouble(self):
        """Lines of the guest's kernel log that must not be there."""
        lines = self.agent.out("dmesg").splitlines()
        return [line for line in lines if TROUBLE.search(line) and not HARMLESS.search(line)]

    def power_off(self, timeout=180):
        """Shut the guest down in order and wait until its QEMU has ended."""
        self.agent.call("sync; mount -o remount,ro /", timeout)
        try:
            self.agent.exchange("agent poweroff", 5, 1)
        except OSError:
            pass
        self.agent.close()
        wait_for(f"guest {self.name}: power off", timeout, lambda: not self.host.running(self.pid), 0.3)

    def kill(self):
        """End its QEMU by force, if it runs."""
        if self.host and self.host.running(self.pid):
            self.host.agent.call(f"kill -9 {self.pid}", check=False)


