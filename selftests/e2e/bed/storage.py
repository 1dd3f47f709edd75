# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at the LUN from the storage side, past every page cache, after the machines are gone or without asking them."""

import hashlib
import os
import struct
import subprocess

from . import image
from .util import BedError, run, tool

NONCE_AT = 440


def read_direct(lun, path):
    """Copy the LUN with O_DIRECT; the checks then read the copy."""
    run("dd", f"if={lun}", f"of={path}", "bs=4M", "iflag=direct", "conv=sparse", "status=none", timeout=300)
    return path


def check_pattern(lun, offset, pattern):
    """The LUN must hold these bytes there, right now; both multiples of a page."""
    got = subprocess.run([tool("dd"), f"if={lun}", "bs=4096", f"skip={offset // 4096}", f"count={len(pattern) // 4096}",
                          "iflag=direct", "status=none"], stdout=subprocess.PIPE, timeout=60, check=True).stdout
    if got != pattern:
        at = next((i for i, (a, b) in enumerate(zip(got, pattern)) if a != b), len(got))
        raise BedError(f"storage: {len(got)} of {len(pattern)} bytes at {offset}, other than written from byte {at} on")


def block0(path):
    with open(path, "rb") as f:
        return f.read(image.SECTOR)


def stamped(block, nonce):
    """Block 0 with another disk signature."""
    return block[:NONCE_AT] + struct.pack("<I", nonce) + block[NONCE_AT + 4:]


def check_block0(copy, original, nonce):
    """Block 0 must be the image's, with the signature that the guest wrote; what lies between it and the partition must be untouched."""
    with open(copy, "rb") as f, open(original, "rb") as g:
        got, want = f.read(image.PART_START), g.read(image.PART_START)
    if got[:image.SECTOR] != stamped(want[:image.SECTOR], nonce):
        raise BedError("storage: block 0 is not what the guest wrote")
    if got[image.SECTOR:] != want[image.SECTOR:]:
        raise BedError("storage: blocks before the partition have changed")


def check_fs(copy):
    """The file system must be clean."""
    text = run(tool("e2fsck"), "-fn", f"{copy}?offset={image.PART_START}", timeout=300, ok=range(256))
    last = [line for line in text.splitlines() if line.strip()]
    if not last or "files" not in last[-1] or "clean" in text.lower() and "not clean" in text.lower() or \
            any(w in text for w in ("WARNING", "ERROR", "error", "Fix?", "recover")):
        raise BedError(f"storage: e2fsck: {text[-800:]}")
    return last[-1]


def dump(copy, name, out):
    """One file of the guest's file system."""
    run(tool("debugfs"), "-R", f"dump {name} {out}", f"{copy}?offset={image.PART_START}", timeout=120)
    if not os.path.exists(out):
        raise BedError(f"storage: {name} is not there")
    return out


def check_files(copy, directory, manifest, workdir):
    """The data files must be what the guest read last."""
    for name, digest in manifest.items():
        path = dump(copy, f"{directory}/{name}", os.path.join(workdir, "dump-" + name))
        with open(path, "rb") as f:
            if hashlib.sha256(f.read()).hexdigest() != digest:
                raise BedError(f"storage: {name} differs from what the guest read at the end")


def check_verify(path):
    """fio, here, must find every block of its file whole."""
    text = run(tool("fio"), "--name=storage", f"--filename={path}", "--rw=read", "--bs=64k", "--verify=crc32c", "--verify_interval=4096",
               "--verify_state_save=0", "--output-format=json",
               cwd=os.path.dirname(path), timeout=300)
    if '"error" : 0' not in text:
        raise BedError("storage: fio found damaged blocks")
    return os.path.getsize(path) / 2**20
