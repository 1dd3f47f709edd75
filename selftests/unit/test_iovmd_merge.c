// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A configuration that takes the place of another one (userland/iovmd/config_merge.c): what has the same name stays where it is in memory, what
 * is kept stays as it is, and nothing points to what was freed. Run under ASan.
 */
#define _GNU_SOURCE
#include "iovmd_config.h"
#include "../../userland/iovmd/config_merge.c"
#include "../../userland/iovmd/config_text.c"

#define HEAD	"[host]\nname = a\ntransport = plain-tcp\n"
#define PEERS	"[peer b]\naddress = 10.0.0.2\n[peer c]\naddress = 10.0.0.3\n"
#define DEV(name, more)	"[device " name "]\ndisk = /dev/" name "\n" more
#define VM(name, dev, more)	"[guest " name "]\ndevices = " dev "\nqmp = /run/" name "\n" more

static struct config *good(const char *text)
{
	struct config *c = read_a(text);

	CHECK(c, "%s: %s", text, told(0));
	return c;
}

/* As one line: all names, and what they name */
static const char *list(const struct config *c)
{
	static char text[2048];
	const struct config_device *d;
	const struct config_guest *g;
	const struct config_peer *p;
	unsigned int i;
	char *at = text;

	*text = 0;
	for (p = c->peers; p; p = p->next)
		at += sprintf(at, "%s=%s ", p->name, p->address);
	for (d = c->devices; d; d = d->next) {
		at += sprintf(at, "%s=%s:", d->name, d->disk);
		for (i = 0; i < d->nr_peers; i++)
			at += sprintf(at, "%s,", d->peers[i]->name);
		for (i = 0; i < d->create.nr; i++)
			at += sprintf(at, "%s,", d->create.arg[i]);
		*at++ = ' ';
	}
	for (g = c->guests; g; g = g->next) {
		at += sprintf(at, "%s=", g->name);
		for (i = 0; i < g->nr_devices; i++)
			at += sprintf(at, "%s,", g->devices[i]->name);
		at += sprintf(at, "%s ", g->destination ? g->destination->name : "");
	}
	*at = 0;
	return text;
}

#define IS(c, want)	CHECK(!strcmp(list(c), want), "is %s", list(c))

static unsigned int chunks(const struct config *c)
{
	const struct config_chunk *k;
	unsigned int n = 0;

	for (k = c->memory; k; k = k->next)
		n++;
	return n;
}

static void in_place(void)
{
	struct config *c = good(HEAD PEERS DEV("x", "peers = b c\nqueues = 2\n") DEV("y", "") VM("v", "x", "destination = b\n"));
	struct config_peer *b = config_peer(c, "b");
	struct config_device *x = config_device(c, "x"), *y = config_device(c, "y");
	struct config_guest *v = config_guest(c, "v");
	const struct config_host *h = &c->host;
	unsigned int n;

	IS(c, "b=10.0.0.2 c=10.0.0.3 x=/dev/x:b,c,--queues,2, y=/dev/y: v=x,b ");
	config_merge(c, good("# one more line\n" HEAD "io-rate = 5mbit\n[peer d]\naddress = 10.0.0.4\n[peer b]\naddress = 10.0.0.5\n"
			     DEV("y", "peers = d\nserial = new\n") DEV("x", "peers = d b\nqueues = 4\nserial = s\n")
			     VM("v", "y x", "destination = d\n")));
	IS(c, "d=10.0.0.4 b=10.0.0.5 y=/dev/y:d,--serial,new, x=/dev/x:d,b,--queues,4,--serial,s, v=y,x,d ");
	CHECK(config_peer(c, "b") == b && config_device(c, "x") == x && config_device(c, "y") == y && config_guest(c, "v") == v && &c->host == h);
	CHECK(x->peers[1] == b && v->devices[1] == x && v->devices[0] == y && x->at.line == 14, "line %u", x->at.line);
	CHECK(h->io_rate == 5000000);
	/* the one that has gone is there until it is swept away */
	CHECK(c->old_peers && !strcmp(c->old_peers->name, "c"));
	config_sweep(c);
	CHECK(!c->old_peers);
	/* again and again: it does not grow */
	n = chunks(c);
	config_merge(c, good("[host]\nname = a\ntransport = plain-tcp\nio-rate = 5mbit\n[peer d]\naddress = 10.0.0.4\n[peer b]\naddress = 10.0.0.5\n"
			     DEV("y", "peers = d\nserial = new\n") DEV("x", "peers = d b\nqueues = 4\nserial = s\n")
			     VM("v", "y x", "destination = d\n")));
	config_sweep(c);
	CHECK(chunks(c) == n, "%u pieces of memory, were %u", chunks(c), n);
	config_free(c);
}

static void kept(void)
{
	struct config *c = good(HEAD PEERS DEV("x", "peers = b c\nqueues = 2\n") DEV("y", "") VM("v", "x", "destination = b\n"));

	/* what is kept is as it was, whether it is there or not; what it names is kept, too */
	strcpy(config_device(c, "x")->kept, "used");
	strcpy(config_peer(c, "c")->kept, "x has it");
	config_merge(c, good(HEAD "[peer b]\naddress = 10.0.0.9\n" DEV("x", "queues = 4\n") VM("w", "x", "")));
	config_sweep(c);
	IS(c, "b=10.0.0.9 c=10.0.0.3 x=/dev/x:b,c,--queues,2, w=x, ");
	CHECK(config_device(c, "x")->peers[0] == config_peer(c, "b"));
	config_merge(c, good(HEAD "[peer b]\naddress = 10.0.0.8\n"));
	config_sweep(c);
	IS(c, "b=10.0.0.8 c=10.0.0.3 x=/dev/x:b,c,--queues,2, ");
	config_device(c, "x")->kept[0] = 0;
	config_peer(c, "c")->kept[0] = 0;
	config_merge(c, good(HEAD));
	IS(c, "");
	config_sweep(c);
	config_free(c);
}

