// SPDX-License-Identifier: GPL-2.0
/*
 * Class target: the device, its sessions, and the commands that wait for a route.
 */
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/slab.h>

#include "tgt.h"

static_assert(!offsetof(struct viovm_tgt, cfg) && !offsetof(struct viovm_blk, cfg));

/* ends of sessions, and commands that waited: both may sleep in a device for long */
struct workqueue_struct *viovm_tgt_wq;

/* ---- commands on their way to a path ---- */

/* Routed and given to its path, or ended; false when there is no route. */
static bool viovm_tgt_try(struct viovm_tgt_cmd *cmd)
{
	struct iovm_req *req = &cmd->io.req;
	int err;

	if (unlikely(READ_ONCE(cmd->conn->sess->expired))) {
		/* nothing of it is under way */
		iovm_req_drop(req);
		viovm_tgt_cmd_ended(cmd, -ESHUTDOWN);
		return true;
	}
	err = iovm_req_route(req);
	if (err == -EAGAIN)
		return false;
	if (err) {
		viovm_tgt_cmd_ended(cmd, err);
		return true;
	}
	WRITE_ONCE(cmd->at_path, true);
	iovm_req_issue(req, ktime_get_ns());
	return true;
}

static void viovm_tgt_put_off(struct viovm_tgt *tgt, struct iovm_req *req)
{
	unsigned long flags;

	spin_lock_irqsave(&tgt->lock, flags);
	list_add_tail(&req->node, &tgt->waiting);
	spin_unlock_irqrestore(&tgt->lock, flags);
}

/**
 * viovm_tgt_go - a command, or a piece of it, begins
 * @cmd: its io is filled in. It may have ended when this returns
 *
 * The connection's threads.
 */
void viovm_tgt_go(struct viovm_tgt_cmd *cmd)
{
	struct viovm_tgt *tgt = cmd->conn->sess->tgt;

	if (viovm_tgt_try(cmd))
		return;
	viovm_tgt_put_off(tgt, &cmd->io.req);
	/* a route that came before it was in the list has not seen it */
	smp_mb();
	if (iovm_dev_may_fetch(tgt->dev) || READ_ONCE(cmd->conn->dying))
		viovm_tgt_kick(tgt);
}

/**
 * viovm_tgt_kick - try what waits once more
 * @tgt: device; any context
 */
void viovm_tgt_kick(struct viovm_tgt *tgt)
{
	queue_work(viovm_tgt_wq, &tgt->work);
}

static void viovm_tgt_work(struct work_struct *work)
{
	struct viovm_tgt *tgt = container_of(work, struct viovm_tgt, work);
	struct iovm_req *req, *next;
	LIST_HEAD(again);

	spin_lock_irq(&tgt->lock);
	list_splice_init(&tgt->waiting, &again);
	spin_unlock_irq(&tgt->lock);
	list_for_each_entry_safe(req, next, &again, node) {
		struct viovm_tgt_cmd *cmd = viovm_tgt_cmd(req);

		list_del_init(&req->node);
		if (READ_ONCE(cmd->conn->dying)) {
			/* nobody waits for the answer, and nothing of it is under way */
			iovm_req_drop(req);
			viovm_tgt_cmd_ended(cmd, -ESHUTDOWN);
		} else if (!viovm_tgt_try(cmd)) {
			viovm_tgt_put_off(tgt, req);
		}
	}
}

static void viovm_tgt_complete(struct iovm_req *req, int error)
{
	viovm_tgt_cmd_ended(viovm_tgt_cmd(req), error);
}

static void viovm_tgt_requeue(struct iovm_req *req)
{
	struct viovm_tgt *tgt = req->dev->fe;

	WRITE_ONCE(viovm_tgt_cmd(req)->at_path, false);
	viovm_tgt_put_off(tgt, req);
	viovm_tgt_kick(tgt);
}

static void viovm_tgt_route_changed(struct iovm_dev *dev)
{
	struct viovm_tgt *tgt = READ_ONCE(dev->fe);

	if (tgt)
		viovm_tgt_kick(tgt);
}

static u64 viovm_tgt_conn_oldest(struct viovm_tgt_conn *conn, const struct iovm_path *path,
				 u64 oldest, u32 *writes)
{
	const struct iovm_req *req;
	u64 since;
	u32 i;

	for (i = 0; i < VTGT_COMMANDS; i++) {
		req = &conn->cmds[i].io.req;
		if (!READ_ONCE(conn->cmds[i].at_path) || READ_ONCE(req->path) != path)
			continue;
		since = READ_ONCE(req->issue_ns);
		if (!since)
			continue;
		*writes += iovm_op_modifies(READ_ONCE(req->op));
		if (!oldest || since < oldest)
			oldest = since;
	}
	return oldest;
}

