// SPDX-License-Identifier: GPL-2.0
/*
 * Path type nbd: a connection.
 *
 *	submit (front-end worker)	sender			receiver
 *	conn->queue ------------------> slot, header, data -->
 *					socket		  <---- reply: slot by cookie,
 *								data into the request's pages
 *					done with it ---------- answered
 *					      whoever lets go of the slot last ends the command:
 *					      another command for the same request (conn->again), or
 *					      iovm_req_done()
 *
 * A front-end worker only queues: it may be killed at any time, and a command cut in half would be
 * the end of the connection. Sender and receiver are kernel threads that nothing but their
 * session's teardown stops. A slot is held by both, because a reply may be there before the sender
 * is back from the socket (and a peer that lies may reply to what was never sent): the request's
 * pages are let go when neither can touch them.
 *
 * When something breaks a thread reports it to the session and waits to be stopped. The receiver
 * goes on until the socket has nothing more: replies that had arrived still count.
 */
#include <linux/highmem.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uio.h>

#include "nbd.h"

/* ---- slots ---- */

static u32 slot_index(const struct viovm_nbd_conn *conn, const struct viovm_nbd_slot *slot)
{
	return slot - conn->slots;
}

/* Something to wait for begins. */
static void busy_begins(struct viovm_nbd_conn *conn)
{
	lockdep_assert_held(&conn->lock);
	if (!conn->nr_busy && !conn->nr_queued)
		conn->busy_since = jiffies;
}

/* Give a slot its next command. */
static void slot_arm(struct viovm_nbd_conn *conn, struct viovm_nbd_slot *slot, u8 job, u16 type,
		     u64 offset, u32 len, u16 flags)
{
	u64 cookie;

	lockdep_assert_held(&conn->lock);
	slot->job = job;
	slot->flags = flags;
	slot->since = jiffies;
	slot->seq++;
	atomic_set(&slot->pending, 2);
	cookie = (u64)conn->sess->generation << 32 | (u32)conn->index << 24 |
		 (slot->seq & 0xffff) << 8 | slot_index(conn, slot);
	viovm_nbd_wire_init(&slot->wire, cookie, type, offset, len);
}

/* The next piece of a WRITE of zeroes. */
static void slot_arm_zeroes(struct viovm_nbd_conn *conn, struct viovm_nbd_slot *slot)
{
	u32 n = min_t(u32, slot->req->len - slot->done, VNBD_PART_MAX);

	slot->bv = viovm_nbd_zero_bv;
	slot->nr_bv = DIV_ROUND_UP(n, PAGE_SIZE);
	slot_arm(conn, slot, VNBD_JOB_ZEROES, VNBD_CMD_WRITE, slot->req->offset + slot->done, n,
		 slot->flags);
}

/* Turn a request into the first command for it. */
static void slot_arm_req(struct viovm_nbd_conn *conn, struct viovm_nbd_slot *slot,
			 struct iovm_req *req)
{
	struct viovm_io *io = viovm_io(req);
	u16 ef = conn->sess->export_flags, flags = 0;
	bool fua = viovm_blk_req_fua(req);

	lockdep_assert_held(&conn->lock);
	slot->req = req;
	slot->bv = NULL;
	slot->nr_bv = 0;
	slot->done = 0;
	slot->started = false;
	slot->flush_after = false;

	switch (req->op) {
	case IOVM_OP_READ:
		slot->bv = io->bv;
		slot->nr_bv = io->nr_bv;
		slot_arm(conn, slot, VNBD_JOB_CMD, VNBD_CMD_READ, req->offset, req->len, 0);
		return;
	case IOVM_OP_FLUSH:
		slot_arm(conn, slot, VNBD_JOB_CMD, VNBD_CMD_FLUSH, 0, 0, 0);
		return;
	case IOVM_OP_DISCARD:
		slot_arm(conn, slot, VNBD_JOB_CMD, VNBD_CMD_TRIM, req->offset, req->len, 0);
		return;
	}