static void used(void)
{
	struct config *c = good(HEAD PEERS DEV("x", "peers = b c\nserial = one\n") VM("v", "x", "destination = b\n"));
	struct config_device *x = config_device(c, "x");
	struct config_peer *b = config_peer(c, "b");

	/* somebody has a pointer to x: it stays with what it names, and is found again by its name */
	config_merge(c, good(HEAD));
	config_use_device(x);
	config_sweep(c);
	IS(c, "");
	CHECK(!strcmp(x->name, "x") && !strcmp(x->peers[0]->address, "10.0.0.2") && !strcmp(x->create.arg[1], "one") && *x->at.file == '/');
	CHECK(!c->old_guests && c->old_devices == x);
	config_merge(c, good(HEAD "[peer b]\naddress = 10.0.0.7\n" DEV("x", "peers = b\nserial = two\n")));
	CHECK(config_device(c, "x") == x && config_peer(c, "b") == b && x->peers[0] == b);
	config_sweep(c);
	IS(c, "b=10.0.0.7 x=/dev/x:b,--serial,two, ");
	/* nobody says so any more */
	config_merge(c, good(HEAD));
	config_sweep(c);
	CHECK(!c->old_devices && !c->old_peers);
	config_free(c);
}

/* What takes a restart stays as it is, all of it and nothing else. */
static void restart(void)
{
	struct config *c = good("[host]\nname = a\n");
	const struct config_key *k;
	unsigned int taken;

	config_merge(c, good("[host]\nname = z\nlisten = 10.0.0.1\npeer-port = 1\ndata-port = 2\ntransport = plain-tcp\ntls-dir = /x\n"
			     "parallel-migrations = 3\nclass = eth0/1:5\nmigration-rate = 1mbit\nio-rate = 2mbit\ncheck-interval = 1min\n"));
	CHECK(!strcmp(c->host.name, "a") && !*c->host.listen && c->host.peer_port == CONFIG_PEER_PORT && c->host.data_port == CONFIG_DATA_PORT &&
	      !c->host.plain_tcp && !strcmp(c->host.tls_dir, CONFIG_TLS_DIR));
	CHECK(c->host.parallel_migrations == 3 && !strcmp(c->host.class, "eth0/1:5") && c->host.migration_rate == 1000000 &&
	      c->host.io_rate == 2000000 && c->host.check_interval_ms == 60000);
	for (taken = 0, k = config_keys[SECTION_HOST]; k->name; k++)
		taken += k->taken == TAKEN_RESTART;
	CHECK(taken == 6);
	config_free(c);
}

static char diffs[1024];

static void tell(const struct config_key *k, const char *was, const char *is, void *data)
{
	(void)data;
	snprintf(diffs + strlen(diffs), sizeof(diffs) - strlen(diffs), "%s:%s>%s ", k->name, was ?: "-", is ?: "-");
}

static unsigned int diff_of(const char *a, const char *b)
{
	struct config *x = good(a), *y = good(b);
	unsigned int mask = config_diff(SECTION_PEER, x->peers, y->peers, tell, NULL) |
			    config_diff(SECTION_DEVICE, config_device(x, "x"), config_device(y, "x"), tell, NULL);

	config_free(x);
	config_free(y);
	return mask;
}

static void diff(void)
{
	unsigned int mask;

	*diffs = 0;
	mask = diff_of(HEAD PEERS DEV("x", "peers = b\nno-path-timeout = 60s\nremote.dead = 2s\n"),
		       HEAD PEERS DEV("x", "peers = b\nremote.dead = 2s\nno-path-timeout = 60s\n"));
	CHECK(!mask && !*diffs, "%x %s", mask, diffs);
	mask = diff_of(HEAD PEERS DEV("x", "peers = b\nno-path-timeout = 60s\n"), HEAD PEERS DEV("x", "peers = c b\nno-path-timeout = 90s\n"));
	CHECK(mask == (1u << TAKEN_SET | 1u << TAKEN_AT_ONCE) && !strcmp(diffs, "peers:b>c b no-path-timeout:60s>90s "), "%x %s", mask, diffs);
	*diffs = 0;
	mask = diff_of(HEAD PEERS DEV("x", "peers = b\nremote.dead = 2s\nlocal.fence-by = offline\n"), HEAD PEERS DEV("x", "peers = b\nqueues = 2\n"));
	CHECK(mask == (1u << TAKEN_PATH_ANEW | 1u << TAKEN_PATH_SET | 1u << TAKEN_DEVICE_ANEW), "%x", mask);
	CHECK(!strcmp(diffs, "queues:->2 local.fence-by:offline>- remote.dead:2s>- "), "%s", diffs);
	/* what may hold a password is named alone */
	*diffs = 0;
	diff_of(HEAD "[peer b]\naddress = x\nfence-command = off -p secret\n" DEV("x", ""), HEAD "[peer b]\naddress = x\n" DEV("x", ""));
	CHECK(!strncmp(diffs, "fence-command:->- ", 18) && !strstr(diffs, "secret"), "%s", diffs);
}

static const struct ktap_case cases[] = {
	{ "what has the same name stays where it is", in_place },
	{ "what is kept stays as it is", kept },
	{ "what is used stays until it is not", used },
	{ "what takes a restart is not taken up", restart },
	{ "what differs, and what that takes", diff },
};

int main(void)
{
	return config_run(cases, sizeof(cases) / sizeof(*cases));
}