static u64 viovm_tgt_oldest(struct iovm_dev *dev, const struct iovm_path *path, u32 *writes)
{
	struct viovm_tgt *tgt = dev->fe;
	struct viovm_tgt_sess *sess;
	u64 oldest = 0;
	u32 n = 0, i;

	mutex_lock(&tgt->mutex);
	list_for_each_entry(sess, &tgt->sessions, node)
		for (i = 0; i < sess->nr_conns; i++)
			oldest = viovm_tgt_conn_oldest(sess->conns[i], path, oldest, &n);
	mutex_unlock(&tgt->mutex);
	if (writes)
		*writes = n;
	return oldest;
}

/* ---- sessions ---- */

static void viovm_tgt_sess_free(struct viovm_tgt_sess *sess)
{
	u32 i;

	for (i = 0; i < sess->nr_conns; i++)
		viovm_tgt_conn_free(sess->conns[i]);
	kfree(sess);
}

static void viovm_tgt_end_work(struct work_struct *work)
{
	struct viovm_tgt_sess *sess = container_of(work, struct viovm_tgt_sess, end_work);
	struct viovm_tgt *tgt = sess->tgt;
	int error = 0;
	u32 id = sess->id, i;

	mutex_lock(&tgt->mutex);
	list_del(&sess->node);
	mutex_unlock(&tgt->mutex);
	for (i = 0; i < sess->nr_conns; i++) {
		viovm_tgt_conn_stop(sess->conns[i]);
		if (sess->conns[i]->error != -ESHUTDOWN)
			error = sess->conns[i]->error;
	}
	viovm_tgt_sess_free(sess);
	iovm_event_emit(tgt->dev, NULL, IOVM_EV_SESSION_ENDED, 0, 0, error, id);
	mutex_lock(&tgt->mutex);
	WRITE_ONCE(tgt->nr_sessions, tgt->nr_sessions - 1);
	mutex_unlock(&tgt->mutex);
	iovm_fe_end(tgt->dev);
	/* the workqueue is flushed before the device goes */
	wake_up(&tgt->wait);
}

/**
 * viovm_tgt_conn_ended - a connection has ended, and so has all that it had taken
 * @conn: whose sender calls this, once
 */
void viovm_tgt_conn_ended(struct viovm_tgt_conn *conn)
{
	if (atomic_dec_and_test(&conn->sess->running))
		queue_work(viovm_tgt_wq, &conn->sess->end_work);
}

static int viovm_tgt_session_add(struct iovm_dev *dev, struct iovm_session_add *arg)
{
	struct viovm_tgt *tgt = dev->fe;
	struct viovm_tgt_sess *sess;
	int err = 0;
	u32 i, k;

	sess = kzalloc(struct_size(sess, conns, arg->nr_fds), GFP_KERNEL);
	if (!sess)
		return -ENOMEM;
	sess->nr_conns = arg->nr_fds;
	sess->tgt = tgt;
	sess->rdonly = arg->flags & IOVM_SESSION_F_RDONLY;
	sess->epoch = arg->epoch;
	strscpy(sess->peer, arg->peer, sizeof(sess->peer));
	sess->since = ktime_get_ns();
	/* one for us, until all connections were started */
	atomic_set(&sess->running, arg->nr_fds + 1);
	INIT_WORK(&sess->end_work, viovm_tgt_end_work);
	for (i = 0; i < arg->nr_fds; i++) {
		sess->conns[i] = viovm_tgt_conn_new(sess, arg->fds[i], arg->msg);
		if (IS_ERR(sess->conns[i])) {
			err = PTR_ERR(sess->conns[i]);
			sess->conns[i] = NULL;
			goto free;
		}
		if (arg->flags & IOVM_SESSION_F_TLS && !sess->conns[i]->s.is_tls) {
			scnprintf(arg->msg, IOVM_MSG_MAX,
				  "the socket of fd %d has no TLS keys", arg->fds[i]);
			err = -EINVAL;
			goto free;
		}
		for (k = 0; k < i; k++) {
			if (sess->conns[k]->s.sock != sess->conns[i]->s.sock)
				continue;
			scnprintf(arg->msg, IOVM_MSG_MAX, "fd %d is the same socket as another one",
				  arg->fds[i]);
			err = -EINVAL;
			goto free;
		}
	}

	mutex_lock(&tgt->mutex);
	if (tgt->closing || tgt->nr_sessions >= IOVM_MAX_SESSIONS) {
		err = tgt->closing ? -ENODEV : -ENOSPC;
		mutex_unlock(&tgt->mutex);
		scnprintf(arg->msg, IOVM_MSG_MAX, tgt->closing ? "%s is being destroyed" :
			  "%s has as many sessions as there can be", dev->name);
		goto free;
	}
	sess->id = tgt->next_id++;
	arg->id = sess->id;
	WRITE_ONCE(tgt->nr_sessions, tgt->nr_sessions + 1);
	list_add_tail(&sess->node, &tgt->sessions);
	mutex_unlock(&tgt->mutex);

	iovm_fe_begin(dev);
	iovm_event_emit(dev, NULL, IOVM_EV_SESSION_BEGUN, 0, 0, 0, sess->id);
	/* from here on it ends by itself */
	for (i = 0; i < sess->nr_conns; i++) {
		if (!err)
			err = viovm_tgt_conn_start(sess->conns[i]);
		if (err)
			atomic_dec(&sess->running);
	}
	if (err)
		for (i = 0; i < sess->nr_conns; i++)
			viovm_tgt_conn_shut(sess->conns[i]);
	if (atomic_dec_and_test(&sess->running))
		queue_work(viovm_tgt_wq, &sess->end_work);
	return err;
free:
	viovm_tgt_sess_free(sess);
	return err;
}

