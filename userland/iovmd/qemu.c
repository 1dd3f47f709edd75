// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What QEMU says of its guest and of the migration. See qemu.h.
 */
#include <string.h>

#include "qemu.h"

const char *const guest_at_text[] = {
	[GUEST_GONE] = "is not there",
	[GUEST_SILENT] = "does not answer",
	[GUEST_RUNS] = "runs",
	[GUEST_PAUSED] = "is paused",
	[GUEST_BROKEN] = "cannot go on",
	[GUEST_LEAVING] = "runs and is being migrated",
	[GUEST_STOPPED] = "is stopped in the middle of a migration",
	[GUEST_LEFT] = "has been migrated away",
	[GUEST_AWAITED] = "is waited for",
	[GUEST_COMING] = "is arriving",
	[GUEST_ARRIVED] = "has arrived and waits to be let run",
};

static const char *const cap_names[QEMU_CAPS] = {
	[CAP_EVENTS] = "events",
	[CAP_PAUSE] = "pause-before-switchover",
	[CAP_RETURN_PATH] = "return-path",
	[CAP_LATE_ACTIVATE] = "late-block-activate",
	[CAP_MULTIFD] = "multifd",
	[CAP_CONVERGE] = "auto-converge",
};

static const char *const num_names[QEMU_NUMS] = {
	[NUM_BANDWIDTH] = "max-bandwidth",
	[NUM_DOWNTIME] = "downtime-limit",
	[NUM_CHANNELS] = "multifd-channels",
	[NUM_THROTTLE_FIRST] = "cpu-throttle-initial",
	[NUM_THROTTLE_STEP] = "cpu-throttle-increment",
	[NUM_THROTTLE_MAX] = "max-cpu-throttle",
};

static const char *const text_names[QEMU_TEXTS] = {
	[TEXT_TLS_CREDS] = "tls-creds",
	[TEXT_TLS_HOSTNAME] = "tls-hostname",
	[TEXT_TLS_AUTHZ] = "tls-authz",
};

static bool one_of(const char *word, const char *const *words)
{
	for (; *words; words++)
		if (!strcmp(word, *words))
			return true;
	return false;
}

/* ---- states ---- */

enum qmp_result qemu_run_state(struct qmp *q, unsigned int ms, char state[QEMU_WORD], char *why, size_t n)
{
	struct json_node *reply;
	enum qmp_result r;

	*state = 0;
	r = qmp_execute(q, "query-status", ms, &reply, why, n);
	if (r)
		return r;
	snprintf(state, QEMU_WORD, "%s", qmp_str(reply, "status"));
	json_free(reply);
	return QMP_OK;
}

/* The first address that the destination listens on, as `migrate` takes it. */
static void take_uri(const struct json_node *reply, char uri[QEMU_URI])
{
	const struct json_node *list = json_member(reply, "socket-address"), *first;
	const char *type, *host;

	first = list && list->type == JSON_ARRAY ? list->first : NULL;
	type = qmp_str(first, "type");
	if (!strcmp(type, "inet")) {
		host = qmp_str(first, "host");
		snprintf(uri, QEMU_URI, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, qmp_str(first, "port"));
	} else if (!strcmp(type, "unix")) {
		snprintf(uri, QEMU_URI, "unix:%s", qmp_str(first, "path"));
	}
}

enum qmp_result qemu_migration(struct qmp *q, unsigned int ms, struct qemu_migration *m, char *why, size_t n)
{
	const struct json_node *ram;
	struct json_node *reply;
	enum qmp_result r;

	memset(m, 0, sizeof(*m));
	r = qmp_execute(q, "query-migrate", ms, &reply, why, n);
	if (r)
		return r;
	if (reply->type == JSON_OBJECT) {
		ram = qmp_object(reply, "ram");
		snprintf(m->status, sizeof(m->status), "%s", qmp_str(reply, "status"));
		snprintf(m->error, sizeof(m->error), "%s", qmp_str(reply, "error-desc"));
		take_uri(reply, m->uri);
		m->transferred = qmp_u64(ram, "transferred");
		m->remaining = qmp_u64(ram, "remaining");
		m->total = qmp_u64(ram, "total");
		m->dirty_rate = qmp_u64(ram, "dirty-pages-rate") * qmp_u64(ram, "page-size");
		m->expected_downtime = qmp_u64(reply, "expected-downtime");
		m->downtime = qmp_u64(reply, "downtime");
		m->total_ms = qmp_u64(reply, "total-time");
		m->throttle = (unsigned int)qmp_u64(reply, "cpu-throttle-percentage");
	}
	if (!strcmp(m->status, "none"))
		*m->status = 0;
	json_free(reply);
	return QMP_OK;
}

