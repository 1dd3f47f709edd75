// SPDX-License-Identifier: GPL-2.0
/*
 * Path states, choice of the route, fate of ended requests; see policy.h.
 */
#include "policy.h"

/**
 * iovm_state_may - is this transition of a path possible?
 * @from: the state it is in
 * @to: another one
 *
 * Nothing leads out of removed, nothing back to connecting, and a path that leaves does not become
 * live again.
 *
 * Return: whether it is. Staying in a state is not a transition.
 */
bool iovm_state_may(enum iovm_path_state from, enum iovm_path_state to)
{
	switch (to) {
	case IOVM_PATH_LIVE:
		switch (from) {
		case IOVM_PATH_CONNECTING:
		case IOVM_PATH_SUSPECT:
		case IOVM_PATH_FAILED:
			return true;
		default:
			return false;
		}
	case IOVM_PATH_SUSPECT:
		return from == IOVM_PATH_LIVE;
	case IOVM_PATH_FAILED:
		switch (from) {
		case IOVM_PATH_CONNECTING:
		case IOVM_PATH_LIVE:
		case IOVM_PATH_SUSPECT:
		case IOVM_PATH_DRAINING:
			return true;
		default:
			return false;
		}
	case IOVM_PATH_DRAINING:
		switch (from) {
		case IOVM_PATH_CONNECTING:
		case IOVM_PATH_LIVE:
		case IOVM_PATH_SUSPECT:
			return true;
		default:
			return false;
		}
	case IOVM_PATH_REMOVED:
		return from == IOVM_PATH_DRAINING || from == IOVM_PATH_FAILED;
	default:
		return false;
	}
}

static int choose_in_state(const enum iovm_path_state *state, int n, enum iovm_path_state want)
{
	int i;

	for (i = 0; i < n; i++)
		if (state[i] == want)
			return i;
	return -1;
}

/**
 * iovm_choose - the path that takes requests
 * @state: of each path, in order
 * @n: how many
 * @cur: index of the current (or chosen) one, -1 when there is none
 *
 * The current path stays while it is live: one that comes back does not take over by itself. A
 * suspect path is only used when none is live.
 *
 * Return: index, -1 when no path is usable.
 */
int iovm_choose(const enum iovm_path_state *state, int n, int cur)
{
	int i;

	if (cur >= 0 && cur < n && state[cur] == IOVM_PATH_LIVE)
		return cur;
	i = choose_in_state(state, n, IOVM_PATH_LIVE);
	if (i >= 0)
		return i;
	if (cur >= 0 && cur < n && state[cur] == IOVM_PATH_SUSPECT)
		return cur;
	return choose_in_state(state, n, IOVM_PATH_SUSPECT);
}

/**
 * iovm_choose_next - where a failover by hand goes
 * @state: of each path, in order
 * @n: how many
 * @cur: index of the current one, -1 when there is none
 *
 * Return: index of the next live path after @cur, going round; -1 when there is no other.
 */
int iovm_choose_next(const enum iovm_path_state *state, int n, int cur)
{
	int i, k;

	if (cur < 0 || cur >= n)
		return choose_in_state(state, n, IOVM_PATH_LIVE);
	for (k = 1; k < n; k++) {
		i = (cur + k) % n;
		if (state[i] == IOVM_PATH_LIVE)
			return i;
	}
	return -1;
}

/**
 * iovm_choose_first - where a failback goes
 * @state: of each path, in order
 * @n: how many
 *
 * Return: index of the first live path, -1 when there is none.
 */
int iovm_choose_first(const enum iovm_path_state *state, int n)
{
	return choose_in_state(state, n, IOVM_PATH_LIVE);
}

/**
 * iovm_derive_state - a device's state
 * @routed: it has a route
 * @suspended: the operator parked it
 * @no_epoch: it needs an epoch and holds none
 * @failing: no_path_timeout has passed
 */
enum iovm_dev_state iovm_derive_state(bool routed, bool suspended, bool no_epoch, bool failing)
{
	if (suspended)
		return IOVM_DEV_SUSPENDED;
	if (no_epoch)
		return IOVM_DEV_NO_EPOCH;
	if (routed)
		return IOVM_DEV_ROUTED;
	return failing ? IOVM_DEV_FAILING : IOVM_DEV_PARKED;
}

/*
 * A medium error says that these blocks are bad where the request was, and nothing of the path. It
 * is worth one look elsewhere; but a write only goes there if the error ended the first issue.
 * Another path's FLUSH says nothing of this one's cache.
 */
