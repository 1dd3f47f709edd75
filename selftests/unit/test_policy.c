// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of the mux's decisions (iovm_mux/policy.c): the whole table of transitions, the choice of the route against
 * a plain statement of the rules over every combination of states, the fate of ended requests, names, histogram buckets.
 */
#include <stdio.h>
#include <string.h>

#include "ktap.h"
#include "../../iovm_mux/policy.c"

#define NR_STATES 6
#define C IOVM_PATH_CONNECTING
#define L IOVM_PATH_LIVE
#define S IOVM_PATH_SUSPECT
#define F IOVM_PATH_FAILED
#define D IOVM_PATH_DRAINING
#define R IOVM_PATH_REMOVED

static void test_transitions(void)
{
	static const bool may[NR_STATES][NR_STATES] = {
		/*	  C  L  S  F  D  R */
		[C] = { 0, 1, 0, 1, 1, 0 },
		[L] = { 0, 0, 1, 1, 1, 0 },
		[S] = { 0, 1, 0, 1, 1, 0 },
		[F] = { 0, 1, 0, 0, 0, 1 },
		[D] = { 0, 0, 0, 1, 0, 1 },
		[R] = { 0, 0, 0, 0, 0, 0 },
	};

	for (int from = 0; from < NR_STATES; from++) {
		for (int to = 0; to < NR_STATES; to++) {
			if (iovm_state_may(from, to) != may[from][to]) {
				printf("# %d -> %d: expected %d\n", from, to, may[from][to]);
				case_failed = true;
			}
		}
	}
	CHECK(!iovm_state_may(L, NR_STATES));
	CHECK(!iovm_state_may(NR_STATES, L));
}

/* The rules once more, as a score: higher is better, the first of equals wins. */
static int best_by_score(const enum iovm_path_state *state, int n, int cur)
{
	int best = -1, best_score = 0;

	for (int i = 0; i < n; i++) {
		int score = state[i] == L ? 3 : state[i] == S ? 1 : 0;

		if (score && i == cur)
			score++;
		if (score > best_score) {
			best = i;
			best_score = score;
		}
	}
	return best;
}

static void test_choose(void)
{
	enum iovm_path_state state[4];
	int combinations = 0;

	for (int n = 0; n <= 4; n++) {
		int all = 1;

		for (int i = 0; i < n; i++)
			all *= NR_STATES;
		for (int k = 0; k < all; k++) {
			for (int i = 0, rest = k; i < n; i++, rest /= NR_STATES)
				state[i] = rest % NR_STATES;
			for (int cur = -1; cur <= n; cur++) {
				int got = iovm_choose(state, n, cur);

				CHECK(got == best_by_score(state, n, cur));
				CHECK(got < n);
				/* what was chosen stays chosen */
				CHECK(got < 0 || iovm_choose(state, n, got) == got);
				combinations++;
			}
		}
	}
	CHECK(combinations > 6 * 6 * 6 * 6 * 6);
}

static void test_choose_by_hand(void)
{
	static const enum iovm_path_state s1[] = { L, F, L, S };
	static const enum iovm_path_state s2[] = { F, L, F, S };
	static const enum iovm_path_state s3[] = { C, F, S, D };

	CHECK(iovm_choose_next(s1, 4, 0) == 2);
	CHECK(iovm_choose_next(s1, 4, 1) == 2);
	CHECK(iovm_choose_next(s1, 4, 2) == 0);
	CHECK(iovm_choose_next(s1, 4, 3) == 0);
	CHECK(iovm_choose_next(s1, 4, -1) == 0);
	CHECK(iovm_choose_next(s2, 4, 1) == -1);	/* there is no other */
	CHECK(iovm_choose_next(s2, 4, 3) == 1);
	CHECK(iovm_choose_next(s3, 4, -1) == -1);
	CHECK(iovm_choose_next(s3, 0, -1) == -1);
	CHECK(iovm_choose_first(s1, 4) == 0);
	CHECK(iovm_choose_first(s2, 4) == 1);
	CHECK(iovm_choose_first(s3, 4) == -1);
}

static void test_in_doubt(void)
{
	for (unsigned int res = IOVM_RES_REQUEST; res <= IOVM_RES_NOSPC; res++)
		for (unsigned int op = IOVM_OP_READ; op <= IOVM_OP_WRITE_ZEROES; op++)
			for (unsigned int fence = IOVM_FENCE_LOCAL_ERROR; fence <= IOVM_FENCE_EPOCH; fence++)
				for (int fenced = 0; fenced < 2; fenced++) {
					struct iovm_end end = { .res = res, .op = op, .fence = fence, .fenced = fenced };
					bool left = res == IOVM_RES_IO || res == IOVM_RES_PATH;

					CHECK(iovm_in_doubt(&end) == (left && iovm_op_modifies(op) && !fenced &&
								      fence != IOVM_FENCE_LOCAL_ERROR));
				}
}