bool qemu_under_way(const char *status)
{
	static const char *const over[] = { "", "completed", "cancelled", "failed", NULL };

	return !one_of(status, over);
}

static enum guest_at place(const char *state, const char *status)
{
	static const char *const stopped[] = { "pre-switchover", "device", NULL };

	if (!strcmp(state, "inmigrate"))
		return !*status || !strcmp(status, "setup") ? GUEST_AWAITED : GUEST_COMING;
	if (!strcmp(state, "postmigrate") || (!strcmp(state, "finish-migrate") && !strcmp(status, "completed")))
		return GUEST_LEFT;
	if (!strcmp(state, "finish-migrate") || one_of(status, stopped))
		return GUEST_STOPPED;
	if (!strcmp(state, "running"))
		return qemu_under_way(status) ? GUEST_LEAVING : GUEST_RUNS;
	if (!strcmp(state, "paused") && !strcmp(status, "completed"))
		return GUEST_ARRIVED;
	if (!strcmp(state, "paused") || !strcmp(state, "prelaunch") || !strcmp(state, "suspended"))
		return qemu_under_way(status) ? GUEST_LEAVING : GUEST_PAUSED;
	return GUEST_BROKEN;
}

enum guest_at qemu_guest_at(struct qmp *q, unsigned int ms, char *why, size_t n)
{
	char state[QEMU_WORD];
	struct qemu_migration m;

	if (qemu_run_state(q, ms, state, why, n) || qemu_migration(q, ms, &m, why, n))
		return GUEST_SILENT;
	return place(state, m.status);
}

enum guest_at qemu_find(const char *path, unsigned int ms, char *why, size_t n)
{
	enum guest_at at;
	struct qmp q;

	switch (qmp_open(&q, path, ms, why, n)) {
	case QMP_OK:
		break;
	case QMP_CLOSED:
		return GUEST_GONE;
	default:
		return GUEST_SILENT;
	}
	at = qemu_guest_at(&q, ms, why, n);
	qmp_close(&q);
	return at;
}

/* ---- settings ---- */

void qemu_wish_cap(struct qemu_settings *s, enum qemu_cap cap, enum qemu_wish wish, bool on)
{
	s->cap[cap].wish = wish;
	s->cap[cap].on = on;
}

void qemu_wish_num(struct qemu_settings *s, enum qemu_num num, uint64_t value)
{
	s->num[num].wish = WISH;
	s->num[num].value = value;
}

void qemu_wish_text(struct qemu_settings *s, enum qemu_text text, const char *value)
{
	s->text[text].wish = value ? WISH : WISH_NONE;
	snprintf(s->text[text].value, sizeof(s->text[text].value), "%s", value ? value : "");
}

static const struct json_node *find_cap(const struct json_node *list, const char *name)
{
	const struct json_node *node, *state;

	for (node = list->type == JSON_ARRAY ? list->first : NULL; node; node = node->next) {
		if (strcmp(qmp_str(node, "capability"), name))
			continue;
		state = json_member(node, "state");
		return state && state->type == JSON_BOOL ? state : NULL;
	}
	return NULL;
}

/* What differs goes to *set; what is wished for, as it is now, to *old. */
static enum qmp_result compare_caps(struct qmp *q, unsigned int ms, const struct qemu_settings *want, struct qemu_settings *set,
				    struct qemu_settings *old, char *why, size_t n)
{
	const struct json_node *now;
	struct json_node *list;
	enum qmp_result r;
	unsigned int i;

