// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * reserve add, remove, list, check: bandwidth for a guest that migrates, below a class of the operator's.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "iovmctl.h"
#include "../common/reserve.h"

static const char *opt_class, *opt_peer;
static struct opt_u64 opt_io, opt_migration, opt_ceil, opt_io_port, opt_migration_port;
static bool opt_serving, opt_all;

static enum exit_code code_of(enum reserve_result res)
{
	switch (res) {
	case RESERVE_DONE:
		return EX_DONE;
	case RESERVE_NO_CLASS:
	case RESERVE_NO_DEVICE:
	case RESERVE_NOT_THERE:
		return EX_NOT_FOUND;
	case RESERVE_NOT_HTB:
	case RESERVE_NO_ROOM:
	case RESERVE_EXISTS:
	case RESERVE_BUSY:
		return EX_REFUSED;
	case RESERVE_NO_RIGHT:
		return EX_NO_ACCESS;
	default:
		return EX_FAILED;
	}
}

static int failed(enum reserve_result res, const struct reserve_msg *msg)
{
	const char *hint = NULL;

	if (res == RESERVE_NO_CLASS || res == RESERVE_NOT_HTB)
		hint = "'tc class show dev DEV' shows the classes; 'iovmctl help reserve check' says what is needed";
	else if (res == RESERVE_EXISTS || res == RESERVE_NO_ROOM || res == RESERVE_NOT_THERE)
		hint = "'iovmctl reserve list' shows what is reserved";
	else if (res == RESERVE_NO_RIGHT)
		hint = "run it as root";
	return fail(code_of(res), hint, "%s", msg->text);
}

/* A reservation as it is shown */
struct reserve_view {
	char name[RESERVE_NAME_MAX];
	char class[IF_NAMESIZE + 16];
	char state[16];
	char peer[INET6_ADDRSTRLEN];
	char io_class[16], migration_class[16];
	uint64_t io, migration, io_ceil, migration_ceil, io_bytes, migration_bytes;
	uint32_t io_port, migration_port, serving;
};

#define R(m)	offsetof(struct reserve_view, m)
static const struct field reserve_fields[] = {
	{ "name", "reservation", F_STR, R(name), .col = "NAME" },
	{ "class", "below class", F_STR, R(class), .col = "CLASS" },
	{ "state", "state", F_STR, R(state), .col = "STATE" },
	{ "io_bps", "I/O", F_RATE, R(io), .col = "IO", .zero = "-" },
	{ "io_ceil_bps", "I/O at most", F_RATE, R(io_ceil), .zero = "-" },
	{ "io_class", "I/O class", F_STR, R(io_class) },
	{ "io_port", "I/O port", F_U32, R(io_port), .zero = "-" },
	{ "io_bytes", "I/O sent", F_SIZE, R(io_bytes), .col = "SENT" },
	{ "migration_bps", "migration", F_RATE, R(migration), .col = "MIGRATION", .zero = "-" },
	{ "migration_ceil_bps", "migration at most", F_RATE, R(migration_ceil), .zero = "-" },
	{ "migration_class", "migration class", F_STR, R(migration_class) },
	{ "migration_port", "migration port", F_U32, R(migration_port), .zero = "-" },
	{ "migration_bytes", "migration sent", F_SIZE, R(migration_bytes), .col = "SENT" },
	{ "peer", "peer", F_STR, R(peer), .col = "PEER" },
	{ "serving", "ports of this host", F_BOOL32, R(serving) },
	{ 0 }
};

#define V(m)	offsetof(struct reserve_room, m)
static const struct field room_fields[] = {
	{ "rate_bps", "guaranteed", F_RATE, V(rate) },
	{ "ceil_bps", "at most", F_RATE, V(ceil) },
	{ "given_bps", "given to classes below", F_RATE, V(given) },
	{ 0 }
};

static void class_name(char *buf, size_t n, uint32_t id)
{
	if (id)
		snprintf(buf, n, "%x:%x", id >> 16, id & 0xffff);
	else
		*buf = 0;
}

