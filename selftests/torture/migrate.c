// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Migrations, and what is like them: what a VMM and two iovmd do, in their order.
 *
 *	the guest                        from: its device          the targets        to: its device
 *	GUEST_MOVE_LIVE
 *	GUEST_MOVE_STOP
 *	                                 EPOCH_GIVE
 *	                                                          EPOCH_TAKE, both:
 *	                                                          older sessions end
 *	                                                                             EPOCH_TAKE
 *	GUEST_MOVE_THERE
 *
 * Its queues may start there before the epoch has come, as when somebody else migrates it: then its requests wait. One that is
 * cancelled takes the epoch back by another hand-over, from whoever has it. Each of these may have to wait for what is in flight,
 * and is taken up again later: advance() is called until it is over.
 */
#include "migrate.h"
#include "hosts.h"
#include "ktap.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Where it is cancelled */
enum cancel { NEVER, LIVE, STOPPED, TRIED, GIVEN, TAKEN, CANCELS };

static const char *const cancel_name[] = {
	"", "while memory is copied", "when the queues had stopped", "with queues started there", "when the epoch was given up",
	"when the epoch was taken",
};

/* What is waited for */
enum step { STOPPING, GIVING, TELLING, RAISING, STARTING, RUNNING };

static struct migration {
	struct fault *f;		/* NULL: none is under way */
	struct bed *b;
	struct guest *g;
	enum step step;
	enum cancel cancel;
	unsigned int from, to;
	bool queues_first;		/* they start before the epoch is there */
	bool killed;			/* no migration: the guest is killed, and started there */
	bool started;
	/* hand-overs of the epoch that are left */
	struct leg {
		unsigned int giver, taker;
	} leg[2];
	unsigned int legs;
} M;

static bool cancelled(void)
{
	return M.cancel != NEVER;
}

/* It goes on: where it was, there, or as another one. */
static int start(void)
{
	unsigned int at = cancelled() ? M.from : M.to;
	int r;

	if (M.started)
		return 0;
	M.started = true;
	M.g->c.at = at;
	hosts_guest_at(M.b, at);
	if (M.killed)
		return guest_start(M.g);
	r = guest_command(M.g, cancelled() ? GUEST_MOVE_BACK : GUEST_MOVE_THERE, 0, 70000);
	model_mark(M.b->m, "the guest goes on at %s", M.b->dev);
	return r;
}

static int ask(enum step step, const char *dev, u32 op, u64 epoch)
{
	M.step = step;
	return hosts_ask(M.b, dev, op, epoch);
}

static int next_leg(void)
{
	struct leg *l = M.leg;

	M.step = STARTING;
	if (!M.legs)
		return 0;
	return ask(GIVING, M.b->host[l->giver].dev, IOVM_DEV_EPOCH_GIVE, M.b->epochs->epoch);
}

/* Both targets have ended sessions of older epochs, the taker's own one last. */
static int take(void)
{
	struct bed *b = M.b;
	struct leg *l = M.leg;
	int r;

	hosts_refuse_old(b);
	hosts_taken(b, l->taker);
	r = ctl_dev_ctl(b->host[l->taker].dev, IOVM_DEV_EPOCH_TAKE, NULL, b->epochs->epoch);
	if (r)
		model_mark(b->m, "take: %s", ctl_msg);
	M.leg[0] = M.leg[1];
	M.legs--;
	return r;
}

static int stopped(void)
{
	int r = 0;

	if (M.cancel == TRIED) {
		r = guest_command(M.g, GUEST_MOVE_TRY, 0, 10000);
		sleep_ms(fault_time(M.f, 1, 30));
		hosts_look(M.b);
	}
	if (!r && M.queues_first && (!cancelled() || M.cancel == STOPPED))
		r = start();
	return r ? r : next_leg();
}

static int left(u64 end)
{
	u64 now = now_ns();

	return now < end ? (end - now) / 1000000 + 1 : 0;
}