static void test_dev_state(void)
{
	CHECK(iovm_derive_state(true, false, false, false) == IOVM_DEV_ROUTED);
	CHECK(iovm_derive_state(false, false, false, false) == IOVM_DEV_PARKED);
	CHECK(iovm_derive_state(false, false, false, true) == IOVM_DEV_FAILING);
	CHECK(iovm_derive_state(false, false, true, false) == IOVM_DEV_NO_EPOCH);
	CHECK(iovm_derive_state(false, false, true, true) == IOVM_DEV_NO_EPOCH);
	CHECK(iovm_derive_state(false, true, true, false) == IOVM_DEV_SUSPENDED);
	for (int routed = 0; routed < 2; routed++)
		for (int failing = 0; failing < 2; failing++)
			CHECK(iovm_derive_state(routed, true, failing, routed) == IOVM_DEV_SUSPENDED);
}

static const struct iovm_end plain = {
	.res = IOVM_RES_IO, .state = L, .op = IOVM_OP_WRITE, .fence = IOVM_FENCE_LOCAL_ERROR, .slot = 1,
};

static enum iovm_fate judge(struct iovm_end end, bool want_fail)
{
	bool fail = !want_fail;
	enum iovm_fate fate = iovm_judge(&end, &fail);

	CHECK(fail == want_fail);
	return fate;
}

static void test_judge_request(void)
{
	struct iovm_end end = plain;

	end.res = IOVM_RES_REQUEST;
	for (end.op = 0; end.op < IOVM_OP_MAX; end.op++)
		CHECK(judge(end, false) == IOVM_FATE_REPORT);
}

static void test_judge_io(void)
{
	struct iovm_end end = plain;

	CHECK(judge(end, true) == IOVM_FATE_REQUEUE);
	end.tried = 1 << 1;				/* this path itself */
	end.io_errors = 1;
	CHECK(judge(end, true) == IOVM_FATE_REQUEUE);
	end.tried = 1 << 0;				/* another one: the request is at fault, this path stays */
	CHECK(judge(end, false) == IOVM_FATE_REPORT);
	end.tried = 1 << 7 | 1 << 1;
	CHECK(judge(end, false) == IOVM_FATE_REPORT);
	/* the only path answers its probes, but never to this request */
	end.tried = 1 << 1;
	end.io_errors = IOVM_IO_TRIES - 2;
	CHECK(judge(end, true) == IOVM_FATE_REQUEUE);
	end.io_errors = IOVM_IO_TRIES - 1;
	CHECK(judge(end, false) == IOVM_FATE_REPORT);
	/* another one is live, to which it has not been: this one flaps */
	end.others = true;
	CHECK(judge(end, true) == IOVM_FATE_REQUEUE);
	end.io_errors = IOVM_IO_TRIES_MAX - 2;
	CHECK(judge(end, true) == IOVM_FATE_REQUEUE);
	/* all flap */
	end.io_errors = IOVM_IO_TRIES_MAX - 1;
	CHECK(judge(end, false) == IOVM_FATE_REPORT);
	end.io_errors = 255;
	CHECK(judge(end, false) == IOVM_FATE_REPORT);
	end.others = false;
	CHECK(judge(end, false) == IOVM_FATE_REPORT);
}

static void test_judge_path(void)
{
	static const enum iovm_result res[] = { IOVM_RES_PATH, IOVM_RES_UNSENT };
	struct iovm_end end = plain;

	for (unsigned int i = 0; i < 2; i++) {
		end = plain;
		end.res = res[i];
		for (end.op = 0; end.op <= IOVM_OP_WRITE_ZEROES; end.op++)
			CHECK(judge(end, true) == IOVM_FATE_REQUEUE);
		/* an error that says nothing of the request is never the guest's, however often */
		end.tried = 0xff;
		end.io_errors = 200;
		CHECK(judge(end, true) == IOVM_FATE_REQUEUE);
		/* issued before the path was live last: it is not this path that failed */
		end.stale = true;
		CHECK(judge(end, false) == IOVM_FATE_REQUEUE);
	}
	end = plain;
	end.res = IOVM_RES_RETRY;
	CHECK(judge(end, false) == IOVM_FATE_RETRY);
	end.fence = IOVM_FENCE_NONE;
	CHECK(judge(end, false) == IOVM_FATE_RETRY);
}

