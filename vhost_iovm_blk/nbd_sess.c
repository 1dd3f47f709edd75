// SPDX-License-Identifier: GPL-2.0
/*
 * Path type nbd: a session, the connections of one generation. They live and die together: if one
 * breaks, the path has failed, and all of them are torn down (see nbd.h for the order).
 *
 * The watchdog asks a quiet peer for a sign of life, and tells from the time that passed since
 * bytes came, while something is due, that a connection is suspect or dead. Bytes of any kind
 * count: a server that answers heartbeats while a slow FLUSH runs is slow, not dead. So do bytes
 * that the peer takes of a long write: it cannot answer before it has them all.
 */
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "nbd.h"

/**
 * viovm_nbd_suspect - a connection has, or no longer has, a reason to be suspect
 * @conn: whose
 * @why: VNBD_SUSPECT_*
 * @on: has
 *
 * Process context, no lock held.
 */
void viovm_nbd_suspect(struct viovm_nbd_conn *conn, unsigned long why, bool on)
{
	struct viovm_nbd_sess *sess = conn->sess;
	bool was, is;
	u32 n;

	spin_lock(&sess->lock);
	n = sess->nr_suspect;
	was = n;
	n -= !!conn->suspect;
	WRITE_ONCE(conn->suspect, on ? conn->suspect | why : conn->suspect & ~why);
	n += !!conn->suspect;
	is = n;
	WRITE_ONCE(sess->nr_suspect, n);
	spin_unlock(&sess->lock);
	if (was != is && !READ_ONCE(sess->error) && READ_ONCE(sess->role) == VNBD_ROLE_CURRENT)
		iovm_path_suspect(sess->np->path, is);
}

/* What the watchdog finds at one connection; false when it is dead. */
static bool watch_conn(struct viovm_nbd_conn *conn, unsigned long now)
{
	struct viovm_nbd_sess *sess = conn->sess;
	unsigned long quiet_since = READ_ONCE(conn->last_rx), why;
	unsigned long limit = sess->dead;
	const struct viovm_nbd_slot *slot;
	bool due, slow = false;
	u32 i;

	/* a slow server is no longer suspect when it has become clearly faster, not at once */
	if (READ_ONCE(conn->suspect) & VNBD_SUSPECT_SLOW)
		limit /= 2;

	spin_lock(&conn->lock);
	if (viovm_nbd_sock_moves(&conn->s))
		conn->moved_at = now;
	if (time_after(conn->moved_at, quiet_since))
		quiet_since = conn->moved_at;
	due = conn->nr_busy || conn->nr_queued;
	if (due) {
		if (time_after(conn->busy_since, quiet_since))
			quiet_since = conn->busy_since;
		for (i = 0; i < VNBD_SLOTS && !slow; i++) {
			slot = &conn->slots[i];
			slow = slot->job != VNBD_JOB_FREE && time_after(now, slot->since + limit);
		}
	}
	spin_unlock(&conn->lock);

	if (due && time_after(now, quiet_since + sess->dead))
		return false;
	why = (due && time_after(now, quiet_since + sess->dead / 2) ? VNBD_SUSPECT_QUIET : 0) |
	      (slow ? VNBD_SUSPECT_SLOW : 0);
	for (i = 0; i < 2; i++)
		if ((READ_ONCE(conn->suspect) ^ why) & BIT(i))
			viovm_nbd_suspect(conn, BIT(i), why & BIT(i));

	if (READ_ONCE(sess->role) == VNBD_ROLE_CURRENT &&
	    time_after_eq(now, READ_ONCE(conn->last_rx) + sess->heartbeat) &&
	    time_after_eq(now, conn->heartbeat_at + sess->heartbeat)) {
		conn->heartbeat_at = now;
		viovm_nbd_conn_heartbeat(conn);
	}
	return true;
}

/**
 * viovm_nbd_sess_is_tls - are all its connections encrypted?
 * @sess: session
 */
bool viovm_nbd_sess_is_tls(const struct viovm_nbd_sess *sess)
{
	u32 i;

	for (i = 0; i < sess->nr_conns; i++)
		if (!sess->conns[i]->s.is_tls)
			return false;
	return true;
}

/**
 * viovm_nbd_sess_records - how far its keys are used up
 * @sess: session; may have ended
 *
 * Return: the most TLS records that one of its connections has sent or received.
 */
u64 viovm_nbd_sess_records(const struct viovm_nbd_sess *sess)
{
	u64 most = 0;
	u32 i;

	for (i = 0; i < sess->nr_conns; i++) {
		struct viovm_nbd_conn *conn = sess->conns[i];

		spin_lock(&conn->lock);
		most = max(most, viovm_nbd_sock_records(&conn->s));
		spin_unlock(&conn->lock);
	}
	return most;
}

/*
 * Keys that wear out are told of once; user space replaces the connections. If it does not, they
 * are not used any more when they are spent: 0, or -EKEYEXPIRED.
 */