/* 0: it is over. -ETIMEDOUT: it waits for something, and is to be called again. */
static int advance(int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;
	struct bed *b = M.b;
	int r = 0;

	while (!r) {
		switch (M.step) {
		case STOPPING:
			r = guest_wait(M.g, left(end)) ?: stopped();
			break;
		case GIVING:
			r = hosts_answer(b, left(end));
			if (r)
				break;
			hosts_given(b);
			b->epochs->epoch++;
			/* a VMM that takes the migration for failed starts it again by itself */
			if (M.queues_first && M.cancel == GIVEN)
				r = start();
			r = r ?: ask(TELLING, b->host[1 - M.leg[0].taker].target, IOVM_DEV_EPOCH_TAKE, b->epochs->epoch);
			break;
		case TELLING:
			r = hosts_answer(b, left(end)) ?:
			    ask(RAISING, b->host[M.leg[0].taker].target, IOVM_DEV_EPOCH_TAKE, b->epochs->epoch);
			break;
		case RAISING:
			r = hosts_answer(b, left(end)) ?: take() ?: next_leg();
			break;
		case STARTING:
			r = start();
			M.step = RUNNING;
			break;
		case RUNNING:
			if (!guest_progress(M.g, 1, left(end) + bed_time(b, 200)))
				return -ETIMEDOUT;
			if (!M.killed && M.cancel != LIVE)
				M.f->stopped_ns = now_ns() - M.g->s->still_ns;
			M.f = NULL;
			hosts_look(b);
			return 0;
		}
	}
	return r;
}

/* What has gone wrong with it is a breach. */
static int go_on(int timeout_ms)
{
	int r = advance(timeout_ms);

	if (r && r != -ETIMEDOUT) {
		model_breach(M.b->m, ~0ull, "the migration fails in step %d: %s", M.step, strerror(-r));
		M.f = NULL;
	}
	return r;
}

int migrate_finish(int timeout_ms)
{
	int r;

	if (!M.f)
		return 0;
	r = go_on(timeout_ms);
	if (r == -ETIMEDOUT) {
		model_mark(M.b->m, "the migration waits in step %d", M.step);
		M.f = NULL;
	}
	/* the paths that it has now */
	return r ? r : bed_heal(M.b, timeout_ms);
}

/* --- kinds --- */

static void draw(struct fault *f)
{
	M = (struct migration){ .f = f, .b = f->b, .g = f->g, .from = f->b->at, .to = 1 - f->b->at };
	M.queues_first = fault_rnd(f, 0, 1);
	M.leg[0] = (struct leg){ M.from, M.to };
	M.legs = 1;
}

static int live(struct fault *f)
{
	int r = guest_post(f->g, GUEST_MOVE_LIVE, fault_time(f, 2, 80), 60000);

	if (r)
		M.f = NULL;
	return r;
}

static int migration_begin(struct fault *f)
{
	draw(f);
	snprintf(f->what, sizeof(f->what), "from %u, %s first", M.from, M.queues_first ? "queues" : "epoch");
	return live(f);
}

static int cancelled_begin(struct fault *f)
{
	draw(f);
	M.cancel = fault_rnd(f, LIVE, CANCELS - 1);
	if (M.cancel == LIVE || M.cancel == STOPPED || M.cancel == TRIED)
		M.legs = 0;
	if (M.cancel == GIVEN)
		M.leg[0].taker = M.from;
	if (M.cancel == TAKEN) {
		M.leg[1] = (struct leg){ M.to, M.from };
		M.legs = 2;
		M.queues_first = false;
	}
	snprintf(f->what, sizeof(f->what), "%s", cancel_name[M.cancel]);
	return live(f);
}

static int migration_end(struct fault *f)
{
	int r;

	/* its beginning has failed, or it was ended by a breach */
	if (M.f != f)
		return 0;
	M.step = M.cancel == LIVE ? STARTING : STOPPING;
	r = M.cancel == LIVE ? guest_wait(f->g, 60000) : guest_post(f->g, GUEST_MOVE_STOP, 0, 60000);
	if (r) {
		model_breach(f->b->m, ~0ull, "its memory cannot be copied: %s", strerror(-r));
		M.f = NULL;
	}
	r = r ?: go_on(bed_time(f->b, 400));
	return r == -ETIMEDOUT ? 0 : r;
}

/*
 * The disk is dead. There may be both other ways to the data; or only the target of the host that it is moved to; or none, and its
 * queues cannot stop before there is.
 */
