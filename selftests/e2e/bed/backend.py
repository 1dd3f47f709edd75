# SPDX-License-Identifier: GPL-2.0-or-later
"""
What serves a guest's disk on host A, and the NBD server on host B.

start_backend() starts one of

  iovm   the kernel modules of this tree, iovmctl and iovm-vhost-user
  qsd    qemu-storage-daemon on the bare disk: no second path. A stand-in to try the test bed with; a pulled disk must make a run fail
  mpath  qemu-storage-daemon on dm-multipath over the disk and nbd.ko: another way to survive; a stand-in and a peer
"""

import json
import os
import shutil

from .util import BUILD, TOP, BedError, quote, run, wait_for

NBD_PORT = 10809
LUN_IDENTITY = "id:lun0"


def nbd_server(host, export="lun0", kind="qemu-nbd", port=NBD_PORT):
    """Export a host's view of the LUN over NBD, past the page cache; process id of the server."""
    disk = host.disk()
    name = f"{kind}-{port}"
    if kind == "qemu-nbd":
        command = ["qemu-nbd", "-f", "raw", "--cache=none", "--aio=native", "--discard=unmap", "--persistent", "--shared=8",
                   "-x", export, "-D", f"iovm-id={LUN_IDENTITY}", "-b", host.address, "-p", port, disk]
    elif kind == "nbdkit":
        # cache=none of its file plug-in only advises the kernel; the LUN must be opened past the cache.
        command = ["nbdkit", "-f", "-i", host.address, "-p", port, "-e", export, "--filter=exportname", "file", disk,
                   "cache=none", "fadvise=random", f"exportdesc=fixed:iovm-id={LUN_IDENTITY}"]
    else:
        raise BedError(f"no NBD server called {kind}")
    pid = host.spawn(name, quote(*command))

    def listening():
        if not host.running(pid):
            raise BedError(f"host {host.name}: {kind} ended: {host.spawned_log(name)}")
        return host.agent.call(f"ss -Htln 'sport = :{port}' | grep -q .", check=False).status == 0
    wait_for(f"host {host.name}: {kind} listens", 30, listening)
    return pid


def wait_socket(host, path, pid, name, timeout=30):
    """Wait until a vhost-user back end process listens."""
    def check():
        if not host.running(pid):
            raise BedError(f"host {host.name}: {name} ended: {host.spawned_log(name)}")
        return host.agent.call(f"test -S {path}", check=False).status == 0
    wait_for(f"host {host.name}: {path}", timeout, check)


class Qsd:
    """qemu-storage-daemon's vhost-user-blk export of a disk."""

    def __init__(self, host, name, disk, queues):
        self.host, self.name = host, name
        self.socket = f"/run/{name}.sock"
        self.pid = host.spawn(f"{name}-qsd", quote(
            "qemu-storage-daemon",
            "--blockdev", f"driver=host_device,node-name=disk,filename={disk},cache.direct=on,aio=native",
            "--export", f"type=vhost-user-blk,id=exp,addr.type=unix,addr.path={self.socket},node-name=disk,writable=on,num-queues={queues}"))
        wait_socket(host, self.socket, self.pid, f"{name}-qsd")

    def events(self):
        """What happened, as (name, CLOCK_MONOTONIC of the host in ns, detail); nothing is known here."""
        return []

    def stop(self):
        self.host.agent.call(f"kill {self.pid}", check=False)


class Multipath(Qsd):
    """The same on dm-multipath."""

    def __init__(self, host, name, disk, remote, queues):
        address, port, export = remote
        host.agent.call(f"""
            modprobe dm_multipath && modprobe dm_round_robin && modprobe nbd nbds_max=1 &&
            nbd-client {address} {port} /dev/nbd0 -N {export} -timeout 30 >/dev/null &&
            size=$(blockdev --getsz {disk}) && dmsetup mknodes &&
            dmsetup create {name} --table "0 $size multipath 3 queue_if_no_path queue_mode bio 0 2 1 \\
                round-robin 0 1 1 {disk} 1000 round-robin 0 1 1 /dev/nbd0 1000" && dmsetup mknodes""", 60)
        super().__init__(host, name, f"/dev/mapper/{name}", queues)


def stage(rundir, kernel):
    """Copies of this tree's modules and programs, so that a build in between does not change them under a running host."""
    mods = os.path.join(BUILD, "mod", kernel, "modules")
    if not os.path.exists(mods):
        raise BedError(f"{mods} is missing: make modules KDIR={kernel}")
    modules = os.path.join(rundir, "modules")
    shutil.copytree(os.path.realpath(mods), modules, symlinks=True)
    programs = os.path.join(rundir, "bin")
    os.makedirs(programs)
    for name in ("iovmctl", "iovm-vhost-user", "iovmd"):
        path = os.path.join(BUILD, "userland", name)
        if os.path.isdir(path):
            path = os.path.join(path, name)
        if not os.path.exists(path):
            raise BedError(f"{path} is missing: make userland")
        shutil.copy2(path, programs)
    return modules, programs


def install(rundir):
    """User land as make install leaves it, below a directory; that directory."""
    tree = os.path.join(rundir, "install")
    run("make", "-C", os.path.join(TOP, "userland"), "install", f"DESTDIR={tree}", "PREFIX=/usr")
    return tree


