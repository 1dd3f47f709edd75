// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of iovmd's configuration (userland/iovmd/config_keys.c, config_check.c): values that are none, names of what is
 * not there, what is missing or does not go together, with their places, texts and remedies.
 */
#define _GNU_SOURCE
#include "iovmd_config.h"

/* --- values --- */

/* Sections in which a key may be tried; what comes before is three lines. */
static const char in_host[] = "\n\n[host]\n";
static const char in_peer[] = "[peer p]\naddress = p\n[peer t]\n";
static const char in_device[] = "[device d]\n\ndisk = /dev/d\n";
static const char in_both[] = "[peer p]\naddress = p\n[device d]\ndisk = /dev/d\npeers = p\n";

static void value(const char *before, const char *line, const char *want)
{
	char text[1024], all[1024] = "";
	unsigned int nr = 0;
	const char *p;

	for (p = before; *p; p++)
		nr += *p == '\n';
	snprintf(text, sizeof(text), "%s%s\n", before, line);
	if (*want)
		snprintf(all, sizeof(all), "a:%u: %s", nr + 1, want);
	wrong(text, all);
}

static void values(void)
{
	static const char rate[] = "a number with kbit, mbit or gbit, or for bytes with kbps, mbps or gbps, as in 200mbit";
	static const char yes_no[] = "yes, true or on; no, false or off";
	char want[256], line[400];

	value(in_host, "name = a b", "'name': 'a b' is not a name | letters, digits, '.', '_' and '-' only");
	value(in_host, "peer-port = 0", "'peer-port': '0' is not a port | a number from 1 to 65535");
	value(in_host, "data-port = 65536", "'data-port': '65536' is not a port | a number from 1 to 65535");
	value(in_host, "data-port = nbd", "'data-port': 'nbd' is not a port | a number from 1 to 65535");
	value(in_host, "data-port = 1.5", "'data-port': '1.5' is not a port | a number from 1 to 65535");
	value(in_host, "data-port = 65535", "");
	value(in_host, "transport = TLS", "'transport': 'TLS' is not known here | did you mean 'tls'?");
	value(in_host, "transport = rdma", "'transport': 'rdma' is not known here | write tls or plain-tcp");
	value(in_host, "tls-dir = tls", "'tls-dir': 'tls' is not an absolute path | give all of it, from '/' on");
	snprintf(line, sizeof(line), "tls-dir = /%0254d", 0);
	value(in_host, line, "");
	snprintf(line, sizeof(line), "tls-dir = /%0255d", 0);
	value(in_host, line, "'tls-dir': '/0000000000000000000000000000000000000000000000000000000000000000000...' is too long | "
	      "255 bytes at most");
	value(in_host, "class = 1:50", "'class': '1:50' is not a class | DEVICE/MAJOR:MINOR, as in eth0/1:50");
	value(in_host, "class = eth0/1",
	      "'class': 'eth0/1' has no class after the '/' | MAJOR:MINOR in hexadecimal, as 'tc class' shows it");
	value(in_host, "class = eth0/1:",
	      "'class': 'eth0/1:' has no class after the '/' | MAJOR:MINOR in hexadecimal, as 'tc class' shows it");
	value(in_host, "class = eth0/1:0",
	      "'class': 'eth0/1:0' names a qdisc and no class of it | MAJOR:MINOR, MINOR not 0, as in eth0/1:50");
	value(in_host, "class = 0123456789abcdef/1:2",
	      "'class': '0123456789abcdef/1:2' does not begin with the name of a network device | DEVICE/MAJOR:MINOR, as in "
	      "eth0/1:50");
	value(in_host, "class = en o/1:12345",
	      "'class': 'en o/1:12345' does not begin with the name of a network device | DEVICE/MAJOR:MINOR, as in eth0/1:50");
	value(in_host, "class = 0123456789abcde/fffe:ffff", "");
	snprintf(want, sizeof(want), "'io-rate': '5 mbit' is not a rate | %s", rate);
	value(in_host, "io-rate = 5 mbit", want);
	snprintf(want, sizeof(want), "'migration-rate': '10X' is not a rate | %s", rate);
	value(in_host, "migration-rate = 10X", want);
	value(in_host, "listen = 10.0.0.256",
	      "'listen': '10.0.0.256' is not an IPv4 address | four numbers from 0 to 255, as in 10.0.0.1");
	value(in_host, "listen = fd00::1%eth0", "");
	value(in_peer, "address = [fd00::1]",
	      "'address': '[fd00::1]' is in brackets | an address alone, as in fd00::1, without brackets and port");
	value(in_peer, "address = b:10808",
	      "'address': 'b:10808' has a ':', but is no IPv6 address | an address or a host name alone; its port has a line of "
	      "its own");
	value(in_peer, "address = fd00:::1", "'address': 'fd00:::1' is not an IPv6 address | as in fd00::1");
	value(in_peer, "address = *", "'address': '*' is not a host name | letters, digits, '-' and dots between them");
	value(in_peer, "address = b..c", "'address': 'b..c' is not a host name | letters, digits, '-' and dots between them");
	value(in_peer, "address = -b", "'address': '-b' is not a host name | letters, digits, '-' and dots between them");
	value(in_peer, "address = b c", "'address': 'b c' is not a host name | letters, digits, '-' and dots between them");
	value(in_peer, "address = b-1.example.org.", "");
	snprintf(line, sizeof(line), "address = %064d", 0);
	memset(line + 10, 'x', 64);
	value(in_peer, line, "'address': 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' is too long for a host "
	      "name | "
	      "63 characters between dots, 253 in all");
	value(in_device, "serial = 123456789012345678901", "'serial': '123456789012345678901' is too long | 20 bytes at most");
	value(in_device, "serial = 12345678901234567890", "");
	value(in_device, "serial = --readonly",
	      "'serial': '--readonly' looks like an option | begin it with something else than '--'");
	value(in_device, "block-size = 1024", "'block-size': '1024' is not known here | write 512 or 4096");
	value(in_device, "queues = 0", "'queues': '0' is not from 1 to 64 | give a number between these");
	value(in_device, "queues = 65", "'queues': '65' is not from 1 to 64 | give a number between these");
	value(in_device, "queues = -1",
	      "'queues': '-1' is not a number | digits, perhaps with k, M or G for thousands, millions, billions");
	value(in_device, "queue-size = 100", "'queue-size': '100' is not a power of two | give one, as 128 or 256");
	value(in_device, "queue-size = 2048", "'queue-size': '2048' is not from 2 to 1024 | give a number between these");
	value(in_device, "seg-max = 1025", "'seg-max': '1025' is not from 1 to 1024 | give a number between these");
	snprintf(want, sizeof(want), "'readonly': 'maybe' is neither yes nor no | %s", yes_no);
	value(in_device, "readonly = maybe", want);
	snprintf(want, sizeof(want), "'write-zeroes': '1' is neither yes nor no | %s", yes_no);
	value(in_device, "write-zeroes = 1", want);
	value(in_device, "max-discard = 512",
	      "'max-discard': '512' is not from 4096 to 1099511627776 | give a number between these");
	value(in_device, "bps = 5q", "'bps': '5q' is not a size | bytes, or a number with K, M, G, T or P, as in 10G or 1.5T");
	value(in_device, "no-path-timeout = soon",
	      "'no-path-timeout': 'soon' is not a duration | a number with ms, s, min, h or d, as in 500ms or 5min");
	value(in_device, "slow-factor = 1", "'slow-factor': '1' is not from 2 to 1000 | give a number between these");
	value(in_device, "identity = x",
	      "'identity': 'x' is not an identity | SCHEME:TEXT, as in wwn:naa.5000c500a1b2c3d4 or id:vm1-data");
	value(in_device, "owner = no-such-user-here", "'owner': 'no-such-user-here' names a user that does not exist here | ");
	value(in_device, "mode = 999", "'mode': '999' is not a mode | octal permission bits, as in 0660");
	value(in_both, "remote.connections = 17", "'remote.connections': '17' is not from 1 to 16 | give a number between these");
	value(in_both, "local.cache = die", "'local.cache': 'die' is not known here | did you mean 'dies'?");
	value(in_both, "local.fence = epoch", "'local.fence': 'epoch' is not known here | write local-error or none");
	value(in_both, "remote.fence = local-error", "'remote.fence': 'local-error' is not known here | write none or epoch");
	value(in_both, "remote.fence = epoch", "");
	value(in_both, "local.fence-by = reservation",
	      "'local.fence-by': 'reservation' is not known here | write hand, command or offline");
	value(in_both, "remote.fence-by = offline", "'remote.fence-by': 'offline' is not known here | write hand or command");
	value(in_both, "remote.fence-command = fence",
	      "'remote.fence-command': 'fence' is not an absolute path | give all of it, from '/' on");
	value(in_both, "local.io-timeout = 10ms",
	      "'local.io-timeout': '10ms' is not from 20ms to 3600s | give a time between these, or 'never'");
	value(in_both, "local.io-timeout = 2h",
	      "'local.io-timeout': '2h' is not from 20ms to 3600s | give a time between these, or 'never'");
	value(in_both, "remote.heartbeat = 0", "'remote.heartbeat': '0' is not from 1ms to 3600s | give a time between these");
	value(in_both, "remote.dead = never", "'remote.dead': 'never' is not from 1ms to 3600s | give a time between these");
	value(in_device, "peers = ,", "'peers': ',' names nothing | write names, with blanks or commas between them");
}

