// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The keys of the configuration, and what a value must be. See iovmd.conf(5), which has them all.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config_file.h"
#include "../common/parse.h"

#define DAY_MS		86400000u
#define HOUR_MS		3600000u
#define SETTLE_MS	10000
#define FLAPS		3
#define FLAPS_MAX	30
#define FLAP_WINDOW_MS	(5 * 60000)
#define CHECK_MS	(10 * 60000)

/* --- the keys --- */

static const char *const transports[] = { "tls", "plain-tcp", NULL };
static const char *const policies[] = { "on-request", "on-failure", "never", NULL };
static const char *const caches[] = { "survives", "dies", NULL };
static const char *const local_fences[] = { "local-error", "none", NULL };
static const char *const remote_fences[] = { "none", "epoch", NULL };
/* no reservation: it takes two paths by block devices, and a disk that nothing else shares */
static const char *const local_fence_bys[] = { "hand", "command", "offline", NULL };
static const char *const remote_fence_bys[] = { "hand", "command", NULL };
static const char *const block_sizes[] = { "512", "4096", NULL };

#define TO(type, member)	.off = offsetof(struct type, member), .size = sizeof(((struct type *)NULL)->member)
#define HOST(member)		TO(config_host, member)
#define PEER(member)		TO(config_peer, member)
#define DEVICE(member)		TO(config_device, member)
#define GUEST(member)		TO(config_guest, member)

static const struct config_key host_keys[] = {
	{ "name", V_NAME, HOST(name), .taken = TAKEN_RESTART },
	{ "listen", V_LISTEN, HOST(listen), .taken = TAKEN_RESTART },
	{ "peer-port", V_PORT, HOST(peer_port), .taken = TAKEN_RESTART },
	{ "data-port", V_PORT, HOST(data_port), .taken = TAKEN_RESTART },
	{ "transport", V_CHOICE, HOST(plain_tcp), .names = transports, .taken = TAKEN_RESTART },
	{ "tls-dir", V_FILE, HOST(tls_dir), .taken = TAKEN_RESTART },
	{ "class", V_CLASS, HOST(class) },
	{ "io-rate", V_RATE, HOST(io_rate) },
	{ "migration-rate", V_RATE, HOST(migration_rate) },
	{ "check-interval", V_TIME, HOST(check_interval_ms), .min = 1000, .max = DAY_MS },
	{ "parallel-migrations", V_NUM, HOST(parallel_migrations), .min = 1, .max = 64 },
	{ 0 }
};

static const struct config_key peer_keys[] = {
	{ "address", V_HOST, PEER(address) },
	{ "peer-port", V_PORT, PEER(peer_port) },
	{ "data-port", V_PORT, PEER(data_port) },
	{ "libvirt-uri", V_TEXT, PEER(libvirt_uri), .max = CONFIG_URI_MAX - 1 },
	{ "fence-command", V_COMMAND, PEER(fence_command) },
	{ "fence-after", V_TIME, PEER(fence_after_ms), .min = 1000, .max = HOUR_MS, .nonzero = true },
	{ 0 }
};

