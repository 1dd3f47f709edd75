// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of iovmd's configuration (userland/iovmd/config*.c): every key and every default; mistakes in files, lines,
 * sections and keys, with their places, texts and remedies.
 */
#define _GNU_SOURCE
#include "iovmd_config.h"

/* --- what is right --- */

static bool args_are(const struct config_args *a, const char *want)
{
	char buf[2048] = "";
	unsigned int i;

	for (i = 0; i < a->nr; i++) {
		strcat(buf, i ? " " : "");
		strcat(buf, a->arg[i]);
	}
	CHECK(!a->arg[a->nr]);
	CHECK(!strcmp(buf, want), "\n#  is:     %s\n#  wanted: %s", buf, want);
	return !strcmp(buf, want);
}

static const char everything[] =
	"# all keys\n"
	"[host]\n"
	"name = a1\n"
	"listen = 10.0.0.1\n"
	"peer-port = 2000\n"
	"data-port = 2001\n"
	"transport = plain-tcp\n"
	"tls-dir = /tls\n"
	"class = eth0/1:50\n"
	"io-rate = 200mbit\n"
	"migration-rate = 1gbit\n"
	"check-interval = never\n"
	"parallel-migrations = 4\n"
	"\n"
	"[peer b]\n"
	"address = b.example.org\n"
	"peer-port = 3000\n"
	"data-port = 3001\n"
	"libvirt-uri = qemu+ssh://b/system\n"
	"fence-command = fence_ipmilan -a b-ipmi -o off\n"
	"fence-after = 45\n"
	"[peer c]\n"
	"address = fd00::1\n"
	"\t[ device\tvm1-disk0 ] \n"
	"  disk=/dev/disk/by-id/x y\n"
	"peers = b, c\n"
	"serial = \"a \\\"b\\\\ # \"\n"
	"block-size = 4096\n"
	"queues = 4\n"
	"queue-size = 256\n"
	"seg-max = 100\n"
	"readonly = no\n"
	"discard = yes\n"
	"max-discard = 1M\n"
	"write-zeroes = off\n"
	"max-write-zeroes = 64K\n"
	"iops = 5k\n"
	"bps = 200M\n"
	"no-path-timeout = 10min\n"
	"no-space-timeout = never\n"
	"failback-after = 1min\n"
	"slow-factor = off\n"
	"leave-slow = 30\n"
	"identity = id:vm1-data\n"
	"bounce-reads = true\n"
	"owner = 0:0\n"
	"mode = 0600\n"
	"local.cache = survives\n"
	"local.fence = local-error\n"
	"local.fence-by = offline\n"
	"local.fence-after = 5s\n"
	"local.assume-same-data = yes\n"
	"local.io-timeout = never\n"
	"remote.connections = 16\n"
	"remote.cache = dies\n"
	"remote.fence = none\n"
	"remote.fence-by = command\n"
	"remote.fence-command = /usr/sbin/fence\n"
	"remote.fence-after = 0\n"
	"remote.assume-same-data = on\n"
	"remote.io-timeout = 20ms\n"
	"remote.heartbeat = 500\n"
	"remote.dead = 3s\n"
	"[guest vm1]\n"
	"devices = vm1-disk0 vm1-disk1\n"
	"qmp = /run/vm1.qmp\n"
	"destination = c\n"
	"migrate = on-failure\n"
	"settle = 3s\n"
	"flaps = 0\n"
	"flap-window = 1min\n"
	"group = web\n"
	"command = /etc/iovm/vm1.start\n"
	"max-downtime = 300\n"
	"max-bandwidth = 100M\n"
	"channels = 4\n"
	"auto-converge = no\n"
	"timeout = 1h\n"
	"[device vm1-disk1]\n"
	"peers = c\n"
	"[guest vm2]\n"
	"devices = vm2-disk0\n"
	"migrate-command = /usr/bin/virsh-migrate vm2\n"
	"migrate = never\n"
	"[device vm2-disk0]\n"
	"disk = /dev/sdz\n"
	"[guest vm3]\n"
	"devices = vm3-disk0\n"
	"libvirt = vm3\n"
	"libvirt-tls = yes\n"
	"[device vm3-disk0]\n"
	"disk = /dev/sdy\n"
	"[guest vm4]\n"
	"devices = vm4-disk0\n"
	"qmp = /run/vm4.qmp\n"
	"unit = iovm-guest@.service\n"
	"[device vm4-disk0]\n"
	"disk = /dev/sdx\n";