static void make_view(struct reserve_view *v, const struct reserve *r)
{
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&r->peer;
	const struct sockaddr_in *four = (const struct sockaddr_in *)&r->peer;
	char id[16];

	memset(v, 0, sizeof(*v));
	strcpy(v->name, r->name);
	class_name(id, sizeof(id), r->parent.id);
	snprintf(v->class, sizeof(v->class), "%s/%s", r->parent.dev, *id ? id : "-");
	strcpy(v->state, r->label ? "reserved" : "left-over");
	class_name(v->io_class, sizeof(v->io_class), r->classid[RESERVE_IO]);
	class_name(v->migration_class, sizeof(v->migration_class), r->classid[RESERVE_MIGRATION]);
	if (r->peer.ss_family == AF_INET)
		inet_ntop(AF_INET, &four->sin_addr, v->peer, sizeof(v->peer));
	else if (r->peer.ss_family == AF_INET6)
		inet_ntop(AF_INET6, &six->sin6_addr, v->peer, sizeof(v->peer));
	v->io = r->rate[RESERVE_IO];
	v->migration = r->rate[RESERVE_MIGRATION];
	v->io_ceil = r->ceil[RESERVE_IO];
	v->migration_ceil = r->ceil[RESERVE_MIGRATION];
	v->io_bytes = r->bytes[RESERVE_IO];
	v->migration_bytes = r->bytes[RESERVE_MIGRATION];
	v->io_port = r->port[RESERVE_IO];
	v->migration_port = r->port[RESERVE_MIGRATION];
	v->serving = r->serving;
}

static int take_class(const struct cmd *cmd, struct reserve *r)
{
	const char *bad;

	if (!opt_class)
		return usage_error(cmd, "give the class to reserve below: --class DEV/MAJOR:MINOR");
	bad = reserve_parse_class(opt_class, &r->parent);
	return bad ? usage_error(cmd, "--class: '%s' %s", opt_class, bad) : EX_DONE;
}

static void take_rates(struct reserve *r)
{
	r->rate[RESERVE_IO] = opt_io.v;
	r->rate[RESERVE_MIGRATION] = opt_migration.v;
	r->ceil[RESERVE_IO] = opt_ceil.v;
	r->ceil[RESERVE_MIGRATION] = opt_ceil.v;
}

static int take_peer(const struct cmd *cmd, struct reserve *r)
{
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)&r->peer;
	struct sockaddr_in *four = (struct sockaddr_in *)&r->peer;

	if (!opt_peer)
		return opt_io_port.set || opt_migration_port.set || opt_serving ?
		       usage_error(cmd, "ports need the address of the peer: --peer ADDR") : EX_DONE;
	if (inet_pton(AF_INET, opt_peer, &four->sin_addr) == 1)
		r->peer.ss_family = AF_INET;
	else if (inet_pton(AF_INET6, opt_peer, &six->sin6_addr) == 1)
		r->peer.ss_family = AF_INET6;
	else
		return usage_error(cmd, "--peer: '%s' is not an address (IPv4 or IPv6; filters know no names)", opt_peer);
	if (!opt_io_port.set && !opt_migration_port.set)
		return usage_error(cmd, "--peer needs the port of what goes by the classes: --io-port or --migration-port");
	if ((opt_io_port.set && !opt_io.v) || (opt_migration_port.set && !opt_migration.v))
		return usage_error(cmd, "a port needs a rate: --io for --io-port, --migration for --migration-port");
	if (opt_io_port.set && opt_io_port.v == opt_migration_port.v)
		return usage_error(cmd, "--io-port and --migration-port are the same: the flows cannot be told apart");
	r->port[RESERVE_IO] = (uint16_t)opt_io_port.v;
	r->port[RESERVE_MIGRATION] = (uint16_t)opt_migration_port.v;
	r->serving = opt_serving;
	return EX_DONE;
}

