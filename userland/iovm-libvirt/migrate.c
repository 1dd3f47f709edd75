// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A migration by libvirt, from daemon to daemon: virDomainMigrateToURI3() in a thread, while this one looks how far it is and hears
 * what iovmd wants.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "iovm-libvirt.h"

#define LOOK_MS		500
#define SLOWEST		1		/* MiB/s: less cannot be said */
#define NO_LIMIT	8796093022207	/* MiB/s, the most that libvirt takes for QEMU */
#define ABORT_MS	60000		/* an aborted migration ends */

/**
 * struct run - a migration under way
 * @persistent: it is defined; @autostart: then it is started when this host is
 * @speed: the domain's limit as it was, MiB/s; @slowed: it was changed
 * @done: is written to when it has ended
 * @result: of virDomainMigrateToURI3()
 * @why: it failed
 */
struct run {
	const struct job *j;
	virDomainPtr dom;
	bool persistent, slowed;
	unsigned long speed;
	int autostart, done, result;
	char why[WHY_MAX];
};

enum wish wish_wait(int ms)
{
	static char buf[64];
	static size_t n;
	static bool gone;
	struct pollfd p = { .fd = gone ? -1 : STDIN_FILENO, .events = POLLIN };
	enum wish wish = WISH_NOTHING;
	ssize_t got;
	char *end;

	if (poll(&p, 1, ms) <= 0)
		return WISH_NOTHING;
	got = read(STDIN_FILENO, buf + n, sizeof(buf) - 1 - n);
	if (got <= 0) {
		/* iovmd has ended: the next one asks libvirt how things are */
		gone = true;
		return WISH_NOTHING;
	}
	n += (size_t)got;
	buf[n] = 0;
	while ((end = strchr(buf, '\n'))) {
		*end = 0;
		if (!strcmp(buf, "cancel"))
			wish = WISH_CANCEL;
		else if (!strcmp(buf, "hold") && wish != WISH_CANCEL)
			wish = WISH_HOLD;
		else if (!strcmp(buf, "go") && wish != WISH_CANCEL)
			wish = WISH_GO;
		n -= (size_t)(end + 1 - buf);
		memmove(buf, end + 1, n + 1);
	}
	if (n == sizeof(buf) - 1)
		n = 0;
	return wish;
}

static int set_params(const struct job *j, virTypedParameterPtr *params, int *nr)
{
	int max = 0, r = 0;

	if (j->guest_uri)
		r |= virTypedParamsAddString(params, nr, &max, VIR_MIGRATE_PARAM_URI, j->guest_uri);
	if (j->bandwidth)
		r |= virTypedParamsAddULLong(params, nr, &max, VIR_MIGRATE_PARAM_BANDWIDTH, j->bandwidth);
	if (j->channels)
		r |= virTypedParamsAddInt(params, nr, &max, VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS, (int)j->channels);
	return r;
}

/* As 'virsh migrate --live --p2p --persistent --undefinesource', whose definition is on the disk; a transient guest stays one. */
static unsigned int flags_of(const struct run *r)
{
	unsigned int flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER;

	if (r->persistent)
		flags |= VIR_MIGRATE_PERSIST_DEST | VIR_MIGRATE_UNDEFINE_SOURCE;
	if (r->j->converge)
		flags |= VIR_MIGRATE_AUTO_CONVERGE;
	if (r->j->channels)
		flags |= VIR_MIGRATE_PARALLEL;
	if (r->j->tls)
		flags |= VIR_MIGRATE_TLS;
	return flags;
}

static void *in_thread(void *data)
{
	struct run *r = data;
	virTypedParameterPtr params = NULL;
	uint64_t one = 1;
	int nr = 0;

	if (set_params(r->j, &params, &nr))
		r->result = -1;
	else
		r->result = virDomainMigrateToURI3(r->dom, r->j->to, params, (unsigned int)nr, flags_of(r));
	if (r->result)
		snprintf(r->why, sizeof(r->why), "%s", error_text());
	virTypedParamsFree(params, nr);
	if (write(r->done, &one, sizeof(one)) != sizeof(one))
		_exit(1);
	return NULL;
}

