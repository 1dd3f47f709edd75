/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * iovm-libvirt has libvirt migrate a guest, for iovmd, which itself knows nothing of libvirt. See the top of main.c.
 */
#ifndef IOVM_LIBVIRT_H
#define IOVM_LIBVIRT_H

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../common/clock.h"

#define WHY_MAX		512	/* of a sentence that says why */

/**
 * struct job - what to do
 * @connect: URI of this host's libvirt
 * @to: URI of the other host's, for this host's daemon and for us
 * @guest_uri: where QEMU there listens, "tcp://192.0.2.7"; NULL: libvirt there says it
 * @domain: name of the guest, on both
 * @tls: the guest's memory is encrypted (VIR_MIGRATE_TLS)
 * @converge: slow the guest's CPUs down, as far as needed
 * @channels: connections for its memory; 0: one
 * @bandwidth: MiB/s; 0 no limit
 * @downtime_ms: for so long the guest may be stopped; 0 as libvirt has it
 * @timeout_ms: after so long it is given up; 0 never
 */
struct job {
	const char *connect, *to, *guest_uri, *domain;
	bool tls, converge;
	unsigned int channels;
	uint64_t bandwidth, downtime_ms, timeout_ms;
};

enum place {
	PLACE_UNKNOWN,		/* why says what could not be asked */
	PLACE_HERE,		/* it runs here */
	PLACE_THERE,		/* it runs there */
	PLACE_NOWHERE,		/* on neither host */
	PLACE_STOPPED,		/* it is here and there, or here, but does not run */
};

/* ---- telling (tell.c) ---- */

/* One line each on stdout. Nobody may be listening any more. */
void tell_phase(const char *phase);
/* What libvirt says of a job; completed: it has ended. */
void tell_stats(const virTypedParameter *params, int nr, bool completed);
void tell_outcome(const char *outcome, const char *why);

/* ---- migrating (migrate.c) ---- */

/* What iovmd says while it goes on, by lines on stdin */
enum wish {
	WISH_NOTHING,
	WISH_CANCEL,
	WISH_HOLD,	/* so slowly that it does not end */
	WISH_GO,
};

/* Waits for a wish for at most ms. */
enum wish wish_wait(int ms);

int migrate(const struct job *j);

/* ---- where the guest is (settle.c) ---- */

/* Follows a migration that is under way, until it has ended; then tells where the guest is. */
int settle(const struct job *j, const char *why);
/* The newest error of this thread, as a sentence */
const char *error_text(void);
/* Is a job under way? */
bool job_runs(virDomainPtr dom, bool *migration);
/* Shows how far it is; false: there is none. */
bool show_job(virDomainPtr dom, bool completed);

#endif
