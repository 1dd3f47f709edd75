// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which guests are to be migrated, and when: of those that have lost a disk for long enough, and have not lost and found it again and
 * again; of those whose group goes; and of all, when the host is drained. So many at a time as is configured.
 */
#include <stdlib.h>
#include <string.h>

#include "guest.h"

#define FOLLOW_MS	600000	/* a group follows the first of it so long after that has gone */

/* Somebody who waits until the host is drained */
struct waiter {
	struct line *line;
	uint64_t id;
	struct waiter *next;
};

static struct waiter *waiters;
static bool draining;

bool guest_is_here(const struct config_guest *conf)
{
	struct iovm_dev_info di;
	unsigned int i;

	for (i = 0; i < conf->nr_devices; i++)
		if (kernel_has_device(conf->devices[i]->name, &di) && di.queues_running)
			return true;
	return false;
}

static void look_again(void *data)
{
	struct guest *g = data;

	timer_clear(&g->look);
	guest_look();
}

void policy_look_later(struct guest *g, uint64_t ms)
{
	timer_set(&g->look, ms, look_again, g);
}

/* --- groups --- */

static bool same_group(const struct guest *a, const struct guest *b)
{
	unsigned int i, k;

	if (*a->conf->group && !strcmp(a->conf->group, b->conf->group))
		return true;
	for (i = 0; i < a->conf->nr_devices; i++)
		for (k = 0; k < b->conf->nr_devices; k++)
			if (disk_is_shared(a->conf->devices[i], b->conf->devices[k]))
				return true;
	return false;
}

static bool reaches(const struct config_guest *conf, const struct config_peer *p)
{
	unsigned int i;

	for (i = 0; i < conf->nr_devices; i++)
		if (config_peer_of(conf->devices[i], p) < 0)
			return false;
	return true;
}

/* One of its group that has gone for a failure, or goes; NULL: none. */
static const struct guest *leader(const struct guest *g)
{
	const struct guest *o;
	uint64_t now = clock_ms();

	for (o = guests; o; o = o->next) {
		if (o == g || strcmp(o->by, "policy") || !same_group(g, o))
			continue;
		if (o->state == GUEST_MIGRATING || (o->state == GUEST_MIGRATED && now - o->ended_ms < FOLLOW_MS))
			return o;
	}
	return NULL;
}

/* --- has it lost a disk? --- */

/* For how long the disk of a device that is in use has been lost here, ms; 0 it is not. */
static uint64_t lost_for(const struct config_device *d, struct flaps *f)
{
	struct iovm_dev_info di;
	struct iovm_path_info pi;
	bool lost;

	if (!kernel_has_device(d->name, &di) || !*d->disk || !kernel_has_path(d->name, "local", &pi))
		return 0;
	lost = pi.state == IOVM_PATH_FAILED;
	rule_flap_look(f, clock_ms(), lost, pi.state_since_ms);
	return lost && di.queues_running ? pi.state_since_ms + 1 : 0;
}

static void wait_for(struct guest *g, const char *why, uint64_t ms)
{
	if (g->state != GUEST_WAITING || strcmp(g->why, why)) {
		info("guest '%s': waits: %s", g->conf->name, why);
		snprintf(g->why, sizeof(g->why), "%s", why);
	}
	g->state = GUEST_WAITING;
	if (ms)
		policy_look_later(g, ms);
}

static unsigned int nr_migrating(void)
{
	unsigned int n = 0;
	struct guest *g;

	for (g = guests; g; g = g->next)
		n += !!g->child;
	return n;
}

/* What a guest's disks are like */
struct loss {
	uint64_t ms;			/* for how long one is lost; 0 none is */
	const struct config_device *d;	/* which */
	uint64_t flap_ms;		/* so long until its path is no longer said to flap; 0 it is not */
	unsigned int flaps;
};

