// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The configuration as a whole: names to what they name, keys that are missing or do not go together.
 */
#include <stdio.h>
#include <string.h>

#include "config_file.h"

#define FENCE_AFTER_MS	30000
#define EXPORT_SUFFIX	".export"	/* of a device for peers, which iovmd makes of another: see export_name() */

/* Where a key of a section stands */
static struct config_at at_key(const struct section *s, const char *key)
{
	int i = config_find_key(s->kind, key);

	return (struct config_at){ .file = s->at.file, .line = i < 0 || !s->line[i] ? s->at.line : s->line[i] };
}

static bool is_given(const struct section *s, const char *key)
{
	int i = config_find_key(s->kind, key);

	return i >= 0 && s->line[i];
}

/* NULL also when it was no good. */
static const char *value_of(const struct section *s, const char *key)
{
	int i = config_find_key(s->kind, key);

	return i < 0 ? NULL : s->value[i];
}

static bool is_value(const struct section *s, const char *key, const char *value)
{
	const char *is = value_of(s, key);

	return is && !strcmp(is, value);
}

/* "[device x]" for messages */
static const char *title(const struct section *s)
{
	static char bufs[2][IOVM_NAME_MAX + 16];
	static unsigned int turn;
	char *buf = bufs[turn++ % 2];

	snprintf(buf, sizeof(bufs[0]), "[%s%s%s]", section_names[s->kind], *s->name ? " " : "", s->name);
	return buf;
}

static bool needs(struct reader *r, const struct section *s, const char *key, const char *remedy)
{
	if (is_given(s, key))
		return true;
	config_wrong(r, s->at, remedy, "%s has no '%s'", title(s), key);
	return false;
}

/* --- names --- */

static struct section *find(struct reader *r, enum section_kind kind, const char *name)
{
	struct section *s;

	for (s = r->sections; s; s = s->next)
		if (s->kind == kind && !strcmp(s->name, name))
			return s;
	return NULL;
}

/* What a name in a value stands for; says so if there is nothing. */
static struct section *look_up(struct reader *r, const struct section *in, const char *key, enum section_kind kind,
			       const char *name)
{
	struct section *s = find(r, kind, name);
	const struct section *near = NULL;
	unsigned int best = 3, d;
	char remedy[256];

	if (s)
		return s;
	for (s = r->sections; s; s = s->next) {
		d = s->kind == kind ? config_distance(name, s->name) : best;
		if (d < best && d < strlen(name)) {
			best = d;
			near = s;
		}
	}
	if (near)
		snprintf(remedy, sizeof(remedy), "did you mean '%s'?", near->name);
	else
		snprintf(remedy, sizeof(remedy), "add a section [%s %s]", section_names[kind], config_quote(name));
	config_wrong(r, at_key(in, key), remedy, "'%s': there is no %s '%s'", key, section_names[kind], config_quote(name));
	return NULL;
}

/* What each name of a list stands for to found, which holds max; returns how many. */
static unsigned int look_up_all(struct reader *r, const struct section *s, const char *key, enum section_kind kind,
				const struct section **found, unsigned int max)
{
	const char *value = value_of(s, key), *end;
	const struct section *one;
	unsigned int nr = 0, i;
	bool some = false;
	char remedy[64];
	char *name;

	if (!value)
		return 0;
	for (value += strspn(value, " \t,"); *value; value = end + strspn(end, " \t,")) {
		end = value + strcspn(value, " \t,");
		name = config_copy(r, value, (size_t)(end - value));
		one = name ? look_up(r, s, key, kind, name) : NULL;
		some = true;
		if (!one)
			continue;
		for (i = 0; i < nr && found[i] != one;)
			i++;
		if (i < nr) {
			config_wrong(r, at_key(s, key), "name it once", "'%s': '%s' is there twice", key, name);
		} else if (nr == max) {
			snprintf(remedy, sizeof(remedy), "%u at most", max);
			config_wrong(r, at_key(s, key), remedy, "'%s': these are too many", key);
			break;
		} else {
			found[nr++] = one;
		}
	}
	if (!some)
		config_wrong(r, at_key(s, key), "write names, with blanks or commas between them", "'%s': '%s' names nothing", key,
			     config_quote(value_of(s, key)));
	return nr;
}

