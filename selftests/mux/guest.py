#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of iovm_mux with a made-up class and paths (iovm_mux_test.ko); in a test machine, as root.

    guest.py SECONDS [SEED]

iovm_mux_test.ko is loaded. What happened is judged from events and from the module's own checks
(parameter violations), not from time. Writes KTAP; SECONDS is for the random part.
"""

import errno
import fcntl
import os
import random
import struct
import subprocess
import sys
import threading
import time

PARAMS = "/sys/module/iovm_mux_test/parameters/"
TBDEV, TNBD = 30, 31
LOCAL, NONE = 1, 2
ASSUME_SAME = 4
CONNECTING, LIVE, SUSPECT, FAILED, DRAINING, REMOVED = range(6)
ROUTED, PARKED, SUSPENDED, FAILING, NO_EPOCH = range(5)
F_EPOCH = 4
FAILOVER, FAILBACK, SUSPEND, RESUME, FAIL_PARKED = range(1, 6)
SET_NO_PATH_TIMEOUT, SET_FAILBACK_AFTER = 7, 8
TAKE, GIVE = 14, 15
FAIL, RETRY, FENCED = 1, 2, 3
EVENTS = """LOST DEV_CREATED DEV_DESTROYED DEV_OPENED DEV_CLOSED PATH_ADDED PATH_STATE PATH_REMOVED
    FIRST_ERROR REROUTED FIRST_COMPLETION PARKED TIMEOUT SUSPENDED RESUMED HELD FENCED RESIZED
    QUEUE_BROKEN FAIL_PARKED NO_SPACE SPACE MEDIUM_ERROR OVERDUE SLOW SLOW_OVER SLOW_LEFT FENCE_FAILED
    SESSION_BEGUN SESSION_ENDED 30 31 EPOCH_WANTED EPOCH_TAKEN EPOCH_GIVEN""".split()
EVENT = struct.Struct("<IIQQQIIIIiIQ64s64sQ")


class Event:
    def __init__(self, raw):
        (_, kind, self.seq, self.mono_ns, _, _, _, self.old, self.new, self.error, _, self.value, dev, path,
         _) = raw
        self.type = EVENTS[kind]
        self.dev, self.path = text(dev), text(path)

    def __str__(self):
        state = f" {self.old}->{self.new}" if self.type == "PATH_STATE" else ""
        return f"{self.seq} {self.type} {self.dev} {self.path}{state} error={self.error} value={self.value}"


def text(field):
    return field.split(b"\0")[0].decode()


def param(name):
    with open(PARAMS + name) as f:
        return int(f.read())


def set_param(name, value):
    with open(PARAMS + name, "w") as f:
        f.write(str(value))


def rates(**kwargs):
    # the slot before what is to happen there, and after what happened elsewhere has ended
    names = ("path", "io", "unsent", "retry", "connect", "probe", "media", "nospc")
    for name in names:
        set_param(name + "_rate", 0)
    set_param("only_slot", kwargs.get("slot", -1))
    for name in names:
        set_param(name + "_rate", kwargs.get(name, 0))


class Control:
    """An open /dev/iovm-mux. Calls return 0 or an errno; the message is in .msg."""

    def __init__(self):
        self.fd = os.open("/dev/iovm-mux", os.O_RDWR | os.O_NONBLOCK)
        self.msg = ""
        self.out = b""

    def close(self):
        os.close(self.fd)

    def call(self, nr, fmt, *args, size=0, msg=True):
        head = struct.pack("<I" + fmt, 0, *args)
        size = max(size, len(head) + (192 if msg else 0))
        size = (size + 7) & ~7 if not msg else size
        buf = bytearray(head.ljust(size, b"\0"))
        struct.pack_into("<I", buf, 0, size)
        try:
            fcntl.ioctl(self.fd, 0xB900 | nr, buf)
            err = 0
        except OSError as e:
            err = e.errno
        self.out = bytes(buf)
        self.msg = text(bytes(buf[-192:])) if msg else ""
        return err

    def create(self, name, timeout_ms=0, failback_ms=0, flags=0):
        return self.call(1, "I64sIIIIQQQQ", 1, name.encode(), flags, 0o660, 0, 0, timeout_ms, failback_ms, 0, 0,
                         size=392)

    def destroy(self, name, force=True):
        return self.call(2, "I64s", int(force), name.encode())

    def ctl(self, name, op, path="", value=0):
        return self.call(4, "I64s64sQ", op, name.encode(), path.encode(), value)

    def add(self, dev, name, kind, fence=0, flags=0):
        return self.call(0x10, "I64s64s256sIIiIII", kind, dev.encode(), name.encode(), b"made up",
                         flags | ASSUME_SAME, fence,
                         -1, 0, 0, 0)

    def add_reserved(self, dev, name, key, after_ms=0):
        """Without a fence but that by a reservation."""
        return self.call(0x10, "I64s64s256sIIiIII192sII128sII256sQ", TBDEV, dev.encode(), name.encode(), b"made up",
                         ASSUME_SAME, NONE, -1, 0, 0, 0, b"", 0, 3, b"", after_ms, 0, b"", key, msg=False)

    def remove(self, dev, name, force=False):
        return self.call(0x11, "I64s64s", int(force), dev.encode(), name.encode())

    def connect(self, dev, name):
        return self.call(0x13, "I64s64s64sQIIII", 1, dev.encode(), name.encode(), b"", 0, 0, 0, 0, 0)

    def pctl(self, dev, name, op):
        return self.call(0x14, "I64s64s", op, dev.encode(), name.encode())

    def dev(self, name):
        if self.call(3, "I64s", 0, name.encode(), size=256, msg=False):
            return None
        keys = "state route nr_paths in_use pid queues inflight requeued held".split()
        return dict(zip(keys, struct.unpack_from("<6I3Q", self.out, 80)))

    def path(self, dev, name):
        if self.call(0x12, "I64s64s", 0, dev.encode(), name.encode(), size=968, msg=False):
            return None
        keys = "type flags fence state order error sockets generation since inflight held".split()
        info = dict(zip(keys, struct.unpack_from("<5IiIIQQQ", self.out, 392)))
        info["by_hand"], info["unflushed"], info["in_doubt"] = struct.unpack_from("<3I", self.out, 952)
        return info

    def dev_stats(self, name):
        if self.call(5, "I64s", 0, name.encode(), size=456, msg=False):
            return None
        keys = "requests errors requeues reroutes parks fails throttled".split()
        stats = dict(zip(keys, struct.unpack_from("<7Q", self.out, 72)))
        stats["pauses"] = sum(struct.unpack_from("<40Q", self.out, 128))
        return stats

    def events(self):
        found = []
        while True:
            try:
                data = os.read(self.fd, EVENT.size * 128)
            except BlockingIOError:
                return found
            found += [Event(e) for e in EVENT.iter_unpack(data)]

    def events_until(self, kind, path=None, seconds=20):
        """Events up to the first of this type (and path); None when it does not come."""
        found = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found += self.events()
            for e in found:
                if e.type == kind and path in (None, e.path):
                    return found
            time.sleep(0.01)
        print("# no", kind, path, "but:", *found, sep="\n#  ")
        return None


def wait(what, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.01)
    return False


class Failed(Exception):
    pass


def check(cond, *what):
    if not cond:
        raise Failed(" ".join(str(w) for w in what))


def moves(ctl, seconds=20):
    """Do requests complete?"""
    before = param("completed")
    return wait(lambda: param("completed") > before + 20, seconds)


def names(events):
    return [e.type for e in events]


def two_paths(ctl, **kwargs):
    """d: A is tbdev without errors, B is tnbd without a fence, connected."""
    rates()
    check(not ctl.create("d", **kwargs), ctl.msg)
    check(not ctl.add("d", "A", TBDEV), ctl.msg)
    check(not ctl.add("d", "B", TNBD, NONE), ctl.msg)
    check(not ctl.connect("d", "B"), ctl.msg)
    check(moves(ctl))


def test_refused(ctl):
    two_paths(ctl)
    check(ctl.create("d") == errno.EEXIST and "already" in ctl.msg, ctl.msg)
    check(ctl.add("d", "A", TBDEV) == errno.EEXIST, ctl.msg)
    check(ctl.add("d", "C", 29) == errno.ENODEV, ctl.msg)
    check(ctl.add("no", "C", TBDEV) == errno.ENOENT, ctl.msg)
    check(ctl.add("d", "-C", TBDEV) == errno.EINVAL and ctl.msg, ctl.msg)
    check(ctl.add("d", "C", TBDEV, flags=3) == errno.EINVAL, ctl.msg)
    check(ctl.add("d", "C", TBDEV, fence=3) == errno.EINVAL, ctl.msg)
    check(ctl.connect("d", "A") == errno.EOPNOTSUPP, ctl.msg)
    check(ctl.connect("d", "B") == errno.EBUSY, ctl.msg)
    check(ctl.pctl("d", "B", FENCED) == errno.EBUSY, ctl.msg)
    check(ctl.pctl("d", "A", RETRY) == errno.EBUSY, ctl.msg)
    check(ctl.ctl("d", FAILOVER, "C") == errno.ENOENT, ctl.msg)
    check(ctl.ctl("d", 99) == errno.EINVAL, ctl.msg)
    check(ctl.destroy("d", force=False) == errno.EBUSY)
    for i in range(6):
        check(not ctl.add("d", f"x{i}", TNBD, NONE), ctl.msg)
    check(ctl.add("d", "C", TBDEV) == errno.ENOSPC, ctl.msg)
    check(not ctl.msg == "", "no reason")


def test_in_use(ctl):
    two_paths(ctl)
    for module in ("iovm_mux", "iovm_mux_test"):
        done = subprocess.run(["rmmod", module], capture_output=True, text=True)
        check(done.returncode and "in use" in done.stderr, module, done.stderr)


def test_failover_by_error(ctl):
    two_paths(ctl)
    ctl.events()
    rates(path=1024, slot=0)
    events = ctl.events_until("FIRST_COMPLETION")
    check(events)
    kinds = names(events)
    check(kinds[:4] == ["FIRST_ERROR", "PATH_STATE", "REROUTED", "FIRST_COMPLETION"], *events)
    first, state, rerouted, completion = events[:4]
    check(first.path == "A" and first.error < 0, first)
    check((state.path, state.old, state.new) == ("A", LIVE, FAILED), state)
    check(rerouted.path == "B" and 0 < rerouted.value <= completion.value, rerouted, completion)
    stats = ctl.dev_stats("d")
    check(stats["requeues"] and stats["errors"] == 0, stats)
    check(wait(lambda: ctl.dev("d")["requeued"] == 0 and ctl.dev_stats("d")["pauses"] == ctl.dev_stats("d")["requeues"]),
          ctl.dev("d"), ctl.dev_stats("d"))
    # the path comes back by itself, and is not switched to
    rates()
    check(ctl.events_until("PATH_STATE", "A"))
    check(ctl.path("d", "A")["state"] == LIVE and ctl.dev("d")["route"] == 2)
    # until it is told so
    check(not ctl.ctl("d", FAILBACK), ctl.msg)
    check(ctl.events_until("REROUTED", "A") and moves(ctl))


def test_failback_after(ctl):
    two_paths(ctl, failback_ms=200)
    check(not ctl.pctl("d", "A", FAIL), ctl.msg)
    check(ctl.events_until("REROUTED", "B"))
    # failed by hand: not probed
    time.sleep(2.5)
    check(ctl.path("d", "A")["state"] == FAILED)
    check(not ctl.pctl("d", "A", RETRY), ctl.msg)
    check(ctl.events_until("REROUTED", "A"))
    # chosen by hand: stays
    check(not ctl.ctl("d", FAILOVER, "B"), ctl.msg)
    time.sleep(0.6)
    check(ctl.dev("d")["route"] == 2, ctl.dev("d"))


def test_failovers(ctl):
    two_paths(ctl)
    for i in range(100):
        check(not ctl.ctl("d", FAILOVER), ctl.msg)
        check(ctl.events_until("FIRST_COMPLETION", "BA"[i % 2]))
    check(ctl.dev_stats("d")["errors"] == 0)


def fail_until_held(ctl):
    """B, which takes requests, fails until it holds something."""
    rates(path=300, slot=1)
    while not ctl.dev("d")["held"]:
        check(ctl.events_until("PATH_STATE", "B"))
        if wait(lambda: ctl.dev("d")["held"], 0.3):
            break
        ctl.connect("d", "B")
        ctl.ctl("d", FAILOVER, "B")


def test_fence(ctl):
    two_paths(ctl)
    check(not ctl.ctl("d", FAILOVER, "B"), ctl.msg)
    check(moves(ctl))
    ctl.events()
    fail_until_held(ctl)
    rates()
    time.sleep(0.1)
    held = ctl.dev("d")["held"]
    check(held and ctl.dev("d")["state"] == ROUTED and moves(ctl))
    check(ctl.path("d", "B")["held"] == held)
    check(ctl.remove("d", "B") == errno.EBUSY and "fence" in ctl.msg, ctl.msg)
    # to the same path when it is live again
    check(not ctl.connect("d", "B"), ctl.msg)
    check(wait(lambda: ctl.dev("d")["held"] == 0 and ctl.dev("d")["requeued"] == 0), ctl.dev("d"))
    # or anywhere when the fence is confirmed
    check(not ctl.ctl("d", FAILOVER, "B"), ctl.msg)
    fail_until_held(ctl)
    time.sleep(0.1)
    held = ctl.dev("d")["held"]
    ctl.events()
    set_param("fence", "d B")
    check(not ctl.pctl("d", "B", FENCED), ctl.msg)
    events = ctl.events_until("FENCED", "B")
    check(events and events[-1].value == held or [e for e in events if e.type == "FENCED"][0].value == held)
    check(wait(lambda: ctl.dev("d")["held"] == 0 and ctl.dev("d")["requeued"] == 0), ctl.dev("d"))
    check(not ctl.remove("d", "B"), ctl.msg)
    check(ctl.dev_stats("d")["errors"] == 0, ctl.dev_stats("d"))


def test_suspend(ctl):
    two_paths(ctl)
    ctl.events()
    check(not ctl.ctl("d", SUSPEND), ctl.msg)
    check(names(ctl.events()) == ["SUSPENDED"])
    info, before = ctl.dev("d"), param("completed")
    check(info["state"] == SUSPENDED and info["inflight"] == 0, info)
    time.sleep(0.3)
    check(param("completed") == before, "requests complete while suspended")
    # a planned switch
    check(not ctl.ctl("d", FAILOVER, "B"), ctl.msg)
    check(not ctl.ctl("d", RESUME), ctl.msg)
    check(ctl.events_until("FIRST_COMPLETION", "B"))
    check(ctl.dev_stats("d")["errors"] == 0)


def test_no_path(ctl):
    two_paths(ctl)
    ctl.events()
    for path in "AB":
        check(not ctl.pctl("d", path, FAIL), ctl.msg)
    check(ctl.events_until("PARKED"))
    time.sleep(0.2)
    check(ctl.dev("d")["state"] == PARKED)
    # one comes back in time
    check(not ctl.connect("d", "B"), ctl.msg)
    check(ctl.events_until("FIRST_COMPLETION", "B"))
    check(ctl.dev_stats("d")["errors"] == 0, ctl.dev_stats("d"))
    # and not in time
    check(not ctl.ctl("d", SET_NO_PATH_TIMEOUT, value=200), ctl.msg)
    check(not ctl.pctl("d", "B", FAIL), ctl.msg)
    check(ctl.events_until("TIMEOUT"))
    check(wait(lambda: ctl.dev_stats("d")["fails"] > 0), ctl.dev_stats("d"))
    check(ctl.dev("d")["state"] == FAILING)
    check(not ctl.connect("d", "B"), ctl.msg)
    check(ctl.dev("d")["state"] == ROUTED and ctl.dev("d")["held"] == 0)


def test_fail_parked(ctl):
    two_paths(ctl)
    rates(unsent=1024)
    check(ctl.events_until("PARKED"))
    check(wait(lambda: ctl.dev("d")["inflight"] == 0))
    check(ctl.dev("d")["requeued"] > 0, ctl.dev("d"))
    set_param("quiet", 1)
    check(not ctl.ctl("d", FAIL_PARKED), ctl.msg)
    check(ctl.events_until("FAIL_PARKED"))
    check(wait(lambda: ctl.dev("d")["requeued"] == 0), ctl.dev("d"))
    check(ctl.dev_stats("d")["errors"] > 0)


def test_io_errors_end(ctl):
    """The only path answers its probes but fails a request: the guest is told, and nothing hangs."""
    rates()
    check(not ctl.create("d"), ctl.msg)
    check(not ctl.add("d", "A", TBDEV), ctl.msg)
    check(moves(ctl))
    set_param("quiet", 1)
    check(wait(lambda: ctl.dev("d")["inflight"] == 0))
    rates(io=1024)
    set_param("quiet", 0)
    check(wait(lambda: ctl.dev_stats("d")["errors"] > 0, 60), ctl.dev_stats("d"))


def test_media(ctl):
    two_paths(ctl)
    ctl.events()
    rates(media=1024, slot=0)
    check(ctl.events_until("MEDIUM_ERROR", "A"))
    # all goes to B, by way of A, which stays the route
    check(moves(ctl) and moves(ctl))
    check(ctl.dev("d")["route"] == 1 and ctl.path("d", "A")["state"] == LIVE)
    check(ctl.dev_stats("d")["errors"] == 0, ctl.dev_stats("d"))
    # and with nowhere to go the guest is told, at once
    check(not ctl.pctl("d", "B", FAIL), ctl.msg)
    check(wait(lambda: ctl.dev_stats("d")["errors"]), ctl.dev_stats("d"))
    check(ctl.path("d", "A")["state"] == LIVE)


def test_no_space(ctl):
    two_paths(ctl)
    ctl.events()
    rates(nospc=1024, slot=0)
    check(ctl.events_until("NO_SPACE", "A"))
    check(ctl.path("d", "A")["state"] == LIVE and ctl.dev("d")["requeued"])
    rates()
    # the operator says that there is space: it need not wait for the next try
    check(not ctl.ctl("d", RESUME), ctl.msg)
    check(ctl.events_until("SPACE"))
    check(moves(ctl))
    check(ctl.dev_stats("d")["errors"] == 0, ctl.dev_stats("d"))
    rates(nospc=1024, slot=0)
    check(ctl.events_until("NO_SPACE", "A"))
    check(wait(lambda: ctl.dev("d")["requeued"] > 4), ctl.dev("d"))
    check(not ctl.ctl("d", FAIL_PARKED), ctl.msg)
    check(wait(lambda: ctl.dev_stats("d")["errors"] > 4), ctl.dev_stats("d"))
    # cleaned up with what waits


def test_remove_while_probed(ctl):
    """A probe that succeeds just when its path is taken out does not bring it back."""
    two_paths(ctl)
    other = Control()
    for i in range(200):
        check(not ctl.add("d", "C", TBDEV), ctl.msg)
        check(not ctl.pctl("d", "C", FAIL), ctl.msg)
        probe = threading.Thread(target=other.pctl, args=("d", "C", RETRY))
        probe.start()
        # a probe takes 20 ms
        time.sleep(.018 + random.random() * .006)
        check(not ctl.remove("d", "C", force=bool(i % 2)), ctl.msg)
        probe.join()
        check(not ctl.path("d", "C"), "still there")
    other.close()
    check(moves(ctl))


def test_fail_while_probed(ctl):
    """What the operator says while a probe is under way counts."""
    two_paths(ctl)
    check(not ctl.pctl("d", "A", FAIL), ctl.msg)
    other, answer = Control(), []
    probe = threading.Thread(target=lambda: answer.append(other.pctl("d", "A", RETRY)))
    probe.start()
    # a probe takes 20 ms
    time.sleep(.008)
    check(not ctl.pctl("d", "A", FAIL), ctl.msg)
    probe.join()
    check(answer == [errno.ECANCELED], answer, other.msg)
    other.close()
    # and it is not probed by itself
    time.sleep(2.5)
    check(ctl.path("d", "A")["state"] == FAILED and ctl.path("d", "A")["by_hand"])
    # one that fails leaves it as it was
    rates(probe=1024)
    check(ctl.pctl("d", "A", RETRY) == errno.EIO, ctl.msg)
    rates()
    time.sleep(2.5)
    check(ctl.path("d", "A")["state"] == FAILED)
    check(not ctl.pctl("d", "A", RETRY), ctl.msg)
    check(ctl.path("d", "A")["state"] == LIVE)


def test_hung_probe(ctl):
    """A probe that does not come back keeps no other path failed."""
    two_paths(ctl)
    check(not ctl.add("d", "C", TBDEV), ctl.msg)
    set_param("hang_probe", 0)
    rates(path=1024, slot=0)
    check(ctl.events_until("REROUTED", "B"))
    rates()
    # probed after 2 s
    time.sleep(2.5)
    check(not ctl.ctl("d", FAILOVER, "C"), ctl.msg)
    rates(path=1024, slot=2)
    check(wait(lambda: ctl.path("d", "C")["state"] == FAILED))
    rates()
    check(wait(lambda: ctl.path("d", "C")["state"] == LIVE), "C is not probed")
    check(not ctl.pctl("d", "C", FAIL), ctl.msg)
    check(not ctl.pctl("d", "C", RETRY), ctl.msg)
    check(ctl.path("d", "A")["state"] == FAILED and ctl.pctl("d", "A", RETRY) == errno.EBUSY, ctl.path("d", "A"))
    check(not ctl.remove("d", "C"), ctl.msg)
    set_param("hang_probe", -1)
    check(wait(lambda: ctl.path("d", "A")["state"] == LIVE), ctl.path("d", "A"))


def test_hung_flush(ctl):
    """A path that is removed and does not come back from its flush holds up nothing else."""
    two_paths(ctl)

    def unflushed():
        set_param("quiet", 0)
        moves(ctl)
        set_param("quiet", 1)
        return wait(lambda: ctl.dev("d")["inflight"] == 0) and ctl.path("d", "A")["unflushed"]

    check(wait(unflushed) and not ctl.ctl("d", FAILOVER, "B"), ctl.msg)
    set_param("hang_flush", 0)
    other, answer = Control(), []
    remove = threading.Thread(target=lambda: answer.append(other.remove("d", "A")))
    remove.start()
    check(wait(lambda: ctl.path("d", "A")["state"] == DRAINING))
    time.sleep(.5)
    check(not answer, "flushed nothing", answer, other.msg)
    set_param("quiet", 0)
    looker, seen = Control(), []
    look = threading.Thread(target=lambda: seen.append(looker.dev("d")), daemon=True)
    look.start()
    look.join(5)
    check(seen, "the device cannot be looked at")
    check(ctl.remove("d", "A") == errno.EBUSY and ctl.destroy("d") == errno.EBUSY, ctl.msg)
    check(moves(ctl))
    # he is helped as with requests that do not end; the path itself goes when the flush is over
    check(ctl.remove("d", "A", force=True) == errno.EBUSY and ctl.path("d", "A")["state"] == FAILED, ctl.msg)
    set_param("hang_flush", -1)
    remove.join(20)
    check(answer == [0], answer, other.msg)
    check(not ctl.path("d", "A"))
    looker.close()
    other.close()


def fail_until(ctl, path, slot, enough, seconds=1):
    """The path, without a fence, fails under load until what enough() asks for has come of it."""
    def fails():
        ctl.ctl("d", FAILOVER, path)		# refused while it is probed after the RETRY
        return ctl.path("d", path)["state"] == FAILED

    while True:
        rates(path=300, slot=slot)
        check(wait(fails))
        rates()
        if wait(enough, seconds):
            return
        ctl.pctl("d", path, RETRY)


def test_reservation_times(ctl):
    """Each path is fenced in its own time: not later for another one's sake, and not earlier."""
    rates()
    check(not ctl.create("d"), ctl.msg)
    check(not ctl.add_reserved("d", "A", 1, after_ms=5000))
    check(not ctl.add_reserved("d", "B", 2))
    check(not ctl.add_reserved("d", "C", 3))
    check(moves(ctl))
    seen = []

    def event(kind, path):
        seen.extend(ctl.events())
        return [e for e in seen if (e.type, e.path) == (kind, path)]

    def failed(path):
        return [e for e in event("PATH_STATE", path) if e.new == FAILED][-1]

    fail_until(ctl, "A", 0, lambda: ctl.path("d", "A")["held"])
    check(not ctl.pctl("d", "A", FAIL), ctl.msg)		# not probed meanwhile
    fail_until(ctl, "B", 1, lambda: event("FENCED", "B") or event("FENCED", "A"))
    check(not event("FENCED", "A"), "B waited for A", *seen)
    check(wait(lambda: event("FENCED", "A")), "A is not fenced")
    took = (event("FENCED", "A")[0].mono_ns - failed("A").mono_ns) / 1e6
    check(took >= 5000, "after", took, "ms")

    check(not ctl.pctl("d", "A", RETRY), ctl.msg)
    check(wait(lambda: ctl.path("d", "B")["state"] == LIVE))
    set_param("fence_fails", 0xff)
    fail_until(ctl, "B", 1, lambda: event("FENCE_FAILED", "B"))
    check(not ctl.pctl("d", "B", FAIL), ctl.msg)		# tried again every second
    fail_until(ctl, "A", 0, lambda: ctl.path("d", "A")["held"])
    check(not ctl.pctl("d", "A", FAIL), ctl.msg)
    check(wait(lambda: event("FENCE_FAILED", "A")), "A is not fenced")
    took = (event("FENCE_FAILED", "A")[0].mono_ns - failed("A").mono_ns) / 1e6
    check(took >= 5000, "after", took, "ms, with another one")
    set_param("fence_fails", 0)
    for path in "AB":
        check(wait(lambda: ctl.path("d", path)["held"] == 0))


