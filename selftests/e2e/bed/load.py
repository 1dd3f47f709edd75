# SPDX-License-Identifier: GPL-2.0-or-later
"""
The load inside a guest: a verifying fio job and the pause probe, both with O_DIRECT on the root disk's file system.

fio writes blocks that carry a checksum and a sequence number and reads each back: those of one file soon after they were
written, those of the other when the whole file was. The first that is not what was written last, be it damaged or just an
older one, ends the job with an error. (fio compares sequence numbers only if all blocks of a job are of one size and
the job is not time_based: hence two files, and loops until it is interrupted.)
"""

import json
import time

from .util import BedError, wait_for

DATA = "/srv/data"
OUT = "/dev/shm/load"
INTERRUPTED = 128       # fio's exit status after SIGINT, errors or not: those are in its report
DEPTHS = {"small": 40, "large": 8}

JOB = """[global]
directory={data}
direct=1
ioengine=io_uring
verify=crc32c
verify_interval=4096
verify_fatal=1
verify_state_save=0
randseed={seed}
log_unix_epoch=1

[layout-small]
rw=write
bs=64k
filename=small
filesize={size}M
iodepth=8
do_verify=0

[layout-large]
rw=write
bs=64k
filename=large
filesize={size}M
iodepth=8
do_verify=0

[small]
rw=randwrite
bs=4k
filename=small
filesize={size}M
iodepth={small}
verify_backlog=192
loops=1000000
write_lat_log={out}/small
{rate}

[large]
rw=randwrite
bs=64k
filename=large
filesize={size}M
iodepth={large}
loops=1000000
write_lat_log={out}/large
{rate}
"""


class Load:
    """Starts the load and, when it has ended, tells what it saw. rate: requests in a second, of each job; else as many as it can."""

    def __init__(self, guest, size=24, seed=1, rate=None):
        self.guest, self.size, self.seed = guest, size, seed
        self.rate = f"rate_iops={rate}" if rate else ""

    def start(self):
        job = JOB.format(data=DATA, size=self.size, seed=self.seed, out=OUT, rate=self.rate, **DEPTHS)
        self.guest.agent.call(f"""
            rm -rf {OUT} && mkdir -p {OUT} && cd {OUT} && cat >job.fio <<'END' || exit 1\n{job}END
            (fio --output-format=json --output=fio.json --section=layout-small --section=layout-large job.fio >fio.txt 2>&1 && : >laid-out &&
             {{ fio --output-format=json --output=fio.json --section=small --section=large job.fio >>fio.txt 2>&1 & echo $! >fio.pid
              wait $!; echo $? >fio.status; }}) &
            """)
        wait_for(f"{self.guest.name}: file laid out", 300, lambda: self.state("laid-out") or self.state("fio.status"), 0.5)
        self.guest.agent.call(f"cd {OUT} && {{ probe {DATA}/probe 86400 {OUT}/stop >probe.json 2>probe.txt; echo $? >probe.status; }} &")

    def state(self, name):
        return self.guest.agent.call(f"test -s {OUT}/{name} || test -e {OUT}/{name}", 30, check=False).status == 0

    def check_running(self):
        """An error if fio has ended already."""
        if self.state("fio.status"):
            raise BedError(f"{self.guest.name}: fio ended early: {self.fio_text()}")

    def requests(self):
        """Requests the guest's disk has completed so far."""
        words = self.guest.agent.out("cat /sys/block/vda/stat").split()
        return int(words[0]) + int(words[4])

    def fio_text(self):
        script = f"cd {OUT}; echo status $(cat fio.status); grep -hE '^fio:|^verify:|err=|error=' fio.txt fio.json | head -n 6"
        return self.guest.agent.call(script, check=False).out.strip()

    def go_on(self, seconds, requests, limit=400):
        """Let it run for this long, and until this many more requests were completed."""
        end, goal = time.monotonic() + seconds, self.requests() + requests
        wait_for(f"{self.guest.name}: {requests} requests", limit, lambda: self.enough(end, goal), 0.5)

    def enough(self, end, goal):
        self.check_running()
        return time.monotonic() >= end and self.requests() >= goal

    def finish(self, timeout=300):
        """End it, collect, and check that nothing went wrong in the guest's eyes."""
        self.check_running()
        self.guest.agent.call(f"kill -INT $(cat {OUT}/fio.pid)")
        wait_for(f"{self.guest.name}: end of fio", timeout, lambda: self.state("fio.status"), 1)
        self.guest.agent.call(f": >{OUT}/stop")
        wait_for(f"{self.guest.name}: end of the probe", 120, lambda: self.state("probe.status"), 0.3)
        out = self.guest.agent.out
        self.fio_status, self.probe_status = int(out(f"cat {OUT}/fio.status")), int(out(f"cat {OUT}/probe.status"))
        if self.fio_status not in (0, INTERRUPTED):
            raise BedError(f"{self.guest.name}: fio saw an error: {self.fio_text()}")
        self.probe = json.loads(out(f"cat {OUT}/probe.json"))
        if self.probe_status or self.probe["errors"] or self.probe["mismatches"]:
            raise BedError(f"{self.guest.name}: the probe saw an error: {self.probe}")
        text = out(f"cat {OUT}/fio.json")
        self.jobs = {job["jobname"]: job for job in json.loads(text[text.index("{"):])["jobs"]}
        if set(self.jobs) != set(DEPTHS) or any(job["error"] for job in self.jobs.values()):
            raise BedError(f"{self.guest.name}: fio reports an error: {self.fio_text()}")
        self.log = []
        for line in out(f"cat {OUT}/*_clat.*.log", 120).splitlines():
            words = line.split(",")
            self.log.append((int(words[0]) * 1000000, int(words[1]), int(words[2]), int(words[3])))
        self.log.sort()

    def deep_share(self):
        """Share of the small job's requests that were submitted with at least 32 in flight, in percent."""
        levels = self.jobs["small"]["iodepth_level"]
        return sum(v for k, v in levels.items() if int(k.strip(">=")) >= 32)

    def verified(self, clock, fault_ns):
        """MiB that fio read back and found right before and after a moment of our clock."""
        before = after = 0
        for real_ns, _, direction, size in self.log:
            if direction == 0:
                if clock.real_to_ours(real_ns) < fault_ns:
                    before += size
                else:
                    after += size
        return before / 2**20, after / 2**20

    def fio_pause(self):
        """fio's longest time without any completion, in ns, and its longest request."""
        gaps = [b[0] - a[0] for a, b in zip(self.log, self.log[1:])]
        return max(gaps), max(entry[1] for entry in self.log)

    def pauses(self, clock):
        """The probe's longest requests as (start on our clock, length), in ns, longest first."""
        return [(clock.to_ours(p["start_ns"]), p["length_ns"]) for p in self.probe["pauses"]]

    def manifest(self):
        """{file: sha256} of the data files as the guest reads them past its page cache."""
        text = self.guest.agent.out(f"cd {DATA} && for f in *; do echo $f $(dd if=$f bs=1M iflag=direct status=none | sha256sum); done", 120)
        return {line.split()[0]: line.split()[1] for line in text.splitlines()}
