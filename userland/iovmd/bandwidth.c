// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Bandwidth for a guest that migrates. Where [host] names an HTB class, a rate for its rerouted I/O and one for its migration are
 * reserved below that, on the host that it leaves for what is sent to the peer, and on the peer for what its export sends back. They are
 * in the kernel alone, by the name "iovmd.GUEST", so that the next iovmd can remove what one that was killed has left.
 *
 * Done by the workers, since there may be somebody else at it, who is waited for; but for what bandwidth_start() removes.
 */
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "iovmd.h"
#include "rules.h"
#include "../common/parse.h"
#include "../common/reserve.h"

#define PREFIX	"iovmd."

/* A guest whose name is too long for both shares its reservation's name with others that begin alike; then one of them has none. */
static void name_of_reservation(char name[RESERVE_NAME_MAX], const struct config_guest *g)
{
	snprintf(name, RESERVE_NAME_MAX, PREFIX "%.*s", (int)(RESERVE_NAME_MAX - sizeof(PREFIX)), g->name);
}

uint64_t bandwidth_of_migration(const struct config_guest *g)
{
	return rule_migration_bytes(agent.config->host.migration_rate, g->max_bandwidth);
}

static bool resolve(const struct config_peer *p, struct sockaddr_storage *address, char why[WHY_MAX])
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *list;
	int r = getaddrinfo(p->address, NULL, &hints, &list);

	if (r) {
		snprintf(why, WHY_MAX, "the address of '%s' is not known: %s", p->name, gai_strerror(r));
		return false;
	}
	memcpy(address, list->ai_addr, list->ai_addrlen);
	freeaddrinfo(list);
	return true;
}

static void say_what(const struct reserve *r, char text[WHY_MAX])
{
	char io[32], migration[32];

	format_rate(io, sizeof(io), r->rate[RESERVE_IO]);
	format_rate(migration, sizeof(migration), r->rate[RESERVE_MIGRATION]);
	snprintf(text, WHY_MAX, "%s%s%s%s%s below %s", r->rate[RESERVE_IO] ? io : "", r->rate[RESERVE_IO] ? " for I/O" : "",
		 r->rate[RESERVE_IO] && r->rate[RESERVE_MIGRATION] ? ", " : "", r->rate[RESERVE_MIGRATION] ? migration : "",
		 r->rate[RESERVE_MIGRATION] ? " for the migration" : "", agent.config->host.class);
}

/* What is wanted of it all; false: nothing, and why. */
static bool wish(struct reserve *r, const struct config_guest *g, const struct config_peer *p, const char *uri, char text[WHY_MAX])
{
	const struct config_host *h = &agent.config->host;
	bool leaves = uri;

	memset(r, 0, sizeof(*r));
	name_of_reservation(r->name, g);
	if (!*h->class || reserve_parse_class(h->class, &r->parent)) {
		snprintf(text, WHY_MAX, "[host] names no 'class' to reserve it below");
		return false;
	}
	r->rate[RESERVE_IO] = h->io_rate;
	if (leaves && rule_port(uri))
		r->rate[RESERVE_MIGRATION] = h->migration_rate;
	if (!r->rate[RESERVE_IO] && !r->rate[RESERVE_MIGRATION]) {
		snprintf(text, WHY_MAX, "[host] has neither 'io-rate' nor 'migration-rate'");
		return false;
	}
	if (r->rate[RESERVE_IO])
		r->port[RESERVE_IO] = leaves ? p->data_port : h->data_port;
	if (r->rate[RESERVE_MIGRATION])
		r->port[RESERVE_MIGRATION] = rule_port(uri);
	r->serving = !leaves;
	return resolve(p, &r->peer, text);
}

bool bandwidth_reserve(const struct config_guest *g, const struct config_peer *p, const char *uri, char text[WHY_MAX])
{
	struct reserve r, migration;
	struct reserve_msg msg;
	enum reserve_result res;

	if (!wish(&r, g, p, uri, text))
		return false;
	res = reserve_add(&r, &msg);
	/* of a guest that was to be migrated before, and whoever did it was killed */
	if (res == RESERVE_EXISTS && !reserve_remove(r.name, &msg)) {
		wish(&r, g, p, uri, text);
		res = reserve_add(&r, &msg);
	}
	/* I/O to that host has a reservation already, by another guest's migration: they share it */
	if (res == RESERVE_EXISTS && r.rate[RESERVE_IO] && r.rate[RESERVE_MIGRATION]) {
		wish(&migration, g, p, uri, text);
		migration.rate[RESERVE_IO] = 0;
		migration.port[RESERVE_IO] = 0;
		if (!reserve_add(&migration, &msg)) {
			r = migration;
			res = RESERVE_DONE;
		}
	}
	if (res)
		snprintf(text, WHY_MAX, "%s", msg.text);
	else
		say_what(&r, text);
	return !res;
}

bool bandwidth_release(const struct config_guest *g)
{
	char name[RESERVE_NAME_MAX];
	struct reserve_msg msg;
	enum reserve_result res;

	if (!*agent.config->host.class)
		return false;
	name_of_reservation(name, g);
	res = reserve_remove(name, &msg);
	if (res && res != RESERVE_NOT_THERE)
		warning("guest '%s': its bandwidth stays reserved: %s", g->name, msg.text);
	return !res;
}

/* The operator's own; and those of guests that are on their way here, which are released when that has ended. */
static bool is_kept(const char *name, void *arg)
{
	const struct config_guest *g;
	char of[RESERVE_NAME_MAX];

	(void)arg;
	for (g = agent.config->guests; g; g = g->next) {
		name_of_reservation(of, g);
		if (!strcmp(of, name) && arrival_comes(g))
			return true;
	}
	return strncmp(name, PREFIX, strlen(PREFIX));
}

void bandwidth_start(void)
{
	struct reserve_msg msg;
	unsigned int nr = 0;

	if (reserve_cleanup(is_kept, NULL, &nr, &msg) && *agent.config->host.class)
		warning("what an earlier iovmd reserved may still be there: %s", msg.text);
	if (nr)
		info("%u reservation%s of an earlier iovmd removed", nr, nr == 1 ? "" : "s");
}
