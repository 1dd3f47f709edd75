# SPDX-License-Identifier: GPL-2.0-or-later
"""
The whole story, without a hand: the guest's disk is pulled from host A, its requests go to host B, iovmd migrates the guest there, and
host B serves it from its own disk. The demo, and what the tests of the agents are put together from.
"""

import time

from . import agents, backend, failover, host, image
from .guest import Guest
from .util import BedError, say, wait_for


class Story(failover.Run):
    """A run in which the agents do what failover.Run does by hand."""

    #: keys for iovmd's configuration
    keys = dict(host_keys="class = eth0/1:50\nio-rate = 1gbit\nmigration-rate = 2gbit\n", device_keys="",
                guest_keys="migrate = on-failure\nsettle = 2s\nmax-downtime = 1s\n")

    def boot(self):
        self.image = image.guest_image()
        self.lun = image.fresh_copy(self.image, f"{self.o.rundir}/lun.img")
        say("booting hosts A and B (Debian, TCG) that share a LUN")
        modules = backend.stage(self.o.rundir, self.o.kernel)[0]
        self.a, self.b = self.hosts = host.pair(self.o.rundir, self.lun, kernel=self.o.kernel, modules=modules, state=True)
        host.start(self.a, self.b)
        for h in self.hosts:
            self.host_up(h)
        self.disk = self.a.disk()
        self.guest = Guest("vm1", version=self.o.version, queues=self.o.queues)
        say("starting iovmd on both: devices, paths, exports")
        self.agents = agents.pair(self.a, self.b, self.guest, **self.keys)
        self.backend = agents.Served(self.a)
        self.backends = [self.backend]
        start = time.monotonic()
        self.guest.start(self.a, self.backend.socket, extra=agents.Iovmd.extra())
        self.guest.wait_booted()
        try:
            wait_for("host A: all paths live", 60, self.agents[0].standing_by, 0.5)
        except BedError as e:
            raise BedError(f"{e}: {self.agents[0].explain()}; host B: {self.agents[1].explain()}") from None
        say(f"guest (Debian, {self.guest.agent.out('uname -r')}) has booted from the device by BIOS in {time.monotonic() - start:.1f} s")

    @staticmethod
    def host_up(h):
        """Before iovmd is started on a host."""
        h.kvm()
        h.keep_state("/var/lib/iovm")
        # the operator's classes: for everybody, and to reserve bandwidth below
        h.agent.call("modprobe sch_htb && modprobe cls_flower && modprobe act_gact && tc qdisc add dev eth0 root handle 1: htb default 10 && "
                     "tc class add dev eth0 parent 1: classid 1:1 htb rate 10gbit quantum 60000 && "
                     "tc class add dev eth0 parent 1:1 classid 1:10 htb rate 5gbit ceil 10gbit quantum 60000 && "
                     "tc class add dev eth0 parent 1:1 classid 1:50 htb rate 5gbit ceil 10gbit quantum 60000", 60)

    def fault(self):
        """Pull the disk; nothing else is done by hand."""
        reads_b = self.lun_requests(self.b)
        self.fault_ns = self.a.pull_disk()
        say("the disk is hot-unplugged from host A")
        self.note(self.fault_ns, "fault: host A's disk is hot-unplugged (QMP device_del)")
        self.load.go_on(0.5, 20)
        self.remote_requests = self.lun_requests(self.b) - reads_b
        if not self.remote_requests:
            raise BedError("nothing was served by host B after the fault")

    def follow(self, timeout=900):
        """Until the guest is on host B."""
        def done():
            g = self.agents[0].guest_state()
            if g.get("state") in ("lost", "unclear"):
                raise BedError(f"host A: guest {g['state']}: {g['why']}")
            return g if g.get("state") == "migrated" else None
        try:
            g = wait_for("iovmd migrates the guest", timeout, done, 1)
        except BedError as e:
            raise BedError(f"{e}: {self.agents[0].explain()}; host B: {self.agents[1].explain()}") from None
        self.moved(g)

    def moved(self, g):
        """The guest is on host B: from here on that is where we look."""
        self.recorded = self.backend.events()
        self.steps = g["steps"]
        if "class" in self.keys.get("host_keys", "") and not {"reserved", "released"} <= {s["what"] for s in self.steps}:
            raise BedError(f"no bandwidth was reserved, or it was not released: {self.steps}")
        self.migration = g["progress"]
        say(f"migrated: {self.migration['total_ms']} ms in all, downtime {self.migration['downtime_ms']} ms, "
            f"{self.migration['transferred'] / 2**20:.0f} MiB sent")
        self.guest.agent.close()
        pid = int(self.b.agent.out("pgrep -of 'qemu-system.*-name vm1'"))
        there = Guest(self.guest.name, version=self.o.version, queues=self.o.queues)
        there.attach(self.b, pid)
        self.guest.__dict__.update(there.__dict__)
        self.guest.agent.wait(60, self.guest.alive)
        self.backends.append(agents.Served(self.b, unmade=True))
        device = self.agents[1].device()
        if device.get("route") != "local" or not device.get("queues_running"):
            raise BedError(f"host B does not serve the guest from its own disk: {device}")

    def measure(self):
        super().measure()
        for step in self.steps:
            ns = self.clock_a.to_ours(step["mono_ms"] * 1000000)
            self.note(ns, f"iovmd A: {step['what']}")
            if step["what"] == "guest runs there":
                self.total_s = (ns - self.fault_ns) / 1e9
        self.timeline.sort()

    def shut_down(self):
        self.guest.power_off()
        for a in self.agents:
            a.stop()
        for b in self.backends:
            b.stop()
        self.backends = []
        self.close_hosts()


def run_all(options, prefix=""):
    """The whole story; the finished Story, or BedError."""
    with Story(options) as r:
        failover.build(options)
        r.boot()
        r.load_up()
        r.fault()
        r.follow()
        r.load.go_on(options.after, options.requests)
        r.wind_down()
        r.measure()
        r.shut_down()
        r.check_storage()
        print("\n".join((prefix + line).rstrip() for line in r.report().splitlines()), flush=True)
        r.judge()
    return r