static int run_reserve_add(int argc, char **argv)
{
	struct reserve r = { 0 };
	struct reserve_view v;
	enum reserve_result res;
	struct reserve_msg msg;
	struct json j;
	int err;

	(void)argc;
	err = take_name(&cmd_reserve_add, "reservation", r.name, argv[0]);
	if (!err)
		err = take_class(&cmd_reserve_add, &r);
	if (err)
		return err;
	if (!opt_io.v && !opt_migration.v)
		return usage_error(&cmd_reserve_add, "give a rate: --io, --migration or both");
	if (opt_ceil.v && (opt_ceil.v < opt_io.v || opt_ceil.v < opt_migration.v))
		return usage_error(&cmd_reserve_add, "--ceil is less than what is guaranteed");
	take_rates(&r);
	err = take_peer(&cmd_reserve_add, &r);
	if (err)
		return err;
	res = reserve_add(&r, &msg);
	if (res)
		return failed(res, &msg);
	if (*msg.text)
		warn("%s", msg.text);
	make_view(&v, &r);
	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		fields_json(&j, reserve_fields, &v);
		json_close(&j);
	} else {
		fields_text(reserve_fields, &v, 0);
	}
	return EX_DONE;
}

static const struct opt add_opts[] = {
	{ "class", 'c', OPT_STR, &opt_class, "DEV/MAJOR:MINOR", "HTB class to reserve below, as tc names it: eth0/1:50.", 0, 0 },
	{ "io", 0, OPT_RATE, &opt_io, "RATE", "What the guest's rerouted I/O is guaranteed.", 0, 0 },
	{ "migration", 0, OPT_RATE, &opt_migration, "RATE", "What the migration is guaranteed.", 0, 0 },
	{ "ceil", 0, OPT_RATE, &opt_ceil, "RATE",
	  "What either may have while nobody else needs it.\nDefault: what the class may have.", 0, 0 },
	{ "peer", 'p', OPT_STR, &opt_peer, "ADDR", "The other host: its IPv4 or IPv6 address.", 0, 0 },
	{ "io-port", 0, OPT_NUM, &opt_io_port, "PORT", "TCP port of the peer that I/O goes to.", 1, 65535 },
	{ "migration-port", 0, OPT_NUM, &opt_migration_port, "PORT", "TCP port of the peer that the migration goes to.", 1, 65535 },
	{ "serving", 0, OPT_FLAG, &opt_serving, NULL, "The ports are this host's: for what a server sends.", 0, 0 },
	{ 0 }
};

#define RATES \
	"RATE is in bits per second, or a number with kbit, mbit, gbit (or k, M, G; powers of 1000) or kibit, mibit, gibit (of\n" \
	"1024). As in tc(8), bps, kbps, mbps, gbps are BYTES per second: 100mbps is 800mbit.\n"

const struct cmd cmd_reserve_add = {
	.name = "reserve add", .args = "NAME", .summary = "Reserve bandwidth for a guest's I/O and migration.",
	.detail =
	"Below an HTB class that you made for it, a class each is made for I/O and for the migration, and filters that lead TCP\n"
	"to those ports of the peer there. It stays until 'reserve remove', or until the device or qdisc goes. See 'reserve\n"
	"check' for what the class has to be like.\n\n" RATES,
	.opts = add_opts, .min_args = 1, .max_args = 1, .run = run_reserve_add,
};

static int run_reserve_remove(int argc, char **argv)
{
	enum reserve_result res;
	struct reserve_msg msg;
	unsigned int n = 1;
	char name[RESERVE_NAME_MAX];
	struct json j;
	int err;

	if (opt_all == (argc > 0))
		return usage_error(&cmd_reserve_remove, "give either a name or --all");
	if (opt_all) {
		res = reserve_cleanup(NULL, NULL, &n, &msg);
	} else {
		err = take_name(&cmd_reserve_remove, "reservation", name, argv[0]);
		if (err)
			return err;
		res = reserve_remove(name, &msg);
	}
	if (res)
		return failed(res, &msg);
	if (*msg.text)
		warn("%s", msg.text);
	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		json_u64(&j, "removed", n);
		json_close(&j);
	} else if (opt_all) {
		printf("%u reservation%s removed\n", n, n == 1 ? "" : "s");
	} else {
		printf("%s: its bandwidth is no longer reserved\n", name);
	}
	return EX_DONE;
}

static const struct opt remove_opts[] = {
	{ "all", 0, OPT_FLAG, &opt_all, NULL, "All there are, and what is left over.", 0, 0 },
	{ 0 }
};

