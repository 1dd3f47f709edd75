// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Makes the devices, paths and exports that are configured and are not there, one step at a time, each by running iovmctl: it
 * knows how to ask a disk or a server for size and identity, and says in sentences what is wrong. What is there stays as it is,
 * but for what was changed in the configuration while iovmd ran (apply_change()). Beside them runs 'iovmctl path watch', which
 * connects paths again and fences failed ones.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "apply.h"
#include "kept.h"

#define FIRST_PAUSE_MS	1000
#define LAST_PAUSE_MS	30000
static struct work *works;
static struct child *watch;
static bool watch_anew;	/* it is to end, and to be started with another pace */
static sd_event_source *watch_pause;
static uint64_t watch_pause_ms;

void export_name(const struct config_device *d, char name[IOVM_NAME_MAX])
{
	snprintf(name, IOVM_NAME_MAX, "%.*s" EXPORT_SUFFIX, (int)(IOVM_NAME_MAX - sizeof(EXPORT_SUFFIX)), d->name);
}

void step_add(struct step *s, const char *arg)
{
	if (s->nr < MAX_STEP)
		s->arg[s->nr++] = arg;
}

static void add_all(struct step *s, const struct config_args *a)
{
	unsigned int i;

	for (i = 0; i < a->nr; i++)
		step_add(s, a->arg[i]);
}

/* A path shows the identity that was given to its device, where nothing else shows one. */
static void add_identity(struct step *s, const struct config_device *d)
{
	unsigned int i;

	for (i = 0; i + 1 < d->create.nr; i++)
		if (!strcmp(d->create.arg[i], "--identity")) {
			step_add(s, "--identity");
			step_add(s, d->create.arg[i + 1]);
		}
}

/* The connections of a path are paced, where a rate is configured: nothing that is sent by one of them crowds out the migration. */
static const char *pace(void)
{
	static char text[24];

	if (!agent.config->host.io_rate)
		return NULL;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)agent.config->host.io_rate);
	return text;
}

static void uri_of(const struct config_peer *p, const struct config_device *d, char *buf, size_t n)
{
	const struct config_host *h = &agent.config->host;
	bool v6 = strchr(p->address, ':');
	int len;

	len = snprintf(buf, n, "nbd%s://%s%s%s:%u/%s", h->plain_tcp ? "" : "s", v6 ? "[" : "", p->address, v6 ? "]" : "", p->data_port,
		       d->name);
	if (!h->plain_tcp)
		len += snprintf(buf + len, n - (size_t)len, "?tls-hostname=%s", p->name);
	if (!h->plain_tcp && strcmp(h->tls_dir, TLS_DIR))
		snprintf(buf + len, n - (size_t)len, "&tls-certificates=%s", h->tls_dir);
}

static void create_step(struct step *s, const struct config_device *d)
{
	step_add(s, "create");
	step_add(s, d->name);
	step_add(s, "--size-from");
	if (*d->disk) {
		step_add(s, d->disk);
	} else {
		uri_of(d->peers[0], d, s->text[0], sizeof(s->text[0]));
		step_add(s, s->text[0]);
	}
	if (epoch_needed(d))
		step_add(s, "--epoch");
	add_all(s, &d->create);
}

static void local_step(struct step *s, const struct config_device *d, const char *dev)
{
	step_add(s, "path");
	step_add(s, "add");
	step_add(s, dev);
	step_add(s, "local");
	snprintf(s->text[0], sizeof(s->text[0]), "bdev:%s", d->disk);
	step_add(s, s->text[0]);
	/* the device and its export have it at the same time */
	if (d->nr_peers)
		step_add(s, "--shared");
	add_identity(s, d);
	add_all(s, &d->local);
}

static void remote_step(struct step *s, const struct config_device *d, const struct config_peer *p)
{
	step_add(s, "path");
	step_add(s, "add");
	step_add(s, d->name);
	step_add(s, p->name);
	uri_of(p, d, s->text[0], sizeof(s->text[0]));
	step_add(s, s->text[0]);
	step_add(s, "--offline");
	step_add(s, "--timeout");
	step_add(s, "3s");
	if (pace()) {
		step_add(s, "--pace");
		step_add(s, pace());
	}
	add_all(s, &d->remote);
}

