# SPDX-License-Identifier: GPL-2.0-or-later
"""
The demo's path: a guest on host A boots from a device, works, loses the disk below the device, and goes on over NBD.

    guest ── virtio-blk ── back end on host A ─┬─ local: the LUN as a disk of host A      (pulled)
                                               └─ remote: NBD over TCP ── host B ── LUN
"""

import os
import random
import shutil
import time

from . import backend, host, image, storage
from .guest import HARMLESS, TROUBLE, Guest
from .load import DATA, DEPTHS, OUT, Load
from .util import BUILD, TOP, BedError, run, say


class Options:
    """How a run is done; see the demo's --help."""

    def __init__(self, **kw):
        self.backend = "iovm"
        self.fault = "pull"
        self.version = 7
        self.before = 15
        self.after = 20
        self.requests = 4000
        self.kernel = "6.12"
        self.queues = 1
        self.max_pause_ms = 30000
        self.keep = False
        self.build = True
        self.rundir = os.path.join(BUILD, "demo")
        self.__dict__.update(kw)


def build(options):
    """Bring what is under test up to date."""
    if options.backend == "iovm" and options.build:
        say("building modules and user land")
        run("make", "-C", TOP, f"KDIR={options.kernel}", "modules", "userland", timeout=1200)


class Run:
    """One run and what it measured."""

    def __init__(self, options):
        self.o = options
        self.hosts = []
        self.guest = None
        self.timeline = []

    def __enter__(self):
        shutil.rmtree(self.o.rundir, ignore_errors=True)
        os.makedirs(self.o.rundir)
        return self

    def __exit__(self, kind, *_):
        failed = kind is not None
        if failed and self.guest:
            self.save_guest()
        for h in self.hosts:
            if failed and h.proc:
                h.save_logs()
            h.stop()
        if not failed and not self.o.keep:
            for name in os.listdir(self.o.rundir):
                if name.endswith(".img") or name.startswith("dump-"):
                    os.unlink(os.path.join(self.o.rundir, name))

    def save_guest(self):
        """Keep what tells why the guest failed."""
        try:
            self.guest.agent.close()
            text = self.guest.agent.call(f"dmesg; tail -n 20 {OUT}/fio.txt {OUT}/fio.json {OUT}/probe.*", 20, check=False).out
            with open(os.path.join(self.o.rundir, "guest.log"), "w") as f:
                f.write(text)
            lines = [line for line in text.splitlines() if TROUBLE.search(line) and not HARMLESS.search(line)]
            if lines:
                say(f"the guest's kernel says ({len(lines)} lines): {lines[0].strip()}")
        except (BedError, OSError):
            pass

    def note(self, ns, what):
        """Something for the timeline, at a moment of our CLOCK_MONOTONIC."""
        self.timeline.append((ns, what))

    def boot(self):
        """Both hosts, the NBD server, the back end, the guest."""
        self.image = image.guest_image()
        self.lun = image.fresh_copy(self.image, os.path.join(self.o.rundir, "lun.img"))
        say("booting hosts A and B (Debian, TCG) that share a LUN")
        modules = backend.stage(self.o.rundir, self.o.kernel)[0] if self.o.backend == "iovm" else None
        self.a, self.b = self.hosts = host.pair(self.o.rundir, self.lun, kernel=self.o.kernel, modules=modules)
        host.start(self.a, self.b)
        self.a.kvm()
        backend.nbd_server(self.b)
        say(f"host B exports the LUN by qemu-nbd past its page cache; back end on host A: {self.o.backend}")
        self.disk = self.a.disk()
        self.backend = backend.start_backend(self.o.backend, self.a, "vm1-disk0", self.disk,
                                             (self.b.address, backend.NBD_PORT, "lun0"), self.o.queues)
        self.backends = [self.backend]
        self.guest = Guest("vm1", version=self.o.version, queues=self.o.queues)
        start = time.monotonic()
        self.guest.start(self.a, self.backend.socket)
        self.guest.wait_booted()
        kernel = self.guest.agent.out("uname -r")
        say(f"guest (Debian, {kernel}) has booted from the device by BIOS in {time.monotonic() - start:.1f} s")

    def load_up(self):
        """Start the load, and wait until it has done something."""
        self.load = Load(self.guest, seed=random.getrandbits(31))
        self.load.start()
        say(f"verifying fio job with {sum(DEPTHS.values())} requests in flight, and the pause probe, are running")
        self.clock_a, self.clock_g = self.a.agent.clock(), self.guest.agent.clock()
        self.load.go_on(self.o.before, self.o.requests)

    def fault(self):
        """Pull the disk, and wait until the load has got on after it."""
        reads_b = self.lun_requests(self.b)
        self.fault_ns = time.monotonic_ns()
        if self.o.fault == "pull":
            self.fault_ns = self.a.pull_disk()
            say("the disk is hot-unplugged from host A")
            self.note(self.fault_ns, "fault: host A's disk is hot-unplugged (QMP device_del)")
        self.load.go_on(self.o.after, self.o.requests)
        self.remote_requests = self.lun_requests(self.b) - reads_b
        self.recorded = self.backend.events()
        if self.o.fault == "pull":
            self.a.agent.call(f"! test -e {self.disk}")
            if not self.remote_requests:
                raise BedError("nothing was served by host B after the fault")

    def wind_down(self):
        """End the load, write block 0, and keep what the guest knows."""
        self.load.finish()
        say("the load has ended")
        # Block 0, written through whatever path is left: a new disk signature in the boot block.
        self.nonce = random.getrandbits(32)
        octal = "".join("\\%03o" % b for b in storage.stamped(bytes(512), self.nonce)[storage.NONCE_AT:storage.NONCE_AT + 4])
        self.guest.agent.call(f"""
            dd if=/dev/vda of=/dev/shm/block0 bs=512 count=1 iflag=direct status=none &&
            printf '{octal}' | dd of=/dev/shm/block0 bs=1 seek={storage.NONCE_AT} conv=notrunc status=none &&
            dd if=/dev/shm/block0 of=/dev/vda bs=512 count=1 oflag=direct conv=notrunc,fsync status=none""")
        self.manifest = self.load.manifest()
        self.trouble = self.guest.trouble()
        with open(os.path.join(self.o.rundir, "guest.dmesg"), "w") as f:
            f.write(self.guest.agent.out("dmesg") + "\n")
        if self.trouble:
            raise BedError(f"{len(self.trouble)} error lines in the guest's kernel log, first: {self.trouble[0]}")

    def lun_requests(self, which):
        words = which.agent.out(f"cat /sys/block/{os.path.basename(which.disk())}/stat").split()
        return int(words[0]) + int(words[4])

    def measure(self):
        """Put what was recorded on one time line, ours."""
        for name, mono_ns, detail in self.recorded:
            ns = self.clock_a.to_ours(mono_ns)
            if ns > self.fault_ns - 1e9:
                self.note(ns, f"{name}{': ' + detail if detail else ''}")
        self.pauses = self.load.pauses(self.clock_g)
        self.pause_ns = self.pauses[0][1]
        self.fio_gap_ns, self.fio_longest_ns = self.load.fio_pause()
        around = [p for p in self.pauses if p[0] < self.fault_ns + 5e9 and p[0] + p[1] > self.fault_ns]
        if around:
            start, length = around[0]
            self.note(start, "guest: probe's longest request around the fault submitted")
            self.note(start + length, f"guest: it completes, after {length / 1e6:.1f} ms, without error")
        self.verified = self.load.verified(self.clock_g, self.fault_ns)
        self.timeline.sort()

    def shut_down(self):
        self.guest.power_off()
        for b in self.backends:
            b.stop()
        self.close_hosts()

    def close_hosts(self):
        """The end of the hosts, whose kernels must have had nothing to complain of."""
        for h in self.hosts:
            lines = h.trouble()
            if lines:
                h.save_logs()
                raise BedError(f"host {h.name}'s kernel log: {lines[0]}")
        for h in self.hosts:
            h.stop()

    def check_storage(self):
        """What the LUN holds, read with O_DIRECT."""
        say("guest and hosts are down; checking the LUN from the storage side, with O_DIRECT")
        copy = storage.read_direct(self.lun, os.path.join(self.o.rundir, "check.img"))
        storage.check_block0(copy, self.image, self.nonce)
        say("block 0: as the guest wrote it" + (", through host B" if self.o.fault == "pull" else ""))
        say("file system: " + storage.check_fs(copy).split(": ", 1)[-1])
        storage.check_files(copy, DATA, self.manifest, self.o.rundir)
        mib = sum(storage.check_verify(os.path.join(self.o.rundir, "dump-" + name)) for name in DEPTHS)
        say(f"data: {len(self.manifest)} files as the guest read them last; fio's {mib:.0f} MiB carry right checksums throughout")

    def report(self):
        out = []
        if self.timeline:
            out.append("")
            out.append(f"timeline (ms; host A's clock known to {self.clock_a.error_ns / 1e6:.1f} ms, "
                       f"the guest's to {self.clock_g.error_ns / 1e6:.1f} ms)")
            for ns, what in self.timeline:
                out.append(f"  {(ns - self.fault_ns) / 1e6:+10.1f}  {what}")
        out.append("")
        out.append(f"longest guest I/O pause        {self.pause_ns / 1e6:.1f} ms (one request of the probe; "
                   f"{self.load.probe['requests']} requests in all)")
        others = [p for p in self.pauses if not (p[0] < self.fault_ns + 5e9 and p[0] + p[1] > self.fault_ns)]
        if others:
            out.append(f"longest away from the fault    {others[0][1] / 1e6:.1f} ms")
        out.append(f"fio: no completion for         {self.fio_gap_ns / 1e6:.0f} ms at most; longest of its requests {self.fio_longest_ns / 1e6:.0f} ms")
        out.append(f"fio: at least 32 in flight     for {self.load.deep_share():.1f} % of the requests")
        out.append(f"verified before the fault      {self.verified[0]:.1f} MiB")
        out.append(f"verified after the fault       {self.verified[1]:.1f} MiB")
        out.append(f"requests served by host B      {self.remote_requests}")
        out.append(f"guest kernel errors            {len(self.trouble)}")
        return "\n".join(out)

    def judge(self):
        """Whatever the checks above did not settle."""
        if self.load.deep_share() < 90:
            raise BedError(f"only {self.load.deep_share():.0f} % of fio's requests had 32 in flight")
        if min(self.verified) < 1:
            raise BedError("less than 1 MiB verified before or after the fault")
        if self.pause_ns > self.o.max_pause_ms * 1e6:
            raise BedError(f"the guest waited {self.pause_ns / 1e6:.0f} ms for a request")


def run_all(options, prefix=""):
    """The whole path; the finished Run, or BedError. The report's lines begin with prefix."""
    with Run(options) as r:
        build(options)
        r.boot()
        r.load_up()
        r.fault()
        r.wind_down()
        r.measure()
        r.shut_down()
        r.check_storage()
        print("\n".join((prefix + line).rstrip() for line in r.report().splitlines()), flush=True)
        r.judge()
    return r