static void every_key(void)
{
	struct config *c = read_a(everything);
	struct config_device *d;
	struct config_guest *g;
	unsigned int k, i;
	char find[64];

	CHECK(c, "%s", told(0));
	if (!c)
		return;
	/* no key is missing from the text above */
	for (k = 0; k < NR_SECTION_KINDS; k++)
		for (i = 0; config_keys[k][i].name; i++) {
			if (!strcmp(config_keys[k][i].name, "local.fence-command"))	/* contradicts it */
				continue;
			snprintf(find, sizeof(find), "\n%s =", config_keys[k][i].name);
			CHECK(strstr(everything, find) || !strcmp(config_keys[k][i].name, "disk"), "%s is not tried",
			      config_keys[k][i].name);
		}
	CHECK(!strcmp(c->host.name, "a1") && !strcmp(c->host.listen, "10.0.0.1"));
	CHECK(c->host.peer_port == 2000 && c->host.data_port == 2001 && c->host.plain_tcp);
	CHECK(!strcmp(c->host.tls_dir, "/tls") && !strcmp(c->host.class, "eth0/1:50"));
	CHECK(c->host.io_rate == 200000000 && c->host.migration_rate == 1000000000 && c->host.at.line == 2);
	CHECK(!c->host.check_interval_ms && c->host.parallel_migrations == 4);
	CHECK(c->peers && !strcmp(c->peers->name, "b") && !strcmp(c->peers->address, "b.example.org"));
	CHECK(c->peers->peer_port == 3000 && c->peers->data_port == 3001 && c->peers->at.line == 15);
	CHECK(!strcmp(c->peers->next->name, "c") && !strcmp(c->peers->next->address, "fd00::1") && !c->peers->next->next);
	d = c->devices;
	CHECK(!strcmp(d->name, "vm1-disk0") && !strcmp(d->disk, "/dev/disk/by-id/x y") && d->at.line == 24);
	CHECK(d->nr_peers == 2 && d->peers[0] == c->peers && d->peers[1] == c->peers->next);
	args_are(&d->create, "--serial a \"b\\ #  --block-size 4096 --queues 4 --queue-size 256 --seg-max 100 --discard "
		 "--max-discard 1M "
		 "--no-write-zeroes --max-write-zeroes 64K --iops 5k --bps 200M --no-path-timeout 10min --no-space-timeout never "
		 "--failback-after 1min --slow-factor off --leave-slow 30 --identity id:vm1-data --bounce-reads --owner 0:0 --mode "
		 "0600");
	args_are(&d->local, "--cache survives --fence local-error --fence-by offline --fence-after 5s "
		 "--assume-same-data --io-timeout never");
	args_are(&d->remote, "--connections 16 --cache dies --fence none --fence-by command --fence-command /usr/sbin/fence "
		 "--fence-after 0 --assume-same-data --io-timeout 20ms --heartbeat 500 --dead 3s");
	CHECK(!strcmp(d->next->name, "vm1-disk1") && !*d->next->disk && d->next->nr_peers == 1 && !d->next->create.nr);
	CHECK(!strcmp(d->next->next->disk, "/dev/sdz") && !d->next->next->next->next->next);
	g = c->guests;
	CHECK(!strcmp(g->name, "vm1") && g->nr_devices == 2 && g->devices[0] == d && g->devices[1] == d->next);
	CHECK(!strcmp(g->qmp, "/run/vm1.qmp") && g->destination == c->peers->next && g->policy == POLICY_ON_FAILURE);
	CHECK(!g->flaps && g->flap_window_ms == 60000 && !strcmp(g->group, "web"));
	CHECK(g->settle_ms == 3000 && !strcmp(g->command, "/etc/iovm/vm1.start") && !*g->migrate_command);
	CHECK(g->max_downtime_ms == 300 && g->max_bandwidth == 100 << 20 && g->channels == 4 && !g->auto_converge);
	CHECK(g->timeout_ms == 3600000);
	g = g->next;
	CHECK(!strcmp(g->migrate_command, "/usr/bin/virsh-migrate vm2") && g->policy == POLICY_NEVER && !*g->qmp);
	CHECK(config_way(c->guests) == WAY_QMP && config_way(g) == WAY_COMMAND && config_way(g->next) == WAY_LIBVIRT);
	CHECK(!strcmp(g->next->libvirt, "vm3") && g->next->libvirt_tls);
	CHECK(!strcmp(g->next->next->unit, "iovm-guest@vm4.service") && !g->next->next->next);
	CHECK(!strcmp(c->peers->libvirt_uri, "qemu+ssh://b/system"));
	CHECK(!strcmp(c->peers->fence_command, "fence_ipmilan -a b-ipmi -o off") && c->peers->fence_after_ms == 45000);
	CHECK(!*c->peers->next->fence_command && !c->peers->next->fence_after_ms);
	CHECK(!strcmp(c->peers->next->libvirt_uri, "qemu+tls://[fd00::1]/system"));
	CHECK(config_peer(c, "c") == c->peers->next && config_device(c, "vm1-disk1") == d->next && config_guest(c, "vm2") == g);
	CHECK(!config_peer(c, "vm2") && !config_device(c, "b") && !config_guest(c, ""));
	config_free(c);
	config_errors_free(&errs);
}

