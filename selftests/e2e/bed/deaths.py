# SPDX-License-Identifier: GPL-2.0-or-later
"""
Hosts die, as when their power fails, at each step of a migration, and are started again. Afterwards the guest runs on one host at most;
where it was lost with its host, it is started again as an operator would. It finds every write that it was told was done, whoever
had it, and the host that does not run it writes nothing.

    numbered   a file whose blocks hold numbers, written one after the other from here: what was acknowledged is known here, whatever
               becomes of the guest
"""

import os
import time

from . import agents, trips
from .guest import Guest
from .load import DATA, Load
from .util import BedError, say, wait_for

BLOCKS = 16
NUMBERED = f"{DATA}/numbered"


class Numbered:
    """Writes numbers to blocks, and knows which may be found there."""

    def __init__(self):
        self.last = 0
        self.acked = [0] * BLOCKS
        self.sent = [0] * BLOCKS

    def write(self, guest, count):
        """So many blocks more, each on its own; what fails is in flight for ever."""
        first = self.last + 1
        for n in range(first, first + count):
            self.sent[n % BLOCKS] = n
        script = (f"n={first}; while [ $n -lt {first + count} ]; do yes $n | head -c 4096 >/dev/shm/block && "
                  f"dd if=/dev/shm/block of={NUMBERED} bs=4096 count=1 seek=$((n % {BLOCKS})) conv=notrunc oflag=direct,dsync status=none || exit 1; "
                  "n=$((n + 1)); done")
        self.last += count
        guest.agent.call(script, 120)
        for n in range(first, first + count):
            self.acked[n % BLOCKS] = n

    def check(self, guest):
        """Each block holds the number acknowledged last, or one that was sent later, whole."""
        text = guest.agent.out(f"i=0; while [ $i -lt {BLOCKS} ]; do echo $(dd if={NUMBERED} bs=4096 count=1 skip=$i iflag=direct "
                               "status=none | tr '\\0' '\\n' | sort | uniq -c | sort -rn | head -n 2); i=$((i + 1)); done", 120)
        for i, line in enumerate(text.splitlines()):
            words = line.split()
            value = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
            # the last line of a block is cut
            torn = len(words) > 2 and not (words[2] == "1" and words[1].startswith(words[3]))
            if torn or not self.acked[i] <= value <= self.sent[i]:
                raise BedError(f"block {i} of the numbered file holds '{line}': {self.acked[i]} was acknowledged, {self.sent[i]} the last one sent")


class Deaths(trips.Trips):
    """Trips on which a host dies."""

    def begin(self):
        """The load, and the numbered file."""
        self.load = Load(self.guest, size=8)
        self.load.start()
        self.numbered = Numbered()
        self.numbered.write(self.guest, BLOCKS)

    def revive(self, agent):
        """The host of an agent is started again, with iovmd."""
        agent.host.start()
        agent.host.wait_booted()
        self.host_up(agent.host)
        agent.boot()
        wait_for(f"host {agent.host.name}: iovmd is back", 120, agent.status, 0.5)

    def start_guest(self, agent):
        """As an operator does with a guest that is nowhere."""
        agent.host.agent.call("pid=$(pgrep -of '[q]emu-system.*-name vm1 ') && kill -9 $pid; true")
        agent.host.spawn("vm1-start", f"env -u IOVM_INCOMING /etc/iovm/{agents.GUEST}.start")
        pid = wait_for("QEMU is started", 60, lambda: agent.host.agent.call("pgrep -of '[q]emu-system.*-name vm1 '", check=False).out.strip(), 0.5)
        guest = Guest(self.guest.name, version=self.o.version, queues=self.o.queues)
        guest.attach(agent.host, int(pid))
        self.guest.agent.close()
        self.guest.__dict__.update(guest.__dict__)
        self.guest.wait_booted()
        if agent is not self.here:
            self.here, self.there = self.there, self.here

    def nowhere(self):
        """The guest runs on no host, and nobody is about to run it."""
        states = [a.guest_state() for a in self.agents]
        return all(states) and not any(s["state"] == "migrating" or s["arrival"] for s in states) and not any(map(self.runs_at, self.agents))

    def found(self, timeout=300):
        """The agent of the one host that runs the guest; None when it was lost."""
        end = time.monotonic() + timeout
        since = None
        while time.monotonic() < end:
            if self.nowhere():
                since = since or time.monotonic()
                if time.monotonic() - since > 20:
                    return None
            else:
                since = None
                at = [a for a in self.agents if self.runs_at(a)]
                if len(at) > 1:
                    raise BedError("the guest runs on both hosts")
                states = [a.guest_state() for a in self.agents]
                if at and all(states) and not any(s["state"] == "migrating" or s["arrival"] for s in states) and self.held(at[0]):
                    return at[0]
            time.sleep(1)
        raise BedError("the guest did not settle: " + "; ".join(a.explain() + str(a.guest_state()) for a in self.agents))

    def writes_of(self, agent):
        """Write requests that a host has sent to the LUN."""
        return int(agent.host.agent.out(f"cat /sys/block/{os.path.basename(agent.host.disk())}/stat").split()[4])

    def death(self, victim, step):
        """One migration during which the host of an agent dies; victim: 'source' or 'destination'."""
        what = f"the {victim} dies at '{step}'"
        start = time.monotonic()
        self.start_trip()
        self.numbered.write(self.guest, 4)
        self.wait_step(step)
        agent = self.here if victim == "source" else self.there
        agent.host.die()
        dead = time.monotonic()
        self.revive(agent)
        at = self.found()
        if at:
            moved = self.look_at(at)
            became = "went on" if moved else "stayed"
        else:
            self.start_guest(self.here)
            self.load = Load(self.guest, size=8)
            self.load.start()
            became = "was lost with its host and started again"
        self.numbered.check(self.guest)
        before = self.writes_of(self.there)
        self.numbered.write(self.guest, 8)
        self.load.go_on(1, 100)
        self.numbered.check(self.guest)
        if self.writes_of(self.there) != before:
            raise BedError(f"{what}: host {self.there.host.name} writes to the LUN, too")
        if [a for a in self.agents if self.held(a)] != [self.here]:
            raise BedError(f"{what}: the epoch is not held at {self.here.host.name} alone")
        say(f"{what}: the guest {became}; it is on host {self.here.host.name}, {time.monotonic() - dead:.0f} s after the death, "
            f"{time.monotonic() - start:.0f} s in all")


def run_all(options, all_of_them=False):
    """Every step and both hosts, or three deaths: before, at and after the hand-over."""
    from . import failover
    some = {("destination", "the peer is ready"), ("source", "the peer may write"), ("destination", "all of it is there")}
    with Deaths(options) as r:
        failover.build(options)
        r.boot()
        r.begin()
        for step in trips.STEPS:
            for victim in ("source", "destination"):
                if all_of_them or (victim, step) in some:
                    r.death(victim, step)
        r.load.finish()
        r.guest.power_off()