	/* WRITE and WRITE_ZEROES. A server with neither FUA nor FLUSH has nothing volatile. */
	if (fua && (ef & VNBD_F_FUA))
		flags |= VNBD_CMD_F_FUA;
	else if (fua && (ef & VNBD_F_FLUSH))
		slot->flush_after = true;

	if (req->op == IOVM_OP_WRITE) {
		slot->bv = io->bv;
		slot->nr_bv = io->nr_bv;
		slot_arm(conn, slot, VNBD_JOB_CMD, VNBD_CMD_WRITE, req->offset, req->len, flags);
	} else if (ef & VNBD_F_WRITE_ZEROES) {
		if (req->flags & IOVM_REQ_NOUNMAP)
			flags |= VNBD_CMD_F_NO_HOLE;
		slot_arm(conn, slot, VNBD_JOB_CMD, VNBD_CMD_WRITE_ZEROES, req->offset, req->len,
			 flags);
	} else {
		slot->flags = flags;
		slot_arm_zeroes(conn, slot);
	}
}

/* What an error of the server means. */
static enum iovm_result result(int error)
{
	switch (error) {
	case 0:
		return IOVM_RES_OK;
	case -ESHUTDOWN:
		return IOVM_RES_PATH;
	case -EIO:
	case -ENOMEM:
	case -EPERM:
		return IOVM_RES_IO;
	case -ENOSPC:
		return IOVM_RES_NOSPC;
	default:
		return IOVM_RES_REQUEST;
	}
}

/* The request needs another command: arm it and true, or false. */
static bool slot_goes_on(struct viovm_nbd_conn *conn, struct viovm_nbd_slot *slot)
{
	bool more = false;

	spin_lock(&conn->lock);
	if (slot->job == VNBD_JOB_ZEROES) {
		slot->done += slot->wire.len;
		if (slot->done < slot->req->len) {
			slot_arm_zeroes(conn, slot);
			more = true;
		}
	}
	if (!more && slot->flush_after && slot->job != VNBD_JOB_FLUSH) {
		slot_arm(conn, slot, VNBD_JOB_FLUSH, VNBD_CMD_FLUSH, 0, 0, 0);
		more = true;
	}
	if (more)
		list_add_tail(&slot->node, &conn->again);
	spin_unlock(&conn->lock);
	if (more)
		wake_up(&conn->tx_wait);
	return more;
}

/* Sender and receiver have let go of a slot whose command was answered. */
static void slot_end(struct viovm_nbd_conn *conn, struct viovm_nbd_slot *slot)
{
	int error = slot->wire.error ? viovm_nbd_errno(slot->wire.error) : 0;
	struct iovm_req *req = slot->req;
	u8 job = slot->job;
	/* of the next one, as soon as this one's slot is free */
	u64 sent_ns = job == VNBD_JOB_HEARTBEAT ? conn->heartbeat_ns : 0;
	bool wake;

	if (!error && req && slot_goes_on(conn, slot))
		return;

	spin_lock(&conn->lock);
	slot->req = NULL;
	slot->job = VNBD_JOB_FREE;
	conn->nr_busy--;
	wake = conn->bye;
	if (req) {
		wake |= list_empty(&conn->free) && !list_empty(&conn->queue);
		list_add(&slot->node, &conn->free);
	}
	spin_unlock(&conn->lock);
	if (wake)
		wake_up(&conn->tx_wait);

	if (!error && (READ_ONCE(conn->suspect) & VNBD_SUSPECT_ERROR))
		viovm_nbd_suspect(conn, VNBD_SUSPECT_ERROR, false);
	if (req)
		iovm_req_done(req, result(error), error);
	else if (job == VNBD_JOB_SYNC)
		iovm_flush_done(conn->sess->np->path, error);
	else if (error == -ESHUTDOWN)
		viovm_nbd_sess_fail(conn->sess, error);
	else if (error)
		viovm_nbd_suspect(conn, VNBD_SUSPECT_ERROR, true);
	else
		iovm_path_answered(conn->sess->np->path, ktime_get_ns() - sent_ns);
}