/* --- hosts --- */

static void check_ports(struct reader *r, const struct section *s, uint16_t peer_port, uint16_t data_port)
{
	const char *key = is_given(s, "data-port") ? "data-port" : "peer-port";

	if (peer_port == data_port)
		config_wrong(r, at_key(s, key), "give two different ones; the defaults are 10808 and 10809",
			     "%s: 'peer-port' and 'data-port' are both %u", title(s), data_port);
}

_Static_assert(CONFIG_PEER_PORT == 10808 && CONFIG_DATA_PORT == 10809, "check_ports() names them");

static void check_host(struct reader *r)
{
	struct section *s = find(r, SECTION_HOST, "");

	if (s)
		check_ports(r, s, r->c->host.peer_port, r->c->host.data_port);
	if (!*r->c->host.name && !(s && is_given(s, "name")))
		config_wrong(r, s ? s->at : (struct config_at){ .file = r->root }, "write 'name = NAME' in [host]",
			     "this host's name is not one that a host can have here");
}

static void check_uri(struct reader *r, const struct section *s)
{
	struct config_peer *p = s->what;
	const char *uri = p->libvirt_uri;
	bool v6 = strchr(p->address, ':');

	if (is_given(s, "libvirt-uri")) {
		if (*uri && (!strstr(uri, "://") || strpbrk(uri, " \t")))
			config_wrong(r, at_key(s, "libvirt-uri"), "write it as virsh takes it: 'qemu+tls://HOST/system'",
				     "'libvirt-uri': '%s' is no URI", config_quote(uri));
		else if (!strncmp(uri, "qemu:///", 8))
			config_wrong(r, at_key(s, "libvirt-uri"), "name that host: 'qemu+tls://HOST/system'",
				     "'libvirt-uri': '%s' is this host's own libvirt", config_quote(uri));
	} else if (*p->address) {
		snprintf(p->libvirt_uri, sizeof(p->libvirt_uri), "qemu+tls://%s%s%s/system", v6 ? "[" : "", p->address, v6 ? "]" : "");
	}
}

static void check_peer(struct reader *r, const struct section *s)
{
	struct config_peer *p = s->what;
	const struct section *o;
	char remedy[256];

	needs(r, s, "address", "write 'address = HOST', a name or an address of that host");
	if (*p->fence_command && !is_given(s, "fence-after"))
		p->fence_after_ms = FENCE_AFTER_MS;
	if (is_given(s, "fence-after") && !*p->fence_command && !is_given(s, "fence-command"))
		config_wrong(r, at_key(s, "fence-after"), "write 'fence-command = COMMAND', which makes sure that the host is off",
			     "'fence-after': there is nothing to be run after it");
	check_ports(r, s, p->peer_port, p->data_port);
	check_uri(r, s);
	if (!strcmp(p->name, r->c->host.name))
		config_wrong(r, s->at, "a peer is another host; 'name' in [host] says what this one is called",
			     "%s is this host's own name", title(s));
	if (!strcmp(p->name, "local"))
		config_wrong(r, s->at, "give the peer the name that it has in its own [host]",
			     "'local' is what the path to a device's own disk is called");
	for (o = r->sections; o != s; o = o->next) {
		const struct config_peer *other = o->what;

		if (o->kind != SECTION_PEER || !*p->address || strcmp(p->address, other->address) ||
		    p->peer_port != other->peer_port)
			continue;
		snprintf(remedy, sizeof(remedy), "see %s:%u; every host has an address of its own", o->at.file, at_key(o, "address").line);
		config_wrong(r, at_key(s, "address"), remedy, "%s has the address of peer '%s'", title(s), other->name);
		break;
	}
}