static void test_judge_fence(void)
{
	static const unsigned int writes[] = { IOVM_OP_WRITE, IOVM_OP_DISCARD, IOVM_OP_WRITE_ZEROES };
	static const unsigned int others[] = { IOVM_OP_READ, IOVM_OP_FLUSH };
	struct iovm_end end = plain;

	end.fence = IOVM_FENCE_NONE;
	end.res = IOVM_RES_PATH;
	for (unsigned int i = 0; i < 2; i++) {
		end.op = others[i];
		CHECK(judge(end, true) == IOVM_FATE_REQUEUE);
	}
	for (unsigned int i = 0; i < 3; i++) {
		end = plain;
		end.fence = IOVM_FENCE_NONE;
		end.op = writes[i];
		end.res = IOVM_RES_PATH;
		CHECK(judge(end, true) == IOVM_FATE_HOLD);
		end.res = IOVM_RES_IO;			/* no proof either */
		CHECK(judge(end, true) == IOVM_FATE_HOLD);
		end.res = IOVM_RES_UNSENT;		/* this issue never left */
		CHECK(judge(end, true) == IOVM_FATE_REQUEUE);
		end.bound = true;			/* but an earlier one did */
		CHECK(judge(end, true) == IOVM_FATE_HOLD);
		end.fenced = true;
		CHECK(judge(end, true) == IOVM_FATE_REQUEUE);
		end.res = IOVM_RES_PATH;
		end.bound = false;
		end.state = F;
		CHECK(judge(end, true) == IOVM_FATE_REQUEUE);

		end.fenced = false;			/* a straggler of an earlier connection */
		end.stale = true;
		end.state = L;
		CHECK(judge(end, false) == IOVM_FATE_BIND);
		end.state = S;
		CHECK(judge(end, false) == IOVM_FATE_BIND);
		end.state = F;
		CHECK(judge(end, false) == IOVM_FATE_HOLD);
		end.state = D;				/* has been live again, and leaves in order */
		CHECK(judge(end, false) == IOVM_FATE_BIND);
		end.stale = false;			/* this error fails it */
		CHECK(judge(end, true) == IOVM_FATE_HOLD);
	}
}

/* What a medium error does, on every combination of what it depends on. */
static void test_judge_media(void)
{
	struct iovm_end end = plain;
	int elsewhere = 0;

	end.res = IOVM_RES_MEDIA;
	end.others = true;
	CHECK(judge(end, false) == IOVM_FATE_ELSEWHERE);
	end.others = false;				/* nowhere to go: the guest is told at once */
	CHECK(judge(end, false) == IOVM_FATE_REPORT);
	for (unsigned int bits = 0; bits < 32; bits++)
		for (unsigned int op = 0; op < 5; op++) {
			end = plain;
			end.res = IOVM_RES_MEDIA;
			end.op = op;
			end.others = bits & 1;
			end.media = bits & 2 ? 1 << 3 : 0;
			end.bound = bits & 4;
			end.fenced = bits & 8;
			end.fence = bits & 16 ? IOVM_FENCE_NONE : IOVM_FENCE_LOCAL_ERROR;
			if (judge(end, false) == IOVM_FATE_REPORT)
				continue;
			CHECK(judge(end, false) == IOVM_FATE_ELSEWHERE);
			CHECK(end.others && !end.media && !end.bound && op != IOVM_OP_FLUSH);
			CHECK(!iovm_op_modifies(op) || end.fenced || end.fence == IOVM_FENCE_LOCAL_ERROR);
			elsewhere++;
		}
	CHECK(elsewhere == 4 + 3 * 3);
	/* a bare error behind it, elsewhere: the request is at fault, that path stays */
	end = plain;
	end.media = 1 << 0;
	CHECK(judge(end, false) == IOVM_FATE_REPORT);
	end.media = 1 << 1;				/* on this path itself */
	CHECK(judge(end, true) == IOVM_FATE_REQUEUE);
	/* and a path that goes says nothing of the request */
	end.media = 1 << 0;
	end.res = IOVM_RES_PATH;
	CHECK(judge(end, true) == IOVM_FATE_REQUEUE);
}

static void test_judge_nospc(void)
{
	struct iovm_end end = plain;

	end.res = IOVM_RES_NOSPC;
	for (end.op = 0; end.op < 5; end.op++) {
		end.fence = IOVM_FENCE_LOCAL_ERROR;
		CHECK(judge(end, false) == (iovm_op_modifies(end.op) ? IOVM_FATE_NOSPC : IOVM_FATE_REPORT));
		end.fence = IOVM_FENCE_NONE;
		CHECK(judge(end, false) == (iovm_op_modifies(end.op) ? IOVM_FATE_NOSPC_BIND : IOVM_FATE_REPORT));
		end.fenced = true;
		CHECK(judge(end, false) == (iovm_op_modifies(end.op) ? IOVM_FATE_NOSPC : IOVM_FATE_REPORT));
		end.fenced = false;
	}
}

