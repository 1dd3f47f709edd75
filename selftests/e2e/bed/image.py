# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the machines boot from, built once and cached in build/e2e.

- tools: the static programs of src/.
- host initramfs: stage1 and the modules needed to mount the machine's tree over 9p.
- guest disk image: a raw disk with a boot block, GRUB and one ext4 partition, holding Debian's minimal system,
  Debian's cloud kernel and fio. The guest boots from it by BIOS, as from any disk: nothing of it comes from outside.
"""

import hashlib
import lzma
import os
import shutil
import struct
import tempfile

from .util import BUILD, CACHE, SELF, BedError, Lock, quote, run, say, tool

SECTOR = 512
DISK_SIZE = 1 << 30
PART_START = 1 << 20
SCRATCH = 16 << 20      # behind the partition, for tests that write to the disk itself
PART_SIZE = DISK_SIZE - PART_START - SCRATCH
SUITE = "bookworm"

TOOLS = ("stage1", "agent", "probe")
HOST_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "9pnet_virtio", "9p", "overlay", "virtio_console")
GUEST_MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c-intel", "virtio_console")


def digest(*parts):
    """A short name for the inputs of a cached product: strings, and files by their content."""
    h = hashlib.sha256()
    for part in parts:
        if os.path.isfile(part):
            with open(part, "rb") as f:
                part = f.read()
        h.update(part if isinstance(part, bytes) else part.encode())
        h.update(b"\0")
    return h.hexdigest()[:12]


def tools():
    """Build the static programs; {name: path}."""
    res = {}
    with Lock("tools"):
        for name in TOOLS:
            src = os.path.join(SELF, "src", name + ".c")
            out = os.path.join(CACHE, f"{name}-{digest(src)}")
            if not os.path.exists(out):
                run(os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", out + ".new", src)
                os.rename(out + ".new", out)
            res[name] = out
    return res


class Cpio:
    """Writes a cpio archive in the newc format, which an initramfs is."""

    def __init__(self, path):
        self.out = open(path, "wb")
        self.count = 0

    def add(self, name, mode, data=b"", rdev=(0, 0)):
        self.count += 1
        name = name.encode() + b"\0"
        fields = (self.count, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(name), 0)
        head = b"070701" + b"".join(b"%08x" % f for f in fields) + name
        self.out.write(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))

    def close(self):
        self.add("TRAILER!!!", 0)
        self.out.close()


def module_files(moddir, names):
    """Files of these modules and of all they need, in loading order; built-in ones are left out."""
    deps, path_of = {}, {}
    with open(os.path.join(moddir, "modules.dep")) as f:
        for line in f:
            path, _, rest = line.partition(":")
            deps[path] = rest.split()
            path_of[os.path.basename(path).split(".ko")[0].replace("-", "_")] = path
    with open(os.path.join(moddir, "modules.builtin")) as f:
        builtin = {os.path.basename(line.strip()).split(".ko")[0].replace("-", "_") for line in f}
    order = []

    def visit(path):
        for dep in deps[path]:
            visit(dep)
        if path not in order:
            order.append(path)

    for name in names:
        key = name.replace("-", "_")
        if key in path_of:
            visit(path_of[key])
        elif key not in builtin:
            raise BedError(f"{moddir}: no module {name}")
    return [os.path.join(moddir, path) for path in order]


def initramfs(out, moddir, names):
    """Write an initramfs of stage1 and these modules."""
    cpio = Cpio(out + ".new")
    for name in ("dev", "proc", "sys", "modules"):
        cpio.add(name, 0o040755)
    cpio.add("dev/console", 0o020600, rdev=(5, 1))
    with open(tools()["stage1"], "rb") as f:
        cpio.add("init", 0o100755, f.read())
    for i, path in enumerate(module_files(moddir, names)):
        with open(path, "rb") as f:
            data = f.read()
        base = os.path.basename(path)
        if base.endswith(".xz"):
            base, data = base[:-3], lzma.decompress(data)
        elif not base.endswith(".ko"):
            raise BedError(f"{path}: unknown compression")
        cpio.add(f"modules/{i:02}-{base}", 0o100644, data)
    cpio.close()
    os.rename(out + ".new", out)


class Kernel:
    """A Debian kernel unpacked in build/kernels/NAME by selftests/env/setup.sh."""

    def __init__(self, name):
        self.dir = os.path.join(BUILD, "kernels", name)
        self.image = os.path.join(self.dir, "vmlinuz")
        self.modules = os.path.join(self.dir, "modules")
        self.kdir = os.path.join(self.dir, "kdir")
        for path in (self.image, self.modules):
            if not os.path.exists(path):
                raise BedError(f"{path} is missing: run selftests/env/setup.sh kernel-{name}")
        with open(os.path.join(self.dir, "release")) as f:
            self.release = f.read().strip()

    def host_initramfs(self):
        """The initramfs of a host that runs this kernel."""
        with Lock("initramfs"):
            out = os.path.join(CACHE, f"host-{self.release}-{digest(tools()['stage1'], ' '.join(HOST_MODULES))}.cpio")
            if not os.path.exists(out):
                initramfs(out, os.path.realpath(self.modules), HOST_MODULES)
        return out


GRUB_CONFIG = """
set root=(hd0,msdos1)
linux /boot/vmlinuz e2e.root=/dev/vda1 e2e.init=/usr/local/sbin/guest-init console=ttyS0 quiet loglevel=4 norandmaps net.ifnames=0
initrd /boot/initrd.img
boot
"""
GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "linux", "serial", "terminal")


def grub_core(prefix, config):
    """GRUB's core image, with its configuration inside, for the gap before the first partition."""
    conf, core = prefix + ".cfg", prefix + ".core"
    with open(conf, "w") as f:
        f.write(config)
    run(tool("grub-mkimage"), "-O", "i386-pc", "-o", core, "-p", "(hd0,msdos1)/boot/grub", "-c", conf, *GRUB_MODULES)
    with open(core, "rb") as f:
        data = f.read()
    if len(data) > PART_START - SECTOR:
        raise BedError("GRUB's core image does not fit before the partition")
    return data


