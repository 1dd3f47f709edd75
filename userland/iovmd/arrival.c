// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Guests that come. The host that a guest leaves decides; this one prepares a QEMU, and lets the guest run or ends that QEMU, as it is
 * told. If that host is not heard of any more, a QEMU that has not got all of its guest is ended: it cannot run, and the guest still
 * does over there. One that has got all of it waits to be told: see 'iovmctl status'.
 *
 * Each step is done by a worker, which asks QEMU how things are: nothing is remembered that is needed.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "iovmd.h"
#include "incoming.h"
#include "kept.h"
#include "stream_key.h"
#include "unit.h"

#define SILENCE_MS	60000
#define LOG_MAX		(IOVM_NAME_MAX + 80)
#define ENV_MAX		(CONFIG_UNIT_MAX + 80)
#define COMING		"coming"	/* the mark of a guest that is prepared: where from */
#define ACCEPTED	"accepted"	/* below state_dir: what has come and was let run, or was about to be */
#define ACCEPT_MS	30000
#define ACCEPT_LOOK_MS	50
#define UNIT_MS		15000	/* what is left of a unit is stopped */

/**
 * struct arrival - a guest that may come here
 * @from: who asked last; NULL: nobody
 * @text: how far it is, for status; "" nothing comes
 * @comes: it was prepared, and not yet told what to do
 * @known: its QEMU
 * @child: the step under way
 * @line: its line
 * @asker: who is to be answered, NULL has gone
 * @id: of the request
 * @what: the step under way
 * @silence: @from is not connected; ends, then QEMU is looked at
 */
struct arrival {
	const struct config_guest *conf;
	const struct config_peer *from;
	char text[WHY_MAX];
	bool comes;
	struct incoming known;
	struct child *child;
	struct line *line;
	struct line *asker;
	uint64_t id;
	const char *what;
	sd_event_source *silence;
	struct arrival *next;
};

static struct arrival *arrivals;

static struct arrival *arrival_of(const struct config_guest *conf)
{
	struct arrival *a;

	for (a = arrivals; a && a->conf != conf; a = a->next)
		;
	return a;
}

void arrival_unwatch(struct line *l)
{
	struct arrival *a;

	for (a = arrivals; a; a = a->next)
		if (a->asker == l)
			a->asker = NULL;
}

void arrival_list(struct json *j, const char *key, const struct config_peer *from)
{
	struct arrival *a;

	json_open(j, key, '[');
	for (a = arrivals; a; a = a->next)
		if (a->comes && a->from == from)
			json_str(j, NULL, a->conf->name);
	json_close(j);
}

bool arrival_comes(const struct config_guest *conf)
{
	struct arrival *a = arrival_of(conf);

	return a && a->comes;
}

void arrival_json(struct json *j, const char *key, const struct config_guest *conf)
{
	struct arrival *a = arrival_of(conf);

	json_str(j, key, a && *a->text ? a->text : NULL);
}

/* --- the worker --- */

struct job {
	const struct config_guest *guest;
	const struct config_peer *from;
	const char *listen, *what, *key;
	unsigned int channels;
	bool gone;			/* accept: the host that it left has no QEMU any more */
	bool comes;			/* it was prepared */
	struct incoming known;
};

static int give_up(int sock, const char *why)
{
	struct msg m;

	msg_begin(&m);
	json_bool(&m.j, "ok", false);
	json_str(&m.j, "error", why);
	msg_write(&m, sock);
	return 1;
}

/* The environment of a guest's unit: the template has it as /run/iovm/%n.env */
static void env_of(const struct config_guest *g, char env[ENV_MAX])
{
	snprintf(env, ENV_MAX, "%.60s/%s.env", agent.run_dir, *g->unit ? g->unit : g->name);
}