/* Invariant 2 over all inputs: what may still land somewhere is never sent elsewhere. */
static void test_judge_invariant(void)
{
	int unsafe = 0;

	for (unsigned int bits = 0; bits < 8; bits++)
		for (unsigned int res = IOVM_RES_REQUEST; res <= IOVM_RES_NOSPC; res++)
			for (unsigned int op = 0; op < 5; op++)
				for (unsigned int state = 0; state < NR_STATES; state++) {
					struct iovm_end end = {
						.res = res, .state = state, .op = op, .fence = IOVM_FENCE_NONE,
						.bound = bits & 1, .stale = bits & 2, .fenced = bits & 4,
					};
					bool fail;
					enum iovm_fate fate = iovm_judge(&end, &fail);
					bool left = res == IOVM_RES_IO || res == IOVM_RES_PATH ||
						    (res == IOVM_RES_UNSENT && end.bound);

					CHECK(fate != IOVM_FATE_ELSEWHERE || !iovm_op_modifies(op) || end.fenced);
					CHECK(fate != IOVM_FATE_NOSPC || end.fenced);
					if (!left || end.fenced || !iovm_op_modifies(op))
						continue;
					CHECK(fate == IOVM_FATE_HOLD || fate == IOVM_FATE_BIND);
					CHECK(fate != IOVM_FATE_BIND ||
					      (!fail && (iovm_state_usable(state) || state == D)));
					unsafe++;
				}
	CHECK(unsafe == 2 * (2 * 2 + 1) * 3 * NR_STATES);
}

static void test_names(void)
{
	char name[IOVM_NAME_MAX];

	CHECK(iovm_name_valid("a"));
	CHECK(iovm_name_valid("Vm-1_disk.0"));
	CHECK(iovm_name_valid("_x"));
	CHECK(iovm_name_valid("0"));
	CHECK(!iovm_name_valid(""));
	CHECK(!iovm_name_valid("."));
	CHECK(!iovm_name_valid(".."));
	CHECK(!iovm_name_valid("-x"));
	CHECK(!iovm_name_valid("a/b"));
	CHECK(!iovm_name_valid("a b"));
	CHECK(!iovm_name_valid("a\n"));
	CHECK(!iovm_name_valid("\xc3\xa4"));
	memset(name, 'x', sizeof(name));
	CHECK(!iovm_name_valid(name));			/* no end: must not read on */
	name[IOVM_NAME_MAX - 1] = 0;
	CHECK(iovm_name_valid(name));
}

static void test_identities(void)
{
	static const char *const good[] = {
		"", "id:x", "wwn:naa.5000c500a1b2c3d4", "nvme-uuid:0f01-2", "1:2", "dm-uuid:LVM-a+start=2048", "a:~!:#",
	};
	static const char *const bad[] = {
		":", "x", "id:", ":x", "id", "Id:x", "i d:x", "id:a b", "id:\x7f", "id:\xc3\xa4", "id:a\n", " id:x", "id_:x",
	};
	char id[IOVM_IDENTITY_MAX];
	unsigned int i;

	for (i = 0; i < sizeof(good) / sizeof(*good); i++)
		CHECK(iovm_identity_valid(good[i]));
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		CHECK(!iovm_identity_valid(bad[i]));
	memset(id, 'x', sizeof(id));
	id[2] = ':';
	CHECK(!iovm_identity_valid(id));		/* no end: must not read on */
	id[IOVM_IDENTITY_MAX - 1] = 0;
	CHECK(iovm_identity_valid(id));
}

static void test_hist(void)
{
	CHECK(iovm_hist_bucket(0) == 0);
	CHECK(iovm_hist_bucket(1) == 0);
	for (unsigned int i = 1; i < 64; i++) {
		unsigned int want = i < IOVM_HIST_BUCKETS ? i : IOVM_HIST_BUCKETS - 1;

		CHECK(iovm_hist_bucket(1ull << i) == want);
		CHECK(iovm_hist_bucket((1ull << i) | ((1ull << i) - 1)) == want);
	}
}

static const struct ktap_case cases[] = {
	{ "transitions of a path", test_transitions },
	{ "choice of the route, all combinations of up to four paths", test_choose },
	{ "failover and failback by hand", test_choose_by_hand },
	{ "state of a device", test_dev_state },
	{ "writes in doubt", test_in_doubt },
	{ "a request's own error is reported", test_judge_request },
	{ "a bare I/O error", test_judge_io },
	{ "a path error", test_judge_path },
	{ "writes without a fence", test_judge_fence },
	{ "no write without a fence goes elsewhere, all inputs", test_judge_invariant },
	{ "a medium error", test_judge_media },
	{ "no space", test_judge_nospc },
	{ "names", test_names },
	{ "identities", test_identities },
	{ "histogram buckets", test_hist },
};

int main(void)
{
	return KTAP_RUN(cases);
}