/* An option of 'iovmctl create', and one of 'iovmctl path add', for the path to the disk, to peers, or both */
#define OPTION(prefix, name, kind, to, takes, ...) \
	{ prefix name, kind, DEVICE(to), .args = true, .option = name, .taken = takes, ##__VA_ARGS__ }
#define CREATE(name, kind, ...)	OPTION("", name, kind, create, TAKEN_DEVICE_ANEW, ##__VA_ARGS__)
#define LOCAL(name, kind, ...)	OPTION("local.", name, kind, local, TAKEN_DEVICE_ANEW, ##__VA_ARGS__)
#define REMOTE(name, kind, ...)	OPTION("remote.", name, kind, remote, TAKEN_PATH_ANEW, ##__VA_ARGS__)
#define PATH(name, kind, ...)	LOCAL(name, kind, ##__VA_ARGS__), REMOTE(name, kind, ##__VA_ARGS__)
/* Those that 'iovmctl set' changes, with what it is told for the default; and 'iovmctl path set' */
#define CREATE_SET(name, kind, is, ...)	OPTION("", name, kind, create, TAKEN_SET, .fallback = is, ##__VA_ARGS__)
#define LOCAL_SET(name, kind, ...)	OPTION("local.", name, kind, local, TAKEN_PATH_SET, ##__VA_ARGS__)
#define REMOTE_SET(name, kind, ...)	OPTION("remote.", name, kind, remote, TAKEN_PATH_SET, ##__VA_ARGS__)
#define PATH_SET(name, kind, ...)	LOCAL_SET(name, kind, ##__VA_ARGS__), REMOTE_SET(name, kind, ##__VA_ARGS__)

static const struct config_key device_keys[] = {
	{ "disk", V_FILE, DEVICE(disk), .taken = TAKEN_DEVICE_ANEW },
	{ .name = "peers", .kind = V_PEERS },
	CREATE("serial", V_TEXT, .max = IOVM_SERIAL_MAX),
	CREATE("block-size", V_CHOICE, .names = block_sizes),
	CREATE("queues", V_NUM, .min = 1, .max = IOVM_MAX_QUEUES),
	CREATE("queue-size", V_NUM, .min = 2, .max = 1024, .power = true),
	CREATE("seg-max", V_NUM, .min = 1, .max = 1024),
	CREATE("readonly", V_BOOL),
	CREATE("discard", V_BOOL, .option_no = "no-discard"),
	CREATE("max-discard", V_SIZE, .min = 4096, .max = 1ULL << 40),
	{ "write-zeroes", V_BOOL, DEVICE(create), .args = true, .option_no = "no-write-zeroes", .taken = TAKEN_DEVICE_ANEW },
	CREATE("max-write-zeroes", V_SIZE, .min = 4096, .max = 1ULL << 40),
	CREATE_SET("iops", V_COUNT, "0"),
	CREATE_SET("bps", V_SIZE, "0"),
	CREATE_SET("no-path-timeout", V_TIME, "5min"),
	CREATE_SET("no-space-timeout", V_TIME, "never"),
	CREATE_SET("failback-after", V_TIME, "0"),
	CREATE_SET("slow-factor", V_FACTOR, "4", .min = 2, .max = 1000),
	CREATE_SET("leave-slow", V_TIME, "never"),
	CREATE("identity", V_IDENTITY),
	CREATE("bounce-reads", V_BOOL),
	CREATE("owner", V_OWNER),
	CREATE("mode", V_MODE),
	REMOTE("connections", V_NUM, .min = 1, .max = IOVM_MAX_SOCKETS),
	PATH("cache", V_CHOICE, .names = caches),
	LOCAL("fence", V_CHOICE, .names = local_fences),
	REMOTE("fence", V_CHOICE, .names = remote_fences),
	LOCAL_SET("fence-by", V_CHOICE, .names = local_fence_bys),
	REMOTE_SET("fence-by", V_CHOICE, .names = remote_fence_bys),
	PATH_SET("fence-command", V_FILE),
	PATH_SET("fence-after", V_TIME, .min = 0, .max = HOUR_MS),
	PATH("assume-same-data", V_BOOL),
	PATH("io-timeout", V_TIME, .min = 20, .max = HOUR_MS),
	REMOTE("heartbeat", V_TIME_MS, .min = 1, .max = HOUR_MS, .nonzero = true),
	REMOTE("dead", V_TIME_MS, .min = 1, .max = HOUR_MS, .nonzero = true),
	{ 0 }
};

#define QMP_ALONE	.ways = 1 << WAY_QMP
#define OURS		.ways = 1 << WAY_QMP | 1 << WAY_LIBVIRT

static const struct config_key guest_keys[] = {
	{ .name = "devices", .kind = V_DEVICES },
	{ "qmp", V_FILE, GUEST(qmp), QMP_ALONE },
	{ .name = "destination", .kind = V_PEER },
	{ "migrate", V_CHOICE, GUEST(policy), .names = policies },
	{ "settle", V_TIME, GUEST(settle_ms), .max = DAY_MS },
	{ "flaps", V_NUM, GUEST(flaps), .max = FLAPS_MAX },
	{ "flap-window", V_TIME, GUEST(flap_window_ms), .min = 1000, .max = DAY_MS, .nonzero = true },
	{ "group", V_NAME, GUEST(group) },
	{ "command", V_COMMAND, GUEST(command), QMP_ALONE },
	{ "unit", V_UNIT, GUEST(unit), QMP_ALONE },
	{ "libvirt", V_NAME, GUEST(libvirt), .ways = 1 << WAY_LIBVIRT },
	{ "libvirt-tls", V_BOOL, GUEST(libvirt_tls), .ways = 1 << WAY_LIBVIRT },
	{ "migrate-command", V_COMMAND, GUEST(migrate_command) },
	{ "max-downtime", V_TIME_MS, GUEST(max_downtime_ms), .min = 1, .max = 2000000, .nonzero = true, OURS },
	{ "max-bandwidth", V_SIZE, GUEST(max_bandwidth), OURS },
	{ "channels", V_NUM, GUEST(channels), .min = 1, .max = 255, OURS },
	{ "auto-converge", V_BOOL, GUEST(auto_converge), OURS },
	{ "timeout", V_TIME, GUEST(timeout_ms), .min = 1000, .max = 7 * DAY_MS },
	{ 0 }
};

#define FITS(table)	_Static_assert(sizeof(table) / sizeof(*(table)) <= CONFIG_MAX_KEYS, \
	"struct section has room for " #table)
FITS(host_keys);
FITS(peer_keys);
FITS(device_keys);
FITS(guest_keys);

const struct config_key *const config_keys[NR_SECTION_KINDS] = { host_keys, peer_keys, device_keys, guest_keys };

/* --- what is so when nothing is said --- */

void config_defaults(enum section_kind kind, void *what)
{
	struct config_host *h = what;
	struct config_peer *p = what;
	struct config_guest *g = what;
	char name[256] = "";

	switch (kind) {
	case SECTION_HOST:
		h->at.file = "";
		h->peer_port = CONFIG_PEER_PORT;
		h->data_port = CONFIG_DATA_PORT;
		h->check_interval_ms = CHECK_MS;
		h->parallel_migrations = 1;
		strcpy(h->tls_dir, CONFIG_TLS_DIR);
		gethostname(name, sizeof(name) - 1);
		name[strcspn(name, ".")] = 0;
		if (!parse_name(name))
			strcpy(h->name, name);
		break;
	case SECTION_PEER:
		p->peer_port = CONFIG_PEER_PORT;
		p->data_port = CONFIG_DATA_PORT;
		break;
	case SECTION_GUEST:
		g->policy = POLICY_ON_REQUEST;
		g->settle_ms = SETTLE_MS;
		g->flaps = FLAPS;
		g->flap_window_ms = FLAP_WINDOW_MS;
		g->auto_converge = true;
		break;
	default:
		break;
	}
}

_Static_assert(POLICY_ON_REQUEST == 0 && POLICY_ON_FAILURE == 1 && POLICY_NEVER == 2, "policies[] is in this order");

/* --- values --- */

/**
 * struct value - a value that was understood
 * @text: of a char[]
 * @n: of anything else
 */
struct value {
	const char *text;
	uint64_t n;
};

static const char *check_range(const struct config_key *k, uint64_t v, char why[128])
{
	bool time = k->kind == V_TIME || k->kind == V_TIME_MS;

	if (k->power && (v & (v - 1)))
		return "is not a power of two (give one, as 128 or 256)";
	if (!k->max || (v >= k->min && v <= k->max) || (time && !v && !k->nonzero) || (k->kind == V_FACTOR && v == UINT32_MAX))
		return NULL;
	if (time)
		snprintf(why, 128, "is not from %" PRIu64 "ms to %" PRIu64 "s (give a time between these%s)", k->min, k->max / 1000,
			 k->nonzero ? "" : ", or 'never'");
	else
		snprintf(why, 128, "is not from %" PRIu64 " to %" PRIu64 " (give a number between these)", k->min, k->max);
	return why;
}

static const char *check_choice(const struct config_key *k, const char *text, struct value *v, char why[128])
{
	const char *near = config_nearest(text, k->names);
	char list[96] = "";
	size_t i;

	for (i = 0; k->names[i]; i++) {
		if (!strcmp(k->names[i], text)) {
			v->n = i;
			return NULL;
		}
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", !i ? "" : k->names[i + 1] ? ", " : " or ",
			 k->names[i]);
	}
	if (near)
		snprintf(why, 128, "is not known here (did you mean '%s'?)", near);
	else
		snprintf(why, 128, "is not known here (write %s)", list);
	return why;
}

