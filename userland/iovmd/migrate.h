/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The source's side of a live migration over QMP, from the first look at the guest to its end here. It blocks: it runs in a child
 * of the agent. Steps, with the call of migrate_ops that belongs to each:
 *
 *	1. the guest runs, and no migration is under way			else MIGRATE_REFUSED, MIGRATE_BUSY
 *	2. capabilities and parameters are set; what they were is kept
 *	3. `migrate`; the guest's memory is sent while it runs		progress(), may_switch(), cancelled()
 *	4. QEMU stops the guest and its devices, and waits			switchover()
 *	5. `migrate-continue`; the rest is sent; the destination has loaded it
 *	6. completed								completed(): the point of no return
 *	7. this QEMU is ended							MIGRATE_DONE
 *
 * Whatever goes wrong before 6: `migrate_cancel`, wait until QEMU is done with it, undo(), make sure that the guest runs here,
 * restore the settings, MIGRATE_ROLLED_BACK. No `cont` is sent before undo(); QEMU itself, however, lets the guest run as soon as a
 * migration that it has stopped it for is cancelled or fails: its queues must not work without their epoch.
 */
#ifndef IOVMD_MIGRATE_H
#define IOVMD_MIGRATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum migrate_outcome {
	MIGRATE_DONE,		/* the guest is at the destination */
	MIGRATE_ROLLED_BACK,	/* the guest runs here, as before */
	MIGRATE_REFUSED,	/* nothing was begun: the guest is as it was */
	MIGRATE_BUSY,		/* likewise: somebody's migration of this guest is under way */
	MIGRATE_LOST,		/* QEMU has ended here, and the guest with it; the destination has not got it either */
	MIGRATE_UNCLEAR,	/* somebody has to look: why says at what */
};

extern const char *const migrate_outcome_text[];

enum migrate_taken {
	MIGRATE_TAKEN,		/* the guest runs at the destination */
	MIGRATE_NOT_TAKEN,	/* it never ran there and never will: its QEMU there has ended, which was confirmed */
	MIGRATE_TAKEN_UNKNOWN,
};

/**
 * struct migrate_progress - how far it is
 * @phase: QEMU's word: "setup", "active", "pre-switchover", "device", "completed" ...; or "held": slowed down until may_switch();
 *	or "silent": QEMU does not answer, since it stops devices whose requests wait. Then the figures are 0
 * @rate: bytes/s sent since the call before
 * @transferred: bytes, as @remaining and @total
 * @dirty_rate: bytes/s that the guest writes to
 * @expected_downtime: ms
 * @downtime: ms, once it is completed
 * @total_ms: since `migrate`
 * @throttle: per cent of the time that the guest's CPUs are held
 */
struct migrate_progress {
	const char *phase;
	uint64_t rate, transferred, remaining, total, dirty_rate;
	uint64_t expected_downtime, downtime, total_ms;
	unsigned int throttle;
};

/**
 * struct migrate_job - what to do. Times are in ms; where 0 is not said to be something, it is the default in brackets
 * @qmp: the monitor's socket
 * @uri: where the destination listens: "tcp:192.0.2.7:7100", "unix:/run/x"
 * @bandwidth: bytes/s, 0 unlimited
 * @downtime_ms: the guest may be stopped so long [300]
 * @multifd: connections for the memory, 0 off
 * @converge: slow the guest's CPUs down, as far as needed
 * @throttle_first: per cent, @converge's first step; 0 as QEMU has it
 * @throttle_step: per cent, each further step; 0 as QEMU has it
 * @throttle_max: per cent; 0 as QEMU has it
 * @key: of the stream, in place of @tls_creds; NULL none
 * @key_dir: for stream_key_give()
 * @tls_creds: id of the tls-creds object in this QEMU; NULL or "" no TLS
 * @tls_hostname: what the destination's certificate must say; NULL or "" what @uri says
 * @quit: end this QEMU when the guest runs at the destination
 * @cancel_fd: cancel when it is readable; -1 none
 * @answer_ms: QEMU answers a command [10 s]
 * @setup_ms: the destination is connected [30 s]
 * @converge_ms: the memory converges, apart from the time that it is held [30 min]
 * @hold_ms: may_switch() may hold it [10 min]
 * @silent_ms: QEMU may be silent while devices stop: it waits for their requests, and those for a path [5.5 min]
 * @switch_ms: from `migrate-continue` to completed [60 s]
 * @cancel_ms: QEMU is done with a cancelled migration [30 s]
 * @quit_ms: QEMU ends [10 s]
 */
struct migrate_job {
	const char *qmp;
	const char *uri;
	uint64_t bandwidth;
	unsigned int downtime_ms;
	unsigned int multifd;
	bool converge;
	unsigned int throttle_first, throttle_step, throttle_max;
	const char *key, *key_dir;
	const char *tls_creds, *tls_hostname;
	bool quit;
	int cancel_fd;
	unsigned int answer_ms, setup_ms, converge_ms, hold_ms, silent_ms, switch_ms, cancel_ms, quit_ms;
};

/**
 * struct migrate_ops - what the agent does meanwhile; each may be NULL. ctx is the caller's
 * @progress: about once a second, and when the phase changes
 * @cancelled: asked at each wait: is it to be cancelled?
 * @may_switch: may the guest be stopped, have its devices a live path? As long as not, the memory is sent so slowly that it
 *	does not converge. (A guest that writes nothing and has next to nothing left to send may be stopped all the same.)
 * @switchover: the guest is stopped, its queues too: give up the epochs. Other than 0: roll back, why has a sentence
 * @completed: all is at the destination, and this QEMU will not go on by itself: let the guest run there, and say how that went.
 *	Also called when this QEMU ended after `migrate-continue`: the destination may have all of it. why: a sentence, unless
 *	MIGRATE_TAKEN
 * @undo: the migration will not be: end the destination's QEMU, have that confirmed, take the epochs back. Called once, when QEMU
 *	is done with the migration, or has ended. Other than 0: it is not certain that the guest cannot run there, why says why; the
 *	guest is not let run here
 * @rolled_back: the guest runs here
 */
struct migrate_ops {
	void (*progress)(void *ctx, const struct migrate_progress *p);
	bool (*cancelled)(void *ctx);
	bool (*may_switch)(void *ctx);
	int (*switchover)(void *ctx, char *why, size_t n);
	enum migrate_taken (*completed)(void *ctx, char *why, size_t n);
	int (*undo)(void *ctx, char *why, size_t n);
	void (*rolled_back)(void *ctx);
};

/* why: a sentence, unless MIGRATE_DONE, where it is "" or says that QEMU did not end here. */
enum migrate_outcome migrate_out(const struct migrate_job *job, const struct migrate_ops *ops, void *ctx, char *why, size_t n);

/*
 * For an agent that finds a migration of its own that nobody looks after any more (qemu_find(): GUEST_LEAVING, GUEST_STOPPED,
 * GUEST_LEFT): roll back from there, as above. Also when the guest runs already: then it only calls undo(), resets what would
 * stop somebody else's migration half-way, and calls rolled_back(). When QEMU has ended, completed() is called, as above:
 * MIGRATE_DONE if the guest is whole there.
 */
enum migrate_outcome migrate_back(const struct migrate_job *job, const struct migrate_ops *ops, void *ctx, char *why, size_t n);

/* End a QEMU whose guest has been migrated away (GUEST_LEFT), and only such a one. Returns 0, or -1 and a sentence. */
int migrate_quit(const struct migrate_job *job, char *why, size_t n);

#endif