/* --- devices --- */

/* The keys "local.X" or "remote.X" of how a path is fenced */
static void check_fence(struct reader *r, const struct section *s, const char *side)
{
	char by[32], command[32], after[32], fence[32];
	const char *how;

	snprintf(by, sizeof(by), "%s.fence-by", side);
	snprintf(command, sizeof(command), "%s.fence-command", side);
	snprintf(after, sizeof(after), "%s.fence-after", side);
	snprintf(fence, sizeof(fence), "%s.fence", side);
	if (is_given(s, by) && !value_of(s, by))
		return;
	how = value_of(s, by) ?: is_given(s, command) ? "command" : "hand";
	if (!strcmp(how, "command") && !is_given(s, command))
		config_wrong(r, at_key(s, by), "give the program", "'%s = command' needs '%s'", by, command);
	if (strcmp(how, "command") && is_given(s, command))
		config_wrong(r, at_key(s, command), "remove one of the two", "'%s' contradicts '%s = %s'", command, by, how);
	if (!strcmp(how, "offline") && is_value(s, fence, "none"))
		config_wrong(r, at_key(s, fence), "that is for a directly attached disk, whose errors are final",
			     "'%s = none' contradicts '%s = offline'", fence, by);
	if (!strcmp(how, "hand") && is_given(s, after))
		config_wrong(r, at_key(s, after), "remove it, or say who fences", "'%s' %s '%s%s'", after,
			     is_given(s, by) ? "contradicts" : "does nothing without", by, is_given(s, by) ? " = hand" : "");
}

/* A key that is about paths the device does not have */
static void check_side(struct reader *r, const struct section *s, const char *side, const char *needed)
{
	const struct config_key *k = config_keys[s->kind];
	char remedy[64];
	unsigned int i;

	for (i = 0; k[i].name; i++) {
		if (!s->line[i] || strncmp(k[i].name, side, strlen(side)))
			continue;
		snprintf(remedy, sizeof(remedy), "remove it, or give '%s'", needed);
		config_wrong(r, at_key(s, k[i].name), remedy, "'%s' does nothing without '%s'", k[i].name, needed);
	}
}

static void check_names(struct reader *r, const struct section *s)
{
	size_t len = strlen(s->name), room = IOVM_NAME_MAX - sizeof(EXPORT_SUFFIX);

	if (len > room)
		config_wrong(r, s->at, "56 characters at most: iovmd adds some for what it serves to peers",
			     "[device]: '%s' is too long", s->name);
	else if (len >= strlen(EXPORT_SUFFIX) && !strcmp(s->name + len - strlen(EXPORT_SUFFIX), EXPORT_SUFFIX))
		config_wrong(r, s->at, "such names are for what iovmd serves to peers; give it another one",
			     "[device]: '%s' ends in '" EXPORT_SUFFIX "'", s->name);
}

_Static_assert(IOVM_NAME_MAX - sizeof(EXPORT_SUFFIX) == 56, "check_names() says it");

static void check_device(struct reader *r, const struct section *s)
{
	struct config_device *d = s->what;
	const struct section *o, *peers[CONFIG_MAX_PEERS];
	char remedy[256];
	unsigned int i;

	check_names(r, s);
	d->nr_peers = look_up_all(r, s, "peers", SECTION_PEER, peers, CONFIG_MAX_PEERS);
	for (i = 0; i < d->nr_peers; i++)
		d->peers[i] = peers[i]->what;
	if (!is_given(s, "disk") && !is_given(s, "peers"))
		config_wrong(r, s->at, "write 'disk = /dev/...', or 'peers = NAME', or both",
			     "%s has neither 'disk' nor 'peers'", title(s));
	if (!is_given(s, "disk"))
		check_side(r, s, "local.", "disk");
	if (!is_given(s, "peers"))
		check_side(r, s, "remote.", "peers");
	check_fence(r, s, "local");
	check_fence(r, s, "remote");
	for (o = r->sections; o != s; o = o->next) {
		const struct config_device *other = o->what;

		if (o->kind != SECTION_DEVICE || !*d->disk || strcmp(d->disk, other->disk))
			continue;
		snprintf(remedy, sizeof(remedy), "see %s:%u; a disk is the data of one device", o->at.file, at_key(o, "disk").line);
		config_wrong(r, at_key(s, "disk"), remedy, "'disk': '%s' is that of device '%s'", config_quote(d->disk),
			     other->name);
		break;
	}
}