def test_reservation_ways(ctl):
    """It is tried by the path that takes requests, and then by another one."""
    for bad, fails in ("C", False), ("B", True):
        rates()
        check(not ctl.create("d"), ctl.msg)
        for i, path in enumerate("ABC"):
            check(not ctl.add_reserved("d", path, i + 1))
        check(moves(ctl))
        set_param("fence_fails", 1 << "ABC".index(bad))
        ctl.events()
        seen = []

        def enough():
            seen.extend(ctl.events())
            return [e for e in seen if e.type == "FENCED"]

        fail_until(ctl, "A", 0, enough, 3)
        check(ctl.dev("d")["route"] == 2, ctl.dev("d"))
        check(("FENCE_FAILED" in names(seen)) == fails, bad, *seen)
        check(not ctl.destroy("d"), ctl.msg)


def test_epoch(ctl):
    """Given up and taken again and again, with errors, and with writes of guests that have gone and may land late."""
    rates()
    check(not ctl.create("d", flags=F_EPOCH), ctl.msg)
    for name, kind in {"A": (TBDEV,), "B": (TNBD, NONE), "C": (TBDEV, NONE)}.items():
        check(not ctl.add("d", name, *kind), ctl.msg)
    check(not ctl.connect("d", "B"), ctl.msg)
    before = param("completed")
    time.sleep(0.3)
    check(param("completed") == before and ctl.dev("d")["state"] == NO_EPOCH, ctl.dev("d"))
    check(ctl.ctl("d", TAKE, value=0) == errno.EINVAL, ctl.msg)
    check(not ctl.ctl("d", TAKE, value=3), ctl.msg)
    check(moves(ctl) and ctl.events_until("EPOCH_TAKEN"))
    check(ctl.ctl("d", TAKE, value=2) == errno.ESTALE and ctl.ctl("d", GIVE, value=2) == errno.ESTALE, ctl.msg)
    rnd = random.Random(test_random.seed)
    late, doubts, again, epoch = param("late_landed"), 0, 0, 3

    for _ in range(40):
        check(ctl.ctl("d", GIVE, value=epoch) == errno.EBUSY, ctl.msg)
        rates(path=20, io=5, unsent=10, retry=5)
        ctl.ctl("d", FAILOVER, rnd.choice("BC"))
        time.sleep(rnd.random() * .2)
        set_param("front_end", "d 0")
        result = []

        def give(result=result, epoch=epoch):
            own = Control()
            result.append((own.ctl("d", GIVE, value=epoch), own.msg))
            own.close()

        thread = threading.Thread(target=give)
        thread.start()
        end = time.monotonic() + 60
        while thread.is_alive() and time.monotonic() < end:
            for path in "BC":
                if not ctl.path("d", path)["in_doubt"]:
                    continue
                doubts += 1
                if rnd.random() < .5:
                    # it is back, which settles nothing
                    again += 1
                    ctl.connect("d", path) if path == "B" else ctl.pctl("d", path, RETRY)
                    thread.join(.05)
                    check(thread.is_alive() or not ctl.path("d", path)["in_doubt"], "given up in doubt", path)
                else:
                    ctl.pctl("d", path, FAIL)
                    set_param("fence", "d " + path)
                    ctl.pctl("d", path, FENCED)
            thread.join(.01)
        check(result and result[0][0] == 0, result, *[ctl.path("d", p) for p in "ABC"])
        # what may land does so now, at the latest
        ctl.connect("d", "B")
        ctl.pctl("d", "C", RETRY)
        set_param("fence", "d B")
        set_param("fence", "d C")
        check(ctl.ctl("d", TAKE, value=epoch) == errno.ESTALE, ctl.msg)
        if rnd.random() < .5:
            set_param("front_end", "d 1")
            time.sleep(.01)
        rates()
        epoch += rnd.choice([1, 1000])
        check(not ctl.ctl("d", TAKE, value=epoch), ctl.msg)
        try:
            set_param("front_end", "d 1")
        except FileNotFoundError:
            pass
        ctl.connect("d", "B")
        check(moves(ctl))
        check(not [e for e in ctl.events() if e.type == "LOST"])
    print(f"# in doubt {doubts} times, of these {again} connected again; {param('late_landed') - late} late writes")
    check(doubts > 5 and again, "nothing was in doubt")