static void defaults(void)
{
	struct config *c = read_a("");

	CHECK(c, "%s", told(0));
	if (!c)
		return;
	CHECK(!strcmp(c->host.name, "build") && !*c->host.listen && c->host.peer_port == 10808 && c->host.data_port == 10809);
	CHECK(!c->host.plain_tcp && !strcmp(c->host.tls_dir, "/etc/iovm/tls") && !*c->host.class && !c->host.io_rate &&
	      !c->host.migration_rate);
	CHECK(!c->peers && !c->devices && !c->guests);
	config_free(c);
	c = read_a("[peer b]\naddress = b\n[device d]\ndisk = /dev/x\n[guest g]\ndevices = d\nqmp = /q\n");
	CHECK(c, "%s", told(0));
	if (!c)
		return;
	CHECK(c->peers->peer_port == 10808 && c->peers->data_port == 10809);
	CHECK(!c->devices->nr_peers && !c->devices->create.nr && !c->devices->local.nr && !c->devices->remote.nr);
	CHECK(c->host.check_interval_ms == 600000 && c->host.parallel_migrations == 1);
	CHECK(c->guests->flaps == 3 && c->guests->flap_window_ms == 300000 && !*c->guests->group);
	CHECK(!c->guests->destination && c->guests->policy == POLICY_ON_REQUEST && c->guests->settle_ms == 10000);
	CHECK(!*c->guests->libvirt);
	CHECK(!*c->guests->command && !*c->guests->migrate_command && !c->guests->max_downtime_ms && !c->guests->max_bandwidth);
	CHECK(!c->guests->channels && c->guests->auto_converge && !c->guests->timeout_ms);
	config_free(c);
	/* and what says the same */
	c = read_a("[host]\nlisten = *\ntransport = tls\n[peer b]\naddress = b\n[device d]\npeers = b\nreadonly = "
		   "false\nwrite-zeroes = yes\n"
		   "discard = no\nremote.assume-same-data = no\n");
	CHECK(c, "%s", told(0));
	if (!c)
		return;
	CHECK(!*c->host.listen && !c->host.plain_tcp);
	args_are(&c->devices->create, "--no-discard");
	args_are(&c->devices->remote, "");
	config_free(c);
}