static const char *check_file(const char *text)
{
	if (*text != '/')
		return "is not an absolute path (give all of it, from '/' on)";
	if (strlen(text) >= IOVM_ADDR_MAX)
		return "is too long (255 bytes at most)";
	return NULL;
}

/* The shell finds a program by a bare name, but iovmd is in no directory that is of use to a relative one. */
static const char *check_command(const char *text)
{
	const char *slash = strchr(text, '/');

	if (slash && slash != text && slash < text + strcspn(text, " \t\"'$=;&|<>()"))
		return "names a program by a relative path (give all of it, from '/' on)";
	if (strlen(text) >= IOVM_ADDR_MAX)
		return "is too long (255 bytes at most; put it in a script)";
	return NULL;
}

/* A service's name, or that of a template, whose instance is the guest then: "x@.service"; config_check() has room for it */
static const char *check_unit_name(const char *text)
{
	const char *suffix = strrchr(text, '.'), *at = strchr(text, '@');

	if (text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:-_.\\@")] || !suffix ||
	    strcmp(suffix, ".service") || suffix == text || at == text || (at && strchr(at + 1, '@')))
		return "is not the name of a service (write it as systemctl has it: 'NAME@.service' or 'NAME.service')";
	if (strlen(text) >= CONFIG_UNIT_MAX - IOVM_NAME_MAX)
		return "is too long (191 bytes at most)";
	return NULL;
}

