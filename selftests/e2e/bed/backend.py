# SPDX-License-Identifier: GPL-2.0-or-later
"""
What serves a guest's disk on host A, and the NBD server on host B.

start_backend() starts one of

  iovm   the kernel modules of this tree, iovmctl and iovm-vhost-user
  qsd    qemu-storage-daemon on the bare disk: no second path. A stand-in to try the test bed with; a pulled disk must make a run fail
  mpath  qemu-storage-daemon on dm-multipath over the disk and nbd.ko: another way to survive; a stand-in and a peer
"""

from .util import BedError, quote, wait_for

NBD_PORT = 10809


def nbd_server(host, export="lun0", kind="qemu-nbd"):
    """Export a host's view of the LUN over NBD, past the page cache; process id of the server."""
    disk = host.disk()
    if kind == "qemu-nbd":
        command = ["qemu-nbd", "-f", "raw", "--cache=none", "--aio=native", "--discard=unmap", "--persistent", "--shared=8",
                   "-x", export, "-b", host.address, "-p", NBD_PORT, disk]
    else:
        raise BedError(f"no NBD server called {kind}")
    pid = host.spawn("nbd-server", quote(*command))
    wait_for(f"host {host.name}: NBD server", 30, lambda: listening(host, pid, "nbd-server"))
    return pid


def listening(host, pid, name):
    if not host.running(pid):
        raise BedError(f"host {host.name}: NBD server ended: {host.spawned_log(name)}")
    return host.agent.call(f"ss -Htln 'sport = :{NBD_PORT}' | grep -q .", check=False).status == 0


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


def start_backend(kind, host, name, disk, remote, queues=1):
    """Serve a disk, and remote = (address, port, export) behind it if the kind can, as a vhost-user-blk socket."""
    if kind == "qsd":
        return Qsd(host, name, disk, queues)
    if kind == "mpath":
        return Multipath(host, name, disk, remote, queues)
    raise BedError(f"no back end called {kind}")