/* A host whose name is none that a host can have here */
static void host_names(void)
{
	static const char bad[] = "this host's name is not one that a host can have here | write 'name = NAME' in [host]";
	char want[128];

	host_name = "-x.example.org";
	snprintf(want, sizeof(want), "a:0: %s", bad);
	wrong("[device d]\ndisk = /dev/d\n", want);
	snprintf(want, sizeof(want), "a:2: %s", bad);
	wrong("\n[host]\nlisten = *\n", want);
	right("[host]\nname = x\n");
	host_name = "";
	wrong("\n[host]\n", want);
	host_name = "b";
	wrong("[peer b]\naddress = b\n",
	      "a:1: [peer b] is this host's own name | a peer is another host; 'name' in [host] says what this one is called");
	host_name = "build.example.org";
}

/* --- files --- */

static void several_files(void)
{
	char conf_d[200];
	struct config *c;

	put_text("d/2.conf", "[device z]\ndisk = /dev/z\n");
	put_text("d/10.conf", "[device y]\ndisk = /dev/y\n[peer p]\naddress = p\n");
	put_text("d/not", "garbage\n");
	put_text("d/.hidden.conf", "garbage\n");
	put_text("d/.conf", "garbage\n");
	c = read_a_and_b("[device x]\npeers = p\n", 20, "[device b]\ndisk = /dev/b\n");
	CHECK(c, "%s", told(0));
	if (c) {
		CHECK(!strcmp(c->devices->name, "x") && !strcmp(c->devices->next->name, "y") &&
		      !strcmp(c->devices->next->next->name, "z") && !strcmp(c->devices->next->next->next->name, "b"));
		CHECK(strstr(c->devices->next->at.file, "/d/10.conf") && c->devices->next->at.line == 1);
	}
	config_free(c);
	/* the directory alone; neither */
	snprintf(conf_d, sizeof(conf_d), "%s/d", dir);
	c = config_read(NULL, conf_d, &errs);
	CHECK(c && config_device(c, "b"));
	config_free(c);
	c = config_read(NULL, NULL, &errs);
	CHECK(c && !c->devices);
	config_free(c);
	snprintf(conf_d, sizeof(conf_d), "%s/nowhere", dir);
	c = config_read(NULL, conf_d, &errs);
	CHECK(c);
	config_free(c);
	snprintf(conf_d, sizeof(conf_d), "rm %s/d/*.conf %s/d/.*.conf", dir, dir);
	CHECK(!system(conf_d));
}

/* config_read() of these, with dir/ before a relative one */
static void wrong_files(const char *file, const char *conf_d, const char *want)
{
	char a[160], b[160];
	struct config *c;

	snprintf(a, sizeof(a), "%s/%s", file && *file == '/' ? "" : dir, file ?: "");
	snprintf(b, sizeof(b), "%s/%s", dir, conf_d ?: "");
	c = config_read(file ? a : NULL, conf_d ? b : NULL, &errs);
	CHECK(!c && errs.nr == 1 && !strcmp(told(0), want), "\n#  is:     %s\n#  wanted: %s", told(0), want);
	config_free(c);
	config_errors_free(&errs);
}

static void mode(const char *name, mode_t m)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	CHECK(!chmod(path, m));
}