_Static_assert(CONFIG_UNIT_MAX - IOVM_NAME_MAX - 1 == 191, "check_unit_name() says it");

/* Among the arguments of a command it is not to look like an option. */
static const char *check_text(const struct config_key *k, const char *text, char why[128])
{
	if (!strncmp(text, "--", 2))
		return "looks like an option (begin it with something else than '--')";
	if (strlen(text) <= k->max)
		return NULL;
	snprintf(why, 128, "is too long (%" PRIu64 " bytes at most)", k->max);
	return why;
}

/* What is wrong with a value, with the remedy in parentheses, or NULL. */
static const char *understand(const struct config_key *k, const char *text, struct value *v, char why[128])
{
	uint32_t uid = 0, gid = 0, mode;
	const char *bad = NULL;
	uint16_t port = 0;
	char dev[16];
	bool b = false;

	v->text = text;
	switch (k->kind) {
	case V_NAME:
		return parse_name(text);
	case V_LISTEN:
		if (!strcmp(text, "*")) {
			v->text = "";
			return NULL;
		}
		/* fall through */
	case V_HOST:
		return parse_host(text);
	case V_FILE:
		return check_file(text);
	case V_COMMAND:
		return check_command(text);
	case V_UNIT:
		return check_unit_name(text);
	case V_CLASS:
		return parse_tc_class(text, dev, &mode);
	case V_TEXT:
		return check_text(k, text, why);
	case V_PORT:
		bad = parse_port(text, &port);
		v->n = port;
		return bad;
	case V_BOOL:
		bad = parse_bool(text, &b);
		v->n = b;
		return bad;
	case V_CHOICE:
		return check_choice(k, text, v, why);
	case V_NUM:
	case V_COUNT:
		bad = parse_count(text, &v->n);
		break;
	case V_SIZE:
		bad = parse_size(text, &v->n);
		break;
	case V_RATE:
		bad = parse_rate(text, &v->n);
		break;
	case V_TIME:
		bad = parse_duration(text, 1000, &v->n);
		break;
	case V_TIME_MS:
		bad = parse_duration(text, 1, &v->n);
		break;
	case V_FACTOR:
		bad = parse_factor(text, &v->n);
		break;
	case V_IDENTITY:
		return parse_identity(text);
	case V_OWNER:
		return parse_owner(text, &uid, &gid);
	case V_MODE:
		return parse_mode(text, &mode);
	case V_PEER:
		return parse_name(text);
	case V_PEERS:
	case V_DEVICES:
		return NULL;
	}
	return bad ?: check_range(k, v->n, why);
}

static void add_arg(struct reader *r, struct config_args *a, const char *option, const char *value)
{
	char *dashes = config_alloc(r, strlen(option) + 3);

	if (!dashes || a->nr + 2 > CONFIG_MAX_ARGS)
		return;
	sprintf(dashes, "--%s", option);
	a->arg[a->nr++] = dashes;
	if (value)
		a->arg[a->nr++] = value;
}

_Static_assert(2 * CONFIG_MAX_KEYS <= 2 * CONFIG_MAX_ARGS, "add_arg() has room: at most 2 for each option of a command");

static void store(struct reader *r, const struct config_key *k, const struct value *v)
{
	char *to = (char *)r->now->what + k->off;
	const char *option;

	if (k->args && k->kind == V_BOOL) {
		option = v->n ? k->option : k->option_no;
		if (option)
			add_arg(r, (struct config_args *)(void *)to, option, NULL);
	} else if (k->args) {
		add_arg(r, (struct config_args *)(void *)to, k->option, v->text);
	} else {
		switch (k->kind) {
		case V_NAME:
		case V_HOST:
		case V_LISTEN:
		case V_FILE:
		case V_COMMAND:
		case V_UNIT:
		case V_CLASS:
		case V_TEXT:
			snprintf(to, k->size, "%s", v->text);
			break;
		case V_PEER:
		case V_PEERS:
		case V_DEVICES:
			break;
		default:
			if (k->size == sizeof(uint64_t))
				*(uint64_t *)(void *)to = v->n;
			else if (k->size == sizeof(uint32_t))
				*(uint32_t *)(void *)to = (uint32_t)v->n;
			else if (k->size == sizeof(uint16_t))
				*(uint16_t *)(void *)to = (uint16_t)v->n;
			else
				*(bool *)to = v->n;
		}
	}
}