static void export_step(struct step *s, const struct config_device *d, const char *name)
{
	step_add(s, "create");
	step_add(s, name);
	step_add(s, "--target");
	step_add(s, "--epoch");
	step_add(s, "--size-from");
	step_add(s, d->disk);
	add_identity(s, d);
}

/* A path that was made before 'transport' was changed. One that takes requests stays until it does not: see apply_trouble(). */
static bool wrong_transport(const struct iovm_path_info *pi)
{
	return !strncmp(pi->addr, agent.config->host.plain_tcp ? "nbds:" : "nbd:", agent.config->host.plain_tcp ? 5 : 4);
}

/* The first thing that is configured and not so; false: nothing is missing. */
static bool next_step(struct work *w, struct step *s)
{
	const struct config_device *d = w->d;
	struct iovm_dev_info di;
	struct iovm_path_info pi;
	unsigned int i;

	memset(s, 0, sizeof(*s));
	step_add(s, agent.iovmctl);
	if (w->leaving || w->anew) {
		if (leave_step(w, s))
			return true;
		w->anew = false;
		if (w->leaving)
			return false;
	}
	if (!kernel_has_device(d->name, &di)) {
		w->nr_gone = 0;
		create_step(s, d);
		return true;
	}
	if (gone_step(w, &di, s) || change_step(w, s))
		return true;
	if (*d->disk && !kernel_has_path(d->name, "local", &pi)) {
		local_step(s, d, d->name);
		return true;
	}
	for (i = 0; i < d->nr_peers; i++) {
		bool there = kernel_has_path(d->name, d->peers[i]->name, &pi);

		if (there && (!wrong_transport(&pi) || pi.id == di.route_id))
			continue;
		if (there)
			remove_step(s, d, d->peers[i]->name);
		else
			remote_step(s, d, d->peers[i]);
		return true;
	}
	if (!d->nr_peers || !*d->disk)
		return false;
	export_name(d, s->text[1]);
	if (!kernel_has_device(s->text[1], &di)) {
		export_step(s, d, s->text[1]);
		return true;
	}
	if (!kernel_has_path(s->text[1], "local", &pi)) {
		local_step(s, d, s->text[1]);
		return true;
	}
	return false;
}

struct work *work_of(const struct config_device *d)
{
	struct work *w;

	for (w = works; w && w->d != d; w = w->next)
		;
	return w;
}

static void work_free(struct work *w)
{
	struct work **at;

	for (at = &works; *at != w; at = &(*at)->next)
		;
	*at = w->next;
	timer_clear(&w->pause);
	free(w);
}

static void look_at(struct work *w);

static void try_again(void *data)
{
	struct work *w = data;

	timer_clear(&w->pause);
	look_at(w);
}

static void step_ended(struct child *c, int status, const char *output, void *data)
{
	struct work *w = data;
	char why[WHY_MAX];

	(void)c;
	w->child = NULL;
	if (agent.ending)
		return;
	if (!status) {
		w->todo &= ~w->doing;
		w->pause_ms = 0;
		w->why[0] = 0;
		look_at(w);
		return;
	}
	child_reason(status, output, why);
	if (w->leaving) {
		/* somebody has begun to use it */
		warning("device '%s': is not configured any more, and stays as it is: %s", w->d->name, why);
		work_free(w);
		return;
	}
	if (strcmp(why, w->why))
		warning("device '%s': %s; trying on", w->d->name, why);
	strcpy(w->why, why);
	timer_set(&w->pause, next_pause(&w->pause_ms, FIRST_PAUSE_MS, LAST_PAUSE_MS), try_again, w);
}

static void look_at(struct work *w)
{
	struct step s;

	if (w->child || w->pause || agent.ending)
		return;
	if (!next_step(w, &s)) {
		if (w->leaving) {
			info("device '%s': is not there any more", w->d->name);
			work_free(w);
			return;
		}
		if (*w->why)
			info("device '%s': is as configured now", w->d->name);
		w->why[0] = 0;
		w->pause_ms = 0;
		return;
	}
	w->doing = s.todo;
	w->child = child_program(s.arg, false, step_ended, w);
	if (!w->child)
		timer_set(&w->pause, LAST_PAUSE_MS, try_again, w);
}