static void job_of(const struct job *j, struct incoming_job *in, char log[LOG_MAX], char key_dir[LOG_MAX], char env[ENV_MAX])
{
	const struct config_guest *g = j->guest;

	snprintf(log, LOG_MAX, "%.60s/%s.log", agent.run_dir, g->name);
	snprintf(key_dir, LOG_MAX, "%.60s/%s.key", agent.run_dir, g->name);
	env_of(g, env);
	*in = (struct incoming_job){
		.guest = g->name, .qmp = g->qmp, .command = *g->command ? g->command : NULL, .unit = *g->unit ? g->unit : NULL,
		.env = env, .log = log,
		.listen = *j->listen ? j->listen : "0.0.0.0", .multifd = j->channels,
		.key = j->key, .key_dir = key_dir,
	};
}

static bool holds_all(const struct config_guest *g)
{
	unsigned int i;

	for (i = 0; i < g->nr_devices; i++)
		if (!epoch_needed(g->devices[i]) || !epoch_held(g->devices[i]))
			return false;
	return true;
}

/*
 * Lets it run. That is written down before: should this host die, the other one learns afterwards that it may have run here, and must
 * not go on there. Without the record it has never run here.
 */
static int accept_guest(const struct job *j, const struct incoming_job *job, char *why)
{
	uint64_t end = clock_ms() + ACCEPT_MS;
	enum guest_at at;
	int err;

	while ((at = incoming_find(job, why, WHY_MAX)) == GUEST_COMING && clock_ms() < end)
		poll(NULL, 0, ACCEPT_LOOK_MS);
	if (at == GUEST_COMING) {
		snprintf(why, WHY_MAX, "the guest %s after %d ms", guest_at_text[at], ACCEPT_MS);
		return -1;
	}
	err = at == GUEST_ARRIVED ? stable_write(ACCEPTED, j->guest->name, "") : 0;
	if (err) {
		snprintf(why, WHY_MAX, "that the guest may run cannot be kept in '%.200s/" ACCEPTED "': %s", agent.state_dir, strerror(-err));
		return -1;
	}
	return incoming_accept(job, why, WHY_MAX);
}

/* The QEMU that waited for it has ended, but of its unit something may be left, or systemd may be about to start it again. */
static int stop_rest(const struct job *j, char *why)
{
	const struct config_guest *g = j->guest;

	/* not one that somebody has started since */
	return !*g->unit || !j->comes || guest_is_here(g) ? 0 : unit_stop(g->unit, UNIT_MS, why, WHY_MAX);
}

/*
 * It could not be let run. Is that for ever? It is if there is no QEMU of it here; and if there is none left over there, so that what
 * has not come does not come any more. NULL: who knows.
 */
static const char *never_runs(const struct job *j, const struct incoming_job *job, char *why)
{
	char text[8], find_why[WHY_MAX];
	enum guest_at at = incoming_find(job, find_why, sizeof(find_why));
	int err = stable_read(ACCEPTED, j->guest->name, text, sizeof(text));

	if (at == GUEST_GONE && !err)
		return "lost";
	if (at != GUEST_GONE && !(j->gone && (at == GUEST_AWAITED || at == GUEST_COMING)))
		return NULL;
	if (err != -ENOENT)
		return NULL;
	if (at == GUEST_GONE ? stop_rest(j, why) : incoming_abort(job, j->known.pid ? &j->known : NULL, why, WHY_MAX))
		return NULL;
	return "never";
}