def boot_block():
    """Block 0: GRUB's boot code and a partition table with one Linux partition."""
    with open("/usr/lib/grub/i386-pc/boot.img", "rb") as f:
        block = bytearray(f.read(SECTOR))
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", PART_START // SECTOR, PART_SIZE // SECTOR)
    block[440:510] = struct.pack("<IH", 0x10f4d15c, 0) + entry + bytes(48)
    block[510:512] = b"\x55\xaa"
    return bytes(block)


def packages(tree):
    """Unpack Debian's minimal system with a cloud kernel and fio in tree."""
    docs = [f"--dpkgopt=path-exclude=/usr/share/{d}/*" for d in ("man", "doc", "locale", "info")]
    # not this machine's own sources: it may run another release
    sources = os.path.join(BUILD, "apt", SUITE, "sources.list")
    if not os.path.exists(sources):
        raise BedError(f"{sources} is missing: selftests/env/setup.sh kernels")
    os.environ["INITRD"] = "No"
    run(tool("mmdebstrap"), "--variant=minbase", "--format=directory", "--include=linux-image-cloud-amd64,fio,kmod",
        '--aptopt=APT::Install-Recommends "false"', *docs, SUITE, tree, sources, timeout=1800)


def guest_image():
    """The guest's disk image, built if it is not there; its path. Never written to: runs copy it."""
    parts = tools()
    init = os.path.join(SELF, "src", "guest-init")
    with Lock("image"):
        out = os.path.join(CACHE, f"guest-{digest(__file__, init, *parts.values())}.img")
        if os.path.exists(out):
            return out
        say("building the guest image (once)")
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="image-") as tmp:
            tree = os.path.join(tmp, "tree")
            packages(tree)
            boot = os.path.join(tree, "boot")
            kernels = [n[len("vmlinuz-"):] for n in os.listdir(boot) if n.startswith("vmlinuz-")]
            if len(kernels) != 1:
                raise BedError(f"guest image: expected one kernel, found {kernels}")
            os.rename(os.path.join(boot, "vmlinuz-" + kernels[0]), os.path.join(boot, "vmlinuz"))
            moddir = os.path.join(tree, "lib", "modules", kernels[0])
            run(tool("depmod"), "-b", tree, kernels[0])
            initramfs(os.path.join(boot, "initrd.img"), moddir, GUEST_MODULES)
            sbin = os.path.join(tree, "usr", "local", "sbin")
            shutil.copy2(init, os.path.join(sbin, "guest-init"))
            for name in ("agent", "probe"):
                shutil.copy2(parts[name], os.path.join(sbin, name))
            os.makedirs(os.path.join(tree, "srv", "data"), exist_ok=True)
            part = os.path.join(tmp, "part.img")
            run(tool("mke2fs"), "-q", "-t", "ext4", "-b", 4096, "-m", 0, "-L", "guestroot", "-E", "lazy_itable_init=0,lazy_journal_init=0",
                "-d", tree, part, f"{PART_SIZE // 1024}k", timeout=600)
            disk = os.path.join(tmp, "disk.img")
            with open(disk, "wb") as f:
                f.truncate(DISK_SIZE)
                f.write(boot_block())
                f.write(grub_core(os.path.join(tmp, "grub"), GRUB_CONFIG))
            run("dd", f"if={part}", f"of={disk}", "bs=1M", f"seek={PART_START >> 20}", "conv=notrunc,sparse")
            os.rename(disk, out)
    return out


def fresh_copy(image, path):
    """A private copy of an image for one run."""
    run("cp", "--sparse=always", "--reflink=auto", image, path)
    return path