static void slot_let_go(struct viovm_nbd_conn *conn, struct viovm_nbd_slot *slot)
{
	if (atomic_dec_and_test(&slot->pending))
		slot_end(conn, slot);
}

/* ---- the sender ---- */

static bool tx_has_work(struct viovm_nbd_conn *conn)
{
	bool work;

	spin_lock(&conn->lock);
	work = !conn->dead && (!list_empty(&conn->again) ||
			       (!list_empty(&conn->queue) && !list_empty(&conn->free)) ||
			       (conn->bye && !conn->nr_busy));
	spin_unlock(&conn->lock);
	return work;
}

/* Where the header of a slot's command lies in conn->hdr_page. */
static u32 tx_hdr_off(const struct viovm_nbd_conn *conn, const struct viovm_nbd_slot *slot)
{
	return slot_index(conn, slot) * VNBD_REQUEST_SIZE;
}

/*
 * The header is made under the lock: a peer that guesses the cookie may reply before anything was
 * sent, and the receiver then takes it away.
 */
static void tx_pack(struct viovm_nbd_conn *conn, struct viovm_nbd_slot *slot)
{
	u8 *hdrs = page_address(conn->hdr_page);

	lockdep_assert_held(&conn->lock);
	viovm_nbd_pack(hdrs + tx_hdr_off(conn, slot), &slot->wire, slot->flags);
}

/* Take up to VNBD_BATCH commands; how many. */
static u32 tx_collect(struct viovm_nbd_conn *conn, struct viovm_nbd_slot **batch)
{
	struct viovm_nbd_slot *slot;
	struct iovm_req *req;
	u32 n = 0;

	spin_lock(&conn->lock);
	while (n < VNBD_BATCH && !conn->dead) {
		slot = list_first_entry_or_null(&conn->again, struct viovm_nbd_slot, node);
		if (slot) {
			list_del_init(&slot->node);
			tx_pack(conn, slot);
			batch[n++] = slot;
			continue;
		}
		slot = list_first_entry_or_null(&conn->free, struct viovm_nbd_slot, node);
		req = list_first_entry_or_null(&conn->queue, struct iovm_req, node);
		if (!slot || !req)
			break;
		list_del_init(&slot->node);
		list_del_init(&req->node);
		conn->nr_queued--;
		conn->nr_busy++;
		slot_arm_req(conn, slot, req);
		tx_pack(conn, slot);
		batch[n++] = slot;
	}
	spin_unlock(&conn->lock);
	return n;
}

/*
 * Send what was gathered: @nr entries of conn->tx_bv, @len bytes, the commands slots[0..n). On
 * return those of which a byte may have left are marked.
 */
static int tx_gathered(struct viovm_nbd_conn *conn, struct viovm_nbd_slot **slots, u32 n, u32 nr,
		       u32 len, bool more)
{
	u32 sent, i;
	int err;

	err = viovm_nbd_sock_send(&conn->s, conn->tx_bv, nr, len, more, &conn->sess->error, &sent);
	/* what an upper layer protocol did with bytes it did not acknowledge is not known */
	for (i = 0; i < n; i++)
		if (slots[i]->tx_start < sent || conn->s.is_tls)
			slots[i]->started = true;
	return err;
}