/* --- the whole --- */

static void hosts(void)
{
	wrong("[host]\ndata-port = 10808\n",
	      "a:2: [host]: 'peer-port' and 'data-port' are both 10808 | give two different ones; the defaults are 10808 and "
	      "10809");
	wrong("[peer p]\naddress = p\npeer-port = 10809\n",
	      "a:3: [peer p]: 'peer-port' and 'data-port' are both 10809 | give two different ones; the defaults are 10808 and "
	      "10809");
	wrong("[peer p]\npeer-port = 1\n",
	      "a:1: [peer p] has no 'address' | write 'address = HOST', a name or an address of that host");
	wrong2("[peer p]\naddress = p\n", "[host]\nname = p\n",
	       "a:1: [peer p] is this host's own name | a peer is another host; 'name' in [host] says what this one is called");
	wrong("[peer local]\naddress = p\n",
	      "a:1: 'local' is what the path to a device's own disk is called | give the peer the name that it has in its own "
	      "[host]");
	wrong2("[peer p]\naddress = p\n", "[peer q]\naddress = p\n",
	       "d/b.conf:2: [peer q] has the address of peer 'p' | see a:2; every host has an address of its own");
	right("[peer p]\naddress = p\n[peer q]\naddress = p\npeer-port = 2000\n");
	right("[peer p]\naddress = p\nlibvirt-uri = qemu+ssh://root@b/system?no_verify=1\n");
	wrong("[peer p]\naddress = p\nlibvirt-uri = qemu:///system\n",
	      "a:3: 'libvirt-uri': 'qemu:///system' is this host's own libvirt | name that host: 'qemu+tls://HOST/system'");
	right("[peer p]\naddress = p\nfence-command = fence_ipmilan -a p-ipmi -o off\n");
	wrong("[peer p]\naddress = p\nfence-after = 1min\n",
	      "a:3: 'fence-after': there is nothing to be run after it | write 'fence-command = COMMAND', which makes sure that the "
	      "host is off");
	wrong("[peer p]\naddress = p\nfence-command = bin/off\n",
	      "a:3: 'fence-command': 'bin/off' names a program by a relative path | give all of it, from '/' on");
	wrong("[peer p]\naddress = p\nfence-command = off\nfence-after = never\n",
	      "a:4: 'fence-after': 'never' is not from 1000ms to 3600s | give a time between these");
	wrong("[peer p]\naddress = p\nlibvirt-uri = b\n",
	      "a:3: 'libvirt-uri': 'b' is no URI | write it as virsh takes it: 'qemu+tls://HOST/system'");
	wrong("[peer p]\naddress = p\nlibvirt-uri = --x\n",
	      "a:3: 'libvirt-uri': '--x' looks like an option | begin it with something else than '--'");
}

