# SPDX-License-Identifier: GPL-2.0-or-later
"""
Hosts with libvirt as Debian ships it, QEMU confined by AppArmor, and guests that belong to libvirt.

The daemon's packages are not installed on this machine: they lie over the host's tree (Host's tree=), and what their maintainer scripts
do on a host is done here.
"""

import base64
import os
import re

from .agent import Agent
from .guest import Guest
from .util import BUILD, BedError, quote, run

TREE = os.path.join(BUILD, "libvirt")

# From the postinst scripts of libvirt-daemon-system: users, empty files for the administrator's own rules.
POSTINST = """
    getent group kvm >/dev/null || groupadd -r kvm
    getent group libvirt >/dev/null || groupadd -r libvirt
    getent group libvirt-qemu >/dev/null || groupadd -r -g 64055 libvirt-qemu
    getent passwd libvirt-qemu >/dev/null || useradd -r -M -u 64055 -g kvm -G libvirt-qemu -d /var/lib/libvirt -s /usr/sbin/nologin libvirt-qemu
    mkdir -p /etc/apparmor.d/local/abstractions /var/lib/libvirt/qemu /var/cache/libvirt/qemu /var/log/libvirt/qemu
    for f in abstractions/libvirt-qemu abstractions/libvirt-lxc usr.sbin.libvirtd usr.lib.libvirt.virt-aa-helper; do
        [ -e /etc/apparmor.d/local/$f ] || : >/etc/apparmor.d/local/$f
    done
    chown libvirt-qemu:libvirt-qemu /var/lib/libvirt/qemu /var/cache/libvirt/qemu && chmod 750 /var/lib/libvirt/qemu /var/cache/libvirt/qemu
"""

# Migration from host to host; the network between them is the test's own. Hosts know each other's names. The parser is told to take less
# time for a larger result, which means the same: libvirt has it translate a guest's profile five times at each start.
DAEMON = """
    hostname {name}
    printf '10.0.0.1 A\\n10.0.0.2 B\\n' >>/etc/hosts
    printf 'log_filters = "2:qemu.qemu_monitor"\\nlog_outputs = "2:file:/run/libvirtd.log"\\n' >>/etc/libvirt/libvirtd.conf
    printf 'Optimize=no-expr-simplify\\nOptimize=no-minimize\\n' >>/etc/apparmor/parser.conf
"""

# A CA of the operator's own, and for each host a certificate for both ends of a connection, libvirt's and QEMU's, which runs as libvirt-qemu.
CERTIFICATES = """
    mkdir -p /etc/pki/CA /etc/pki/libvirt/private /etc/pki/qemu && cd /etc/pki && umask 027
    printf %s {ca} | base64 -d >CA/cacert.pem && printf %s {cert} | base64 -d >qemu/server-cert.pem &&
    printf %s {key} | base64 -d >qemu/server-key.pem &&
    cp CA/cacert.pem qemu/ca-cert.pem && cp qemu/server-cert.pem qemu/client-cert.pem && cp qemu/server-key.pem qemu/client-key.pem &&
    for end in server client; do
        cp qemu/$end-cert.pem libvirt/${{end}}cert.pem && cp qemu/$end-key.pem libvirt/private/${{end}}key.pem || exit 1
    done
    chgrp -R kvm qemu && chmod 755 . CA libvirt && chmod 750 qemu
"""

DOMAIN = """\
<domain type='kvm'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>{cpus}</vcpu>
  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='host-passthrough'>
    <feature policy='disable' name='svm'/>
    <feature policy='disable' name='xsave'/>
  </cpu>
  <on_crash>preserve</on_crash>
  <devices>
    <disk type='vhostuser' device='disk'>
      <driver name='qemu' type='raw' queues='{queues}'/>
      <source type='unix' path='{socket}'>
        <reconnect enabled='yes' timeout='1'/>
      </source>
      <target dev='vda' bus='virtio'/>
      <boot order='1'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'><source path='/var/log/libvirt/qemu/{name}-console.log'/></serial>
    <channel type='tcp'>
      <source mode='bind' host='0.0.0.0' service='{port}'/>
      <protocol type='raw'/>
      <target type='virtio' name='agent'/>
    </channel>
  </devices>
</domain>
"""