static int dead_disk_begin(struct fault *f)
{
	static const char *const where[] = { "", ", only r", ", only r", ", parked" };
	unsigned int how = fault_rnd(f, 0, ARRAY_SIZE(where) - 1);
	int r = dm_swap(f->p->dm, dm_error(f->b->sectors), false);
	size_t n;

	if (r)
		return r;
	f->undo = true;
	if (how)
		ctl_path_ctl(f->b->dev, "s", IOVM_PATH_CTL_FAIL);
	if (how == 3) {
		/* as the last one it would be asked, and its errors were the guest's */
		ctl_path_ctl(f->b->dev, "a", IOVM_PATH_CTL_FAIL);
		ctl_path_ctl(f->b->dev, "r", IOVM_PATH_CTL_FAIL);
	}
	r = migration_begin(f);
	n = strlen(f->what);
	snprintf(f->what + n, sizeof(f->what) - n, "%s", where[how]);
	return r;
}

static int dead_disk_end(struct fault *f)
{
	int r = migration_end(f), r2 = 0;

	/* it is repaired when the guest has gone, or when something waits for it */
	if (f->undo)
		r2 = dm_swap(f->p->dm, dm_linear(f->b->store, f->b->sectors), false);
	return r ? r : r2;
}

/*
 * The guest is killed, with requests in flight, and started at the other host: what they had issued lands before, or never. Whose
 * path keeps them (0 nobody's in particular, 1 the server's, 2 the disk's, 3 the target's) is in f->pid.
 */
static int moved_begin(struct fault *f)
{
	static const char *const where[] = { "", ", writes are kept by a server", ", the disk hangs", ", the target's disk hangs" };
	struct bed_path *path = f->b->path, *s = &path[2];
	int r;

	draw(f);
	M.killed = true;
	f->pid = fault_rnd(f, 0, 3);
	snprintf(f->what, sizeof(f->what), "from %u%s", M.from, where[f->pid]);
	if (f->pid)
		ctl_dev_ctl(f->b->dev, IOVM_DEV_FAILOVER, path[f->pid == 1 ? 2 : f->pid == 2 ? 0 : 1].name, 0);
	s->srv.stash = f->pid == 1;
	if (f->pid >= 2)
		dm_suspend(f->pid == 2 ? path[0].dm : path[1].target->target_dm, true);
	usleep(fault_time(f, 1000, 60000));
	guest_kill(f->g);
	if (f->pid == 1)
		bed_kill_server(f->b, s);
	r = ask(GIVING, f->b->dev, IOVM_DEV_EPOCH_GIVE, f->b->epochs->epoch);
	/* its queues go some time after it */
	r = r ?: go_on(bed_time(f->b, f->pid == 1 ? 1600 : 400));
	return r == -ETIMEDOUT ? 0 : r;
}

static int moved_end(struct fault *f)
{
	struct bed_host *from = &f->b->host[M.from];
	struct nbdsrv *s = &from->path[2].srv;
	int r;

	s->stash = false;
	if (f->pid == 1)
		model_mark(f->b->m, "%u writes land late on %s", nbdsrv_land(s, false), from->path[2].name);
	if (f->pid >= 2)
		dm_suspend(f->pid == 2 ? from->path[0].dm : from->path[1].target->target_dm, false);
	hosts_look(f->b);
	if (M.f != f)
		return 0;
	r = bed_heal(f->b, 20000);
	return r ? r : go_on(60000);
}

#define HOSTS	FAULT_B(BED_HOSTS)

const struct fault_kind fault_move_kinds[] = {
	{ "migration", HOSTS, FAULT_ON_NONE, FAULT_MOVES, 40, migration_begin, migration_end },
	{ "migration-dead-disk", HOSTS, FAULT_ON_BDEV, FAULT_MOVES | FAULT_ALONE, 15, dead_disk_begin, dead_disk_end },
	{ "migration-cancelled", HOSTS, FAULT_ON_NONE, FAULT_MOVES, 20, cancelled_begin, migration_end },
	{ "guest-moved", HOSTS, FAULT_ON_NONE, FAULT_MOVES | FAULT_ALONE, 12, moved_begin, moved_end },
	{},
};