/* In a child: one step, and the answer to it. */
static int run_step(int sock, void *data)
{
	const struct job *j = data;
	struct incoming_job job;
	struct incoming in = { .pid = 0 };
	char why[WHY_MAX] = "", text[WHY_MAX], log[LOG_MAX], key_dir[LOG_MAX], env[ENV_MAX];
	enum guest_at at = GUEST_GONE;
	const char *never = NULL;
	struct msg m;
	bool waits;
	int r = 0;

	if (!kernel_in_child())
		return give_up(sock, "the kernel side cannot be reached");
	job_of(j, &job, log, key_dir, env);
	if (!strcmp(j->what, "prepare")) {
		/* what is said to be encrypted is encrypted in all of its parts */
		if (!agent.config->host.plain_tcp && !stream_key_good(j->key))
			return give_up(sock, "there is no key for the guest's memory: install the same release on both hosts");
		r = stable_remove(ACCEPTED, j->guest->name);
		if (r)
			snprintf(why, sizeof(why), "cannot remove '%.200s/" ACCEPTED "/%s': %s", agent.state_dir, j->guest->name, strerror(-r));
		else
			r = incoming_prepare(&job, &in, why, sizeof(why));
		if (!r && bandwidth_reserve(j->guest, j->from, NULL, text))
			info("guest '%s': reserved: %s", j->guest->name, text);
	} else if (!strcmp(j->what, "accept")) {
		r = accept_guest(j, &job, why);
		never = r ? never_runs(j, &job, why) : NULL;
		if (never)
			r = 0;
	} else {
		at = incoming_find(&job, why, sizeof(why));
		/*
		 * what has come in full is ended only by the word of the host that it left; and runs without, if that host can
		 * write nothing any more
		 */
		if (!strcmp(j->what, "settle") && at == GUEST_ARRIVED && holds_all(j->guest))
			r = accept_guest(j, &job, why);
		else if (strcmp(j->what, "settle") || at == GUEST_AWAITED || at == GUEST_COMING)
			r = at == GUEST_GONE ? stop_rest(j, why) : incoming_abort(&job, j->known.pid ? &j->known : NULL, why, sizeof(why));
	}
	/* while QEMU waits it may still read it */
	if (r || strcmp(j->what, "prepare"))
		stream_key_drop(key_dir);
	/* one that has come, and waits for the word of the other host, is not to be another one when systemd starts it again */
	waits = at == GUEST_ARRIVED && !holds_all(j->guest);
	if (strcmp(j->what, "prepare") ? !r && !waits : r)
		unlink(env);
	if (strcmp(j->what, "prepare"))
		bandwidth_release(j->guest);
	if (r)
		return give_up(sock, why);
	msg_begin(&m);
	json_bool(&m.j, "ok", true);
	if (*in.uri)
		json_str(&m.j, "uri", in.uri);
	json_u64(&m.j, "pid", (uint64_t)in.pid);
	json_u64(&m.j, "born", in.born);
	json_str(&m.j, "state", guest_at_text[at]);
	json_str(&m.j, "never", never);
	json_bool(&m.j, "arrived", waits);
	msg_write(&m, sock);
	return 0;
}

/* --- steps --- */

static void settled(struct arrival *a)
{
	a->comes = false;
	timer_clear(&a->silence);
	a->text[0] = 0;
	mark_clear(COMING, a->conf->name);
}

/* The mark: HOST PID BORN */
static void remember(struct arrival *a)
{
	char text[IOVM_NAME_MAX + 64];

	snprintf(text, sizeof(text), "%s %d %llu", a->from->name, (int)a->known.pid, (unsigned long long)a->known.born);
	mark_set(COMING, a->conf->name, text);
}

static void recall(struct arrival *a)
{
	char text[IOVM_NAME_MAX + 64], name[IOVM_NAME_MAX];
	unsigned long long born;
	int pid;

	if (!mark_get(COMING, a->conf->name, text, sizeof(text)) || sscanf(text, "%63s %d %llu", name, &pid, &born) != 3)
		return;
	a->from = config_peer(agent.config, name);
	a->known.pid = pid;
	a->known.born = born;
	a->comes = a->from;
	snprintf(a->text, sizeof(a->text), "was being prepared for '%s' when iovmd ended", name);
}

static void took_effect(struct arrival *a, const struct json_node *o, const char *error)
{
	info("guest '%s': %s: %s", a->conf->name, a->what, error ?: member_str(o, "never") ? "it is not here" : "done");
	if (error) {
		snprintf(a->text, sizeof(a->text), "%s failed: %.400s", a->what, error);
	} else if (!strcmp(a->what, "prepare")) {
		a->known.pid = (pid_t)member_u64(o, "pid");
		a->known.born = member_u64(o, "born");
		remember(a);
		snprintf(a->text, sizeof(a->text), "QEMU waits for it to come from '%s'", a->from->name);
	} else if (!strcmp(a->what, "settle") && member_bool(o, "arrived")) {
		snprintf(a->text, sizeof(a->text),
			 "all of it is here, but '%s' has not said that it may run: it does when that host is back; to have it run "
			 "without, make sure that it does not run there, and say 'cont' to its QEMU", a->from->name);
	} else {
		settled(a);
	}
}