	r = qmp_execute(q, "query-migrate-capabilities", ms, &list, why, n);
	for (i = 0; !r && i < QEMU_CAPS; i++) {
		now = find_cap(list, cap_names[i]);
		if (!now && want->cap[i].wish == WISH && want->cap[i].on) {
			qmp_why(why, n, "this QEMU does not know the migration capability '%s'", cap_names[i]);
			r = QMP_ERROR;
		}
		if (!now || !want->cap[i].wish)
			continue;
		qemu_wish_cap(old, i, WISH, now->b);
		if (now->b != want->cap[i].on)
			qemu_wish_cap(set, i, WISH, want->cap[i].on);
	}
	json_free(list);
	return r;
}

static enum qmp_result compare_params(struct qmp *q, unsigned int ms, const struct qemu_settings *want, struct qemu_settings *set,
				      struct qemu_settings *old, char *why, size_t n)
{
	struct json_node *reply;
	enum qmp_result r;
	unsigned int i;

	r = qmp_execute(q, "query-migrate-parameters", ms, &reply, why, n);
	if (r)
		return r;
	for (i = 0; i < QEMU_NUMS; i++) {
		if (!want->num[i].wish)
			continue;
		qemu_wish_num(old, i, qmp_u64(reply, num_names[i]));
		if (old->num[i].value != want->num[i].value)
			qemu_wish_num(set, i, want->num[i].value);
	}
	for (i = 0; i < QEMU_TEXTS; i++) {
		if (!want->text[i].wish)
			continue;
		qemu_wish_text(old, i, qmp_str(reply, text_names[i]));
		if (strcmp(old->text[i].value, want->text[i].value))
			qemu_wish_text(set, i, want->text[i].value);
	}
	json_free(reply);
	return QMP_OK;
}

static enum qmp_result set_caps(struct qmp *q, unsigned int ms, const struct qemu_settings *set, char *why, size_t n)
{
	struct json *j = qmp_command(q, "migrate-set-capabilities");
	bool some = false;
	unsigned int i;

	json_open(j, "capabilities", '[');
	for (i = 0; i < QEMU_CAPS; i++) {
		if (!set->cap[i].wish)
			continue;
		some = true;
		json_open(j, NULL, '{');
		json_str(j, "capability", cap_names[i]);
		json_bool(j, "state", set->cap[i].on);
		json_close(j);
	}
	json_close(j);
	return some ? qmp_run(q, ms, NULL, why, n) : QMP_OK;
}

static enum qmp_result set_params(struct qmp *q, unsigned int ms, const struct qemu_settings *set, char *why, size_t n)
{
	struct json *j = qmp_command(q, "migrate-set-parameters");
	bool some = false;
	unsigned int i;

	for (i = 0; i < QEMU_NUMS; i++)
		if (set->num[i].wish) {
			json_u64(j, num_names[i], set->num[i].value);
			some = true;
		}
	for (i = 0; i < QEMU_TEXTS; i++)
		if (set->text[i].wish) {
			json_str(j, text_names[i], set->text[i].value);
			some = true;
		}
	return some ? qmp_run(q, ms, NULL, why, n) : QMP_OK;
}

enum qmp_result qemu_apply(struct qmp *q, unsigned int ms, const struct qemu_settings *want, struct qemu_settings *old,
			   char *why, size_t n)
{
	struct qemu_settings set = { 0 }, unused;
	bool caps = false, params = false;
	enum qmp_result r = QMP_OK;
	unsigned int i;

	if (!old)
		old = &unused;
	memset(old, 0, sizeof(*old));
	for (i = 0; i < QEMU_CAPS; i++)
		caps |= want->cap[i].wish;
	for (i = 0; i < QEMU_NUMS; i++)
		params |= want->num[i].wish;
	for (i = 0; i < QEMU_TEXTS; i++)
		params |= want->text[i].wish;
	if (caps)
		r = compare_caps(q, ms, want, &set, old, why, n);
	if (!r && params)
		r = compare_params(q, ms, want, &set, old, why, n);
	if (!r)
		r = set_caps(q, ms, &set, why, n);
	if (!r)
		r = set_params(q, ms, &set, why, n);
	return r;
}
