// SPDX-License-Identifier: GPL-2.0
/*
 * Path type nbd: a client of an NBD server on sockets whose handshake user space has done. This
 * file is what the mux sees of it: the ops, what an export must be like to serve a device, and
 * which connection takes a request.
 *
 * What the server lacks is made up for: FUA by a FLUSH behind the write, WRITE_ZEROES by writing
 * zeroes; a discard may be dropped, and a server that offers no FLUSH has nothing to flush.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "nbd.h"

#define FLAGS	(IOVM_NBD_F_STRUCTURED | IOVM_NBD_F_DRAINED | IOVM_NBD_F_TLS | IOVM_NBD_F_REPLACE)

/* VNBD_ZERO_PAGES times the zero page: the data of a WRITE that stands for WRITE_ZEROES */
const struct bio_vec *viovm_nbd_zero_bv;
/* watchdogs and teardowns; a failover waits for these */
struct workqueue_struct *viovm_nbd_wq;

static struct viovm_nbd_sess *sess_locked(struct viovm_nbd_path *np)
{
	return rcu_dereference_protected(np->sess, lockdep_is_held(&np->path->dev->mutex));
}

static int nbd_add(struct iovm_path *path, const struct iovm_path_add *arg, char *msg)
{
	struct viovm_nbd_path *np;

	if (path->heartbeat_ms > 3600000 || path->dead_ms > 3600000) {
		snprintf(msg, IOVM_MSG_MAX,
			 "heartbeat_ms and dead_ms may not be more than an hour");
		return -EINVAL;
	}
	np = kzalloc(sizeof(*np), GFP_KERNEL);
	if (!np)
		return -ENOMEM;
	np->path = path;
	mutex_init(&np->mutex);
	INIT_WORK(&np->retire_work, viovm_nbd_retire_work);
	path->priv = np;
	path->block_size = viovm_blk_config(path->dev)->block_size;
	path->align_mask = 0;
	return 0;
}

/* Does the export fit the device? */
static int check_export(struct iovm_path *path, const struct iovm_path_connect *arg, char *msg)
{
	const struct iovm_blk_config *cfg = viovm_blk_config(path->dev);
	int err;

	if (!arg->nr_fds || arg->nr_fds > IOVM_MAX_SOCKETS) {
		snprintf(msg, IOVM_MSG_MAX, "nr_fds is %u, it must be 1 to %u", arg->nr_fds,
			 IOVM_MAX_SOCKETS);
		return -EINVAL;
	}
	if (arg->flags & ~FLAGS) {
		snprintf(msg, IOVM_MSG_MAX, "unknown flags 0x%x", arg->flags & ~FLAGS);
		return -EINVAL;
	}
	if (arg->nbd_flags > U16_MAX || !(arg->nbd_flags & VNBD_F_HAS_FLAGS)) {
		snprintf(msg, IOVM_MSG_MAX, "0x%x are not the transmission flags of an export",
			 arg->nbd_flags);
		return -EINVAL;
	}
	if (arg->nr_fds > 1 && !(arg->nbd_flags & VNBD_F_MULTI_CONN)) {
		snprintf(msg, IOVM_MSG_MAX,
			 "%u sockets, but the server does not offer CAN_MULTI_CONN", arg->nr_fds);
		return -EINVAL;
	}
	err = iovm_path_fits(path, arg->export_bytes, cfg->capacity, arg->identity, msg);
	if (err)
		return err;
	if ((arg->nbd_flags & VNBD_F_READ_ONLY) && !(path->dev->flags & IOVM_DEV_F_RDONLY)) {
		snprintf(msg, IOVM_MSG_MAX, "the export is read-only, the device is not");
		return -EMEDIUMTYPE;
	}
	if (arg->min_block > cfg->block_size) {
		snprintf(msg, IOVM_MSG_MAX,
			 "the export takes blocks of %u bytes or more, those of the device have %u",
			 arg->min_block, cfg->block_size);
		return -EMEDIUMTYPE;
	}
	if (arg->max_payload && arg->max_payload < VNBD_PART_MAX) {
		snprintf(msg, IOVM_MSG_MAX,
			 "the export takes at most %u bytes at once, %u are needed",
			 arg->max_payload, (u32)VNBD_PART_MAX);
		return -EMEDIUMTYPE;
	}
	return 0;
}

static int nbd_connect(struct iovm_path *path, const struct iovm_path_connect *arg, char *msg)
{
	struct viovm_nbd_path *np = path->priv;
	struct viovm_nbd_sess *sess, *old = sess_locked(np);
	int err;

	err = check_export(path, arg, msg);
	if (err)
		return err;

	viovm_nbd_retire_now(np);
	if (old) {
		viovm_nbd_sess_close(old, VNBD_BYE);
		rcu_assign_pointer(np->sess, NULL);
		viovm_nbd_sess_free(old);
	}
	sess = viovm_nbd_sess_start(np, arg, VNBD_ROLE_CURRENT, msg);
	if (IS_ERR(sess))
		return PTR_ERR(sess);
	path->capacity = arg->export_bytes >> SECTOR_SHIFT;
	rcu_assign_pointer(np->sess, sess);
	viovm_nbd_sess_watch(sess);
	return 0;
}

/* The same for a live path. */
static int nbd_replace(struct iovm_path *path, const struct iovm_path_connect *arg, char *msg)
{
	struct viovm_nbd_path *np = path->priv;
	int err;

	err = check_export(path, arg, msg);
	if (!err)
		err = viovm_nbd_replace(np, sess_locked(np), arg, msg);
	return err;
}

/* The connection with the least to do. */
static struct viovm_nbd_conn *pick(struct viovm_nbd_sess *sess)
{
	struct viovm_nbd_conn *best = sess->conns[0], *conn;
	u32 load, least = U32_MAX, i;