static void devices(void)
{
	char text[2048], name[64];
	unsigned int i;

	wrong("[device d]\nqueues = 4\n",
	      "a:1: [device d] has neither 'disk' nor 'peers' | write 'disk = /dev/...', or 'peers = NAME', or both");
	wrong("[peer host-b]\naddress = b\n[device d]\npeers = hots-b zz host-b,host-b\n",
	      "a:4: 'peers': there is no peer 'hots-b' | did you mean 'host-b'?\n"
	      "a:4: 'peers': there is no peer 'zz' | add a section [peer zz]\n"
	      "a:4: 'peers': 'host-b' is there twice | name it once");
	wrong2("[device d]\ndisk = /dev/d\n", "[device e]\n\ndisk = /dev/d\n",
	       "d/b.conf:3: 'disk': '/dev/d' is that of device 'd' | see a:2; a disk is the data of one device");
	wrong("[device d]\ndisk = sda\n", "a:2: 'disk': 'sda' is not an absolute path | give all of it, from '/' on");
	wrong("[device d]\ndisk = /dev/d\nremote.cache = dies\nremote.dead = 3s\n",
	      "a:3: 'remote.cache' does nothing without 'peers' | remove it, or give 'peers'\n"
	      "a:4: 'remote.dead' does nothing without 'peers' | remove it, or give 'peers'");
	wrong("[peer p]\naddress = p\n[device d]\npeers = p\nlocal.cache = dies\n",
	      "a:5: 'local.cache' does nothing without 'disk' | remove it, or give 'disk'");
	wrong("[device d.export]\ndisk = /dev/d\n",
	      "a:1: [device]: 'd.export' ends in '.export' | such names are for what iovmd serves to peers; give it another one");
	wrong("[device 012345678901234567890123456789012345678901234567890123456]\ndisk = /dev/d\n",
	      "a:1: [device]: '012345678901234567890123456789012345678901234567890123456' is too long | 56 characters at most: "
	      "iovmd adds some for what it serves to peers");
	right("[device 01234567890123456789012345678901234567890123456789012345]\ndisk = /dev/d\n");
	wrong("[device d]\ndisk = /dev/d\nreadonly = yes\ndiscard = on\n",
	      "a:4: 'discard = on' contradicts 'readonly = yes' | remove one of the two");
	right("[device d]\ndisk = /dev/d\nreadonly = yes\ndiscard = no\n");
	*text = 0;
	for (i = 0; i <= CONFIG_MAX_PEERS; i++) {
		snprintf(name, sizeof(name), "[peer p%u]\naddress = p%u\n", i, i);
		strcat(text, name);
	}
	strcat(text, "[device d]\npeers = p0 p1 p2 p3 p4 p5 p6 p7\n");
	wrong(text, "a:18: 'peers': these are too many | 7 at most");
	strcpy(strstr(text, "p6 p7"), "p6\n");
	right(text);
}