/* Send commands and let go of those that were sent in full. */
static int tx_send(struct viovm_nbd_conn *conn, struct viovm_nbd_slot **batch, u32 n)
{
	u32 i, out, over, nr = 0, len = 0, first = 0, sent;
	struct viovm_nbd_slot *slot;
	int err;

	for (i = 0; i < n; i++) {
		slot = batch[i];
		out = slot->wire.type == VNBD_CMD_WRITE ? slot->nr_bv : 0;

		if (nr && nr + 1 + out > VNBD_TX_BVECS) {
			err = tx_gathered(conn, batch + first, i - first, nr, len, true);
			if (err)
				return err;
			while (first < i)
				slot_let_go(conn, batch[first++]);
			nr = 0;
			len = 0;
		}

		slot->tx_start = len;
		bvec_set_page(&conn->tx_bv[nr++], conn->hdr_page, VNBD_REQUEST_SIZE,
			      tx_hdr_off(conn, slot));
		len += VNBD_REQUEST_SIZE;

		if (out <= VNBD_TX_BVECS - nr) {
			if (out) {
				memcpy(&conn->tx_bv[nr], slot->bv, out * sizeof(*slot->bv));
				nr += out;
				len += slot->wire.len;
				/* the last piece of zeroes may end within a page */
				over = out * PAGE_SIZE - slot->wire.len;
				if (slot->job == VNBD_JOB_ZEROES)
					conn->tx_bv[nr - 1].bv_len -= over;
			}
			continue;
		}
		/* too long to be gathered: the header, then the data from where it is described */
		err = tx_gathered(conn, batch + first, i + 1 - first, nr, len, true);
		if (err)
			return err;
		err = viovm_nbd_sock_send(&conn->s, slot->bv, out, slot->wire.len, i + 1 < n,
					  &conn->sess->error, &sent);
		if (err)
			return err;
		while (first <= i)
			slot_let_go(conn, batch[first++]);
		nr = 0;
		len = 0;
	}
	if (nr) {
		err = tx_gathered(conn, batch + first, n - first, nr, len, false);
		if (err)
			return err;
		while (first < n)
			slot_let_go(conn, batch[first++]);
	}
	return 0;
}

/* The last words on a connection that is closed in order; there is no reply. */
static void tx_bye(struct viovm_nbd_conn *conn)
{
	struct viovm_nbd_wire wire;
	u32 sent;

	viovm_nbd_wire_init(&wire, 0, VNBD_CMD_DISC, 0, 0);
	viovm_nbd_pack(page_address(conn->hdr_page), &wire, 0);
	bvec_set_page(&conn->tx_bv[0], conn->hdr_page, VNBD_REQUEST_SIZE, 0);
	viovm_nbd_sock_send(&conn->s, conn->tx_bv, 1, VNBD_REQUEST_SIZE, false, &conn->sess->error,
			    &sent);
}

static int tx_thread(void *arg)
{
	struct viovm_nbd_slot *batch[VNBD_BATCH];
	struct viovm_nbd_conn *conn = arg;
	unsigned int noio = memalloc_noio_save();
	bool bye;
	int err = 0;
	u32 n;

	while (!err && !kthread_should_stop()) {
		wait_event_idle(conn->tx_wait, tx_has_work(conn) || kthread_should_stop());
		n = tx_collect(conn, batch);
		if (n) {
			err = tx_send(conn, batch, n);
			cond_resched();
			continue;
		}
		spin_lock(&conn->lock);
		bye = conn->bye && !conn->nr_busy && !conn->dead;
		spin_unlock(&conn->lock);
		if (bye) {
			tx_bye(conn);
			break;
		}
	}
	complete(&conn->said_bye);
	if (err)
		viovm_nbd_sess_fail(conn->sess, err);
	wait_event_idle(conn->tx_wait, kthread_should_stop());
	memalloc_noio_restore(noio);
	return 0;
}

/* ---- the receiver ---- */

static struct viovm_nbd_slot *to_slot(struct viovm_nbd_wire *wire)
{
	return container_of(wire, struct viovm_nbd_slot, wire);
}

static struct viovm_nbd_wire *rx_lookup(void *ctx, u64 cookie)
{
	struct viovm_nbd_conn *conn = ctx;
	struct viovm_nbd_wire *wire = NULL;
	u32 i = cookie & 0xff;

	if (i < ARRAY_SIZE(conn->slots) && cookie) {
		spin_lock(&conn->lock);
		if (conn->slots[i].wire.cookie == cookie)
			wire = &conn->slots[i].wire;
		spin_unlock(&conn->lock);
	}
	if (!wire)
		atomic64_inc(&conn->sess->np->stale);
	return wire;
}