def test_lost_events(ctl):
    two_paths(ctl)
    ctl.events()
    slow = Control()
    check(not ctl.ctl("d", FAILOVER), ctl.msg)
    newest = first = ctl.events()[0].seq
    while newest - first <= 4096:
        for _ in range(50):
            ctl.ctl("d", FAILOVER)
        newest = ctl.events()[-1].seq
    # the last FIRST_COMPLETION comes before the slow one reads, not while it does
    set_param("quiet", 1)
    check(wait(lambda: ctl.dev("d")["inflight"] + ctl.dev("d")["requeued"] == 0), ctl.dev("d"))
    ctl.events()
    events = slow.events()
    slow.close()
    check(events[0].type == "LOST" and events[0].value == events[0].seq - first, events[0], first)
    check(events[1].seq == events[0].seq, events[1])
    for e, after in zip(events[1:], events[2:]):
        check(after.seq == e.seq + 1, e, after)
    check(len(events) == 4097, len(events))


KINDS = {"A": (TBDEV, LOCAL, 0), "B": (TNBD, NONE, 0), "C": (TBDEV, NONE, 0), "D": (TNBD, NONE, 2)}
DEVS = ["d0", "d1", "d2"]


def setup(ctl, dev, rnd):
    ctl.create(dev, timeout_ms=rnd.choice([0, 0, 1500]), failback_ms=rnd.choice([0, 300]))
    for name, kind in KINDS.items():
        ctl.add(dev, name, *kind)