static void fencing(void)
{
	value(in_both, "local.fence-by = command", "'local.fence-by = command' needs 'local.fence-command' | give the program");
	value(in_both, "remote.fence-by = command", "'remote.fence-by = command' needs 'remote.fence-command' | give the program");
	value(in_both, "local.fence-after = 3s",
	      "'local.fence-after' does nothing without 'local.fence-by' | remove it, or say who fences");
	value(in_both, "local.fence-after = 3s\nlocal.fence-by = hand",
	      "'local.fence-after' contradicts 'local.fence-by = hand' | remove it, or say who fences");
	value(in_both, "local.fence-command = /x\nlocal.fence-after = 3s", "");
	value(in_both, "local.fence-command = /x\nlocal.fence-by = offline",
	      "'local.fence-command' contradicts 'local.fence-by = offline' | remove one of the two");
	value(in_both, "local.fence = none\nlocal.fence-by = offline",
	      "'local.fence = none' contradicts 'local.fence-by = offline' | that is for a directly attached disk, whose errors "
	      "are final");
	value(in_both, "local.fence-by = offline\nlocal.fence = local-error", "");
}

static void guests(void)
{
	static const char *const not_units[] = { ".service", "@.service", "vm1", "x.socket", "a/b.service", "x@a@b.service", "x@.", "$x.service" };
	static const char d[] = "[peer p]\naddress = p\n[peer q]\naddress = q\n[device d]\ndisk = /dev/d\npeers = p\n[guest g]\n";
	char text[4096], name[64];
	unsigned int i;

	snprintf(text, sizeof(text), "%smigrate = never\n", d);
	wrong(text, "a:8: [guest g] has no 'devices' | write 'devices = NAME', what it has of the devices that are configured\n"
	      "a:8: [guest g] has no 'qmp' | write 'qmp = /PATH', its QEMU's QMP socket for iovmd alone, or 'libvirt = DOMAIN', or "
	      "'migrate-command'");
	snprintf(text, sizeof(text), "%sdevices = e, d, d\nqmp = /q\n", d);
	wrong(text, "a:9: 'devices': there is no device 'e' | add a section [device e]\na:9: 'devices': 'd' is there twice | name "
	      "it once");
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\nmigrate = on-failure\n", d);
	wrong(text, "a:11: 'migrate = on-failure' needs 'destination' | write 'destination = PEER', or 'migrate = on-request'");
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\nmigrate = on-failure\ndestination = q\n", d);
	wrong(text, "a:12: 'destination': 'q' is no peer of [device d] | add it to 'peers' there, a:7, or choose another");
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\ndestination = pp\n", d);
	wrong(text, "a:11: 'destination': there is no peer 'pp' | did you mean 'p'?");
	snprintf(text, sizeof(text), "%sdevices = d\nmigrate-command = /x\nqmp = /q\ncommand = /y\nmax-downtime = 5\nmax-bandwidth "
		 "= 5\n"
		 "channels = 5\nauto-converge = yes\ntimeout = 5min\n", d);
	wrong(text, "a:11: 'qmp' contradicts 'migrate-command' | the command is run instead of QMP; remove one of the two\n"
	      "a:12: 'command' contradicts 'migrate-command' | the command is run instead of QMP; remove one of the two\n"
	      "a:13: 'max-downtime' contradicts 'migrate-command' | the command is run instead of QMP; remove one of the two\n"
	      "a:14: 'max-bandwidth' contradicts 'migrate-command' | the command is run instead of QMP; remove one of the two\n"
	      "a:15: 'channels' contradicts 'migrate-command' | the command is run instead of QMP; remove one of the two\n"
	      "a:16: 'auto-converge' contradicts 'migrate-command' | the command is run instead of QMP; remove one of the two");
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = q\ncommand = bin/x y\nmigrate-command = ./x\nmax-downtime = "
		 "3h\nchannels = 256\n"
		 "timeout = 10ms\nsettle = 2d\nmigrate = onfailure\n", d);
	wrong(text, "a:10: 'qmp': 'q' is not an absolute path | give all of it, from '/' on\n"
	      "a:11: 'command': 'bin/x y' names a program by a relative path | give all of it, from '/' on\n"
	      "a:12: 'migrate-command': './x' names a program by a relative path | give all of it, from '/' on\n"
	      "a:13: 'max-downtime': '3h' is not from 1ms to 2000s | give a time between these\n"
	      "a:14: 'channels': '256' is not from 1 to 255 | give a number between these\n"
	      "a:15: 'timeout': '10ms' is not from 1000ms to 604800s | give a time between these, or 'never'\n"
	      "a:16: 'settle': '2d' is not from 0ms to 86400s | give a time between these, or 'never'\n"
	      "a:17: 'migrate': 'onfailure' is not known here | did you mean 'on-failure'?\n"
	      "a:10: 'qmp' contradicts 'migrate-command' | the command is run instead of QMP; remove one of the two\n"
	      "a:11: 'command' contradicts 'migrate-command' | the command is run instead of QMP; remove one of the two\n"
	      "a:13: 'max-downtime' contradicts 'migrate-command' | the command is run instead of QMP; remove one of the two\n"
	      "a:14: 'channels' contradicts 'migrate-command' | the command is run instead of QMP; remove one of the two");
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\ncommand = systemctl start qemu/vm1\n", d);
	right(text);
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\ncommand = A=b/c exec \"$X/y\"\n", d);
	right(text);
	snprintf(text, sizeof(text), "%sdevices = d\nmigrate-command = %0256d\n", d, 0);
	wrong(text, "a:10: 'migrate-command': '00000000000000000000000000000000000000000000000000000000000000000000...' is too "
	      "long | "
	      "255 bytes at most; put it in a script");
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\n", d);
	wrong2(text, "[guest h]\nqmp = /q\ndevices = d\n",
	       "d/b.conf:3: 'devices': 'd' is guest 'g''s | see a:9; a device is one guest's\n"
	       "d/b.conf:2: 'qmp': '/q' is guest 'g''s | see a:10; every QEMU has a socket of its own");
	/* systemd's */
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\nunit = web-1.service\n", d);
	right(text);
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\nunit = a b.service\n", d);
	wrong(text, "a:11: 'unit': 'a b.service' is not the name of a service | write it as systemctl has it: 'NAME@.service' or 'NAME.service'");
	for (i = 0; i < sizeof(not_units) / sizeof(*not_units); i++) {
		snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\nunit = %s\n", d, not_units[i]);
		snprintf(name, sizeof(name), "a:11: 'unit': '%s' is not", not_units[i]);
		CHECK(!read_a(text) && errs.nr == 1 && !strncmp(told(0), name, strlen(name)), "%s", told(0));
		config_errors_free(&errs);
	}
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\nunit = %0184d.service\n", d, 0);
	wrong(text, "a:11: 'unit': '00000000000000000000000000000000000000000000000000000000000000000000...' is too long | 191 bytes at most");
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\nunit = %0182d@.service\n", d, 0);
	right(text);
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\nunit = x@.service\ncommand = /y\n", d);
	wrong(text, "a:12: 'command' contradicts 'unit' | the unit starts its QEMU; remove one of the two");
	snprintf(text, sizeof(text), "%sdevices = d\nunit = x@.service\nlibvirt = vm1\n", d);
	wrong(text, "a:10: 'unit' contradicts 'libvirt' | libvirt is asked instead of QEMU; remove one of the two");
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\nunit = x@h.service\n", d);
	wrong2(text, "[device e]\ndisk = /e\n[guest h]\nqmp = /r\nunit = x@.service\ndevices = e\n",
	       "d/b.conf:5: 'unit': 'x@h.service' is guest 'g''s | see a:11; every QEMU has a unit of its own");
	/* libvirt's */
	snprintf(text, sizeof(text), "%sdevices = d\nlibvirt = vm1\nlibvirt-tls = no\nmax-downtime = 5\nmax-bandwidth = 5\nchannels = 5\n"
		 "auto-converge = yes\ntimeout = 5min\n", d);
	right(text);
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\nlibvirt = vm1\ncommand = /y\n", d);
	wrong(text, "a:10: 'qmp' contradicts 'libvirt' | libvirt is asked instead of QEMU; remove one of the two\n"
	      "a:12: 'command' contradicts 'libvirt' | libvirt is asked instead of QEMU; remove one of the two");
	snprintf(text, sizeof(text), "%sdevices = d\nmigrate-command = /x\nlibvirt = vm1\nqmp = /q\n", d);
	wrong(text, "a:12: 'qmp' contradicts 'migrate-command' | the command is run instead of QMP; remove one of the two\n"
	      "a:11: 'libvirt' contradicts 'migrate-command' | the command is run instead; remove one of the two");
	snprintf(text, sizeof(text), "%sdevices = d\nqmp = /q\nlibvirt-tls = yes\n", d);
	wrong(text, "a:11: 'libvirt-tls' does nothing without 'libvirt' | remove it, or give 'libvirt'");
	snprintf(text, sizeof(text), "%sdevices = d\nlibvirt = vm/1\n", d);
	wrong(text, "a:10: 'libvirt': 'vm/1' is not a name | letters, digits, '.', '_' and '-' only");
	snprintf(text, sizeof(text), "%slibvirt = vm\ndevices = d\n", d);
	wrong2(text, "[device e]\ndisk = /e\n[guest h]\nlibvirt = vm\ndevices = e\n",
	       "d/b.conf:4: 'libvirt': 'vm' is guest 'g''s | see a:9; a domain is one guest");
	/* as many devices as there may be, and one more */
	for (i = 0, *text = 0; i <= CONFIG_MAX_DEVICES; i++) {
		snprintf(name, sizeof(name), "[device d%u]\ndisk = /dev/d%u\n", i, i);
		strcat(text, name);
	}
	strcat(text, "[guest g]\nqmp = /q\ndevices = d0 d1 d2 d3 d4 d5 d6 d7 d8 d9 d10 d11 d12 d13 d14 d15");
	right(text);
	strcat(text, " d16\n");
	wrong(text, "a:37: 'devices': these are too many | 16 at most");
}