/* Bytes came. */
static int rx_sock(struct viovm_nbd_conn *conn, u32 nr, u32 len)
{
	int ret = viovm_nbd_sock_recv(&conn->s, conn->rx_bv, nr, len);

	if (ret > 0) {
		WRITE_ONCE(conn->last_rx, jiffies);
		if (READ_ONCE(conn->suspect) & VNBD_SUSPECT_QUIET)
			viovm_nbd_suspect(conn, VNBD_SUSPECT_QUIET, false);
	}
	return ret;
}

/* Fill the stage, which is empty. 0 or a negative errno. */
static int rx_stage(struct viovm_nbd_conn *conn)
{
	int ret;

	bvec_set_page(&conn->rx_bv[0], conn->stage, PAGE_SIZE, 0);
	ret = rx_sock(conn, 1, PAGE_SIZE);
	if (ret < 0)
		return ret;
	conn->stage_pos = 0;
	conn->stage_end = ret;
	return 0;
}

/* Put the cursor to byte @off of the command's data. */
static void cursor_seek(struct viovm_nbd_conn *conn, const struct viovm_nbd_slot *slot, u32 off)
{
	u32 i = 0;

	while (i < slot->nr_bv && off >= slot->bv[i].bv_len)
		off -= slot->bv[i++].bv_len;
	conn->cur_idx = i;
	conn->cur_off = off;
}

/* Describe up to @want bytes from the cursor on in conn->rx_bv; how many, and entries by @nr. */
static u32 cursor_map(struct viovm_nbd_conn *conn, const struct viovm_nbd_slot *slot, u32 want,
		      u32 *nr)
{
	u32 i = conn->cur_idx, off = conn->cur_off, len = 0, n, k = 0;

	for (; want > len && k < VNBD_RX_BVECS && i < slot->nr_bv; i++, k++, off = 0) {
		n = min(slot->bv[i].bv_len - off, want - len);
		bvec_set_page(&conn->rx_bv[k], slot->bv[i].bv_page, n, slot->bv[i].bv_offset + off);
		len += n;
	}
	*nr = k;
	return len;
}

static void cursor_advance(struct viovm_nbd_conn *conn, const struct viovm_nbd_slot *slot, u32 n)
{
	while (n) {
		u32 left = slot->bv[conn->cur_idx].bv_len - conn->cur_off;

		if (n < left) {
			conn->cur_off += n;
			return;
		}
		n -= left;
		conn->cur_idx++;
		conn->cur_off = 0;
	}
}

/* Payload for a command: what is staged, else from the socket straight to where it belongs. */
static int rx_data(struct viovm_nbd_conn *conn)
{
	struct viovm_nbd_reply *r = &conn->reply;
	struct viovm_nbd_slot *slot = to_slot(r->cmd);
	u32 nr, len, n, staged = conn->stage_end - conn->stage_pos;
	struct iov_iter iter;
	int ret;

	len = cursor_map(conn, slot, staged ? min(r->want, staged) : r->want, &nr);
	if (WARN_ON_ONCE(!len))
		return -EPROTO;

	if (staged) {
		iov_iter_bvec(&iter, ITER_DEST, conn->rx_bv, nr, len);
		n = copy_to_iter(page_address(conn->stage) + conn->stage_pos, len, &iter);
		if (WARN_ON_ONCE(n != len))
			return -EFAULT;
		conn->stage_pos += n;
	} else {
		u32 tail = 0;

		/* the framing behind the last byte comes along */
		if (len == r->want) {
			tail = VNBD_STAGE_TAIL;
			bvec_set_page(&conn->rx_bv[nr++], conn->stage, tail, 0);
		}
		ret = rx_sock(conn, nr, len + tail);
		if (ret < 0)
			return ret;
		n = min_t(u32, ret, len);
		conn->stage_pos = 0;
		conn->stage_end = ret - n;
	}
	cursor_advance(conn, slot, n);
	return viovm_nbd_reply_advance(r, n);
}