class Libvirt:
    """libvirt's daemon on one host."""

    def __init__(self, host):
        self.host = host

    def start(self):
        call = self.host.agent.call
        call(POSTINST + DAEMON.format(name=self.host.name))
        # as apparmor.service does at a boot, but for libvirt's profiles alone: Debian 13 has a hundred others
        call("apparmor_parser -r /etc/apparmor.d/usr.*libvirt*", 180)
        call("systemctl start virtlogd.socket libvirtd-tls.socket libvirtd.service", 180)
        profile = self.confinement("$(pidof libvirtd)")
        if profile not in ("libvirtd (enforce)", "/usr/sbin/libvirtd (enforce)"):
            raise BedError(f"host {self.host.name}: libvirtd is not confined: {profile}")

    def encrypted(self):
        """Has this libvirt told QEMU to encrypt a migration from here?"""
        return self.host.agent.call("grep -q 'QEMU_MONITOR_SEND_MSG.*\"object-add\".*\"tls-creds-x509\".*\"client\"' /run/libvirtd.log",
                                    check=False).status == 0

    def confinement(self, pid):
        return self.host.agent.out(f"cat /proc/{pid}/attr/current")

    def virsh(self, *words, timeout=120):
        return self.host.agent.out(quote("virsh", "-q", *words), timeout)

    def runs(self, name):
        return self.host.agent.call(quote("virsh", "domstate", name), check=False).out.strip() == "running"

    def denied(self):
        """AppArmor's refusals so far."""
        return [line for line in self.host.agent.out("dmesg").splitlines() if re.search('apparmor="DENIED"', line)]


def certify(directory, *libvirts):
    """Certificates, made in a directory of this machine, for each host."""
    def openssl(*words):
        run("openssl", *words, cwd=directory)

    def text(name):
        with open(os.path.join(directory, name), "rb") as f:
            return base64.b64encode(f.read()).decode()
    new = ("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(*new, "-x509", "-days", "30", "-subj", "/CN=CA of the test", "-keyout", "ca.key", "-out", "ca.crt",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    for v in libvirts:
        name = v.host.name
        with open(os.path.join(directory, f"{name}.ext"), "w") as f:
            f.write(f"subjectAltName=DNS:{name},IP:{v.host.address}\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature,keyEncipherment\n"
                    "basicConstraints=critical,CA:FALSE\n")
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30",
                "-extfile", f"{name}.ext", "-out", f"{name}.crt")
        v.host.agent.call(CERTIFICATES.format(ca=text("ca.crt"), cert=text(f"{name}.crt"), key=text(f"{name}.key")))


class LibvirtGuest(Guest):
    """A guest of libvirt's, on the host where it was started or came to."""

    UUID = "6a1b54c6-5a0f-4e0c-8e57-1f6a8b1f1a01"

    def xml(self, socket):
        return DOMAIN.format(name=self.name, uuid=self.UUID, memory=self.memory, cpus=self.cpus, queues=self.queues, socket=socket,
                             port=self.agent_port)

    def define(self, libvirt, socket):
        libvirt.host.agent.call(f"printf %s {quote(self.xml(socket))} >/run/{self.name}.xml")
        libvirt.virsh("define", f"/run/{self.name}.xml")

    def start_by(self, libvirt):
        libvirt.virsh("start", self.name)
        self.attach_to(libvirt)

    def attach_to(self, libvirt):
        """It runs on that host."""
        self.libvirt = libvirt
        self.host = libvirt.host
        self.pid = int(self.host.agent.out(f"cat /run/libvirt/qemu/{self.name}.pid"))
        self.agent = Agent(f"guest {self.name}", self.host.ports[self.agent_port])
        profile = libvirt.confinement(self.pid)
        if profile != f"libvirt-{self.UUID} (enforce)":
            raise BedError(f"host {self.host.name}: QEMU is not confined: {profile}")

    def alive(self):
        self.host.alive()
        if not self.host.running(self.pid):
            raise BedError(f"guest {self.name}: QEMU ended: {self.log()} {self.console_tail()}")

    def log(self):
        return self.host.agent.call(f"tail -n 5 /var/log/libvirt/qemu/{self.name}.log", check=False).out.strip()

    def console_tail(self):
        return self.host.agent.call(f"tail -c 1500 /var/log/libvirt/qemu/{self.name}-console.log", check=False).out.strip()