static enum iovm_fate iovm_judge_media(const struct iovm_end *end)
{
	if (end->media || end->bound || !end->others || end->op == IOVM_OP_FLUSH)
		return IOVM_FATE_REPORT;
	if (iovm_op_modifies(end->op) && end->fence != IOVM_FENCE_LOCAL_ERROR && !end->fenced)
		return IOVM_FATE_REPORT;
	return IOVM_FATE_ELSEWHERE;
}

/*
 * What needs space waits for it. A FLUSH that fails so has lost what it should have made stable:
 * that is not made good by another one.
 */
static enum iovm_fate iovm_judge_nospc(const struct iovm_end *end)
{
	if (!iovm_op_modifies(end->op))
		return IOVM_FATE_REPORT;
	if (end->fence != IOVM_FENCE_LOCAL_ERROR && !end->fenced)
		return IOVM_FATE_NOSPC_BIND;
	return IOVM_FATE_NOSPC;
}

/**
 * iovm_judge - what becomes of a request that ended with an error
 * @end: how it ended
 * @fail: set to whether the path is to be failed for it
 *
 * A write that may have left on a path without a fence is not issued elsewhere (design, invariant
 * 2), whatever error it came back with: neither an error from network-backed storage nor a dead
 * connection proves that it will not land later.
 */
enum iovm_fate iovm_judge(const struct iovm_end *end, bool *fail)
{
	bool unsafe;

	*fail = false;
	switch (end->res) {
	case IOVM_RES_IO:
		if ((end->tried | end->media) & ~(1u << end->slot))
			return IOVM_FATE_REPORT;
		if (end->io_errors + 1 >= (end->others ? IOVM_IO_TRIES_MAX : IOVM_IO_TRIES))
			return IOVM_FATE_REPORT;
		break;
	case IOVM_RES_PATH:
	case IOVM_RES_UNSENT:
		break;
	case IOVM_RES_RETRY:
		return IOVM_FATE_RETRY;
	case IOVM_RES_MEDIA:
		return iovm_judge_media(end);
	case IOVM_RES_NOSPC:
		return iovm_judge_nospc(end);
	default:
		return IOVM_FATE_REPORT;
	}

	*fail = !end->stale;
	unsafe = iovm_op_modifies(end->op) &&
		 end->fence != IOVM_FENCE_LOCAL_ERROR && !end->fenced &&
		 (end->res != IOVM_RES_UNSENT || end->bound);
	if (!unsafe)
		return IOVM_FATE_REQUEUE;
	/* one that leaves still takes what is bound to it, and nobody confirms its fence */
	if (!*fail && (iovm_state_usable(end->state) || end->state == IOVM_PATH_DRAINING))
		return IOVM_FATE_BIND;
	return IOVM_FATE_HOLD;
}

/**
 * iovm_in_doubt - may a request land although it has ended, whatever becomes of it?
 * @end: how it ended
 *
 * Return: true for one that modifies, on a path whose errors prove nothing, unless it never left or
 * was answered by an error that is about itself.
 */
bool iovm_in_doubt(const struct iovm_end *end)
{
	return iovm_op_modifies(end->op) && end->fence != IOVM_FENCE_LOCAL_ERROR && !end->fenced &&
	       (end->res == IOVM_RES_IO || end->res == IOVM_RES_PATH);
}

/**
 * iovm_name_valid - may a device or path be called that?
 * @name: IOVM_NAME_MAX bytes
 *
 * Return: true for a NUL-terminated, not empty string of [A-Za-z0-9._-] that starts with neither
 * '.' nor '-'.
 */
bool iovm_name_valid(const char *name)
{
	int i;

	if (name[0] == '.' || name[0] == '-' || !name[0])
		return false;
	for (i = 0; i < IOVM_NAME_MAX; i++) {
		char c = name[i];

		if (!c)
			return true;
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      c == '.' || c == '_' || c == '-'))
			return false;
	}
	return false;
}

/**
 * iovm_identity_valid - may a data identity look like that?
 * @id: IOVM_IDENTITY_MAX bytes
 *
 * Return: true for the empty string, and for SCHEME:TEXT with a NUL behind it: SCHEME of [a-z0-9-],
 * TEXT of printable ASCII without spaces, neither empty.
 */
bool iovm_identity_valid(const char *id)
{
	int colon = 0, i;

	for (i = 0; i < IOVM_IDENTITY_MAX; i++) {
		char c = id[i];

		if (!c)
			return !i || (colon && i > colon + 1);
		if (c <= ' ' || c > '~')
			return false;
		if (colon)
			continue;
		if (c == ':' && i)
			colon = i;
		else if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
			return false;
	}
	return false;
}