static void on_line(struct line *l, char *text, void *data)
{
	struct arrival *a = data;
	char error[JSON_READ_ERROR];
	struct json_node *o;
	const char *why;
	struct msg m;

	(void)l;
	if (!text) {
		a->line = NULL;
		return;
	}
	o = json_read(text, strlen(text), error);
	if (!o)
		return;
	why = member_bool(o, "ok") ? NULL : member_str(o, "error") ?: "no reason given";
	took_effect(a, o, why);
	if (a->asker && why) {
		answer_error(a->asker, a->id, why);
	} else if (a->asker) {
		answer_begin(&m, a->id);
		json_str(&m.j, "uri", member_str(o, "uri"));
		json_str(&m.j, "never", member_str(o, "never"));
		msg_send(&m, a->asker);
	}
	a->asker = NULL;
	json_free(o);
}

static void worker_ended(struct child *c, int status, const char *output, void *data)
{
	struct arrival *a = data;
	char why[WHY_MAX];

	(void)c;
	a->child = NULL;
	if (!a->asker)
		return;
	child_reason(status, output, why);
	answer_error(a->asker, a->id, why);
	a->asker = NULL;
}

static bool step(struct arrival *a, const char *what, const struct json_node *o)
{
	/* from here on there may be a QEMU */
	if (!strcmp(what, "prepare")) {
		a->comes = true;
		memset(&a->known, 0, sizeof(a->known));
		remember(a);
	}

	struct job job = {
		.guest = a->conf, .from = a->from, .what = what, .listen = agent.config->host.listen,
		.channels = o ? (unsigned int)member_u64(o, "channels") : 0, .known = a->known, .comes = a->comes, .gone = o && member_bool(o, "gone"),
		.key = o ? member_str(o, "key") : NULL,
	};

	a->what = what;
	a->child = child_worker(run_step, &job, -1, false, &a->line, on_line, worker_ended, a);
	return a->child;
}

/* Is it a guest that may be here or there? */
static bool shared_with(const struct arrival *a, const struct config_peer *from, char why[WHY_MAX])
{
	unsigned int i;

	for (i = 0; i < a->conf->nr_devices; i++) {
		const struct config_device *d = a->conf->devices[i];

		if (config_peer_of(d, from) < 0) {
			snprintf(why, WHY_MAX, "[device %s] does not have '%s' among its peers there", d->name, from->name);
			return false;
		}
	}
	return true;
}

/* May the guest come here, as far as can be seen? by_libvirt: libvirt brings it. */
static bool fits(const struct arrival *a, bool by_libvirt, char why[WHY_MAX])
{
	struct iovm_path_info pi;
	struct iovm_dev_info di;
	unsigned int i;

	if (by_libvirt != (config_way(a->conf) == WAY_LIBVIRT)) {
		snprintf(why, WHY_MAX, "[guest %s] has %s 'libvirt' there", a->conf->name, by_libvirt ? "no" : "a");
		return false;
	}
	if (!by_libvirt && !*a->conf->command && !*a->conf->unit) {
		snprintf(why, WHY_MAX, "[guest %s] has neither 'unit' nor 'command' there, to start its QEMU", a->conf->name);
		return false;
	}
	for (i = 0; i < a->conf->nr_devices; i++) {
		const struct config_device *d = a->conf->devices[i];

		if (!kernel_has_device(d->name, &di))
			snprintf(why, WHY_MAX, "device '%s' is not there yet: %s", d->name, apply_trouble(d));
		else if (di.queues_running)
			snprintf(why, WHY_MAX, "a guest runs on device '%s' there", d->name);
		else if (!*d->disk || !kernel_has_path(d->name, "local", &pi) || pi.state != IOVM_PATH_LIVE)
			snprintf(why, WHY_MAX, "device '%s' has no live path to a disk of that host", d->name);
		else
			continue;
		return false;
	}
	return true;
}