static bool has_ended(const struct run *r)
{
	struct pollfd p = { .fd = r->done, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

/* 0, or -1: it does not end. */
static int watch(struct run *r, char why[WHY_MAX])
{
	uint64_t begun = ms_now(), aborted = 0, now;
	const struct job *j = r->j;
	bool told = false;
	enum wish w;

	while (!has_ended(r)) {
		w = wish_wait(LOOK_MS);
		now = ms_now();
		if (!*why && j->timeout_ms && now - begun > j->timeout_ms) {
			snprintf(why, WHY_MAX, "it had not ended in time ('timeout')");
			w = WISH_CANCEL;
		}
		if (w == WISH_CANCEL) {
			if (!*why)
				snprintf(why, WHY_MAX, "it was cancelled");
			aborted = aborted ?: now;
			virDomainAbortJob(r->dom);
		} else if (w == WISH_HOLD) {
			virDomainMigrateSetMaxSpeed(r->dom, SLOWEST, 0);
			r->slowed = true;
		} else if (w == WISH_GO) {
			virDomainMigrateSetMaxSpeed(r->dom, j->bandwidth ? (unsigned long)j->bandwidth : NO_LIMIT, 0);
		}
		if (aborted && now - aborted > ABORT_MS)
			return -1;
		/* it may not have begun when it was asked to end */
		if (aborted && w != WISH_CANCEL)
			virDomainAbortJob(r->dom);
		if (has_ended(r) || !show_job(r->dom, false))
			continue;
		if (!told && j->downtime_ms)
			told = !virDomainMigrateSetMaxDowntime(r->dom, j->downtime_ms, 0);
	}
	return 0;
}

/* What it was told to do at a boot of this host is the other one's now. */
static void finish(const struct job *j, bool autostart)
{
	virConnectPtr there = virConnectOpen(j->to);
	virDomainPtr dom = there ? virDomainLookupByName(there, j->domain) : NULL;

	if (dom) {
		show_job(dom, true);
		if (autostart && virDomainSetAutostart(dom, 1))
			fprintf(stderr, "autostart could not be set for '%s' at '%s': %s\n", j->domain, j->to, error_text());
		virDomainFree(dom);
	}
	if (there)
		virConnectClose(there);
}

/* Is the other host's libvirt there, and the guest not? "" or why not. */
static void look_there(const struct job *j, char why[WHY_MAX])
{
	virConnectPtr there = virConnectOpen(j->to);
	virDomainPtr dom;

	why[0] = 0;
	if (!there) {
		snprintf(why, WHY_MAX, "libvirt at '%s' cannot be reached: %.300s", j->to, error_text());
		return;
	}
	dom = virDomainLookupByName(there, j->domain);
	if (dom && virDomainIsActive(dom) == 1)
		snprintf(why, WHY_MAX, "a guest '%s' runs there already", j->domain);
	if (dom)
		virDomainFree(dom);
	virConnectClose(there);
}

/* May it be begun? Sets r->dom; "" or why not. */
static void look_here(struct run *r, virConnectPtr here, char why[WHY_MAX])
{
	const struct job *j = r->j;
	bool migration;
	int state = 0;

	why[0] = 0;
	r->dom = virDomainLookupByName(here, j->domain);
	if (!r->dom)
		snprintf(why, WHY_MAX, "libvirt has no domain '%s' here: %.300s", j->domain, error_text());
	else if (virDomainGetState(r->dom, &state, NULL, 0) || state != VIR_DOMAIN_RUNNING)
		snprintf(why, WHY_MAX, "'%s' does not run here, says libvirt", j->domain);
	else if (job_runs(r->dom, &migration))
		snprintf(why, WHY_MAX, "libvirt is busy with '%s'%s", j->domain, migration ? ": it is being migrated" : "");
}

/* Is libvirt willing to begin, and has it ended? false and why: nothing was begun. */
static bool run_it(struct run *r, virConnectPtr here, char why[WHY_MAX])
{
	pthread_t t;

	look_here(r, here, why);
	if (!*why)
		look_there(r->j, why);
	if (*why)
		return false;
	r->persistent = virDomainIsPersistent(r->dom) == 1;
	if (r->persistent)
		virDomainGetAutostart(r->dom, &r->autostart);
	if (virDomainMigrateGetMaxSpeed(r->dom, &r->speed, 0))
		r->speed = NO_LIMIT;
	r->done = eventfd(0, EFD_CLOEXEC);
	if (r->done < 0 || pthread_create(&t, NULL, in_thread, r)) {
		snprintf(why, WHY_MAX, "out of memory");
		return false;
	}
	tell_phase("libvirt migrates");
	if (watch(r, why)) {
		snprintf(why, WHY_MAX, "libvirt does not end the migration: see 'virsh domjobinfo %.60s'", r->j->domain);
		tell_outcome("unclear", why);
		/* its thread may stay for ever */
		_exit(0);
	}
	pthread_join(t, NULL);
	/* the limit stays with a domain that stays */
	if (r->result && r->slowed)
		virDomainMigrateSetMaxSpeed(r->dom, r->speed, 0);
	return true;
}

int migrate(const struct job *j)
{
	virConnectPtr here = virConnectOpen(j->connect);
	struct run r = { .j = j };
	char why[WHY_MAX] = "";
	bool begun = false;

	if (here)
		begun = run_it(&r, here, why);
	else
		snprintf(why, sizeof(why), "libvirt at '%s' cannot be reached: %.300s", j->connect, error_text());
	if (r.dom)
		virDomainFree(r.dom);
	if (here)
		virConnectClose(here);
	if (!begun) {
		tell_outcome("refused", why);
		return 0;
	}
	if (r.result)
		return settle(j, *why ? why : r.why);
	finish(j, r.autostart);
	tell_outcome("migrated", "");
	return 0;
}