static int watch_keys(struct viovm_nbd_sess *sess)
{
	u64 records = viovm_nbd_sess_records(sess);

	if (viovm_nbd_keys_spent(records, false))
		return -EKEYEXPIRED;
	if (sess->keys_old || !viovm_nbd_keys_old(records))
		return 0;
	WRITE_ONCE(sess->keys_old, true);
	iovm_event_emit(sess->np->path->dev, sess->np->path, IOVM_EV_KEYS_OLD, 0, 0, 0, records);
	return 0;
}

static void watchdog(struct work_struct *work)
{
	struct viovm_nbd_sess *sess = container_of(to_delayed_work(work), struct viovm_nbd_sess,
						   watchdog);
	struct iovm_path *path = sess->np->path;
	unsigned long tick = min(sess->heartbeat, sess->dead / 2) / 4;
	int error = READ_ONCE(sess->error);
	enum iovm_path_state state = READ_ONCE(path->state);
	bool suspect = READ_ONCE(sess->nr_suspect);
	u8 role = READ_ONCE(sess->role);
	u32 i;

	for (i = 0; i < sess->nr_conns && !error; i++) {
		if (!watch_conn(sess->conns[i], jiffies)) {
			error = -ETIMEDOUT;
			viovm_nbd_sess_fail(sess, error);
		}
	}
	if (!error) {
		error = watch_keys(sess);
		if (error)
			viovm_nbd_sess_fail(sess, error);
	}
	/*
	 * Say again what the path's state should be: a session may break before connect() has
	 * returned, when the path cannot fail yet, and two reports may overtake each other.
	 */
	if (role != VNBD_ROLE_CURRENT)
		;
	else if (error && (state == IOVM_PATH_LIVE || state == IOVM_PATH_SUSPECT) &&
		 !READ_ONCE(sess->closing))
		iovm_path_fail(path, error);
	else if (!error && state == (suspect ? IOVM_PATH_LIVE : IOVM_PATH_SUSPECT))
		iovm_path_suspect(path, suspect);
	tick = clamp(tick, 1UL, (unsigned long)HZ / 4);
	queue_delayed_work(viovm_nbd_wq, &sess->watchdog, error ? HZ : tick);
}

static void end_work(struct work_struct *work)
{
	struct viovm_nbd_sess *sess = container_of(work, struct viovm_nbd_sess, end_work);
	u32 i;

	for (i = 0; i < sess->nr_conns; i++)
		viovm_nbd_conn_kill(sess->conns[i]);
	for (i = 0; i < sess->nr_conns; i++)
		viovm_nbd_conn_stop(sess->conns[i]);
	complete_all(&sess->ended);
}

/**
 * viovm_nbd_sess_idle - does a session have nothing in flight?
 * @sess: nobody gives it anything any more
 */
bool viovm_nbd_sess_idle(struct viovm_nbd_sess *sess)
{
	struct viovm_nbd_conn *conn;
	bool busy = false;
	u32 i;

	for (i = 0; i < sess->nr_conns && !busy; i++) {
		conn = sess->conns[i];
		spin_lock(&conn->lock);
		busy = conn->nr_busy || conn->nr_queued;
		spin_unlock(&conn->lock);
	}
	return !busy;
}

/*
 * A session breaks: does its path? Of one that was replaced only what it has in flight says so; the
 * ends of those requests do it too, but the route goes first.
 */
static bool path_breaks(struct viovm_nbd_sess *sess)
{
	switch (READ_ONCE(sess->role)) {
	case VNBD_ROLE_NEW:
		return false;
	case VNBD_ROLE_OLD:
		return !READ_ONCE(sess->closing) && !viovm_nbd_sess_idle(sess);
	default:
		return !READ_ONCE(sess->closing);
	}
}

/**
 * viovm_nbd_sess_fail - a session is broken, or to be ended
 * @sess: may be broken already
 * @error: negative errno
 *
 * Process context, from the session's own threads and from outside. The teardown runs in its own
 * work item; wait for @sess->ended.
 */
void viovm_nbd_sess_fail(struct viovm_nbd_sess *sess, int error)
{
	if (cmpxchg(&sess->error, 0, error))
		return;
	/* the route first: what is ended next finds its way around this path */
	if (path_breaks(sess))
		iovm_path_fail(sess->np->path, error);
	queue_work(viovm_nbd_wq, &sess->end_work);
}

/**
 * viovm_nbd_sess_close - end a session that has nothing in flight in order
 * @sess: may be broken already
 * @patience: jiffies for its last words to be sent
 *
 * Process context; returns when the teardown is complete.
 */
