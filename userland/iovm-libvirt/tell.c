// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lines of JSON for iovmd: phases with figures, and the outcome.
 */
#include <stdio.h>
#include <string.h>

#include "iovm-libvirt.h"
#include "../common/json.h"

void tell_phase(const char *phase)
{
	struct json j;

	json_init(&j, stdout, false);
	json_open(&j, NULL, '{');
	json_str(&j, "phase", phase);
	json_close(&j);
	fflush(stdout);
}

/* A figure of any type, 0 when there is none. */
static uint64_t figure(const virTypedParameter *params, int nr, const char *name)
{
	int i;

	for (i = 0; i < nr; i++) {
		if (strcmp(params[i].field, name))
			continue;
		switch (params[i].type) {
		case VIR_TYPED_PARAM_ULLONG:
			return params[i].value.ul;
		case VIR_TYPED_PARAM_LLONG:
			return params[i].value.l > 0 ? (uint64_t)params[i].value.l : 0;
		case VIR_TYPED_PARAM_UINT:
			return params[i].value.ui;
		case VIR_TYPED_PARAM_INT:
			return params[i].value.i > 0 ? (uint64_t)params[i].value.i : 0;
		default:
			return 0;
		}
	}
	return 0;
}

void tell_stats(const virTypedParameter *params, int nr, bool completed)
{
	uint64_t total = figure(params, nr, VIR_DOMAIN_JOB_DATA_TOTAL), downtime = figure(params, nr, VIR_DOMAIN_JOB_DOWNTIME);
	struct json j;

	json_init(&j, stdout, false);
	json_open(&j, NULL, '{');
	json_str(&j, "phase", completed ? "completed" : total ? "active" : "setup");
	json_u64(&j, "rate", figure(params, nr, VIR_DOMAIN_JOB_MEMORY_BPS));
	json_u64(&j, "transferred", figure(params, nr, VIR_DOMAIN_JOB_DATA_PROCESSED));
	json_u64(&j, "remaining", figure(params, nr, VIR_DOMAIN_JOB_DATA_REMAINING));
	json_u64(&j, "total", total);
	json_u64(&j, "dirty_rate", figure(params, nr, VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE) *
		 figure(params, nr, VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE));
	json_u64(&j, "expected_downtime_ms", completed ? 0 : downtime);
	json_u64(&j, "downtime_ms", completed ? downtime : 0);
	json_u64(&j, "total_ms", figure(params, nr, VIR_DOMAIN_JOB_TIME_ELAPSED));
	json_u64(&j, "throttle_percent", figure(params, nr, VIR_DOMAIN_JOB_AUTO_CONVERGE_THROTTLE));
	json_close(&j);
	fflush(stdout);
}

void tell_outcome(const char *outcome, const char *why)
{
	struct json j;

	json_init(&j, stdout, false);
	json_open(&j, NULL, '{');
	json_str(&j, "outcome", outcome);
	json_str(&j, "why", why);
	json_close(&j);
	fflush(stdout);
}