static int rx_zero(struct viovm_nbd_conn *conn)
{
	struct viovm_nbd_reply *r = &conn->reply;
	struct viovm_nbd_slot *slot = to_slot(r->cmd);
	u32 left = r->want, nr, len;
	struct iov_iter iter;

	while (left) {
		len = cursor_map(conn, slot, left, &nr);
		if (WARN_ON_ONCE(!len))
			return -EPROTO;
		iov_iter_bvec(&iter, ITER_DEST, conn->rx_bv, nr, len);
		if (WARN_ON_ONCE(iov_iter_zero(len, &iter) != len))
			return -EFAULT;
		cursor_advance(conn, slot, len);
		left -= len;
	}
	return viovm_nbd_reply_advance(r, r->want);
}

static int rx_step(struct viovm_nbd_conn *conn)
{
	struct viovm_nbd_reply *r = &conn->reply;
	struct viovm_nbd_slot *slot;
	int ret;
	u32 n;

	if ((r->step == VNBD_STEP_HEAD || r->step == VNBD_STEP_SKIP) &&
	    conn->stage_pos == conn->stage_end) {
		ret = rx_stage(conn);
		if (ret)
			return ret;
	}
	switch (r->step) {
	case VNBD_STEP_HEAD:
		ret = viovm_nbd_reply_head(r, page_address(conn->stage) + conn->stage_pos,
					   conn->stage_end - conn->stage_pos);
		if (ret < 0)
			return ret;
		conn->stage_pos += ret;
		if (r->step == VNBD_STEP_DATA || r->step == VNBD_STEP_ZERO)
			cursor_seek(conn, to_slot(r->cmd), r->off);
		return 0;
	case VNBD_STEP_SKIP:
		n = min(r->want, conn->stage_end - conn->stage_pos);
		conn->stage_pos += n;
		return viovm_nbd_reply_advance(r, n);
	case VNBD_STEP_DATA:
		return rx_data(conn);
	case VNBD_STEP_ZERO:
		return rx_zero(conn);
	case VNBD_STEP_DONE:
		slot = to_slot(r->cmd);
		spin_lock(&conn->lock);
		slot->wire.cookie = 0;
		spin_unlock(&conn->lock);
		ret = viovm_nbd_reply_advance(r, 0);
		slot_let_go(conn, slot);
		return ret;
	}
	return -EPROTO;
}

static int rx_thread(void *arg)
{
	struct viovm_nbd_conn *conn = arg;
	unsigned int noio = memalloc_noio_save();
	bool bye;
	int err;

	do {
		err = rx_step(conn);
		cond_resched();
	} while (!err);
	/* to a goodbye the peer closes, while others of the session have not said theirs */
	spin_lock(&conn->lock);
	bye = conn->bye && !conn->nr_busy;
	spin_unlock(&conn->lock);
	if (!bye)
		viovm_nbd_sess_fail(conn->sess, err);

	for (;;) {
		set_current_state(TASK_IDLE);
		if (kthread_should_stop())
			break;
		schedule();
	}
	__set_current_state(TASK_RUNNING);
	memalloc_noio_restore(noio);
	return 0;
}

/* ---- from outside ---- */

/**
 * viovm_nbd_conn_queue - give a request to the connection
 * @conn: whose session the caller protects by RCU
 * @req: belongs to the connection if the return value is true
 *
 * Return: false when the connection is dead.
 */
bool viovm_nbd_conn_queue(struct viovm_nbd_conn *conn, struct iovm_req *req)
{
	spin_lock(&conn->lock);
	if (conn->dead) {
		spin_unlock(&conn->lock);
		return false;
	}
	busy_begins(conn);
	list_add_tail(&req->node, &conn->queue);
	conn->nr_queued++;
	spin_unlock(&conn->lock);
	wake_up(&conn->tx_wait);
	return true;
}

/**
 * viovm_nbd_conn_heartbeat - ask the peer for a sign of life, unless it has been asked already
 * @conn: its watchdog calls
 */