void apply_look(void)
{
	struct work *w, *next;

	for (w = works; w; w = next) {
		next = w->next;
		look_at(w);
	}
}

const char *apply_trouble(const struct config_device *d)
{
	static char why[WHY_MAX];
	struct iovm_path_info pi;
	struct iovm_dev_info di;
	struct work *w = work_of(d);
	unsigned int i;

	if (w && (*w->why || w->child))
		return *w->why ? w->why : "it is being made";
	for (i = 0; w && i < d->nr_peers && kernel_has_device(d->name, &di); i++)
		if (kernel_has_path(d->name, d->peers[i]->name, &pi) && wrong_transport(&pi) && pi.id == di.route_id) {
			snprintf(why, sizeof(why), "its requests go by path '%s', which was made %s TLS: it is made anew once they go elsewhere",
				 pi.name, agent.config->host.plain_tcp ? "with" : "without");
			return why;
		}
	if (w && w->nr_gone) {
		snprintf(why, sizeof(why), "its requests go by path '%s', which was configured otherwise: it is %s once they go elsewhere",
			 w->gone[0], config_peer(agent.config, w->gone[0]) ? "made anew" : "removed");
		return why;
	}
	return "";
}

/* --- connecting --- */

static void connected(struct child *c, int status, const char *output, void *data)
{
	/* if not: the watch goes on trying */
	(void)c;
	(void)status;
	(void)output;
	(void)data;
}

void apply_connect(const struct config_device *d, const struct config_peer *p)
{
	const char *const argv[] = { agent.iovmctl, "path", "connect", d->name, p->name, pace() ? "--pace" : NULL, pace(), NULL };
	struct iovm_path_info pi;

	if (kernel_has_path(d->name, p->name, &pi) && !pi.by_hand && (pi.state == IOVM_PATH_CONNECTING || pi.state == IOVM_PATH_FAILED))
		child_program(argv, false, connected, NULL);
}

/* --- the watch --- */

static void watch_start(void *data);

static void watch_ended(struct child *c, int status, const char *output, void *data)
{
	char why[WHY_MAX];

	(void)c;
	(void)data;
	watch = NULL;
	if (agent.ending)
		return;
	if (watch_anew) {
		watch_start(NULL);
		return;
	}
	child_reason(status, output, why);
	warning("'iovmctl path watch' has ended: %s", why);
	timer_set(&watch_pause, next_pause(&watch_pause_ms, FIRST_PAUSE_MS, LAST_PAUSE_MS), watch_start, NULL);
}

static void watch_start(void *data)
{
	const char *const argv[] = { agent.iovmctl, "path", "watch", pace() ? "--pace" : NULL, pace(), NULL };

	(void)data;
	timer_clear(&watch_pause);
	watch_anew = false;
	watch = child_program(argv, true, watch_ended, NULL);
}

/* --- the configuration is read anew --- */

void apply_reload(bool pace_anew)
{
	const struct config_device *d;
	struct work *w, *made = NULL, **end = &made;

	for (d = agent.config->devices; d; d = d->next) {
		w = kept_take(works, next, d, d);
		/* what was to be destroyed is configured again */
		w->anew |= w->leaving;
		w->leaving = false;
		/* the places of its peers may be others */
		if (w->todo & TODO_REMOTES)
			w->todo |= TODO_REMOTES;
		w->d = d;
		/* what has failed may go well now */
		timer_clear(&w->pause);
		w->pause_ms = 0;
		*end = w;
		end = &w->next;
	}
	for (w = works; w; w = w->next) {
		config_use_device(w->d);
		timer_clear(&w->pause);
	}
	*end = works;
	works = made;
	if (pace_anew && watch) {
		watch_anew = true;
		child_kill(watch, SIGTERM);
	}
	apply_look();
}

void apply_start(void)
{
	watch_start(NULL);
	apply_reload(false);
}

void apply_end(void)
{
	if (watch)
		child_kill(watch, SIGTERM);
}
