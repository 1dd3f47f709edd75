// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Writes in doubt. What was sent to a peer over a connection that has ended may land there at any time, until the peer has ended the
 * session and all that it issued has come back. Till then such writes are not issued elsewhere, and the device's epoch is not given
 * up. Whoever has them asks the peer to make sure ("drain"), and then tells the kernel that the path is fenced:
 *
 *   - for a path that has failed, at once;
 *   - for one that is live again, when the epoch is to be given up: its present session is ended with the others.
 *
 * The kernel takes the fence for the generation of the path that was asked about, and for no later one.
 *
 * The peer admits no session of that host to the device meanwhile, ends the handshakes that are under way (what is still in their
 * sockets would be served later), ends the sessions, and answers when the kernel has none of them any more.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "iovmd.h"
#include "../iovmctl/iovmctl.h"

#define DRAIN_MS	60000
#define FIRST_PAUSE_MS	500
#define LAST_PAUSE_MS	30000
#define FENCE_MS	3000	/* for the path to notice that its connections have ended */
#define FENCE_AGAIN_MS	20
#define LOOK_MS		20
#define HOLD_MS		500	/* who has been drained is not admitted again before he has heard of it */

/* --- what is in doubt here --- */

/**
 * struct doubt - of a device, on the path to a peer
 * @id: of the path that was asked about
 * @generation: of that
 * @ask: 0 nothing was asked
 * @until: the kernel is told again till then, since the path is still in use; 0 it need not be
 * @why: it could not be settled; "" it can, or there is none
 */
struct doubt {
	const struct config_device *d;
	const struct config_peer *p;
	uint32_t id, generation;
	uint64_t ask, until;
	sd_event_source *pause;
	uint64_t pause_ms;
	char why[WHY_MAX];
	struct doubt *next;
};

static struct doubt *doubts;

static void drain_use(void);

/* Does it matter now? */
static bool matters(const struct doubt *b, struct iovm_path_info *pi)
{
	if (!kernel_has_path(b->d->name, b->p->name, pi) || pi->type != IOVM_PATH_NBD || pi->fenced)
		return false;
	if (pi->state == IOVM_PATH_FAILED || pi->state == IOVM_PATH_CONNECTING)
		return pi->in_doubt || pi->unsettled;
	return pi->in_doubt && epoch_giving(b->d);
}

static void look_again(void *data)
{
	struct doubt *b = data;

	timer_clear(&b->pause);
	doubt_look();
}

static void not_settled(struct doubt *b, const char *why)
{
	if (strcmp(b->why, why))
		warning("device '%s': what was sent to '%s' may still land there: %s", b->d->name, b->p->name, why);
	snprintf(b->why, sizeof(b->why), "%s", why);
	timer_set(&b->pause, next_pause(&b->pause_ms, FIRST_PAUSE_MS, LAST_PAUSE_MS), look_again, b);
}

static void fence(void *data)
{
	struct iovm_path_ctl c;
	struct doubt *b = data;
	int err;

	timer_clear(&b->pause);
	IOVM_INIT(&c);
	c.op = IOVM_PATH_CTL_FENCED;
	snprintf(c.dev, sizeof(c.dev), "%s", b->d->name);
	snprintf(c.name, sizeof(c.name), "%s", b->p->name);
	c.id = b->id;
	c.generation = b->generation;
	err = mux_ioctl(IOVM_PATH_CTL, &c);
	if (err == EBUSY && clock_ms() < b->until) {
		timer_set(&b->pause, FENCE_AGAIN_MS, fence, b);
		return;
	}
	b->until = 0;
	if (!err) {
		info("device '%s': '%s' has drained what it was sent before: nothing of it can land any more", b->d->name, b->p->name);
		b->why[0] = 0;
		b->pause_ms = 0;
	} else if (err == EBUSY || err == ESTALE) {
		not_settled(b, "the path was connected again meanwhile");
	} else {
		not_settled(b, *c.msg ? c.msg : strerror(err));
	}
}

static void on_drained(const struct json_node *o, const char *text, const char *why, void *data)
{
	struct doubt *b = data;

	(void)o;
	(void)text;
	b->ask = 0;
	if (why) {
		not_settled(b, why);
		return;
	}
	b->until = clock_ms() + FENCE_MS;
	fence(b);
}

static void look_at(struct doubt *b)
{
	struct iovm_path_info pi;
	char request[256];

	if (b->ask || b->until)
		return;
	if (!matters(b, &pi)) {
		timer_clear(&b->pause);
		b->pause_ms = 0;
		b->why[0] = 0;
		return;
	}
	if (b->pause)
		return;
	b->id = pi.id;
	b->generation = pi.generation;
	snprintf(request, sizeof(request), "{\"op\":\"drain\",\"device\":\"%s\"}", b->d->name);
	b->ask = peer_ask(b->p, request, DRAIN_MS, on_drained, b);
}

void doubt_look(void)
{
	struct doubt *b;

	if (agent.ending)
		return;
	for (b = doubts; b; b = b->next)
		look_at(b);
}

void doubt_peer_up(const struct config_peer *p)
{
	struct doubt *b;

	for (b = doubts; b; b = b->next)
		if (b->p == p && !b->until) {
			timer_clear(&b->pause);
			b->pause_ms = 0;
		}
	doubt_look();
}

const char *doubt_why(const struct config_device *d, const char *path)
{
	struct doubt *b;

	for (b = doubts; b && (b->d != d || strcmp(b->p->name, path)); b = b->next)
		;
	return b && *b->why ? b->why : NULL;
}

static struct doubt *doubt_of(const struct config_device *d, const struct config_peer *p)
{
	struct doubt *b;