static void rates(void)
{
	static const struct {
		const char *text;
		uint64_t v;
	} table[] = {
		{ "0", 0 }, { "1000", 1000 }, { "8bit", 8 }, { "1bps", 8 }, { "5kbit", 5000 }, { "5Kbit", 5000 }, { "1kibit",
		1024 },
		{ "1kbps", 8000 }, { "1kibps", 8192 }, { "1.5mbit", 1500000 }, { "1mibit", 1 << 20 }, { "2MBps", 16000000 },
		{ "1gbit", 1000000000 }, { "1gbps", 8000000000 }, { "1tbit", 1000000000000 },
	};
	uint32_t handle = 0;
	char dev[16] = "";
	uint64_t v;
	size_t i;

	for (i = 0; i < sizeof(table) / sizeof(*table); i++)
		CHECK(!parse_rate(table[i].text, &v) && v == table[i].v, "%s: %llu", table[i].text, (unsigned long long)v);
	CHECK(parse_rate("", &v) && parse_rate("mbit", &v) && parse_rate("-1", &v) && parse_rate("1x", &v) &&
	      parse_rate("99999999tbps", &v));
	CHECK(!parse_tc_class("eth0/1:5f", dev, &handle) && !strcmp(dev, "eth0") && handle == 0x1005f);
}

static const struct ktap_case cases[] = {
	{ "mistakes in values", values },
	{ "mistakes about hosts", hosts },
	{ "mistakes about devices", devices },
	{ "mistakes about fences", fencing },
	{ "mistakes about guests", guests },
	{ "rates and classes", rates },
};

int main(void)
{
	return config_run(cases, sizeof(cases) / sizeof(*cases));
}