static void look_for_loss(struct guest *g, struct loss *loss)
{
	const struct config_guest *conf = g->conf;
	uint64_t ms, now = clock_ms();
	unsigned int i;

	memset(loss, 0, sizeof(*loss));
	for (i = 0; i < conf->nr_devices; i++) {
		disk_look(conf->devices[i]);
		ms = lost_for(conf->devices[i], &g->flaps[i]);
		if (ms <= loss->ms)
			continue;
		loss->ms = ms;
		loss->d = conf->devices[i];
		loss->flap_ms = rule_flap_pause(&g->flaps[i], now, conf->flaps, conf->flap_window_ms);
		loss->flaps = rule_flap_count(&g->flaps[i], now, conf->flap_window_ms);
	}
}

/* It is to go: now, or when it may. */
static void let_go(struct guest *g, const char *first, const struct config_peer *to)
{
	char why[WHY_MAX];
	uint64_t now = clock_ms();

	if (now < g->not_before_ms) {
		policy_look_later(g, g->not_before_ms - now + 1);
	} else if (nr_migrating() >= agent.config->host.parallel_migrations) {
		snprintf(why, sizeof(why), "%s, and others are being migrated ('parallel-migrations')", first);
		wait_for(g, why, 0);
	} else if (!guest_migrate((struct config_guest *)(uintptr_t)g->conf, (struct config_peer *)(uintptr_t)to, "policy", why)) {
		/* the peer's connection, when it is up, has us look again */
		wait_for(g, why, LAST_PAUSE_MS);
	}
}

static void look_at_loss(struct guest *g, const struct loss *loss)
{
	const struct config_guest *conf = g->conf;
	char why[WHY_MAX], first[IOVM_NAME_MAX + 32];

	snprintf(first, sizeof(first), "'%s' has lost its disk", loss->d->name);
	if (loss->ms < conf->settle_ms) {
		snprintf(why, sizeof(why), "%s, for not long enough yet ('settle')", first);
		wait_for(g, why, conf->settle_ms - loss->ms + 1);
	} else if (loss->flap_ms) {
		snprintf(why, sizeof(why), "%s, %u times within 'flap-window', and may find it again ('flaps')", first, loss->flaps);
		wait_for(g, why, loss->flap_ms + 1);
	} else {
		let_go(g, first, NULL);
	}
}

static void look_at(struct guest *g)
{
	const struct config_guest *conf = g->conf;
	const struct guest *first;
	char why[WHY_MAX];
	struct loss loss;
	bool here;

	look_for_loss(g, &loss);
	if (g->child || g->drain == TURN_WAITS)
		return;
	here = guest_is_here(g->conf);
	if (g->state == GUEST_MIGRATED && here)
		g->state = GUEST_IDLE;
	if (g->state == GUEST_UNCLEAR || g->state == GUEST_LOST)
		return;
	first = conf->policy == POLICY_ON_FAILURE && here ? leader(g) : NULL;
	if (first) {
		snprintf(why, sizeof(why), "guest '%s' of its group goes to '%s'", first->conf->name, first->to->name);
		let_go(g, why, reaches(conf, first->to) ? first->to : NULL);
	} else if (conf->policy == POLICY_ON_FAILURE && loss.ms) {
		look_at_loss(g, &loss);
	} else {
		if (g->state == GUEST_WAITING)
			g->state = GUEST_IDLE;
		if (g->state == GUEST_IDLE)
			g->why[0] = 0;
	}
}

/* --- draining the host --- */

/* end: it is the last that they hear. */
static void tell(bool end)
{
	struct waiter *w, *next;
	unsigned int failed = 0;
	char why[WHY_MAX];
	struct guest *g;
	struct msg m;

	for (g = guests; g; g = g->next)
		failed += g->drain == TURN_OVER && *g->drain_why;
	snprintf(why, sizeof(why), "%u guest%s stayed here", failed, failed == 1 ? "" : "s");
	for (w = waiters; w; w = next) {
		next = w->next;
		msg_begin(&m);
		json_u64(&m.j, "id", w->id);
		if (end)
			json_bool(&m.j, "ok", !failed);
		if (end && failed)
			json_str(&m.j, "error", why);
		json_open(&m.j, "drain", '[');
		for (g = guests; g; g = g->next)
			if (g->drain)
				guest_json(&m.j, NULL, g->conf);
		json_close(&m.j);
		msg_send(&m, w->line);
		if (end)
			free(w);
	}
	if (end)
		waiters = NULL;
}