class Iovm:
    """This project: a device with a local and maybe a remote path, and the vhost-user process in front of it."""

    MODULES = ("vhost_iovm_net", "vhost_iovm_blk", "iovm_mux", "vhost_iovm")

    def __init__(self, host, name, disk, remote, queues):
        self.host, self.name = host, name
        self.socket = f"/run/{name}.sock"
        self.bin = os.path.join(host.rundir, "bin")
        self.unit = None
        host.agent.call("modprobe vhost_iovm_blk && getent group kvm >/dev/null || groupadd -r kvm", 60)
        self.ctl("create", name, "--size-from", disk, "--queues", queues)
        # a virtio disk has no name of its own, and the server says it of its export
        self.ctl("path", "add", name, "local", f"bdev:{disk}", "--identity", LUN_IDENTITY)
        if remote:
            address, port, export = remote
            self.ctl("path", "add", name, "remote", f"nbd://{address}:{port}/{export}")
        self.start_front()

    def start_front(self):
        """iovm-vhost-user, in the unit, if there is one, or by hand."""
        if self.unit:
            self.host.agent.call(f"systemctl start {self.unit}", 60)
            self.pid = int(self.host.agent.out(f"systemctl show -p MainPID --value {self.unit}"))
            return
        self.pid = self.host.spawn(f"{self.name}-vhost-user", quote(
            f"{self.bin}/iovm-vhost-user", "--device", self.name, "--socket", self.socket))
        wait_socket(self.host, self.socket, self.pid, f"{self.name}-vhost-user")

    def kill_front(self, all_of_it, meanwhile=lambda: None):
        """SIGKILL to the process that serves the guest, or to the one that supervises it as well; then it is started again."""
        session = self.host.agent.out(f"cat /proc/{self.pid}/task/{self.pid}/children").split()
        if len(session) != 1:
            raise BedError(f"{self.name}: iovm-vhost-user has {len(session)} sessions")
        self.host.agent.call(quote("kill", "-9", *([self.pid] if all_of_it else []), *session))
        if all_of_it:
            wait_for(f"{self.name}: iovm-vhost-user killed", 30, lambda: not self.host.running(self.pid), 0.1)
            meanwhile()
            self.start_front()

    def end_front(self):
        if self.unit:
            self.host.agent.call(f"systemctl stop {self.unit}", 60)
        else:
            self.host.end(self.pid)

    def upgrade(self):
        """Have the modules replaced below the guest; what iovm-upgrade says. QEMU may not be back yet."""
        before = self.show()["owner_pid"]
        script = os.path.join(TOP, "userland", "iovm-upgrade", "iovm-upgrade")
        said = self.host.agent.out(quote("env", f"IOVMCTL={self.bin}/iovmctl", script), 180)
        wait_for(f"{self.name}: QEMU back after an upgrade", 60, lambda: self.served_by_another(before), 0.2)
        self.pid = int(self.host.agent.out(f"sed -n 's/^PPid:[[:space:]]*//p' /proc/{self.show()['owner_pid']}/status"))
        return said

    def served_by_another(self, pid):
        now = self.show()
        return now["owner_pid"] not in (0, pid) and now["queues_running"] > 0

    def ctl(self, *words, timeout=60):
        """One iovmctl command; what it prints."""
        return self.host.agent.out(quote(f"{self.bin}/iovmctl", *words), timeout)

    def refuses(self, text, *words):
        """One iovmctl command that is refused, and says this."""
        res = self.host.agent.call(quote(f"{self.bin}/iovmctl", *words), check=False)
        if res.status != 4 or text not in res.err:
            raise BedError(f"iovmctl {quote(*words)}: status {res.status}, no {text!r} in: {res.err + res.out}")

    def show(self):
        return json.loads(self.ctl("show", self.name, "--json"))

    def records(self):
        """All event records of the device."""
        text = self.ctl("events", "--json", "--no-follow", "--device", self.name)
        return [json.loads(line) for line in text.splitlines() if line.strip()]

    def events(self):
        res = []
        for e in self.records():
            detail = []
            if e.get("path"):
                detail.append(f"path {e['path']}")
            if e.get("new_state") and e.get("old_state"):
                detail.append(f"{e['old_state']} -> {e['new_state']}")
            if e.get("error"):
                detail.append(str(e["error"]))
            if e["type"] in ("rerouted", "first-completion") and e.get("value"):
                detail.append(f"{e['value'] / 1e6:.3f} ms after the first error")
            res.append((e["type"], e["mono_ns"], ", ".join(detail)))
        return res

    def stop(self):
        """Take everything down again: process, device, modules. Anything that stays is an error."""
        self.end_front()
        self.ctl("destroy", self.name)
        self.unload()

    def unload(self):
        self.host.agent.call(quote("modprobe", "-r", *self.MODULES) + " && ! grep -q iovm /proc/modules", 60)


def start_backend(kind, host, name, disk, remote=None, queues=1):
    """Serve a disk, and remote = (address, port, export) behind it if the kind can, as a vhost-user-blk socket."""
    if kind == "iovm":
        return Iovm(host, name, disk, remote, queues)
    if kind == "qsd":
        return Qsd(host, name, disk, queues)
    if kind == "mpath":
        return Multipath(host, name, disk, remote, queues)
    raise BedError(f"no back end called {kind}")