static void bad_files(void)
{
	static const char unsafe[] = "who can write it can run programs as root; 'chown root:root' and 'chmod go-w' it";
	char want[256], path[96], *large = malloc(CONFIG_MAX_BYTES + 1);

	wrong_files("nowhere", NULL, "nowhere:0: the file cannot be read: No such file or directory | "
		    "write it, as in iovmd.conf(5), or name another file");
	wrong_files("d", NULL, "d:0: it is no regular file | name a text file, as in iovmd.conf(5)");
	snprintf(path, sizeof(path), "%s/fifo", dir);
	CHECK(!mkfifo(path, 0600));
	wrong_files("fifo", NULL, "fifo:0: it is no regular file | name a text file, as in iovmd.conf(5)");
	put("a", "", 0);
	wrong_files("a", "a", "a:0: it is no directory | its *.conf are read; name a directory");
	wrong_files("a", "a/b", "a/b:0: the directory cannot be read: Not a directory | ");
	put("w", "", 0);
	mode("w", 0666);
	snprintf(want, sizeof(want), "w:0: the file can be written by others than its owner | %s", unsafe);
	wrong_files("w", NULL, want);
	mode("w", 0664);
	wrong_files("w", NULL, want);
	mode("w", 0600);
	right("");
	put_text("d/b.conf", "");
	mode("d/b.conf", 0646);
	snprintf(want, sizeof(want), "d/b.conf:0: the file can be written by others than its owner | %s", unsafe);
	wrong_files("a", "d", want);
	mode("d", 0777);
	snprintf(want, sizeof(want), "d:0: the directory can be written by others than its owner | %s", unsafe);
	wrong_files("a", "d", want);
	mode("d", 0755);
	snprintf(path, sizeof(path), "%s/d/b.conf", dir);
	unlink(path);
	if (!geteuid()) {	/* only root can give a file away */
		snprintf(path, sizeof(path), "%s/a", dir);
		CHECK(!chown(path, 65534, 0));
		snprintf(want, sizeof(want), "a:0: the file belongs to somebody else than root | %s", unsafe);
		wrong_files("a", NULL, want);
		CHECK(!chown(path, 0, 0));
	}
	memset(large, '\n', CONFIG_MAX_BYTES + 1);
	put("large", large, CONFIG_MAX_BYTES + 1);
	wrong_files("large", NULL, "large:0: the file is larger than 1048576 bytes | split it into files of the directory, or is "
		    "it another file?");
	check_errors(large, CONFIG_MAX_BYTES, NULL, "");
	free(large);
}

/* --- lines --- */

static void lines(void)
{
	char text[2200];

	/* what is harmless */
	right("\xef\xbb\xbf[host]\r\nname = x\r\n# y\r\n");
	right("[host]\nname = x");
	right("#\n\n \t \n  # [nothing]\n");
	right("[device d]\ndisk = /dev/\xc3\xa4#b\n");
	/* bytes */
	check_errors("[host]\nname = x\0\nlisten = *\n", 27, NULL,
		     "a:2: the line holds a NUL byte | this is no text file, or it was damaged");
	wrong("# \xff\n[host]\nname = \xc3\n", "a:1: the line is not UTF-8, from its byte 3 on | convert the file, as by iconv\n"
	      "a:3: the line is not UTF-8, from its byte 8 on | convert the file, as by iconv");
	wrong("[host]\nname = x\x1b[1m\n", "a:2: the line holds a control character, 0x1b, as its byte 9 | remove it");
	wrong("[host]\nname = x\ry\n", "a:2: the line holds a control character, 0x0d, as its byte 9 | remove it");
	wrong("#\x7f\n", "a:1: the line holds a control character, 0x7f, as its byte 2 | remove it");
	memset(text, 'x', sizeof(text));
	memcpy(text, "[device d]\ndisk = /dev/x\n#", 26);
	text[25 + CONFIG_MAX_LINE] = '\n';
	text[26 + CONFIG_MAX_LINE] = 0;
	right(text);
	text[25 + CONFIG_MAX_LINE] = 'x';
	wrong(text, "a:3: the line is longer than 2048 bytes | shorten it");
	/* neither section nor key */
	wrong("[host]\nname x\n= y\nfoo\n", "a:2: 'name x' is no 'key = value' | write 'key = value', or begin a comment with '#'\n"
	      "a:3: '= y' is no 'key = value' | write 'key = value', or begin a comment with '#'\n"
	      "a:4: 'foo' is no 'key = value' | write 'key = value', or begin a comment with '#'");
	wrong("\nname = x\nlisten = y\nfoo\n[host]\nname = z\n",
	      "a:2: 'name' is in no section | begin one before it, as [host] or [device NAME]");
	/* a section ends with its file */
	wrong2("[host]\n", "name = x\n", "d/b.conf:1: 'name' is in no section | begin one before it, as [host] or [device NAME]");
	/* values */
	wrong("[host]\nname =\nlisten = \"\"\n",
	      "a:2: 'name' has no value | remove the line for what is so by default, or give it one\n"
	      "a:3: 'listen' has no value | remove the line for what is so by default, or give it one");
	wrong("[host]\nname = x # y\nlisten = z\t#y\n",
	      "a:2: 'name': a comment follows the value | put the comment on a line of its own, or the value in quotes\n"
	      "a:3: 'listen': a comment follows the value | put the comment on a line of its own, or the value in quotes");
	wrong("[host]\nname = \"x\nlisten = \"x\\\"\ntls-dir = \"/x\" y\n",
	      "a:2: the value of 'name' has no '\"' at its end | end it, or write \\\" for a '\"' at its beginning\n"
	      "a:3: the value of 'listen' has no '\"' at its end | end it, or write \\\" for a '\"' at its beginning\n"
	      "a:4: the value of 'tls-dir' goes on after its '\"' | quote all of it, and write \\\" for a '\"' in it");
	wrong("[host]\nname = x\nlisten = *\nname = y\n",
	      "a:4: 'name' is there twice | the first is in line 2; remove one of them");
}

