/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the mux decides, without anything it decides about: which state follows which, which path
 * is the route, what becomes of a request that a back end has ended. No kernel dependency, so that
 * it is unit-tested on the build host (selftests/unit/test_policy.c). Every function here is pure
 * and may be called in any context.
 */
#ifndef _IOVM_POLICY_H
#define _IOVM_POLICY_H

#include <linux/types.h>
#ifndef __KERNEL__
#include <stdbool.h>
#endif

#include "iovm.h"		/* uapi/ */

/**
 * enum iovm_result - how a back end ended a request
 * @IOVM_RES_OK: served
 * @IOVM_RES_REQUEST: the request itself is at fault or cannot be served anywhere (not supported,
 *	out of range): reported to the guest, the path stays
 * @IOVM_RES_IO: an error that may be the path's or the request's (a bare I/O error): the path
 *	fails, unless this request has already failed so on another path, or IOVM_IO_TRIES times
 *	with no other path to try (IOVM_IO_TRIES_MAX times with one); then it is reported to the
 *	guest and the path stays
 * @IOVM_RES_PATH: device or peer is gone: the path fails, the request goes elsewhere
 * @IOVM_RES_RETRY: a resource was short, nothing was issued: again, on the same path, soon
 * @IOVM_RES_UNSENT: the path failed before any byte of the request left: like @IOVM_RES_PATH, and
 *	no fence is needed
 * @IOVM_RES_MEDIA: the medium does not give or take these blocks on this path: once more on another
 *	path, then reported to the guest; the path stays
 * @IOVM_RES_NOSPC: a write needs space that a thin-provisioned store has not got now: it waits
 *	until there is some; the path stays
 */
enum iovm_result {
	IOVM_RES_OK,
	IOVM_RES_REQUEST,
	IOVM_RES_IO,
	IOVM_RES_PATH,
	IOVM_RES_RETRY,
	IOVM_RES_UNSENT,
	IOVM_RES_MEDIA,
	IOVM_RES_NOSPC,
};

/*
 * How often one request may end with IOVM_RES_IO on the only path before the guest is told.
 * Between two of these the path was probed and answered, so that it is the request which fails.
 */
#define IOVM_IO_TRIES	3

/*
 * The same where another path is live, to which the request goes now that this one fails. There is
 * an end to that too: paths that all flap, each answering its probe, could go on for ever.
 */
#define IOVM_IO_TRIES_MAX	6

/**
 * enum iovm_fate - what becomes of a request that ended with an error
 * @IOVM_FATE_REPORT: the guest is told
 * @IOVM_FATE_REQUEUE: to any path, at once
 * @IOVM_FATE_BIND: to the same path only, at once (it is live again already, or leaves)
 * @IOVM_FATE_HOLD: kept until the same path is live again or its fence is confirmed
 * @IOVM_FATE_RETRY: to any path a little later; to the same only if it was bound before
 * @IOVM_FATE_ELSEWHERE: at once to a path on which it has not been, if there is one
 * @IOVM_FATE_NOSPC: kept a while, then to any path
 * @IOVM_FATE_NOSPC_BIND: kept a while, then to the same path only
 */
enum iovm_fate {
	IOVM_FATE_REPORT,
	IOVM_FATE_REQUEUE,
	IOVM_FATE_BIND,
	IOVM_FATE_HOLD,
	IOVM_FATE_RETRY,
	IOVM_FATE_ELSEWHERE,
	IOVM_FATE_NOSPC,
	IOVM_FATE_NOSPC_BIND,
};

/**
 * struct iovm_end - the end of a request, as iovm_judge() looks at it
 * @res: what the back end said; not IOVM_RES_OK
 * @state: of the path, now
 * @op: IOVM_OP_*
 * @fence: IOVM_FENCE_*, of the path
 * @slot: of the path
 * @tried: bit per slot on which the request has ended with IOVM_RES_IO before
 * @io_errors: how often it has done so
 * @media: bit per slot on which the request has ended with IOVM_RES_MEDIA before
 * @others: a live path that is not this one has not been tried yet
 * @bound: an earlier issue on this path may still land
 * @stale: issued before the path became live last
 * @fenced: this path was fenced since it was live
 */
struct iovm_end {
	enum iovm_result res;
	enum iovm_path_state state;
	unsigned int op;
	unsigned int fence;
	unsigned int slot;
	unsigned int tried;
	unsigned int io_errors;
	unsigned int media;
	bool others;
	bool bound;
	bool stale;
	bool fenced;
};

static inline bool iovm_state_usable(enum iovm_path_state state)
{
	return state == IOVM_PATH_LIVE || state == IOVM_PATH_SUSPECT;
}

/* Does this operation change the medium? */
static inline bool iovm_op_modifies(unsigned int op)
{
	return op == IOVM_OP_WRITE || op == IOVM_OP_DISCARD || op == IOVM_OP_WRITE_ZEROES;
}

/* Bucket i counts [2^i, 2^(i+1)) ns; the last is open, 0 is in the first. */
static inline unsigned int iovm_hist_bucket(__u64 ns)
{
	unsigned int b = 63 - __builtin_clzll(ns | 1);

	return b < IOVM_HIST_BUCKETS ? b : IOVM_HIST_BUCKETS - 1;
}

bool iovm_state_may(enum iovm_path_state from, enum iovm_path_state to);
int iovm_choose(const enum iovm_path_state *state, int n, int cur);
int iovm_choose_next(const enum iovm_path_state *state, int n, int cur);
int iovm_choose_first(const enum iovm_path_state *state, int n);
enum iovm_dev_state iovm_derive_state(bool routed, bool suspended, bool no_epoch, bool failing);
enum iovm_fate iovm_judge(const struct iovm_end *end, bool *fail);
bool iovm_in_doubt(const struct iovm_end *end);
bool iovm_name_valid(const char *name);
bool iovm_identity_valid(const char *id);

#endif /* _IOVM_POLICY_H */