static bool has_arg(const struct config_args *a, const char *arg)
{
	unsigned int i;

	for (i = 0; i < a->nr; i++)
		if (!strcmp(a->arg[i], arg))
			return true;
	return false;
}

static void check_discard(struct reader *r, const struct section *s)
{
	const struct config_device *d = s->what;

	if (has_arg(&d->create, "--readonly") && has_arg(&d->create, "--discard"))
		config_wrong(r, at_key(s, "discard"), "remove one of the two", "'discard = %s' contradicts 'readonly = %s'",
			     value_of(s, "discard"), value_of(s, "readonly"));
}

/* --- guests --- */

static void check_destination(struct reader *r, const struct section *s)
{
	struct config_guest *g = s->what;
	const char *name = value_of(s, "destination");
	struct section *to = name ? look_up(r, s, "destination", SECTION_PEER, name) : NULL, *of;
	unsigned int i;
	char remedy[256];

	g->destination = to ? to->what : NULL;
	if (g->policy == POLICY_ON_FAILURE && !is_given(s, "destination"))
		config_wrong(r, at_key(s, "migrate"), "write 'destination = PEER', or 'migrate = on-request'",
			     "'migrate = on-failure' needs 'destination'");
	for (i = 0; i < g->nr_devices && to; i++) {
		const struct config_device *d = g->devices[i];

		of = find(r, SECTION_DEVICE, d->name);
		if (config_peer_of(d, g->destination) >= 0 || !of || (is_given(of, "peers") && !value_of(of, "peers")))
			continue;
		snprintf(remedy, sizeof(remedy), "add it to 'peers' there, %s:%u, or choose another", d->at.file, at_key(of, "peers").line);
		config_wrong(r, at_key(s, "destination"), remedy, "'destination': '%s' is no peer of [device %s]", name, d->name);
	}
}

static void check_way(struct reader *r, const struct section *s)
{
	bool command = is_given(s, "migrate-command"), libvirt = is_given(s, "libvirt");
	enum config_way way = command ? WAY_COMMAND : libvirt ? WAY_LIBVIRT : WAY_QMP;
	const struct config_key *k = config_keys[s->kind];
	struct config_guest *g = s->what;
	struct config_at at;
	unsigned int i;

	if (way == WAY_QMP)
		needs(r, s, "qmp",
		      "write 'qmp = /PATH', its QEMU's QMP socket for iovmd alone, or 'libvirt = DOMAIN', or 'migrate-command'");
	for (i = 0; k[i].name; i++) {
		if (!s->line[i] || !k[i].ways || k[i].ways & 1u << way)
			continue;
		at = at_key(s, k[i].name);
		if (command && k[i].ways == 1 << WAY_LIBVIRT)
			config_wrong(r, at, "the command is run instead; remove one of the two", "'%s' contradicts 'migrate-command'",
				     k[i].name);
		else if (command)
			config_wrong(r, at, "the command is run instead of QMP; remove one of the two",
				     "'%s' contradicts 'migrate-command'", k[i].name);
		else if (libvirt)
			config_wrong(r, at, "libvirt is asked instead of QEMU; remove one of the two", "'%s' contradicts 'libvirt'",
				     k[i].name);
		else
			config_wrong(r, at, "remove it, or give 'libvirt'", "'%s' does nothing without 'libvirt'", k[i].name);
	}
	if (!is_given(s, "libvirt-tls"))
		g->libvirt_tls = !r->c->host.plain_tcp;
}