/* --- lines --- */

int config_find_key(enum section_kind kind, const char *name)
{
	const struct config_key *k = config_keys[kind];
	int i;

	for (i = 0; k[i].name; i++)
		if (!strcmp(k[i].name, name))
			return i;
	return -1;
}

/* A key of a section by a name that is none of them */
static const char *near_key(enum section_kind kind, const char *name)
{
	const char *names[CONFIG_MAX_KEYS];
	int i;

	for (i = 0; config_keys[kind][i].name; i++)
		names[i] = config_keys[kind][i].name;
	names[i] = NULL;
	return config_nearest(name, names);
}

static bool has_key(enum section_kind kind, const char *prefix, const char *name)
{
	char full[64];

	snprintf(full, sizeof(full), "%s%s", prefix, name);
	return config_find_key(kind, full) >= 0;
}

/* What may have been meant by a key that a section does not have */
static void unknown_key(struct reader *r, const char *name)
{
	static const char *const sides[] = { "local.", "remote." };
	enum section_kind kind = r->now->kind;
	char remedy[160] = "iovmd.conf(5) has them all";
	const char *near = near_key(kind, name);
	unsigned int k, side;

	for (side = 0; side < 2 && strncmp(name, sides[side], strlen(sides[side]));)
		side++;
	for (k = 0; k < NR_SECTION_KINDS && config_find_key(k, name) < 0;)
		k++;
	if (k < NR_SECTION_KINDS) {
		snprintf(remedy, sizeof(remedy), "it belongs in [%s%s]", section_names[k], k == SECTION_HOST ? "" : " NAME");
	} else if (!strncmp(name, "no-", 3) && has_key(kind, "", name + 3)) {
		snprintf(remedy, sizeof(remedy), "write '%s = no'", name + 3);
	} else if (has_key(kind, "local.", name) && has_key(kind, "remote.", name)) {
		snprintf(remedy, sizeof(remedy), "write 'local.%s' for the path to the disk, 'remote.%s' for those to peers", name,
			 name);
	} else if (has_key(kind, "local.", name) || has_key(kind, "remote.", name)) {
		snprintf(remedy, sizeof(remedy), "write '%s%s'", sides[has_key(kind, "remote.", name)], name);
	} else if (side < 2 && has_key(kind, sides[!side], name + strlen(sides[side]))) {
		snprintf(remedy, sizeof(remedy), "only %s it: write '%s%s'",
			 side ? "the path to the disk has" : "paths to peers have", sides[!side], name + strlen(sides[side]));
	} else if (side < 2 && has_key(kind, "", name + strlen(sides[side]))) {
		snprintf(remedy, sizeof(remedy), "it is no option of a path: write '%s'", name + strlen(sides[side]));
	} else if (near) {
		snprintf(remedy, sizeof(remedy), "did you mean '%s'?", near);
	}
	config_wrong(r, r->at, remedy, "'%s' is not a key of [%s]", config_quote(name), section_names[kind]);
}

void config_take(struct reader *r, const char *name, const char *value, bool quoted)
{
	struct section *s = r->now;
	int i = config_find_key(s->kind, name);
	const struct config_key *k;
	char why[128], what[192];
	const char *bad;
	struct value v = { 0 };

	if (i < 0) {
		unknown_key(r, name);
		return;
	}
	k = &config_keys[s->kind][i];
	if (s->line[i]) {
		snprintf(what, sizeof(what), "the first is in line %u; remove one of them", s->line[i]);
		config_wrong(r, r->at, what, "'%s' is there twice", name);
		return;
	}
	s->line[i] = r->at.line;
	if (!*value) {
		config_wrong(r, r->at, "remove the line for what is so by default, or give it one", "'%s' has no value", name);
		return;
	}
	if (!quoted && (strstr(value, " #") || strstr(value, "\t#"))) {
		config_wrong(r, r->at, "put the comment on a line of its own, or the value in quotes",
			     "'%s': a comment follows the value", name);
		return;
	}
	value = config_copy(r, value, strlen(value));
	if (!value)
		return;
	bad = understand(k, value, &v, why);
	if (bad) {
		snprintf(what, sizeof(what), "'%s': '%s'", name, config_quote(value));
		config_bad(r, r->at, what, bad);
		return;
	}
	s->value[i] = value;
	store(r, k, &v);
}