static int viovm_tgt_session_remove(struct iovm_dev *dev, u32 id)
{
	struct viovm_tgt *tgt = dev->fe;
	struct viovm_tgt_sess *sess;
	int err = id == IOVM_NO_ID ? 0 : -ENOENT;
	u32 i;

	mutex_lock(&tgt->mutex);
	list_for_each_entry(sess, &tgt->sessions, node) {
		if (id != IOVM_NO_ID && id != sess->id)
			continue;
		for (i = 0; i < sess->nr_conns; i++)
			viovm_tgt_conn_shut(sess->conns[i]);
		err = 0;
	}
	mutex_unlock(&tgt->mutex);
	return err;
}

static void viovm_tgt_session_expire(struct iovm_dev *dev)
{
	struct viovm_tgt *tgt = dev->fe;
	struct viovm_tgt_sess *sess;

	mutex_lock(&tgt->mutex);
	list_for_each_entry(sess, &tgt->sessions, node)
		WRITE_ONCE(sess->expired, true);
	mutex_unlock(&tgt->mutex);
	viovm_tgt_session_remove(dev, IOVM_NO_ID);
}

static void viovm_tgt_sess_fill(struct viovm_tgt_sess *sess, struct iovm_session_info *info)
{
	struct viovm_tgt_conn *conn;
	bool tls = true;
	u32 i;

	lockdep_assert_held(&sess->tgt->mutex);
	info->id = sess->id;
	info->flags = sess->rdonly ? IOVM_SESSION_F_RDONLY : 0;
	memset(info->peer, 0, sizeof(info->peer));
	strscpy(info->peer, sess->peer, sizeof(info->peer));
	info->epoch = sess->epoch;
	info->since_ms = (ktime_get_ns() - sess->since) / NSEC_PER_MSEC;
	info->nr_sockets = 0;
	info->inflight = 0;
	info->commands = 0;
	info->errors = 0;
	info->read_bytes = 0;
	info->written_bytes = 0;
	info->mem_bytes = struct_size(sess, conns, sess->nr_conns);
	for (i = 0; i < sess->nr_conns; i++) {
		conn = sess->conns[i];
		tls &= conn->s.is_tls;
		spin_lock_irq(&conn->lock);
		info->nr_sockets += !conn->dying;
		info->inflight += conn->nr_busy;
		info->mem_bytes += sizeof(*conn) + VTGT_COMMANDS * sizeof(*conn->cmds) +
				   (conn->nr_pages + 2) * PAGE_SIZE;
		spin_unlock_irq(&conn->lock);
		info->commands += READ_ONCE(conn->commands);
		info->errors += READ_ONCE(conn->errors);
		info->read_bytes += READ_ONCE(conn->read_bytes);
		info->written_bytes += READ_ONCE(conn->written_bytes);
	}
	if (tls)
		info->flags |= IOVM_SESSION_F_TLS;
}

static int viovm_tgt_session_get(struct iovm_dev *dev, struct iovm_session_info *info)
{
	struct viovm_tgt *tgt = dev->fe;
	struct viovm_tgt_sess *sess;
	int err = -ENOENT;

	mutex_lock(&tgt->mutex);
	list_for_each_entry(sess, &tgt->sessions, node) {
		if (sess->id < info->id)
			continue;
		viovm_tgt_sess_fill(sess, info);
		err = 0;
		break;
	}
	mutex_unlock(&tgt->mutex);
	return err;
}

/* ---- the device ---- */

static int viovm_tgt_create(struct iovm_dev *dev, const struct iovm_dev_create *arg, char *msg)
{
	struct viovm_tgt *tgt;
	int err;

	tgt = kzalloc(sizeof(*tgt), GFP_KERNEL);
	if (!tgt)
		return -ENOMEM;
	tgt->dev = dev;
	tgt->cfg = arg->blk;
	mutex_init(&tgt->mutex);
	INIT_LIST_HEAD(&tgt->sessions);
	init_waitqueue_head(&tgt->wait);
	spin_lock_init(&tgt->lock);
	INIT_LIST_HEAD(&tgt->waiting);
	INIT_WORK(&tgt->work, viovm_tgt_work);
	err = viovm_blk_check_config(&tgt->cfg, msg);
	if (err) {
		kfree(tgt);
		return err;
	}
	dev->fe = tgt;
	return 0;
}