	for (b = doubts; b && (b->d != d || b->p != p); b = b->next)
		;
	return b;
}

/* One for each path to a peer that is configured, or is still there. */
void doubt_reload(void)
{
	const struct config_device *d;
	struct iovm_path_info pi;
	struct doubt *b, **at;
	unsigned int i;

	for (at = &doubts; (b = *at);) {
		if (config_device(agent.config, b->d->name) == b->d && config_peer_of(b->d, b->p) >= 0) {
			at = &b->next;
		} else if (kernel_has_path(b->d->name, b->p->name, &pi)) {
			config_use_device(b->d);
			config_use_peer(b->p);
			at = &b->next;
		} else {
			*at = b->next;
			peer_forget(b->ask);
			timer_clear(&b->pause);
			free(b);
		}
	}
	for (d = agent.config->devices; d; d = d->next)
		for (i = 0; i < d->nr_peers; i++) {
			if (doubt_of(d, d->peers[i]))
				continue;
			b = calloc(1, sizeof(*b));
			if (!b)
				abort();
			b->d = d;
			b->p = d->peers[i];
			b->next = doubts;
			doubts = b;
		}
	drain_use();
}

/* --- what peers ask to be drained --- */

/**
 * struct drain - of the sessions of a peer with a device
 * @upto: the handshakes that have to be over first
 * @worker: ends the sessions
 * @asker: who is answered; NULL he has gone
 * @hold: all is done, and the peer is admitted again after it
 */
struct drain {
	const struct config_device *d;
	const struct config_peer *from;
	uint64_t upto;
	struct child *worker;
	struct line *line;
	struct line *asker;
	uint64_t id;
	sd_event_source *hold;
	struct drain *next;
};

static struct drain *drains;

static struct drain *drain_of(const struct config_device *d, const struct config_peer *from)
{
	struct drain *r;

	for (r = drains; r && (r->d != d || r->from != from); r = r->next)
		;
	return r;
}

bool drain_refuses(const struct config_device *d, const struct config_peer *from)
{
	return drain_of(d, from);
}

bool drain_busy(const struct config_device *d)
{
	struct drain *r;

	for (r = drains; r && r->d != d; r = r->next)
		;
	return r;
}

/* They have pointers to what may not be configured any more. */
static void drain_use(void)
{
	struct drain *r;

	for (r = drains; r; r = r->next) {
		config_use_device(r->d);
		config_use_peer(r->from);
	}
}

static void drain_free(struct drain *r)
{
	struct drain **at;

	for (at = &drains; *at != r; at = &(*at)->next)
		;
	*at = r->next;
	timer_clear(&r->hold);
	free(r);
}

static void held_long_enough(void *data)
{
	drain_free(data);
}

static void answer(struct drain *r, const char *why)
{
	struct msg m;

	if (r->asker && why) {
		answer_error(r->asker, r->id, why);
	} else if (r->asker) {
		answer_begin(&m, r->id);
		msg_send(&m, r->asker);
	}
	r->asker = NULL;
	timer_set(&r->hold, HOLD_MS, held_long_enough, r);
}

/* In a child: until there are none. */
static int drain_work(int sock, void *data)
{
	struct drain *r = data;
	struct msg m;
	uint32_t id;

	if (!kernel_in_child())
		return 1;
	data_end(r->d, r->from);
	while (id = 0, data_next_session(r->d, r->from, &id))
		usleep(LOOK_MS * 1000);
	msg_begin(&m);
	json_bool(&m.j, "ok", true);
	return !msg_write(&m, sock);
}

static void on_worker_line(struct line *l, char *text, void *data)
{
	struct drain *r = data;

	r->line = NULL;
	if (!text)
		return;		/* its end says why */
	line_close(l);
	child_forget(r->worker);
	r->worker = NULL;
	answer(r, NULL);
}

static void on_worker_end(struct child *c, int status, const char *output, void *data)
{
	struct drain *r = data;
	char why[WHY_MAX];

	(void)c;
	child_reason(status, output, why);
	line_close(r->line);
	r->line = NULL;
	r->worker = NULL;
	answer(r, why);
}

/* A handshake has ended. */
void drain_look(void)
{
	struct drain *r;

	for (r = drains; r; r = r->next) {
		if (r->worker || r->hold || !data_is_cut(r->upto))
			continue;
		r->worker = child_worker(drain_work, r, -1, true, &r->line, on_worker_line, on_worker_end, r);
		if (!r->worker)
			answer(r, "no process could be started");
	}
}

void drain_unwatch(struct line *l)
{
	struct drain *r;

	for (r = drains; r; r = r->next)
		if (r->asker == l)
			r->asker = NULL;
}

void drain_request(struct line *l, uint64_t id, const struct config_peer *from, const struct json_node *o)
{
	const char *name = member_str(o, "device");
	const struct config_device *d = name ? config_device(agent.config, name) : NULL;
	struct drain *r = d ? drain_of(d, from) : NULL;
	char why[WHY_MAX];

	if (!d || config_peer_of(d, from) < 0) {
		snprintf(why, sizeof(why), "there is no [device %s] with '%s' among its peers on '%s'", name ?: "?", from->name,
			 agent.config->host.name);
		answer_error(l, id, why);
		return;
	}
	if (r && r->hold)
		drain_free(r);
	else if (r) {
		answer_error(l, id, "its sessions are being drained at the moment: its disk has not answered all that they sent");
		return;
	}
	r = calloc(1, sizeof(*r));
	if (!r)
		abort();
	r->d = d;
	r->from = from;
	r->asker = l;
	r->id = id;
	r->next = drains;
	drains = r;
	r->upto = data_cut();
	drain_look();
}