	if (sess->nr_conns == 1)
		return best;
	for (i = 0; i < sess->nr_conns; i++) {
		conn = sess->conns[i];
		/* a hint: any number will do */
		load = data_race(conn->nr_busy + conn->nr_queued);
		if (load < least) {
			least = load;
			best = conn;
		}
	}
	return best;
}

static void nbd_submit(struct iovm_path *path, struct iovm_req *req)
{
	struct viovm_nbd_path *np = path->priv;
	enum iovm_result res = IOVM_RES_UNSENT;
	struct viovm_nbd_sess *sess;
	int error = -ENOTCONN;
	u16 ef;

	rcu_read_lock();
again:
	sess = rcu_dereference(np->sess);
	if (!sess)
		goto done;
	error = READ_ONCE(sess->error);
	if (error)
		goto broken;

	ef = sess->export_flags;
	if ((req->op == IOVM_OP_FLUSH && !(ef & VNBD_F_FLUSH)) ||
	    (req->op == IOVM_OP_DISCARD && !(ef & VNBD_F_TRIM))) {
		res = IOVM_RES_OK;
		goto done;
	}
	if ((req->op == IOVM_OP_READ || req->op == IOVM_OP_WRITE) &&
	    (!req->len || req->len > VNBD_PART_MAX)) {
		res = IOVM_RES_REQUEST;
		error = -EINVAL;
		goto done;
	}
	if (viovm_nbd_conn_queue(pick(sess), req)) {
		rcu_read_unlock();
		return;
	}
	error = READ_ONCE(sess->error);
broken:
	/* it may have been replaced just now, and ended */
	if (rcu_access_pointer(np->sess) != sess)
		goto again;
done:
	rcu_read_unlock();
	iovm_req_done(req, res, error);
}

static void nbd_flush(struct iovm_path *path)
{
	struct viovm_nbd_path *np = path->priv;
	struct viovm_nbd_sess *sess = sess_locked(np);
	int error = sess ? READ_ONCE(sess->error) : -ENOTCONN;

	if (!error && sess->export_flags & VNBD_F_FLUSH) {
		/* where there are several connections, any of them stands for all */
		if (viovm_nbd_conn_flush(pick(sess)))
			return;
		error = READ_ONCE(sess->error);
	}
	iovm_flush_done(path, error);
}

static void nbd_fail(struct iovm_path *path)
{
	struct viovm_nbd_path *np = path->priv;
	struct viovm_nbd_sess *sess;

	mutex_lock(&np->mutex);
	sess = rcu_dereference_protected(np->sess, lockdep_is_held(&np->mutex));
	if (sess)
		viovm_nbd_sess_fail(sess, -ECONNABORTED);
	if (np->retiring)
		viovm_nbd_sess_fail(np->retiring, -ECONNABORTED);
	mutex_unlock(&np->mutex);
	/* neither connect nor remove runs now, and one that has failed is not replaced: it stays */
	if (sess)
		wait_for_completion(&sess->ended);
}

static void nbd_remove(struct iovm_path *path)
{
	struct viovm_nbd_path *np = path->priv;
	struct viovm_nbd_sess *sess = sess_locked(np);

	viovm_nbd_retire_now(np);
	if (sess) {
		viovm_nbd_sess_close(sess, VNBD_BYE);
		rcu_assign_pointer(np->sess, NULL);
		viovm_nbd_sess_free(sess);
	}
	path->priv = NULL;
	kfree(np);
}

static void nbd_info(struct iovm_path *path, struct iovm_path_info *info)
{
	struct viovm_nbd_path *np = path->priv;
	struct viovm_nbd_sess *sess = sess_locked(np);

	if (!sess)
		return;
	info->nbd_flags = sess->export_flags;
	if (READ_ONCE(sess->error))
		return;
	info->nr_sockets = sess->nr_conns;
	info->tls = viovm_nbd_sess_is_tls(sess);
	info->keys_old = READ_ONCE(sess->keys_old);
	info->tls_records = viovm_nbd_sess_records(sess);
}

static void nbd_stats(struct iovm_path *path, struct iovm_path_stats *stats)
{
	struct viovm_nbd_path *np = path->priv;

	stats->stale_replies = atomic64_read(&np->stale);
	stats->heartbeats = atomic64_read(&np->heartbeats);
}

const struct iovm_path_ops viovm_nbd_ops = {
	.name = "nbd",
	.type = IOVM_PATH_NBD,
	.class = IOVM_CLASS_BLK,
	.owner = THIS_MODULE,
	.add = nbd_add,
	.connect = nbd_connect,
	.replace = nbd_replace,
	.flush = nbd_flush,
	.submit = nbd_submit,
	.fail = nbd_fail,
	.remove = nbd_remove,
	.info = nbd_info,
	.stats = nbd_stats,
};

int viovm_nbd_init(void)
{
	struct bio_vec *bv;
	u32 i;

	bv = kcalloc(VNBD_ZERO_PAGES, sizeof(*bv), GFP_KERNEL);
	if (!bv)
		return -ENOMEM;
	for (i = 0; i < VNBD_ZERO_PAGES; i++)
		bvec_set_page(&bv[i], ZERO_PAGE(0), PAGE_SIZE, 0);
	viovm_nbd_wq = alloc_workqueue("iovm_nbd", WQ_UNBOUND | WQ_HIGHPRI | WQ_MEM_RECLAIM, 0);
	if (!viovm_nbd_wq) {
		kfree(bv);
		return -ENOMEM;
	}
	viovm_nbd_zero_bv = bv;
	return 0;
}

void viovm_nbd_exit(void)
{
	destroy_workqueue(viovm_nbd_wq);
	kfree(viovm_nbd_zero_bv);
}
