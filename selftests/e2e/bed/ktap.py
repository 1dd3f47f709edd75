# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the cases of a test program and prints KTAP."""

import signal
import sys
import time
import traceback

from .util import BedError


def main(cases):
    """cases: [(name, function)], run in order. A failed case fails those after it that need what it set up, by themselves."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print("KTAP version 1")
    print(f"1..{len(cases)}", flush=True)
    failed = 0
    for number, (name, function) in enumerate(cases, 1):
        start = time.monotonic()
        try:
            function()
            print(f"ok {number} {name} # {time.monotonic() - start:.0f} s", flush=True)
        except BedError as e:
            failed += 1
            for line in str(e).splitlines():
                print(f"# {line}")
            print(f"not ok {number} {name}", flush=True)
        except Exception:  # noqa: BLE001: a defect of the test is a failure
            failed += 1
            for line in traceback.format_exc().splitlines():
                print(f"# {line}")
            print(f"not ok {number} {name}", flush=True)
    return 1 if failed else 0
