# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual machines of the fault campaign: how run and plants start t_torture in one."""

import os

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
VM = os.path.join(TOP, "selftests/env/vm")
# An instruction takes 2 ns; while nothing runs, time leaps to the next timer.
ICOUNT = "1,sleep=off"
# There a late reply is the fault's, never the host's: paths are given up sooner, and faults are over sooner.
TEMPO = 25


def command(program, kernel="6.12", real=False, cpus=1, memory="1G", timeout=300.0, options=()):
    """Runs t_torture with these arguments. real: time is time."""
    words = [VM, "--kernel", kernel, "--cpus", str(cpus), "--memory", memory, "--timeout", str(int(timeout)), *options]
    if not real:
        words += ["--icount", ICOUNT]
        program += f" --tempo {TEMPO}"
    shell = (f"modprobe -a vhost_iovm iovm_mux vhost_iovm_blk && PATH=$PATH:{TOP}/build/userland/iovmctl "
             f"exec {TOP}/build/selftests/t_torture {program}")
    return words + ["--", "sh", "-c", shell]