const struct cmd cmd_reserve_remove = {
	.name = "reserve remove", .args = "NAME|--all", .summary = "Release reserved bandwidth.",
	.detail =
	"Classes and filters of the reservation go, and nothing else. What is left over from a command or an agent that was\n"
	"killed at it goes too. What waits in these classes is dropped, and TCP sends it again.\n",
	.opts = remove_opts, .min_args = 0, .max_args = 1, .run = run_reserve_remove,
};

static int run_reserve_list(int argc, char **argv)
{
	struct reserve_view *views;
	enum reserve_result res;
	struct reserve_msg msg;
	struct reserve *list;
	struct json j;
	size_t nr, i;

	(void)argc;
	(void)argv;
	res = reserve_list(&list, &nr, &msg);
	if (res)
		return failed(res, &msg);
	views = calloc(nr ?: 1, sizeof(*views));
	if (!views) {
		free(list);
		return fail(EX_FAILED, NULL, "out of memory");
	}
	for (i = 0; i < nr; i++)
		make_view(&views[i], &list[i]);
	if (opt_json) {
		json_init(&j, stdout, true);
		fields_json_array(&j, NULL, reserve_fields, views, nr, sizeof(*views));
	} else {
		fields_table(reserve_fields, views, nr, sizeof(*views));
	}
	free(views);
	free(list);
	return EX_DONE;
}

const struct cmd cmd_reserve_list = {
	.name = "reserve list", .args = "", .summary = "List reserved bandwidth.",
	.detail =
	"As the kernel has it, in this network namespace, whoever made it. 'left-over' is what a command or an agent was killed\n"
	"at; the next 'reserve add' or 'reserve remove' removes it.\n",
	.min_args = 0, .max_args = 0, .run = run_reserve_list,
};

static int run_reserve_check(int argc, char **argv)
{
	struct reserve r = { 0 };
	struct reserve_room room;
	enum reserve_result res;
	struct reserve_msg msg;
	struct json j;
	int err;

	(void)argc;
	(void)argv;
	err = take_class(&cmd_reserve_check, &r);
	if (err)
		return err;
	take_rates(&r);
	res = reserve_check(&r, &room, &msg);
	if (res)
		return failed(res, &msg);
	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		json_str(&j, "class", opt_class);
		fields_json(&j, room_fields, &room);
		json_close(&j);
	} else {
		printf("%s: bandwidth can be reserved below it\n", opt_class);
		fields_text(room_fields, &room, 2);
	}
	return EX_DONE;
}

static const struct opt check_opts[] = {
	{ "class", 'c', OPT_STR, &opt_class, "DEV/MAJOR:MINOR", "HTB class to reserve below, as tc names it: eth0/1:50.", 0, 0 },
	{ "io", 0, OPT_RATE, &opt_io, "RATE", "Would this rate fit?", 0, 0 },
	{ "migration", 0, OPT_RATE, &opt_migration, "RATE", "And this one beside it?", 0, 0 },
	{ 0 }
};

const struct cmd cmd_reserve_check = {
	.name = "reserve check", .args = "", .summary = "Look whether bandwidth can be reserved below a class.",
	.detail =
	"Changes nothing. The class must be of an HTB qdisc, and for reservations alone: with no qdisc of its own, with no filter\n"
	"that leads to it, and not the one for what no filter takes; a class that gets classes below it does not send by itself\n"
	"any more. Its rate is what can be given away:\n\n"
	"  tc qdisc add dev eth0 root handle 1: htb default 10\n"
	"  tc class add dev eth0 parent 1: classid 1:1 htb rate 10gbit\n"
	"  tc class add dev eth0 parent 1:1 classid 1:10 htb rate 4gbit ceil 10gbit\n"
	"  tc class add dev eth0 parent 1:1 classid 1:50 htb rate 6gbit ceil 10gbit\n"
	"  iovmctl reserve check --class eth0/1:50 --io 2gbit --migration 4gbit\n\n" RATES,
	.opts = check_opts, .min_args = 0, .max_args = 0, .run = run_reserve_check,
};