void viovm_nbd_conn_heartbeat(struct viovm_nbd_conn *conn)
{
	struct viovm_nbd_slot *slot = &conn->slots[VNBD_HEARTBEAT];

	spin_lock(&conn->lock);
	if (conn->dead || conn->bye || slot->job != VNBD_JOB_FREE) {
		spin_unlock(&conn->lock);
		return;
	}
	busy_begins(conn);
	conn->nr_busy++;
	slot->bv = &conn->heartbeat_bv;
	slot->nr_bv = 1;
	slot->flush_after = false;
	conn->heartbeat_ns = ktime_get_ns();
	slot_arm(conn, slot, VNBD_JOB_HEARTBEAT, VNBD_CMD_READ, 0, conn->sess->heartbeat_size, 0);
	list_add_tail(&slot->node, &conn->again);
	spin_unlock(&conn->lock);
	atomic64_inc(&conn->sess->np->heartbeats);
	wake_up(&conn->tx_wait);
}

/**
 * viovm_nbd_conn_flush - begin the path's own FLUSH
 * @conn: which works, as far as the caller knows
 *
 * Return: false when it is dead; else iovm_flush_done() will be called.
 */
bool viovm_nbd_conn_flush(struct viovm_nbd_conn *conn)
{
	struct viovm_nbd_slot *slot = &conn->slots[VNBD_SYNC];

	spin_lock(&conn->lock);
	if (conn->dead) {
		spin_unlock(&conn->lock);
		return false;
	}
	busy_begins(conn);
	conn->nr_busy++;
	slot_arm(conn, slot, VNBD_JOB_SYNC, VNBD_CMD_FLUSH, 0, 0, 0);
	list_add_tail(&slot->node, &conn->again);
	spin_unlock(&conn->lock);
	wake_up(&conn->tx_wait);
	return true;
}

/**
 * viovm_nbd_conn_kill - teardown, first half: takes nothing new, wakes who sleeps in the socket
 * @conn: may be any number of times
 */
void viovm_nbd_conn_kill(struct viovm_nbd_conn *conn)
{
	spin_lock(&conn->lock);
	conn->dead = true;
	spin_unlock(&conn->lock);
	if (conn->s.sock)
		kernel_sock_shutdown(conn->s.sock, SHUT_RDWR);
}

static void sock_drop(struct viovm_nbd_conn *conn, bool discard)
{
	struct socket *sock = conn->s.sock;

	if (!sock)
		return;
	/* the watchdog may be looking */
	spin_lock(&conn->lock);
	conn->s.sock = NULL;
	spin_unlock(&conn->lock);
	viovm_nbd_sock_close(sock, discard);
}

/**
 * viovm_nbd_conn_stop - teardown, second half: the threads end, then the requests, then the socket
 * @conn: killed
 */
void viovm_nbd_conn_stop(struct viovm_nbd_conn *conn)
{
	int error = READ_ONCE(conn->sess->error);
	struct viovm_nbd_slot *slot;
	struct iovm_req *req;
	bool sync;
	u32 i;

	if (conn->tx_task)
		kthread_stop(conn->tx_task);
	if (conn->rx_task)
		kthread_stop(conn->rx_task);
	conn->tx_task = NULL;
	conn->rx_task = NULL;

	/* nobody else sees queue and slots any more, but for the watchdog, which only reads */
	for (i = 0; i < ARRAY_SIZE(conn->slots); i++) {
		slot = &conn->slots[i];
		spin_lock(&conn->lock);
		req = slot->req;
		slot->req = NULL;
		slot->wire.cookie = 0;
		sync = slot->job == VNBD_JOB_SYNC;
		if (slot->job != VNBD_JOB_FREE) {
			slot->job = VNBD_JOB_FREE;
			conn->nr_busy--;
		}
		spin_unlock(&conn->lock);
		if (req)
			iovm_req_done(req, slot->started ? IOVM_RES_PATH : IOVM_RES_UNSENT, error);
		else if (sync)
			iovm_flush_done(conn->sess->np->path, error);
	}
	for (;;) {
		spin_lock(&conn->lock);
		req = list_first_entry_or_null(&conn->queue, struct iovm_req, node);
		if (req) {
			list_del_init(&req->node);
			conn->nr_queued--;
		}
		spin_unlock(&conn->lock);
		if (!req)
			break;
		iovm_req_done(req, IOVM_RES_UNSENT, error);
	}
	/* a write that the socket has not sent yet may already be on its way along another path */
	sock_drop(conn, !READ_ONCE(conn->sess->closing) || error != -ESHUTDOWN);
}

