// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Where a guest is, and what became of its migration: asked of libvirt on both hosts, which may have been restarted meanwhile.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "iovm-libvirt.h"

#define AGAIN_MS	1000
#define REACH_MS	60000	/* for so long a libvirt that does not answer is tried again */
#define STOPPED_MS	10000	/* paused on both is what a migration's end looks like for a moment */

const char *error_text(void)
{
	virErrorPtr e = virGetLastError();

	return e && e->message ? e->message : "libvirt does not say why";
}

bool job_runs(virDomainPtr dom, bool *migration)
{
	virTypedParameterPtr params = NULL;
	int type = VIR_DOMAIN_JOB_NONE, nr = 0, op = 0;

	*migration = false;
	if (virDomainGetJobStats(dom, &type, &params, &nr, 0))
		return false;
	if (virTypedParamsGetInt(params, nr, VIR_DOMAIN_JOB_OPERATION, &op) == 1)
		*migration = op == VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT;
	virTypedParamsFree(params, nr);
	return type == VIR_DOMAIN_JOB_BOUNDED || type == VIR_DOMAIN_JOB_UNBOUNDED;
}

bool show_job(virDomainPtr dom, bool completed)
{
	unsigned int flags = completed ? VIR_DOMAIN_JOB_STATS_COMPLETED : 0;
	virTypedParameterPtr params = NULL;
	int type = VIR_DOMAIN_JOB_NONE, nr = 0;

	if (virDomainGetJobStats(dom, &type, &params, &nr, flags))
		return false;
	if (type != VIR_DOMAIN_JOB_NONE)
		tell_stats(params, nr, completed);
	virTypedParamsFree(params, nr);
	return type != VIR_DOMAIN_JOB_NONE;
}

/* VIR_DOMAIN_NOSTATE: it is not known there; -1 and why: could not be asked. */
static int state_at(virConnectPtr conn, const char *name, char why[WHY_MAX])
{
	virDomainPtr dom = virDomainLookupByName(conn, name);
	int state = -1;

	/* it may also go in between */
	if (!dom || virDomainGetState(dom, &state, NULL, 0)) {
		virErrorPtr e = virGetLastError();

		state = e && e->code == VIR_ERR_NO_DOMAIN ? VIR_DOMAIN_NOSTATE : -1;
		snprintf(why, WHY_MAX, "%s", error_text());
	}
	if (dom)
		virDomainFree(dom);
	return state;
}

static bool runs(int state)
{
	return state == VIR_DOMAIN_RUNNING || state == VIR_DOMAIN_BLOCKED;
}

static bool exists(int state)
{
	return state != VIR_DOMAIN_NOSTATE && state != VIR_DOMAIN_SHUTOFF && state != VIR_DOMAIN_SHUTDOWN;
}

static enum place look(virConnectPtr here, const struct job *j, char why[WHY_MAX])
{
	virConnectPtr there;
	int a, b;

	a = state_at(here, j->domain, why);
	if (a < 0)
		return PLACE_UNKNOWN;
	if (runs(a))
		return PLACE_HERE;
	there = virConnectOpen(j->to);
	if (!there) {
		snprintf(why, WHY_MAX, "it does not run here, and libvirt at '%s' cannot be asked: %.300s", j->to, error_text());
		return PLACE_UNKNOWN;
	}
	b = state_at(there, j->domain, why);
	virConnectClose(there);
	if (b < 0)
		return PLACE_UNKNOWN;
	if (runs(b))
		return PLACE_THERE;
	if (exists(a) || exists(b)) {
		snprintf(why, WHY_MAX, "it is %s here and %s there, and runs on neither host: see 'virsh list'",
			 exists(a) ? "paused" : "not", exists(b) ? "paused" : "not");
		return PLACE_STOPPED;
	}
	return PLACE_NOWHERE;
}

/* Until no migration of it is under way; 0, or -1: the connection is gone. */
static int follow(virConnectPtr here, const struct job *j)
{
	virDomainPtr dom = virDomainLookupByName(here, j->domain);
	bool migration;

	if (!dom)
		return virGetLastError()->code == VIR_ERR_NO_DOMAIN ? 0 : -1;
	while (job_runs(dom, &migration) && migration) {
		show_job(dom, false);
		if (wish_wait(AGAIN_MS) == WISH_CANCEL)
			virDomainAbortJob(dom);
	}
	virDomainFree(dom);
	return virConnectIsAlive(here) == 1 ? 0 : -1;
}

static enum place find(const struct job *j, char why[WHY_MAX])
{
	uint64_t begun = ms_now(), since, spent;
	enum place at = PLACE_UNKNOWN;
	virConnectPtr here;
	bool good;

	do {
		here = virConnectOpen(j->connect);
		if (!here) {
			snprintf(why, WHY_MAX, "libvirt at '%s' cannot be asked: %.300s", j->connect, error_text());
		} else {
			since = ms_now();
			good = !follow(here, j);
			/* what the migration takes does not count */
			begun += ms_now() - since;
			if (good)
				at = look(here, j, why);
			virConnectClose(here);
		}
		if (at == PLACE_UNKNOWN || at == PLACE_STOPPED)
			poll(NULL, 0, AGAIN_MS);
		spent = ms_now() - begun;
	} while ((at == PLACE_UNKNOWN && spent < REACH_MS) || (at == PLACE_STOPPED && spent < STOPPED_MS));
	return at;
}

int settle(const struct job *j, const char *before)
{
	char why[WHY_MAX] = "", all[2 * WHY_MAX];

	switch (find(j, why)) {
	case PLACE_HERE:
		tell_outcome("rolled-back", before && *before ? before : "no migration is under way");
		return 0;
	case PLACE_THERE:
		tell_outcome("migrated", "");
		return 0;
	case PLACE_NOWHERE:
		tell_outcome("lost", before && *before ? before : "it runs on neither host");
		return 0;
	default:
		snprintf(all, sizeof(all), "%s%s%s", before ?: "", before && *before ? "; " : "", why);
		tell_outcome("unclear", all);
		return 0;
	}
}