def operator(seed, end):
    """What is safe in any order."""
    rnd, ctl = random.Random(seed), Control()
    while time.monotonic() < end:
        dev, path = rnd.choice(DEVS), rnd.choice(list(KINDS))
        k = rnd.random()
        if k < .3:
            ctl.ctl(dev, FAILOVER, rnd.choice(["", path]))
        elif k < .4:
            ctl.ctl(dev, FAILBACK)
        elif k < .5:
            ctl.dev(dev)
            ctl.path(dev, path)
        elif k < .6:
            ctl.pctl(dev, path, RETRY)
        elif k < .65:
            ctl.ctl(dev, SET_FAILBACK_AFTER, value=rnd.choice([0, 100, 1000]))
        elif k < .7:
            ctl.ctl(dev, SET_NO_PATH_TIMEOUT, value=rnd.choice([0, 0, 0, 500]))
        elif k < .75:
            ctl.ctl(dev, SUSPEND)
            time.sleep(rnd.random() * .05)
            ctl.ctl(dev, RESUME)
        else:
            ctl.ctl(dev, RESUME)
        time.sleep(rnd.random() * .01)
    ctl.close()


def fencer(seed, end):
    """What must not be done twice at a time: a fence is closed and confirmed while nobody connects."""
    rnd, ctl = random.Random(seed), Control()
    while time.monotonic() < end:
        dev, path = rnd.choice(DEVS), rnd.choice(list(KINDS))
        k = rnd.random()
        if k < .5:
            ctl.connect(dev, path)
        elif k < .6:
            ctl.pctl(dev, path, FAIL)
        elif k < .8:
            info = ctl.path(dev, path)
            if info and info["type"] == TNBD and info["state"] == FAILED:
                set_param("fence", f"{dev} {path}")
                ctl.pctl(dev, path, FENCED)
        elif k < .88:
            ctl.remove(dev, path, force=k > .86)
            ctl.add(dev, path, *KINDS[path])
        elif k < .885:
            ctl.ctl(dev, FAIL_PARKED)
        elif k < .89:
            ctl.destroy(dev)
            setup(ctl, dev, rnd)
        time.sleep(rnd.random() * .01)
    ctl.close()