static bool viovm_tgt_empty(const struct viovm_tgt *tgt)
{
	return !READ_ONCE(tgt->nr_sessions);
}

static int viovm_tgt_destroy_prepare(struct iovm_dev *dev, bool force, char *msg)
{
	struct viovm_tgt *tgt = dev->fe;

	mutex_lock(&tgt->mutex);
	if (tgt->nr_sessions && !force) {
		scnprintf(msg, IOVM_MSG_MAX, "%s has %u sessions", dev->name, tgt->nr_sessions);
		mutex_unlock(&tgt->mutex);
		return -EBUSY;
	}
	tgt->closing = true;
	mutex_unlock(&tgt->mutex);
	viovm_tgt_session_remove(dev, IOVM_NO_ID);
	while (!viovm_tgt_empty(tgt)) {
		iovm_dev_cancel(dev, true);
		wait_event_timeout(tgt->wait, viovm_tgt_empty(tgt), HZ / 10);
		if (fatal_signal_pending(current)) {
			scnprintf(msg, IOVM_MSG_MAX, "commands of its clients are still under way");
			return -EINTR;
		}
	}
	return 0;
}

static void viovm_tgt_destroy(struct iovm_dev *dev)
{
	struct viovm_tgt *tgt = dev->fe;

	WRITE_ONCE(dev->fe, NULL);
	/* who has seen it before may still be about to queue the work */
	synchronize_rcu();
	cancel_work_sync(&tgt->work);
	/* who has ended the last session may not be quite out of it */
	flush_workqueue(viovm_tgt_wq);
	kfree(tgt);
}

static int viovm_tgt_resize(struct iovm_dev *dev, u64 sectors, char *msg)
{
	struct viovm_tgt *tgt = dev->fe;

	if (!viovm_blk_capacity_ok(&tgt->cfg, sectors))
		return viovm_blk_bad(msg, VIOVM_BAD_CAPACITY);
	if (sectors < tgt->cfg.capacity && !viovm_tgt_empty(tgt)) {
		scnprintf(msg, IOVM_MSG_MAX,
			  "%s has %llu sectors: it can only be made smaller while it has no session",
			  dev->name, tgt->cfg.capacity);
		return -EBUSY;
	}
	WRITE_ONCE(tgt->cfg.capacity, sectors);
	return 0;
}

static void viovm_tgt_info(struct iovm_dev *dev, struct iovm_dev_info *info)
{
	struct viovm_tgt *tgt = dev->fe;
	struct iovm_session_info *s;
	struct viovm_tgt_sess *sess;

	info->blk = tgt->cfg;
	info->mem_bytes = sizeof(*tgt);
	s = kzalloc(sizeof(*s), GFP_KERNEL);
	mutex_lock(&tgt->mutex);
	info->in_use = tgt->nr_sessions;
	list_for_each_entry(sess, &tgt->sessions, node) {
		if (!s)
			break;
		viovm_tgt_sess_fill(sess, s);
		info->queues_running += s->nr_sockets;
		info->mem_bytes += s->mem_bytes;
	}
	mutex_unlock(&tgt->mutex);
	kfree(s);
}

const struct iovm_class viovm_tgt_class = {
	.id			= IOVM_CLASS_TARGET,
	.paths			= IOVM_CLASS_BLK,
	.name			= "target",
	.owner			= THIS_MODULE,
	.create			= viovm_tgt_create,
	.destroy_prepare	= viovm_tgt_destroy_prepare,
	.destroy		= viovm_tgt_destroy,
	.resize			= viovm_tgt_resize,
	.info			= viovm_tgt_info,
	.complete		= viovm_tgt_complete,
	.requeue		= viovm_tgt_requeue,
	.route_changed		= viovm_tgt_route_changed,
	.oldest			= viovm_tgt_oldest,
	.session_add		= viovm_tgt_session_add,
	.session_remove		= viovm_tgt_session_remove,
	.session_get		= viovm_tgt_session_get,
	.session_expire		= viovm_tgt_session_expire,
};

int viovm_tgt_init(void)
{
	viovm_tgt_wq = alloc_workqueue("iovm_target", WQ_UNBOUND | WQ_HIGHPRI | WQ_MEM_RECLAIM, 0);
	return viovm_tgt_wq ? 0 : -ENOMEM;
}

void viovm_tgt_exit(void)
{
	destroy_workqueue(viovm_tgt_wq);
}