bool arrival_fits(const struct config_guest *conf, const struct config_peer *from, char why[WHY_MAX])
{
	struct arrival *a = arrival_of(conf);

	return shared_with(a, from, why) && fits(a, config_way(conf) == WAY_LIBVIRT, why);
}

void arrival_request(struct line *l, uint64_t id, const struct config_peer *from, const struct json_node *o)
{
	static const char *const steps[] = { "prepare", "accept", "abort" };
	const char *name = member_str(o, "guest"), *op = member_str(o, "op");
	struct config_guest *g = name ? config_guest(agent.config, name) : NULL;
	struct arrival *a = g ? arrival_of(g) : NULL;
	bool by_libvirt = member_bool(o, "libvirt");
	char why[WHY_MAX];
	struct msg m;
	size_t i;

	for (i = 0; strcmp(steps[i], op); i++)
		;
	if (!a) {
		snprintf(why, sizeof(why), "there is no [guest %s] on host '%s'", name ?: "?", agent.config->host.name);
	} else if (a->child) {
		snprintf(why, sizeof(why), "host '%s' is busy with '%s' for guest '%s'", agent.config->host.name, a->what, name);
	} else if (guest_is_migrating(g)) {
		snprintf(why, sizeof(why), "guest '%s' is leaving host '%s'", name, agent.config->host.name);
	} else if (a->comes && a->from != from) {
		snprintf(why, sizeof(why), "guest '%s' comes from '%s'", name, a->from->name);
	} else if (shared_with(a, from, why) && (i || fits(a, by_libvirt, why))) {
		if (by_libvirt && !i) {
			/* its libvirt and ours do the rest */
			answer_begin(&m, id);
			msg_send(&m, l);
			return;
		}
		a->from = from;
		a->asker = l;
		a->id = id;
		if (step(a, steps[i], o))
			return;
		a->asker = NULL;
		snprintf(why, sizeof(why), "no process could be started");
	}
	answer_error(l, id, why);
}

/* --- a peer that is silent --- */

static void silent(void *data)
{
	struct arrival *a = data;

	timer_clear(&a->silence);
	if (a->comes && !a->child)
		step(a, "settle", NULL);
}

void arrival_look(void)
{
	struct arrival *a;

	for (a = arrivals; a; a = a->next) {
		if (!a->comes || peer_is_up(a->from, NULL))
			timer_clear(&a->silence);
		else if (!a->silence)
			timer_set(&a->silence, SILENCE_MS, silent, a);
	}
}

static bool is_busy(const struct arrival *a)
{
	return a->comes || a->child;
}

bool arrival_busy(const struct config_guest *conf, const struct config_peer **from)
{
	struct arrival *a = arrival_of(conf);

	*from = a ? a->from : NULL;
	return a && is_busy(a);
}

void arrival_reload(void)
{
	struct arrival *a, *old = arrivals, **end = &arrivals;
	const struct config_guest *conf;
	char env[ENV_MAX];

	arrivals = NULL;
	for (conf = agent.config->guests; conf; conf = conf->next) {
		a = kept_take(old, next, conf, conf);
		if (!a->conf) {
			a->conf = conf;
			/* one that was prepared when the last iovmd was killed */
			recall(a);
			env_of(conf, env);
			if (!a->comes)
				unlink(env);
		}
		*end = a;
		end = &a->next;
		if (is_busy(a) && a->from)
			config_use_peer(a->from);
		else
			a->from = NULL;
	}
	/* a guest that comes is kept: see reload.c */
	while ((a = old)) {
		old = a->next;
		timer_clear(&a->silence);
		line_close(a->line);
		free(a);
	}
}

int arrival_start(char why[WHY_MAX])
{
	arrival_reload();
	return stable_dir(ACCEPTED, why);
}