def test_random(ctl):
    rates(path=2, io=1, unsent=2, retry=5, connect=128, probe=512, media=2, nospc=2)
    rnd = random.Random(test_random.seed)
    for dev in DEVS:
        setup(ctl, dev, rnd)
    ctl.events()
    before = {name: param(name) for name in ("completed", "requeued", "flushes")}
    end = time.monotonic() + test_random.seconds
    threads = [threading.Thread(target=fencer if i == 0 else operator, args=(rnd.random(), end)) for i in range(4)]
    for t in threads:
        t.start()
    seq = None
    while any(t.is_alive() for t in threads):
        for e in ctl.events():
            check(e.type != "LOST", e)
            check(seq is None or e.seq == seq + 1, "gap before", e)
            seq = e.seq
        time.sleep(0.02)
    rates()
    set_param("quiet", 1)
    for dev in DEVS:
        ctl.ctl(dev, RESUME)

        def idle(dev=dev):
            for path in KINDS:
                ctl.connect(dev, path)
                ctl.pctl(dev, path, RETRY)
            info = ctl.dev(dev)
            return info["inflight"] + info["requeued"] + info["held"] == 0

        check(wait(idle, 60), dev, ctl.dev(dev), *[ctl.path(dev, p) for p in KINDS])
        for path in KINDS:
            check(ctl.remove(dev, path) in (0, errno.ENOENT), dev, path, ctl.msg, ctl.path(dev, path))
        check(not ctl.destroy(dev), ctl.msg)
    for name, value in before.items():
        print(f"# {name}: {param(name) - value}")
        check(param(name) > value, name)
    print(f"# late writes: {param('late_landed')}")


