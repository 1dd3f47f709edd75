# SPDX-License-Identifier: GPL-2.0-or-later
"""Paths, errors, logging and processes shared by the whole test bed."""

import contextlib
import fcntl
import os
import random
import shlex
import socket
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BUILD = os.path.join(TOP, "build")
CACHE = os.path.join(BUILD, "e2e")
SELF = os.path.join(TOP, "selftests", "e2e")


class BedError(Exception):
    """The test bed or the thing under test did not do what it had to; the text says what."""


_start = time.monotonic()


def say(text):
    """Tell the user how far we are."""
    print(f"# [{time.monotonic() - _start:6.1f}s] {text}", flush=True)


def qemu_program(version):
    """QEMU of this major version, for a host or for a guest in it."""
    path = tool("qemu-system-x86_64") if version == 7 else os.path.join(BUILD, "trixie", "bin", "qemu-system-x86_64")
    if not os.path.exists(path):
        raise BedError(f"{path} is missing: selftests/env/setup.sh qemu10")
    return path


def quote(*words):
    """Words as one shell command."""
    return " ".join(shlex.quote(str(w)) for w in words)


def tool(*names):
    """The path of the first of these programs that is installed, or an error that names them."""
    for name in names:
        for where in os.environ.get("PATH", "").split(":") + ["/usr/sbin", "/sbin", "/usr/bin"]:
            path = os.path.join(where, name)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return path
    raise BedError(f"program not found: {' or '.join(names)} (selftests/env/setup.sh installs what is needed)")


def run(*words, timeout=120, ok=(0,), cwd=None):
    """Run a program here; its standard output. Anything but an exit status in ok is an error."""
    try:
        res = subprocess.run([str(w) for w in words], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, cwd=cwd)
    except subprocess.TimeoutExpired:
        raise BedError(f"{quote(*words)}: no end after {timeout} s") from None
    if res.returncode not in ok:
        text = (res.stderr + res.stdout).decode(errors="replace").strip()
        raise BedError(f"{quote(*words)}: exit status {res.returncode}: {text[-800:]}")
    return res.stdout.decode(errors="replace")


def free_ports(count):
    """
    So many TCP ports on the loopback interface, no two the same, that nobody listens on at the moment. The kernel gives none of them
    to a connection, as it does with those that it chooses itself, between this and the moment at which they are used.
    """
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as f:
        low, high = map(int, f.read().split())
    outside = [p for p in range(10000, 65536) if not low <= p <= high]
    ports = []
    with contextlib.ExitStack() as stack:
        for port in random.sample(outside, len(outside)):
            if len(ports) == count:
                break
            s = stack.enter_context(socket.socket())
            try:
                s.bind(("127.0.0.1", port))
                ports.append(port)
            except OSError:
                pass
    if len(ports) < count:
        raise BedError(f"no {count} TCP ports are free on 127.0.0.1")
    return ports


def wait_for(what, timeout, check, pause=0.1):
    """Call check() until its result is true; that result. After timeout seconds: an error naming what."""
    end = time.monotonic() + timeout
    while True:
        res = check()
        if res:
            return res
        if time.monotonic() > end:
            raise BedError(f"{what}: not within {timeout:g} s")
        time.sleep(pause)


class Lock:
    """One builder at a time for things cached in build/."""

    def __init__(self, name):
        os.makedirs(CACHE, exist_ok=True)
        self.path = os.path.join(CACHE, f".{name}.lock")

    def __enter__(self):
        self.file = open(self.path, "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        self.file.close()


def die(text):
    """End the program with an error."""
    print(text, file=sys.stderr)
    sys.exit(1)
