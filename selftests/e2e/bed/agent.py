# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs commands in a host or guest through src/agent.c, and relates its clock to ours."""

import itertools
import socket
import time

from .util import BedError

_ids = itertools.count(1)


class Result:
    """What a command did: status, out, err (text), start_ns and end_ns on the other side's CLOCK_MONOTONIC."""

    def __init__(self, status, out, err, start_ns, end_ns, real_offset_ns):
        self.status, self.out, self.err = status, out.decode(errors="replace"), err.decode(errors="replace")
        self.raw = out
        self.start_ns, self.end_ns, self.real_offset_ns = start_ns, end_ns, real_offset_ns


class Agent:
    """A connection to an agent, made when first used and again when it broke between commands."""

    def __init__(self, name, port, look=None):
        """look: tells what is to be seen from elsewhere when no answer comes."""
        self.name, self.port, self.look = name, port, look
        self.sock = None
        self.buf = b""

    def close(self):
        if self.sock:
            self.sock.close()
        self.sock = None

    def wait(self, timeout, alive=lambda: None):
        """Wait until the agent answers. alive() raises when waiting on makes no sense."""
        end = time.monotonic() + timeout
        while True:
            alive()
            try:
                self.connect(min(10.0, max(0.5, end - time.monotonic())))
                return
            except OSError:
                self.close()
            if time.monotonic() > end:
                raise BedError(f"{self.name}: no answer from its agent within {timeout:g} s")
            time.sleep(0.2)

    def connect(self, timeout):
        self.close()
        self.buf = b""
        self.sock = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.exchange("", 5, timeout)

    def fill(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionError("closed")
        self.buf += data

    def take(self, count, deadline):
        while len(self.buf) < count:
            self.fill(deadline)
        data, self.buf = self.buf[:count], self.buf[count:]
        return data

    def exchange(self, script, timeout, wait):
        """One command; raises OSError when the connection fails or nothing comes within wait seconds."""
        ident = f"c{next(_ids)}"
        script = script.encode()
        deadline = time.monotonic() + wait
        self.sock.settimeout(wait)
        self.sock.sendall(b"\001RUN %s %d %d\n" % (ident.encode(), len(script), timeout) + script)
        while True:
            while b"\n" not in self.buf:
                self.fill(deadline)
            line, _, self.buf = self.buf.partition(b"\n")
            words = line.rpartition(b"\001")[2].split()
            if len(words) != 8 or words[0] != b"END":
                continue
            status, outlen, errlen, start, end, offset = (int(w) for w in words[2:])
            out, err = self.take(outlen, deadline), self.take(errlen, deadline)
            if words[1].decode() == ident:
                return Result(status, out, err, start, end, offset)

    def call(self, script, timeout=60, check=True):
        """Run a shell script there. With check, any status but 0 is an error."""
        try:
            if not self.sock:
                self.connect(timeout)
            res = self.exchange(script, timeout, timeout + 15)
        except TimeoutError:
            self.close()
            raise BedError(f"{self.name}: no answer within {timeout + 15:g} s to: {script.strip()[:60]!r}"
                           + (f"; {self.look()}" if self.look else "")) from None
        except OSError as e:
            self.close()
            raise BedError(f"{self.name}: connection lost ({e}) in: {script.strip()[:200]}") from None
        if check and res.status:
            text = (res.err + res.out).strip()[-800:]
            why = f"no end after {timeout:g} s" if res.status == 124 else f"status {res.status}"
            raise BedError(f"{self.name}: {why}: {script.strip()[:200]}: {text}")
        return res

    def out(self, script, timeout=60):
        """The standard output of a script, without the last newline."""
        return self.call(script, timeout).out.rstrip("\n")

    def clock(self, samples=15):
        """How its CLOCK_MONOTONIC relates to ours."""
        best = None
        for _ in range(samples):
            t0 = time.monotonic_ns()
            res = self.call("", 20)
            t1 = time.monotonic_ns()
            if best is None or t1 - t0 < 2 * best.error_ns:
                best = Clock(res.end_ns - (t0 + t1) // 2, (t1 - t0) // 2, res.real_offset_ns)
            time.sleep(0.01)
        return best


class Clock:
    """Another machine's CLOCK_MONOTONIC: ours plus offset_ns, give or take error_ns."""

    def __init__(self, offset_ns, error_ns, real_offset_ns):
        self.offset_ns, self.error_ns, self.real_offset_ns = offset_ns, error_ns, real_offset_ns

    def to_ours(self, their_ns):
        return their_ns - self.offset_ns

    def real_to_ours(self, their_real_ns):
        """The same from its CLOCK_REALTIME."""
        return their_real_ns - self.real_offset_ns - self.offset_ns
