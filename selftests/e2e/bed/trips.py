# SPDX-License-Identifier: GPL-2.0-or-later
"""
A guest goes to and fro between two hosts under its verifying load, and something goes wrong at each step on each side. After each trip:
the guest runs on exactly one host, which holds the epoch; the other one holds none; the guest works on.
"""

import json
import time

from . import agents, story
from .guest import Guest
from .util import BedError, say, wait_for

#: iovmd's steps at which something is done to it: what the source says of them
STEPS = ("the peer prepares", "the peer is ready", "active", "guest is stopped here", "the peer may write", "all of it is there")


class Trips(story.Story):
    """A guest between two hosts."""

    # without TLS, which takes emulated processors several times as long: the story has it
    keys = dict(host_keys="transport = plain-tcp\n", device_keys="", guest_keys="migrate = on-request\nmax-downtime = 1s\n")

    def boot(self):
        super().boot()
        self.here, self.there = self.agents
        self.guests = {self.a: self.guest}

    def start_trip(self):
        self.here.host.spawn("migrate", f"{self.here.bin}/iovmctl migrate vm1")

    def wait_step(self, step, timeout=60):
        """Until the source says so, or is past it."""
        def reached():
            g = self.here.guest_state()
            return g.get("state") == "migrating" and any(s["what"] == step for s in g["steps"]) or g.get("state") in ("migrated", "rolled-back")
        wait_for(f"host {self.here.host.name}: '{step}'", timeout, reached, 0.05)

    def runs_at(self, agent):
        """Is the guest on that host, as its QEMU and the kernel say?"""
        res = agent.host.agent.call(
            "pid=$(pgrep -of 'qemu-system.*-name vm1 ') && echo '{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-status\"}' | "
            "timeout 5 socat -t1 - UNIX-CONNECT:/run/vm1.look", check=False)
        return '"running": true' in res.out

    def settle(self, timeout=240):
        """Until the guest runs on exactly one host and nothing is under way; the agent of that host."""
        def settled():
            states = [a.guest_state() for a in self.agents]
            if not all(states) or any(s["state"] in ("migrating",) or s["arrival"] for s in states):
                return None
            at = [a for a in self.agents if self.runs_at(a)]
            held = [a for a in self.agents if self.held(a)]
            return at[0] if len(at) == 1 and at == held else None
        try:
            at = wait_for("the guest settles on one host", timeout, settled, 1)
        except BedError as e:
            raise BedError(f"{e}: " + "; ".join(a.explain() + str(a.guest_state()) for a in self.agents)) from None
        both = [a for a in self.agents if self.held(a)]
        if both != [at]:
            raise BedError(f"epochs are held at {[a.host.name for a in both]}")
        return at

    @staticmethod
    def held(agent):
        return '"epoch_held": true' in agent.ctl("show", agents.DEVICE, "--json") or \
            '"epoch_held":true' in agent.ctl("show", agents.DEVICE, "--json")

    def look_at(self, agent):
        """From here on the guest's agent and load are asked on that host."""
        moved = agent is not self.here
        if moved:
            self.here, self.there = self.there, self.here
            self.guest.agent.close()
            pid = int(agent.host.agent.out("pgrep -of 'qemu-system.*-name vm1 '"))
            g = Guest(self.guest.name, version=self.o.version, queues=self.o.queues)
            g.attach(agent.host, pid)
            self.guest.__dict__.update(g.__dict__)
            self.guest.agent.wait(60, self.guest.alive)
        self.load.go_on(1, 100)
        return moved

    def trip(self, what, step, mishap, must=None):
        """One migration with a mishap at a step; must: True it has to arrive, False it must not, None either is good."""
        start = time.monotonic()
        self.start_trip()
        if step:
            self.wait_step(step)
        mishap()
        moved = self.look_at(self.settle())
        if must is not None and moved != must:
            raise BedError(f"{what}: the guest {'went' if moved else 'did not go'}: {self.here.explain()}")
        say(f"{what}: the guest is on host {self.here.host.name}, {'moved' if moved else 'stayed'}, {time.monotonic() - start:.0f} s")

    def kill(self, agent):
        agent.kill()
        time.sleep(1)
        agent.start()
        wait_for(f"host {agent.host.name}: iovmd is back", 60, agent.status, 0.3)

    def cut(self):
        """The channels between the agents are cut; they may be made again."""
        self.here.host.agent.call("ss -K '( sport = :10808 or dport = :10808 )' >/dev/null")


    def cut_data(self):
        """The connections to the other host are cut, and made again; is what was in flight in doubt then?"""
        self.here.host.agent.call("ss -K '( dport = :10809 )' >/dev/null")
        path = None

        def live():
            nonlocal path
            device = json.loads(self.here.ctl("show", agents.DEVICE, "--json"))
            path = next(p for p in device["paths"] if p["name"] == self.there.host.name)
            return path["state"] == "live"
        wait_for("the other host's path is live again", 60, live, 0.1)
        return path["in_doubt"]

    def doubt(self):
        """
        Its disk is given up, and connections are cut with writes in flight. iovmd has that settled; where it could not, since it stood
        still, the doubt is left for the migration.
        """
        self.here.ctl("path", "fail", agents.DEVICE, "local")
        self.load.go_on(1, 100)
        for _ in range(20):
            self.cut_data()
            if "has drained what it was sent before" in self.here.host.spawned_log("iovmd"):
                break
        else:
            raise BedError(f"nothing was drained in 20 cuts: {self.here.explain()}")
        self.load.go_on(1, 100)
        self.here.host.agent.call(f"kill -STOP {self.here.pid}")
        doubt = any(self.cut_data() for _ in range(20))
        self.here.host.agent.call(f"kill -CONT {self.here.pid}")
        if not doubt:
            raise BedError("no write was in flight in any of 20 cuts")

    def no_doubt(self):
        """Nobody's writes are in doubt; the disk that was given up is taken up again."""
        for agent in self.agents:
            if any(p["in_doubt"] for p in agent.device()["paths"]):
                raise BedError(f"writes are in doubt: {agent.explain()}")
        self.there.ctl("path", "retry", agents.DEVICE, "local")


def run_all(options, all_of_them=False):
    """All trips, or so many that each step and each mishap comes."""
    from . import failover
    with Trips(options) as r:
        failover.build(options)
        r.boot()
        r.load_up()
        r.trip("nothing goes wrong", None, lambda: None, must=True)
        r.trip("and back", None, lambda: None, must=True)
        r.doubt()
        r.trip("what was sent may still land", None, lambda: None, must=True)
        r.no_doubt()
        for step in STEPS:
            r.trip(f"the source's iovmd killed at '{step}'", step, lambda: r.kill(r.here))
            if all_of_them or step in STEPS[0::2]:
                r.trip(f"the destination's iovmd killed at '{step}'", step, lambda: r.kill(r.there))
            if all_of_them or step in STEPS[1::2]:
                r.trip(f"their channels cut at '{step}'", step, r.cut)
        r.load.finish()
        r.trouble = r.guest.trouble()
        if r.trouble:
            raise BedError(f"{len(r.trouble)} error lines in the guest's kernel log, first: {r.trouble[0]}")
        r.guest.power_off()