void viovm_nbd_sess_close(struct viovm_nbd_sess *sess, unsigned long patience)
{
	unsigned long until = jiffies + patience, now;
	u32 i;

	WRITE_ONCE(sess->closing, true);
	if (!READ_ONCE(sess->error)) {
		for (i = 0; i < sess->nr_conns; i++) {
			spin_lock(&sess->conns[i]->lock);
			sess->conns[i]->bye = true;
			spin_unlock(&sess->conns[i]->lock);
			wake_up(&sess->conns[i]->tx_wait);
		}
		for (i = 0; i < sess->nr_conns; i++) {
			now = jiffies;
			wait_for_completion_timeout(&sess->conns[i]->said_bye,
						    time_before(now, until) ? until - now : 0);
		}
	}
	viovm_nbd_sess_fail(sess, -ESHUTDOWN);
	wait_for_completion(&sess->ended);
}

/**
 * viovm_nbd_sess_free - free a session
 * @sess: its teardown is complete, or it was never started; may be NULL
 *
 * Process context. The caller has unpublished it; this waits for those who still look at it.
 */
void viovm_nbd_sess_free(struct viovm_nbd_sess *sess)
{
	u32 i;

	if (!sess)
		return;
	cancel_delayed_work_sync(&sess->watchdog);
	/* who has completed @ended may not be quite out of it */
	cancel_work_sync(&sess->end_work);
	synchronize_rcu();
	for (i = 0; i < sess->nr_conns; i++)
		viovm_nbd_conn_free(sess->conns[i]);
	kfree(sess);
}

/**
 * viovm_nbd_sess_start - make the session of a new generation
 * @np: the path, whose session before this has been torn down, unless this one is to replace it
 * @arg: sockets and export, checked
 * @role: VNBD_ROLE_CURRENT, or VNBD_ROLE_NEW
 * @msg: IOVM_MSG_MAX bytes: what is wrong
 *
 * Process context, dev->mutex held. The session works when this returns, and may even have broken
 * already; its watchdog sleeps until viovm_nbd_sess_watch().
 * Return: it, or an ERR_PTR().
 */
struct viovm_nbd_sess *viovm_nbd_sess_start(struct viovm_nbd_path *np,
					    const struct iovm_path_connect *arg,
					    enum viovm_nbd_role role, char *msg)
{
	struct iovm_path *path = np->path;
	struct viovm_nbd_sess *sess;
	int err = -ENOMEM;
	u32 i, k;

	sess = kzalloc(struct_size(sess, conns, arg->nr_fds), GFP_KERNEL);
	if (!sess)
		return ERR_PTR(-ENOMEM);
	sess->nr_conns = arg->nr_fds;
	sess->np = np;
	sess->role = role;
	sess->generation = np->generation + 1 ?: 1;
	sess->export_flags = arg->nbd_flags;
	sess->structured = arg->flags & IOVM_NBD_F_STRUCTURED;
	sess->heartbeat_size = path->block_size;
	sess->heartbeat = max(msecs_to_jiffies(path->heartbeat_ms ?: 1000), 1UL);
	sess->dead = max(msecs_to_jiffies(path->dead_ms ?: 5000), 2UL);
	spin_lock_init(&sess->lock);
	init_completion(&sess->ended);
	INIT_WORK(&sess->end_work, end_work);
	INIT_DELAYED_WORK(&sess->watchdog, watchdog);

	for (i = 0; i < sess->nr_conns; i++) {
		sess->conns[i] = viovm_nbd_conn_new(sess, i);
		if (!sess->conns[i])
			goto fail;
		err = viovm_nbd_sock_take(&sess->conns[i]->s, arg->fds[i],
					  jiffies_to_msecs(sess->dead), msg);
		if (!err && arg->flags & IOVM_NBD_F_TLS && !sess->conns[i]->s.is_tls) {
			snprintf(msg, IOVM_MSG_MAX, "the socket of fd %d has no TLS keys",
				 arg->fds[i]);
			err = -EINVAL;
		}
		for (k = 0; k < i && !err; k++) {
			if (sess->conns[k]->s.sock != sess->conns[i]->s.sock)
				continue;
			snprintf(msg, IOVM_MSG_MAX, "fd %d is the same socket as another one",
				 arg->fds[i]);
			err = -EINVAL;
		}
		if (err)
			goto fail;
	}
	/* from here on a connection may break, and its thread report it */
	for (i = 0; i < sess->nr_conns; i++) {
		err = viovm_nbd_conn_start(sess->conns[i]);
		if (err) {
			viovm_nbd_sess_close(sess, VNBD_BYE);
			goto fail;
		}
	}
	np->generation = sess->generation;
	return sess;
fail:
	viovm_nbd_sess_free(sess);
	return ERR_PTR(err);
}

/**
 * viovm_nbd_sess_watch - start the watchdog
 * @sess: published
 */
void viovm_nbd_sess_watch(struct viovm_nbd_sess *sess)
{
	queue_delayed_work(viovm_nbd_wq, &sess->watchdog, 1);
}