/* "x@.service" is the guest's own: "x@vm1.service" */
static void check_unit(struct reader *r, const struct section *s)
{
	struct config_guest *g = s->what;
	char *at = strstr(g->unit, "@.");

	if (at) {
		memmove(at + 1 + strlen(g->name), at + 1, strlen(at + 1) + 1);
		memcpy(at + 1, g->name, strlen(g->name));
	}
	if (is_given(s, "unit") && is_given(s, "command"))
		config_wrong(r, at_key(s, "command"), "the unit starts its QEMU; remove one of the two", "'command' contradicts 'unit'");
}

static bool shares(const struct config_guest *a, const struct config_device *d)
{
	unsigned int i;

	for (i = 0; i < a->nr_devices; i++)
		if (a->devices[i] == d)
			return true;
	return false;
}

static void check_guest(struct reader *r, const struct section *s)
{
	struct config_guest *g = s->what;
	const struct section *o, *devices[CONFIG_MAX_DEVICES];
	char remedy[256];
	unsigned int i;

	if (needs(r, s, "devices", "write 'devices = NAME', what it has of the devices that are configured"))
		g->nr_devices = look_up_all(r, s, "devices", SECTION_DEVICE, devices, CONFIG_MAX_DEVICES);
	for (i = 0; i < g->nr_devices; i++)
		g->devices[i] = devices[i]->what;
	check_way(r, s);
	check_unit(r, s);
	check_destination(r, s);
	for (o = r->sections; o != s; o = o->next) {
		const struct config_guest *other = o->what;

		if (o->kind != SECTION_GUEST)
			continue;
		if (*g->libvirt && !strcmp(g->libvirt, other->libvirt)) {
			snprintf(remedy, sizeof(remedy), "see %s:%u; a domain is one guest", o->at.file, at_key(o, "libvirt").line);
			config_wrong(r, at_key(s, "libvirt"), remedy, "'libvirt': '%s' is guest '%s''s", g->libvirt, other->name);
		}
		if (*g->unit && !strcmp(g->unit, other->unit)) {
			snprintf(remedy, sizeof(remedy), "see %s:%u; every QEMU has a unit of its own", o->at.file, at_key(o, "unit").line);
			config_wrong(r, at_key(s, "unit"), remedy, "'unit': '%s' is guest '%s''s", g->unit, other->name);
		}
		snprintf(remedy, sizeof(remedy), "see %s:%u; a device is one guest's", o->at.file, at_key(o, "devices").line);
		for (i = 0; i < g->nr_devices; i++)
			if (shares(other, g->devices[i]))
				config_wrong(r, at_key(s, "devices"), remedy, "'devices': '%s' is guest '%s''s", g->devices[i]->name,
					     other->name);
		if (!*g->qmp || strcmp(g->qmp, other->qmp))
			continue;
		snprintf(remedy, sizeof(remedy), "see %s:%u; every QEMU has a socket of its own", o->at.file, at_key(o, "qmp").line);
		config_wrong(r, at_key(s, "qmp"), remedy, "'qmp': '%s' is guest '%s''s", config_quote(g->qmp), other->name);
	}
}

/* --- all of it --- */

void config_check(struct reader *r)
{
	struct section *s;

	check_host(r);
	for (s = r->sections; s; s = s->next) {
		if (s->kind == SECTION_PEER) {
			check_peer(r, s);
		} else if (s->kind == SECTION_DEVICE) {
			check_device(r, s);
			check_discard(r, s);
		}
	}
	/* their devices' peers are known now */
	for (s = r->sections; s; s = s->next)
		if (s->kind == SECTION_GUEST)
			check_guest(r, s);
}
