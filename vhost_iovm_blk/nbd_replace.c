// SPDX-License-Identifier: GPL-2.0
/*
 * Path type nbd: another session for a path that is live. TLS keys wear out, and kTLS cannot change
 * them; nor do connections follow when certificates are replaced. No request notices:
 *
 *	the new session is made and tried by a small READ on each connection - new requests go to
 *	it - what the old one has is answered there - the old one says goodbye and ends
 *
 * If the new one does not work, nothing has changed. If the old one breaks before it has answered
 * everything, the path has failed, and the new one with it: what was sent on the old one may still
 * land, and it is the path that writes wait for.
 *
 * For a while the server has both, so it must allow several connections (CAN_MULTI_CONN): only then
 * does it promise that one sees, and flushes, what was written on the other.
 */
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/rcupdate.h>

#include "nbd.h"

#define TRY_MS		2000
#define POLL_MS		5	/* a connection that is tried */
#define RETIRE_MS	20	/* a session that ends */

/* It must be what the path has, as far as that can be told. */
static int check_same(const struct viovm_nbd_sess *old, const struct iovm_path_connect *arg,
		      char *msg)
{
	const struct iovm_path *path = old->np->path;
	u64 sectors = arg->export_bytes >> SECTOR_SHIFT;

	if (!(arg->nbd_flags & VNBD_F_MULTI_CONN)) {
		snprintf(msg, IOVM_MSG_MAX,
			 "the server has no CAN_MULTI_CONN: old and new connections cannot be used together");
		return -EOPNOTSUPP;
	}
	if (sectors != path->capacity) {
		snprintf(msg, IOVM_MSG_MAX,
			 "the export has %llu sectors, that of the connections in use %llu",
			 sectors, path->capacity);
		return -EMEDIUMTYPE;
	}
	if (arg->nbd_flags != old->export_flags) {
		snprintf(msg, IOVM_MSG_MAX,
			 "the export has the flags 0x%x, that of the connections in use 0x%x",
			 arg->nbd_flags, old->export_flags);
		return -EMEDIUMTYPE;
	}
	if (viovm_nbd_sess_is_tls(old) && !(arg->flags & IOVM_NBD_F_TLS)) {
		snprintf(msg, IOVM_MSG_MAX,
			 "the connections in use are encrypted: only such may replace them");
		return -EINVAL;
	}
	return 0;
}

static bool is_answered(struct viovm_nbd_conn *conn)
{
	bool free;

	spin_lock(&conn->lock);
	free = conn->slots[VNBD_HEARTBEAT].job == VNBD_JOB_FREE;
	spin_unlock(&conn->lock);
	return free;
}

/* Does every connection answer? 0 or a negative errno. */
static int try_out(struct viovm_nbd_sess *sess)
{
	unsigned long until = jiffies + msecs_to_jiffies(TRY_MS);
	u32 i;

	for (i = 0; i < sess->nr_conns; i++)
		viovm_nbd_conn_heartbeat(sess->conns[i]);
	for (i = 0; i < sess->nr_conns; i++) {
		while (!is_answered(sess->conns[i]) && !READ_ONCE(sess->error)) {
			if (time_after(jiffies, until))
				return -ETIMEDOUT;
			msleep(POLL_MS);
		}
	}
	if (READ_ONCE(sess->error))
		return READ_ONCE(sess->error);
	return READ_ONCE(sess->nr_suspect) ? -EIO : 0;
}

/* From here on requests go to @sess; -ECONNABORTED: one of both has broken. */
static int publish(struct viovm_nbd_path *np, struct viovm_nbd_sess *sess,
		   struct viovm_nbd_sess *old)
{
	mutex_lock(&np->mutex);
	if (READ_ONCE(old->error) || READ_ONCE(sess->error)) {
		mutex_unlock(&np->mutex);
		return -ECONNABORTED;
	}
	WRITE_ONCE(sess->role, VNBD_ROLE_CURRENT);
	rcu_assign_pointer(np->sess, sess);
	WRITE_ONCE(old->role, VNBD_ROLE_OLD);
	WRITE_ONCE(np->retiring, old);
	mutex_unlock(&np->mutex);

	viovm_nbd_sess_watch(sess);
	queue_work(system_unbound_wq, &np->retire_work);
	return 0;
}

/**
 * viovm_nbd_replace - replace the connections of a path that is live
 * @np: the path, which may fail meanwhile
 * @old: its session
 * @arg: sockets and export, which fits the device
 * @msg: IOVM_MSG_MAX bytes: why not
 *
 * Process context, dev->mutex held.
 *
 * Return: 0; -EBUSY the last replacement is not over; -EOPNOTSUPP the server does not allow it;
 * -EMEDIUMTYPE, -EINVAL it is not the same export; another negative errno: the new connections do
 * not work, or the path has failed. All is as it was.
 */
int viovm_nbd_replace(struct viovm_nbd_path *np, struct viovm_nbd_sess *old,
		      const struct iovm_path_connect *arg, char *msg)
{
	struct viovm_nbd_sess *sess;
	int err;

	lockdep_assert_held(&np->path->dev->mutex);
	err = check_same(old, arg, msg);
	if (err)
		return err;
	if (READ_ONCE(np->retiring)) {
		snprintf(msg, IOVM_MSG_MAX,
			 "the connections that were replaced last still have requests: try again");
		return -EBUSY;
	}
	sess = viovm_nbd_sess_start(np, arg, VNBD_ROLE_NEW, msg);
	if (IS_ERR(sess))
		return PTR_ERR(sess);
	err = try_out(sess);
	if (err) {
		snprintf(msg, IOVM_MSG_MAX,
			 "the new connections do not answer as they should (error %d)", err);
		goto fail;
	}
	err = publish(np, sess, old);
	if (err) {
		snprintf(msg, IOVM_MSG_MAX, "old or new connections have failed meanwhile");
		goto fail;
	}
	return 0;
fail:
	viovm_nbd_sess_close(sess, VNBD_BYE);
	viovm_nbd_sess_free(sess);
	return err;
}

/**
 * viovm_nbd_retire_work - a session that was replaced ends when it has nothing in flight
 * @work: viovm_nbd_path.retire_work
 */
void viovm_nbd_retire_work(struct work_struct *work)
{
	struct viovm_nbd_path *np = container_of(work, struct viovm_nbd_path, retire_work);
	struct viovm_nbd_sess *old = READ_ONCE(np->retiring);

	/* who has still seen it as the path's session has given it what he had to give */
	synchronize_rcu();
	while (!READ_ONCE(old->error) && !viovm_nbd_sess_idle(old))
		msleep(RETIRE_MS);
	/* nobody waits for it */
	viovm_nbd_sess_close(old, old->dead);
	mutex_lock(&np->mutex);
	WRITE_ONCE(np->retiring, NULL);
	mutex_unlock(&np->mutex);
	viovm_nbd_sess_free(old);
}

/**
 * viovm_nbd_retire_now - end what was replaced at once
 * @np: the path, which has failed or has nothing in flight
 *
 * Process context, dev->mutex held.
 */
void viovm_nbd_retire_now(struct viovm_nbd_path *np)
{
	lockdep_assert_held(&np->path->dev->mutex);
	mutex_lock(&np->mutex);
	if (np->retiring)
		viovm_nbd_sess_fail(np->retiring, -ESHUTDOWN);
	mutex_unlock(&np->mutex);
	flush_work(&np->retire_work);
}
