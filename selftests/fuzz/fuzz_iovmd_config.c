// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzzes iovmd's configuration (userland/iovmd/config*.c) with any bytes as two files, parted at a form feed. What is taken is whole:
 * every name leads to what is there. What is refused comes with sentences, each with a line of its file.
 */
#define _GNU_SOURCE
#include "../../userland/common/json.c"
#include "../../userland/common/parse.c"
#include "../../userland/iovmd/config.c"
#include "../../userland/iovmd/config_errors.c"
#include "../../userland/iovmd/config_keys.c"
#include "../../userland/iovmd/config_check.c"

#define ASSERT(cond) do { \
	if (!(cond)) \
		__builtin_trap(); \
} while (0)

static void args_end(const struct config_args *a)
{
	unsigned int i;

	ASSERT(a->nr <= CONFIG_MAX_ARGS && !a->arg[a->nr]);
	for (i = 0; i < a->nr; i++)
		ASSERT(a->arg[i] && *a->arg[i]);
}

static void is_whole(const struct config *c)
{
	const struct config_device *d;
	const struct config_guest *g;
	const struct config_peer *p;
	unsigned int i;

	ASSERT(*c->host.name && c->host.peer_port && c->host.data_port);
	for (p = c->peers; p; p = p->next)
		ASSERT(config_peer(c, p->name) == p && *p->address && strcmp(p->name, c->host.name));
	for (d = c->devices; d; d = d->next) {
		ASSERT(config_device(c, d->name) == d && (*d->disk || d->nr_peers));
		ASSERT(!*d->disk || *d->disk == '/');
		for (i = 0; i < d->nr_peers; i++)
			ASSERT(config_peer(c, d->peers[i]->name) == d->peers[i]);
		args_end(&d->create);
		args_end(&d->local);
		args_end(&d->remote);
	}
	for (g = c->guests; g; g = g->next) {
		ASSERT(config_guest(c, g->name) == g && g->nr_devices);
		ASSERT(!*g->qmp == !!*g->migrate_command);
		ASSERT(g->destination || g->policy != POLICY_ON_FAILURE);
		for (i = 0; i < g->nr_devices; i++)
			ASSERT(config_device(c, g->devices[i]->name) == g->devices[i]);
	}
}

static void take(struct reader *r, const char *file, const uint8_t *data, size_t n)
{
	char *text = malloc(n ?: 1);	/* of exactly its length */

	ASSERT(text);
	memcpy(text, data, n);
	read_text(r, file, text, n);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const uint8_t *part = memchr(data, '\f', n);
	struct config_errors errs;
	struct reader r;
	struct config *c;
	unsigned int i;

	ASSERT(begin(&r, "a", &errs));
	take(&r, "a", data, part ? (size_t)(part - data) : n);
	if (part)
		take(&r, "b", part + 1, n - (size_t)(part + 1 - data));
	c = finish(&r);
	ASSERT(!c == !!errs.nr);
	for (i = 0; i < errs.nr && i < CONFIG_MAX_ERRORS; i++)
		ASSERT(errs.e[i].at.file && (errs.e[i].at.line || !strcmp(errs.e[i].at.file, "a")) && *errs.e[i].text);
	if (c)
		is_whole(c);
	config_free(c);
	config_errors_free(&errs);
	return 0;
}