TESTS = [test_refused, test_in_use, test_failover_by_error, test_failback_after, test_failovers, test_fence,
         test_suspend, test_no_path, test_fail_parked, test_io_errors_end, test_media, test_no_space,
         test_remove_while_probed, test_fail_while_probed, test_hung_probe, test_hung_flush, test_reservation_times,
         test_reservation_ways, test_epoch, test_lost_events, test_random]


def main():
    test_random.seconds = float(sys.argv[1])
    test_random.seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"KTAP version 1\n1..{len(TESTS)}")
    print(f"# seed {test_random.seed}")
    failed = 0
    for number, test in enumerate(TESTS, 1):
        title = test.__name__[5:].replace("_", " ")
        why = ""
        ctl = Control()
        before = param("violations")
        try:
            test(ctl)
        except Failed as e:
            why = str(e) or "failed"
            print("#", *sys.exc_info()[2].tb_next and [f"line {sys.exc_info()[2].tb_next.tb_lineno}:"], why)
        rates()
        for name, value in (("hang_probe", -1), ("hang_flush", -1), ("fence_fails", 0)):
            set_param(name, value)
        for dev in ["d"] + DEVS:
            if ctl.dev(dev):
                if ctl.destroy(dev):
                    why = why or f"{dev} is not destroyed"
        set_param("quiet", 0)
        ctl.close()
        if param("violations") != before:
            why = why or "the module found violations, see the kernel log"
            print(f"# {param('violations') - before} violations")
        failed += bool(why)
        print("not ok" if why else "ok", number, title, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