/**
 * viovm_nbd_conn_new - a connection without a socket
 * @sess: to which it will belong
 * @index: in sess->conns
 *
 * Return: it, or NULL when there is no memory.
 */
struct viovm_nbd_conn *viovm_nbd_conn_new(struct viovm_nbd_sess *sess, u8 index)
{
	struct viovm_nbd_conn *conn;
	u32 i;

	BUILD_BUG_ON(VNBD_ALL_SLOTS * VNBD_REQUEST_SIZE > PAGE_SIZE);
	BUILD_BUG_ON(VNBD_ALL_SLOTS > 0x100);
	BUILD_BUG_ON(VNBD_STAGE_TAIL > PAGE_SIZE);

	conn = kvzalloc(sizeof(*conn), GFP_KERNEL);
	if (!conn)
		return NULL;
	conn->sess = sess;
	conn->index = index;
	spin_lock_init(&conn->lock);
	INIT_LIST_HEAD(&conn->queue);
	INIT_LIST_HEAD(&conn->free);
	INIT_LIST_HEAD(&conn->again);
	init_completion(&conn->said_bye);
	init_waitqueue_head(&conn->tx_wait);
	conn->last_rx = jiffies;
	conn->heartbeat_at = conn->last_rx;
	conn->moved_at = conn->last_rx;
	conn->busy_since = conn->last_rx;
	for (i = 0; i < ARRAY_SIZE(conn->slots); i++) {
		INIT_LIST_HEAD(&conn->slots[i].node);
		if (i < VNBD_SLOTS)
			list_add_tail(&conn->slots[i].node, &conn->free);
	}
	conn->hdr_page = alloc_page(GFP_KERNEL);
	conn->stage = alloc_page(GFP_KERNEL);
	conn->heartbeat_page = alloc_page(GFP_KERNEL);
	if (!conn->hdr_page || !conn->stage || !conn->heartbeat_page) {
		viovm_nbd_conn_free(conn);
		return NULL;
	}
	bvec_set_page(&conn->heartbeat_bv, conn->heartbeat_page, PAGE_SIZE, 0);
	viovm_nbd_reply_init(&conn->reply, sess->structured, rx_lookup, conn);
	return conn;
}

/**
 * viovm_nbd_conn_start - create and wake the threads
 * @conn: has its socket
 *
 * Return: 0 or a negative errno; what was started stays for viovm_nbd_conn_stop().
 */
int viovm_nbd_conn_start(struct viovm_nbd_conn *conn)
{
	struct iovm_path *path = conn->sess->np->path;
	struct task_struct *task;

	task = kthread_create(tx_thread, conn, "nbdtx-%.5s.%u", path->dev->name, conn->index);
	if (IS_ERR(task))
		return PTR_ERR(task);
	conn->tx_task = task;
	task = kthread_create(rx_thread, conn, "nbdrx-%.5s.%u", path->dev->name, conn->index);
	if (IS_ERR(task))
		return PTR_ERR(task);
	conn->rx_task = task;
	wake_up_process(conn->tx_task);
	wake_up_process(conn->rx_task);
	return 0;
}

/**
 * viovm_nbd_conn_free - free a connection that was stopped or never started
 * @conn: may be NULL
 */
void viovm_nbd_conn_free(struct viovm_nbd_conn *conn)
{
	if (!conn)
		return;
	sock_drop(conn, true);
	if (conn->hdr_page)
		__free_page(conn->hdr_page);
	if (conn->stage)
		__free_page(conn->stage);
	if (conn->heartbeat_page)
		__free_page(conn->heartbeat_page);
	kvfree(conn);
}