static void sections(void)
{
	static const char form[] = "sections are [host], [peer NAME], [device NAME] and [guest NAME]";
	char want[512];

	wrong("[host\nname = x\n", "a:1: '[host' has no ']' | a section is [KIND NAME] alone on its line");
	wrong("[host] # x\nname = x\n",
	      "a:1: '# x' follows the ']' | a section is [KIND NAME] alone on its line; comments too have their own lines");
	snprintf(want, sizeof(want), "a:1: there is no section [volume] | %s\na:3: there is no section [] | %s", form, form);
	wrong("[volume x]\nsize = 5\n[]\n", want);
	wrong("[devcie x]\nsize = 5\n", "a:1: there is no section [devcie] | did you mean [device x]?");
	wrong("[Host]\n", "a:1: there is no section [Host] | did you mean [host]?");
	wrong("[host a]\nname = x\n",
	      "a:1: [host] takes no name, but has 'a' | write [host], and 'name = NAME' below it; another host is a [peer NAME]");
	wrong("[peer]\naddress = x\n[device ]\n",
	      "a:1: [peer] has no name | write [peer NAME]\na:3: [device] has no name | write [device NAME]");
	wrong("[device -x]\n[device a b]\n[guest 0123456789012345678901234567890123456789012345678901234567890123]\n",
	      "a:1: [device]: '-x' is not a name | it may not start with '.' or '-'\n"
	      "a:2: [device]: 'a b' is not a name | letters, digits, '.', '_' and '-' only\n"
	      "a:3: [guest]: '0123456789012345678901234567890123456789012345678901234567890123' is too long for a name | 63 "
	      "characters at most");
	/* twice; what is in the second one is looked at too */
	wrong2("[host]\nname = x\n[peer p]\naddress = p\n[device d]\ndisk = /dev/d\n[guest g]\ndevices = d\nqmp = /q\n",
	       "[guest g]\n[device d]\nqueus = 4\n[peer p]\n[host]\nname = y\n",
	       "d/b.conf:1: [guest g] is there twice | the first is at a:7; put its keys there, or give this one another name\n"
	       "d/b.conf:2: [device d] is there twice | the first is at a:5; put its keys there, or give this one another name\n"
	       "d/b.conf:3: 'queus' is not a key of [device] | did you mean 'queues'?\n"
	       "d/b.conf:4: [peer p] is there twice | the first is at a:3; put its keys there, or give this one another name\n"
	       "d/b.conf:5: [host] is there twice | the first is at a:1; put its keys there");
	/* the same name for things of several kinds is no mistake */
	right("[peer x]\naddress = x\n[device x]\ndisk = /dev/d\n[guest x]\ndevices = x\nqmp = /q\n");
}