void policy_told(struct guest *g)
{
	if (draining && g->drain)
		tell(false);
}

static void over(struct guest *g, const char *why)
{
	g->drain = TURN_OVER;
	snprintf(g->drain_why, sizeof(g->drain_why), "%s", why);
	if (*why)
		warning("guest '%s': stays here: %s", g->conf->name, why);
}

void policy_ended(struct guest *g)
{
	if (g->drain == TURN_RUNS)
		over(g, g->state == GUEST_MIGRATED ? "" : *g->why ? g->why : "no reason given");
}

/* The first guest of its group stands for all of it. */
static const void *group_of(const struct guest *g)
{
	const struct guest *o;

	for (o = guests; o != g && !same_group(o, g); o = o->next)
		;
	return o;
}

static void move_next(void)
{
	struct turn_of list[CONFIG_MAX_GUESTS];
	struct guest *of[CONFIG_MAX_GUESTS], *g;
	unsigned int nr, left = 0;
	char why[WHY_MAX];
	int next;

	if (!draining)
		return;
	for (;;) {
		for (nr = 0, g = guests; g && nr < CONFIG_MAX_GUESTS; g = g->next) {
			if (g->drain == TURN_WAITS && !g->child && !guest_is_here(g->conf))
				over(g, "");
			of[nr] = g;
			list[nr].turn = g->child ? TURN_RUNS : g->drain;
			list[nr++].group = group_of(g);
		}
		next = rule_next(list, nr, agent.config->host.parallel_migrations);
		if (next < 0)
			break;
		g = of[next];
		if (guest_migrate((struct config_guest *)(uintptr_t)g->conf, (struct config_peer *)(uintptr_t)g->drain_to, "drain-host", why))
			g->drain = TURN_RUNS;
		else
			over(g, why);
		tell(false);
	}
	for (g = guests; g; g = g->next)
		left += g->drain == TURN_WAITS || g->drain == TURN_RUNS;
	if (left)
		return;
	tell(true);
	draining = false;
	info("the host is drained, as far as that could be");
	for (g = guests; g; g = g->next)
		g->drain = TURN_NONE;
}

bool policy_drain(const struct config_peer *to, struct line *l, uint64_t id, char why[WHY_MAX])
{
	struct waiter *w;
	struct guest *g;

	if (draining) {
		snprintf(why, WHY_MAX, "the host is being drained already");
		return false;
	}
	w = calloc(1, sizeof(*w));
	if (!w)
		abort();
	w->line = l;
	w->id = id;
	w->next = waiters;
	waiters = w;
	draining = true;
	info("the host is drained%s%s", to ? " to " : "", to ? to->name : "");
	for (g = guests; g; g = g->next) {
		g->drain_why[0] = 0;
		if (!guest_is_here(g->conf))
			continue;
		g->drain = TURN_WAITS;
		g->drain_to = to;
		if (g->conf->policy == POLICY_NEVER)
			over(g, "it is configured to stay ('migrate = never')");
	}
	move_next();
	return true;
}

bool policy_drain_cancel(char why[WHY_MAX])
{
	struct guest *g;

	if (!draining) {
		snprintf(why, WHY_MAX, "the host is not being drained");
		return false;
	}
	for (g = guests; g; g = g->next) {
		if (g->drain == TURN_WAITS)
			over(g, "cancelled");
		else if (g->drain == TURN_RUNS)
			guest_cancel((struct config_guest *)(uintptr_t)g->conf, why);
	}
	move_next();
	return true;
}

bool policy_drains(void)
{
	return draining;
}

void policy_unwatch(struct line *l)
{
	struct waiter **at = &waiters, *w;

	while ((w = *at)) {
		if (w->line != l) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		free(w);
	}
}

/* --- looking --- */

void guest_look(void)
{
	struct guest *g;

	if (agent.ending)
		return;
	for (g = guests; g; g = g->next)
		look_at(g);
	move_next();
}
