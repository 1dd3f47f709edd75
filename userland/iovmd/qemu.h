/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What QEMU says of its guest and of that guest's migration, and the migration's settings, in terms of C. For both sides: see
 * migrate.h (source) and incoming.h (destination). QEMU 7.2 to 10 say the same in these words; what is not known is passed over.
 */
#ifndef IOVMD_QEMU_H
#define IOVMD_QEMU_H

#include "qmp.h"

#define QEMU_WORD	24
#define QEMU_URI	192

/* Where a guest is, seen from one QEMU */
enum guest_at {
	GUEST_GONE,		/* nobody listens on the monitor: this QEMU has ended, or never began */
	GUEST_SILENT,		/* something is there, but does not answer as QEMU would */
	GUEST_RUNS,		/* here, and no migration is under way */
	GUEST_PAUSED,		/* here, stopped by somebody, and no migration is under way */
	GUEST_BROKEN,		/* here, but it cannot go on: it has shut down, panicked, or QEMU stopped it for an error */
	GUEST_LEAVING,		/* source: a migration is under way, the guest runs */
	GUEST_STOPPED,		/* source: stopped by the migration, which may still be cancelled (pre-switchover, device) */
	GUEST_LEFT,		/* source: the migration is complete; the guest runs again here only if it is told to */
	GUEST_AWAITED,		/* destination: nothing has come yet */
	GUEST_COMING,		/* destination: it is arriving */
	GUEST_ARRIVED,		/* destination: all is here, `cont` lets it run; also a guest that came earlier and was paused since */
};

extern const char *const guest_at_text[];	/* "runs", "has left" ... */

/**
 * struct qemu_migration - query-migrate
 * @status: "" none ever, "setup", "active", "pre-switchover", "device", "completed", "cancelling", "cancelled", "failed" ...
 * @error: why it failed, "" not known
 * @uri: destination: where it listens, "" it does not; QEMU forgets it when the guest has come
 * @transferred: bytes, as the rest
 * @dirty_rate: bytes/s
 * @expected_downtime: ms
 * @downtime: ms, when it is complete
 * @total_ms: since it began
 * @throttle: per cent of the time that the guest's CPUs are held
 */
struct qemu_migration {
	char status[QEMU_WORD];
	char error[256];
	char uri[QEMU_URI];
	uint64_t transferred, remaining, total, dirty_rate;
	uint64_t expected_downtime, downtime, total_ms;
	unsigned int throttle;
};

enum qemu_cap {
	CAP_EVENTS,
	CAP_PAUSE,		/* pause-before-switchover */
	CAP_RETURN_PATH,	/* the destination tells whether it could load the guest */
	CAP_LATE_ACTIVATE,	/* the destination takes its disks at `cont`, not before */
	CAP_MULTIFD,
	CAP_CONVERGE,		/* auto-converge */
	QEMU_CAPS,
};

enum qemu_num {
	NUM_BANDWIDTH,		/* bytes/s, 0 unlimited */
	NUM_DOWNTIME,		/* ms */
	NUM_CHANNELS,		/* of multifd */
	NUM_THROTTLE_FIRST,	/* per cent */
	NUM_THROTTLE_STEP,
	NUM_THROTTLE_MAX,
	QEMU_NUMS,
};

enum qemu_text {
	TEXT_TLS_CREDS,		/* id of a tls-creds object, "" no TLS */
	TEXT_TLS_HOSTNAME,	/* what the destination's certificate must say, "" the address */
	TEXT_TLS_AUTHZ,		/* id of an authz object */
	QEMU_TEXTS,
};

enum qemu_wish {
	WISH_NONE,		/* leave it as it is */
	WISH_IF_KNOWN,		/* pass over it when this QEMU does not know it */
	WISH,
};

/* Capabilities and parameters to be set, or what they were before */
struct qemu_settings {
	struct {
		enum qemu_wish wish;
		bool on;
	} cap[QEMU_CAPS];
	struct {
		enum qemu_wish wish;
		uint64_t value;
	} num[QEMU_NUMS];
	struct {
		enum qemu_wish wish;
		char value[128];
	} text[QEMU_TEXTS];
};

void qemu_wish_cap(struct qemu_settings *s, enum qemu_cap cap, enum qemu_wish wish, bool on);
void qemu_wish_num(struct qemu_settings *s, enum qemu_num num, uint64_t value);
/* NULL: no wish */
void qemu_wish_text(struct qemu_settings *s, enum qemu_text text, const char *value);

/*
 * Set what differs. *old (may be NULL) gets how all that is wished for was before, to be given to qemu_apply() again; also when
 * this fails half-way.
 * QEMU refuses capabilities while a migration is under way.
 */
enum qmp_result qemu_apply(struct qmp *q, unsigned int ms, const struct qemu_settings *want, struct qemu_settings *old,
			   char *why, size_t n);

/* query-status: "running", "paused", "inmigrate", "finish-migrate", "postmigrate", "shutdown" ... */
enum qmp_result qemu_run_state(struct qmp *q, unsigned int ms, char state[QEMU_WORD], char *why, size_t n);
enum qmp_result qemu_migration(struct qmp *q, unsigned int ms, struct qemu_migration *m, char *why, size_t n);
/* Is a migration of this status under way? */
bool qemu_under_way(const char *status);

/* Where the guest is; with GUEST_SILENT, why says what is wrong. */
enum guest_at qemu_guest_at(struct qmp *q, unsigned int ms, char *why, size_t n);
/* The same, from a monitor's socket. */
enum guest_at qemu_find(const char *path, unsigned int ms, char *why, size_t n);

#endif