static void keys(void)
{
	wrong("[host]\nnmae = x\nQMP = y\nqmp = /x\npeer_port = 1\nbandwidth = 3\n",
	      "a:2: 'nmae' is not a key of [host] | did you mean 'name'?\n"
	      "a:3: 'QMP' is not a key of [host] | iovmd.conf(5) has them all\n"
	      "a:4: 'qmp' is not a key of [host] | it belongs in [guest NAME]\n"
	      "a:5: 'peer_port' is not a key of [host] | did you mean 'peer-port'?\n"
	      "a:6: 'bandwidth' is not a key of [host] | iovmd.conf(5) has them all");
	wrong("[device d]\ndisk = /dev/d\nno-discard = yes\nno-write-zeroes = yes\nio-timeout = 5\nlocal.queues = 5\nremote.iops = "
	      "5\n"
	      "local.io-timeuot = 3\nclass = eth0/1:5\nlocal.connections = 3\nlocal.pr-key = 3\nsize = 10G\ntarget = yes\n",
	      "a:3: 'no-discard' is not a key of [device] | write 'discard = no'\n"
	      "a:4: 'no-write-zeroes' is not a key of [device] | write 'write-zeroes = no'\n"
	      "a:5: 'io-timeout' is not a key of [device] | write 'local.io-timeout' for the path to the disk, 'remote.io-timeout' "
	      "for those to peers\n"
	      "a:6: 'local.queues' is not a key of [device] | it is no option of a path: write 'queues'\n"
	      "a:7: 'remote.iops' is not a key of [device] | it is no option of a path: write 'iops'\n"
	      "a:8: 'local.io-timeuot' is not a key of [device] | did you mean 'local.io-timeout'?\n"
	      "a:9: 'class' is not a key of [device] | it belongs in [host]\n"
	      "a:10: 'local.connections' is not a key of [device] | only paths to peers have it: write 'remote.connections'\n"
	      "a:11: 'local.pr-key' is not a key of [device] | iovmd.conf(5) has them all\n"
	      "a:12: 'size' is not a key of [device] | iovmd.conf(5) has them all\n"
	      "a:13: 'target' is not a key of [device] | iovmd.conf(5) has them all");
}

/* No more than fit are kept, and all are counted. */
static void many(void)
{
	char text[1024] = "[host]\n";
	unsigned int i;

	for (i = 0; i < 30; i++)
		strcat(text, "x\n");
	CHECK(!read_a(text) && errs.nr == 30 && errs.e[CONFIG_MAX_ERRORS - 1].at.line == 21);
	config_errors_free(&errs);
	CHECK(!errs.nr && !errs.memory);
}

/* As many sections as there may be, and one more */
static void large(void)
{
	char *text = malloc(64 * 1026), *p = text, want[64];
	unsigned int i;

	for (i = 0; i < 1024; i++)
		p += sprintf(p, "[device d%u]\ndisk = /dev/d%u\n", i, i);
	right(text);
	sprintf(p, "[device e]\n");
	snprintf(want, sizeof(want), "a:2049: [device e] is one too many | 1024 at most");
	wrong(text, want);
	free(text);
}

/* Every allocation fails once: that is said, and nothing leaks. */
static void no_memory(void)
{
	struct config *c = NULL;
	unsigned int nr;
	char file[96];

	put_text("a", everything);
	snprintf(file, sizeof(file), "%s/a", dir);
	for (nr = 0; nr < 2000 && !c; nr++) {
		alloc_left = nr;
		c = config_read(file, NULL, &errs);
		alloc_left = UINT32_MAX;
		CHECK(c || strstr(told(0), "emory"), "allocation %u: %s", nr, told(0));
		if (!c)
			config_errors_free(&errs);
	}
	CHECK(c && nr > 50);
	config_free(c);
}

static const struct ktap_case cases[] = {
	{ "every key", every_key },
	{ "defaults", defaults },
	{ "the host's name", host_names },
	{ "several files", several_files },
	{ "files that cannot be taken", bad_files },
	{ "mistakes in lines", lines },
	{ "mistakes in sections", sections },
	{ "mistakes in keys", keys },
	{ "many mistakes", many },
	{ "many sections", large },
	{ "no memory", no_memory },
};

int main(void)
{
	return config_run(cases, sizeof(cases) / sizeof(*cases));
}
