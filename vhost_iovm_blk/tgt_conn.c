// SPDX-License-Identifier: GPL-2.0
/*
 * Class target: a connection. The receiver turns what comes into commands and gives them to the
 * mux; whoever ends one puts it on conn->done; the sender answers it and makes it free.
 *
 * The receiver ends with the stream. What it has taken goes on, but for what waits for a route; the
 * sender ends when all of it has ended, and answers as long as the socket takes something.
 */
#include <linux/highmem.h>
#include <linux/kthread.h>
#include <linux/delay.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <net/sock.h>

#include "tgt.h"

/* ---- pages and commands ---- */

static struct page *page_new(void)
{
	struct page *page;

	/* what is under way gives some back; nothing here can be refused half-way */
	while (!(page = alloc_page(GFP_NOIO | __GFP_NOWARN)))
		msleep(20);
	return page;
}

/* A page that nobody uses, or NULL. */
static struct page *page_cached(struct viovm_tgt_conn *conn)
{
	struct page *page;

	lockdep_assert_held(&conn->lock);
	if (conn->nr_cached)
		return conn->cache[--conn->nr_cached];
	if (!conn->nr_lent)
		return NULL;
	page = conn->lent[conn->first_lent];
	if (page_ref_count(page) != 1)
		return NULL;
	conn->first_lent = (conn->first_lent + 1) % VTGT_CACHE;
	conn->nr_lent--;
	return page;
}

/* The opposite; false when there is no room for it. */
static bool page_cache(struct viovm_tgt_conn *conn, struct page *page)
{
	lockdep_assert_held(&conn->lock);
	if (conn->nr_cached + conn->nr_lent == VTGT_CACHE)
		return false;
	if (page_ref_count(page) == 1)
		conn->cache[conn->nr_cached++] = page;
	else
		conn->lent[(conn->first_lent + conn->nr_lent++) % VTGT_CACHE] = page;
	return true;
}

static void pages_put(struct viovm_tgt_conn *conn, struct viovm_tgt_cmd *cmd)
{
	u32 i;

	spin_lock_irq(&conn->lock);
	for (i = 0; i < cmd->io.nr_bv && page_cache(conn, cmd->io.bv[i].bv_page); i++)
		;
	conn->nr_pages -= cmd->io.nr_bv - i;
	spin_unlock_irq(&conn->lock);
	for (; i < cmd->io.nr_bv; i++)
		put_page(cmd->io.bv[i].bv_page);
	cmd->io.nr_bv = 0;
}

/* Pages for a piece of @len bytes, which is accounted for. */
static int pages_for(struct viovm_tgt_conn *conn, struct viovm_tgt_cmd *cmd, u32 len)
{
	u32 n = DIV_ROUND_UP(len, PAGE_SIZE), cached, i;
	struct page *page;

	if (n > VTGT_INLINE_BVECS && !cmd->big) {
		cmd->big = kmalloc_array(VIOVM_BLK_PART_PAGES, sizeof(*cmd->big), GFP_NOIO);
		if (!cmd->big)
			return -ENOMEM;
	}
	cmd->io.bv = n > VTGT_INLINE_BVECS ? cmd->big : cmd->inline_bv;
	cmd->io.max_bv = n > VTGT_INLINE_BVECS ? VIOVM_BLK_PART_PAGES : VTGT_INLINE_BVECS;

	spin_lock_irq(&conn->lock);
	for (cached = 0; cached < n && (page = page_cached(conn)); cached++)
		cmd->io.bv[cached].bv_page = page;
	conn->nr_pages += n - cached;
	spin_unlock_irq(&conn->lock);
	for (i = 0; i < n; i++)
		bvec_set_page(&cmd->io.bv[i], i < cached ? cmd->io.bv[i].bv_page : page_new(),
			      min_t(u32, len - i * PAGE_SIZE, PAGE_SIZE), 0);
	cmd->io.nr_bv = n;
	return 0;
}

/* Of data that a command holds at once */
static u32 cmd_bytes(const struct viovm_nbd_command *c)
{
	return c->type == VNBD_CMD_READ || c->type == VNBD_CMD_WRITE ? min(c->len, VTGT_PART) : 0;
}

static struct viovm_tgt_cmd *cmd_try_get(struct viovm_tgt_conn *conn, u32 bytes)
{
	struct viovm_tgt_cmd *cmd = NULL;

	spin_lock_irq(&conn->lock);
	if (!conn->dying && conn->bytes + bytes <= VTGT_BYTES)
		cmd = list_first_entry_or_null(&conn->free, struct viovm_tgt_cmd, node);
	if (cmd) {
		list_del_init(&cmd->node);
		conn->nr_busy++;
		conn->bytes += bytes;
	}
	spin_unlock_irq(&conn->lock);
	return cmd;
}

/* Nothing more is taken from here on, and what waits for a route is thrown away. */
static void conn_dies(struct viovm_tgt_conn *conn)
{
	spin_lock_irq(&conn->lock);
	WRITE_ONCE(conn->dying, true);
	wake_up(&conn->wait);
	wake_up(&conn->tx_wait);
	spin_unlock_irq(&conn->lock);
	viovm_tgt_kick(conn->sess->tgt);
}

/*
 * The receiver waits, and does not look at the socket meanwhile: does the peer? What waits for a
 * route would keep its session for as long as there is none.
 */
static void look_for_peer(struct viovm_tgt_conn *conn)
{
	struct sock *sk = conn->s.sock->sk;

	if (READ_ONCE(sk->sk_shutdown) & RCV_SHUTDOWN || READ_ONCE(sk->sk_err))
		conn_dies(conn);
}

/* Waits for one: what is under way makes it free. NULL: the connection dies. */
static struct viovm_tgt_cmd *cmd_get(struct viovm_tgt_conn *conn, const struct viovm_nbd_command *c)
{
	struct viovm_tgt_cmd *cmd = NULL;
	u32 bytes = cmd_bytes(c);

	while (!wait_event_idle_timeout(conn->wait, (cmd = cmd_try_get(conn, bytes)) ||
					READ_ONCE(conn->dying), HZ))
		look_for_peer(conn);
	if (!cmd)
		return NULL;
	cmd->cmd = *c;
	cmd->part_end = 0;
	cmd->error = 0;
	cmd->sync = false;
	cmd->ended = false;
	cmd->io.nr_bv = 0;
	return cmd;
}

/* Answered, or nobody wants the answer. The sender. */
static void cmd_put(struct viovm_tgt_conn *conn, struct viovm_tgt_cmd *cmd)
{
	WRITE_ONCE(conn->commands, conn->commands + 1);
	if (cmd->error)
		WRITE_ONCE(conn->errors, conn->errors + 1);
	else if (cmd->cmd.type == VNBD_CMD_READ)
		WRITE_ONCE(conn->read_bytes, conn->read_bytes + cmd->cmd.len);
	else if (cmd->cmd.type == VNBD_CMD_WRITE)
		WRITE_ONCE(conn->written_bytes, conn->written_bytes + cmd->cmd.len);
	pages_put(conn, cmd);
	spin_lock_irq(&conn->lock);
	conn->bytes -= cmd_bytes(&cmd->cmd);
	conn->nr_busy--;
	list_add(&cmd->node, &conn->free);
	spin_unlock_irq(&conn->lock);
	wake_up(&conn->wait);
}

/**
 * viovm_tgt_cmd_ended - a command, or the piece of it that was under way, has ended
 * @cmd: which
 * @error: 0 or a negative errno
 *
 * Any context. The connection may be gone when this returns.
 */
void viovm_tgt_cmd_ended(struct viovm_tgt_cmd *cmd, int error)
{
	struct viovm_tgt_conn *conn = cmd->conn;
	unsigned long flags;

	WRITE_ONCE(cmd->at_path, false);
	if (error)
		cmd->error = viovm_nbd_error(error);
	/* woken under the lock: who is woken may free the connection as soon as it has the lock */
	spin_lock_irqsave(&conn->lock, flags);
	if (cmd->sync) {
		cmd->ended = true;
		wake_up(&conn->wait);
	} else {
		list_add_tail(&cmd->node, &conn->done);
		wake_up(&conn->tx_wait);
	}
	spin_unlock_irqrestore(&conn->lock, flags);
}

static bool cmd_has_ended(struct viovm_tgt_cmd *cmd)
{
	bool ended;

	spin_lock_irq(&cmd->conn->lock);
	ended = cmd->ended;
	spin_unlock_irq(&cmd->conn->lock);
	return ended;
}

static u8 cmd_op(const struct viovm_nbd_command *c)
{
	switch (c->type) {
	case VNBD_CMD_READ:
		return IOVM_OP_READ;
	case VNBD_CMD_WRITE:
		return IOVM_OP_WRITE;
	case VNBD_CMD_TRIM:
		return IOVM_OP_DISCARD;
	case VNBD_CMD_WRITE_ZEROES:
		return IOVM_OP_WRITE_ZEROES;
	default:
		return IOVM_OP_FLUSH;
	}
}

/* The next piece of a command, of @len bytes, goes on its way. */
static void cmd_go(struct viovm_tgt_cmd *cmd, u32 len)
{
	const struct viovm_nbd_command *c = &cmd->cmd;
	struct iovm_dev *dev = cmd->conn->sess->tgt->dev;
	u64 offset = c->offset + cmd->part_end;
	u8 op = cmd_op(c), flags = 0;

	if (op != IOVM_OP_READ && c->flags & VNBD_CMD_F_FUA)
		flags |= IOVM_REQ_FUA;
	if (c->flags & VNBD_CMD_F_NO_HOLE)
		flags |= IOVM_REQ_NOUNMAP;
	cmd->part_end += len;
	iovm_req_init(&cmd->io.req, dev, op, flags, offset, len);
	viovm_tgt_go(cmd);
}

/* The same, and wait for its end. */
static void cmd_go_sync(struct viovm_tgt_cmd *cmd, u32 len)
{
	cmd->ended = false;
	cmd->sync = true;
	cmd_go(cmd, len);
	while (!wait_event_idle_timeout(cmd->conn->wait, cmd_has_ended(cmd), HZ))
		look_for_peer(cmd->conn);
	cmd->sync = false;
}

/* ---- the receiver ---- */

/* Receives into the stage until it has @n bytes that were not looked at. */
static int rx_stage(struct viovm_tgt_conn *conn, u32 n)
{
	u8 *stage = page_address(conn->stage);
	struct bio_vec bv;
	u32 have, room;
	int ret;

	while ((have = conn->stage_end - conn->stage_pos) < n) {
		if (conn->stage_pos) {
			memmove(stage, stage + conn->stage_pos, have);
			conn->stage_pos = 0;
			conn->stage_end = have;
		}
		/* data that follow go straight into their pages */
		room = conn->data_follows ? n - have : VTGT_STAGE - have;
		bvec_set_page(&bv, conn->stage, room, have);
		ret = viovm_nbd_sock_recv(&conn->s, &bv, 1, room);
		if (ret < 0)
			return ret;
		conn->stage_end += ret;
	}
	return 0;
}

/* Takes up to @len bytes from the stage to @to, behind @off; how many. */
static u32 rx_from_stage(struct viovm_tgt_conn *conn, const struct bio_vec *to, u32 off, u32 len)
{
	u32 n = min(len, conn->stage_end - conn->stage_pos);
	u8 *p;

	if (!n)
		return 0;
	p = kmap_local_page(to->bv_page);
	memcpy(p + to->bv_offset + off, page_address(conn->stage) + conn->stage_pos, n);
	kunmap_local(p);
	conn->stage_pos += n;
	return n;
}

/*
 * Fills [@bv, @bv + @nr) from the stream, and what comes along of the next header into the stage. 0
 * or a negative errno.
 */
static int rx_data(struct viovm_tgt_conn *conn, const struct bio_vec *bv, u32 nr)
{
	u32 i = 0, off = 0, k, len, tail;
	int n;

	while (i < nr) {
		n = rx_from_stage(conn, &bv[i], off, bv[i].bv_len - off);
		if (!n) {
			for (k = 0, len = 0; k < VTGT_RX_BVECS && i + k < nr; k++) {
				conn->rx_bv[k] = bv[i + k];
				if (!k) {
					conn->rx_bv[k].bv_offset += off;
					conn->rx_bv[k].bv_len -= off;
				}
				len += conn->rx_bv[k].bv_len;
			}
			tail = i + k == nr ? VNBD_REQUEST_SIZE : 0;
			if (tail)
				bvec_set_page(&conn->rx_bv[k++], conn->stage, tail, 0);
			n = viovm_nbd_sock_recv(&conn->s, conn->rx_bv, k, len + tail);
			if (n < 0)
				return n;
			conn->stage_pos = 0;
			conn->stage_end = n - min_t(u32, n, len);
			n -= conn->stage_end;
		}
		off += n;
		while (i < nr && off >= bv[i].bv_len)
			off -= bv[i++].bv_len;
	}
	return 0;
}

/* Reads @len bytes of the stream away. */
static int rx_skip(struct viovm_tgt_conn *conn, u32 len)
{
	int err;
	u32 n;

	while (len) {
		n = min_t(u32, len, VTGT_STAGE);
		err = rx_stage(conn, n);
		if (err)
			return err;
		conn->stage_pos += n;
		len -= n;
	}
	return 0;
}

/* A WRITE longer than a piece. The command is the receiver's until its last piece has ended. */
static int rx_long_write(struct viovm_tgt_conn *conn, struct viovm_tgt_cmd *cmd)
{
	u32 left = cmd->cmd.len, n;
	int err = 0;

	while (left && !cmd->error && !err) {
		n = min(left, VTGT_PART);
		if (pages_for(conn, cmd, n)) {
			cmd->error = VNBD_ENOMEM;
			break;
		}
		err = rx_data(conn, cmd->io.bv, cmd->io.nr_bv);
		if (!err)
			cmd_go_sync(cmd, n);
		left -= n;
		pages_put(conn, cmd);
	}
	if (!err)
		err = rx_skip(conn, left);
	return err;
}

/* One command. 0, or a negative errno: the end of the stream. */
static int rx_command(struct viovm_tgt_conn *conn)
{
	const struct viovm_tgt *tgt = conn->sess->tgt;
	u64 bytes = READ_ONCE(tgt->cfg.capacity) << SECTOR_SHIFT;
	struct viovm_nbd_command c;
	struct viovm_tgt_cmd *cmd;
	bool data, pieces;
	u32 error;
	int err;

	err = rx_stage(conn, VNBD_REQUEST_SIZE);
	if (err)
		return err;
	err = viovm_nbd_unpack(page_address(conn->stage) + conn->stage_pos, &c);
	if (err)
		return err;
	conn->stage_pos += VNBD_REQUEST_SIZE;
	if (c.type == VNBD_CMD_DISC)
		return -ESHUTDOWN;
	/* a client should have seen to it: ours does, other peers change the keys */
	if (!(++conn->nr_rx % VTGT_LOOK_AT_KEYS) &&
	    viovm_nbd_keys_spent(viovm_nbd_sock_records(&conn->s), true))
		return -EKEYEXPIRED;
	data = c.type == VNBD_CMD_WRITE;
	pieces = data && c.len > VTGT_PART;
	conn->data_follows = data;

	error = viovm_nbd_check(&c, bytes, tgt->cfg.block_size, conn->sess->rdonly);
	cmd = cmd_get(conn, &c);
	if (!cmd)
		return -ECONNRESET;
	cmd->error = error;
	if (!error && !pieces && pages_for(conn, cmd, cmd_bytes(&c)))
		cmd->error = VNBD_ENOMEM;

	if (cmd->error)
		err = data ? rx_skip(conn, c.len) : 0;
	else if (pieces)
		err = rx_long_write(conn, cmd);
	else if (data)
		err = rx_data(conn, cmd->io.bv, cmd->io.nr_bv);
	if (err && !cmd->error)
		cmd->error = VNBD_ESHUTDOWN;

	if (cmd->error || pieces)
		viovm_tgt_cmd_ended(cmd, 0);
	else
		cmd_go(cmd, cmd_bytes(&c) ?: c.len);
	return err;
}

static int rx_thread(void *arg)
{
	struct viovm_tgt_conn *conn = arg;
	unsigned int noio = memalloc_noio_save();
	int err;

	do {
		err = rx_command(conn);
		cond_resched();
	} while (!err);
	conn->error = READ_ONCE(conn->shut) ? -ESHUTDOWN : err;
	/* the session waits for this thread before it goes */
	conn_dies(conn);
	wait_event_idle(conn->wait, kthread_should_stop());
	memalloc_noio_restore(noio);
	return 0;
}

/* ---- the sender ---- */

static int tx_sent(struct viovm_tgt_conn *conn, int err)
{
	conn->broken = err;
	if (err)
		kernel_sock_shutdown(conn->s.sock, SHUT_RDWR);
	return err;
}

static int tx_send(struct viovm_tgt_conn *conn, const struct bio_vec *bv, u32 nr, u32 len,
		   bool more)
{
	u32 sent;

	/* what is thrown away has no answer: its client takes its connection for broken */
	if (READ_ONCE(conn->sess->expired))
		conn->broken = -ESHUTDOWN;
	if (conn->broken || !nr)
		return conn->broken;
	return tx_sent(conn, viovm_nbd_sock_send(&conn->s, bv, nr, len, more, &conn->broken,
						 &sent));
}

/* @len bytes that a READ has read */
static int tx_data(struct viovm_tgt_conn *conn, const struct viovm_tgt_cmd *cmd, u32 len, bool more)
{
	u32 sent;

	if (conn->broken)
		return conn->broken;
	return tx_sent(conn, viovm_nbd_sock_lend(&conn->s, cmd->io.bv, cmd->io.nr_bv, len, more,
						 &conn->broken, &sent));
}

/* The rest of a READ that is longer than a piece, whose header and first piece were sent. */
static void tx_long_read(struct viovm_tgt_conn *conn, struct viovm_tgt_cmd *cmd)
{
	u32 n;

	while (cmd->part_end < cmd->cmd.len && !conn->broken) {
		n = min(cmd->cmd.len - cmd->part_end, VTGT_PART);
		pages_put(conn, cmd);
		if (pages_for(conn, cmd, n))
			cmd->error = VNBD_ENOMEM;
		else
			cmd_go_sync(cmd, n);
		if (cmd->error) {
			/* its reply has begun: there is no other way to say so */
			conn->broken = -EIO;
			kernel_sock_shutdown(conn->s.sock, SHUT_RDWR);
		} else {
			tx_data(conn, cmd, n, false);
		}
	}
}

/* Sends what was gathered and lets go of those commands. */
static void tx_flush(struct viovm_tgt_conn *conn, struct list_head *sent, u32 *nr, u32 *len,
		     bool more)
{
	struct viovm_tgt_cmd *cmd, *next;

	tx_send(conn, conn->tx_bv, *nr, *len, more);
	*nr = 0;
	*len = 0;
	list_for_each_entry_safe(cmd, next, sent, node) {
		list_del_init(&cmd->node);
		cmd_put(conn, cmd);
	}
}

static void tx_replies(struct viovm_tgt_conn *conn, struct list_head *done)
{
	u8 *hdrs = page_address(conn->hdr_page);
	struct viovm_tgt_cmd *cmd, *next;
	u32 nr = 0, len = 0, out, off;
	LIST_HEAD(sent);
	bool last;

	list_for_each_entry_safe(cmd, next, done, node) {
		last = list_is_last(&cmd->node, done);
		out = cmd->cmd.type == VNBD_CMD_READ && !cmd->error ? cmd->io.nr_bv : 0;
		if (nr + 1 + out > VTGT_TX_BVECS && nr)
			tx_flush(conn, &sent, &nr, &len, true);
		off = (cmd - conn->cmds) * VNBD_SIMPLE_SIZE;
		viovm_nbd_pack_reply(hdrs + off, cmd->cmd.cookie, cmd->error);
		bvec_set_page(&conn->tx_bv[nr++], conn->hdr_page, VNBD_SIMPLE_SIZE, off);
		len += VNBD_SIMPLE_SIZE;
		list_move_tail(&cmd->node, &sent);
		if (!out)
			continue;
		if (nr + out <= VTGT_TX_BVECS && cmd->cmd.len < VTGT_LEND) {
			memcpy(&conn->tx_bv[nr], cmd->io.bv, out * sizeof(*cmd->io.bv));
			nr += out;
			len += cmd->cmd.len;
			continue;
		}
		/* the header, then the data from where they are */
		list_del_init(&cmd->node);
		tx_flush(conn, &sent, &nr, &len, true);
		tx_data(conn, cmd, cmd->part_end, !last && cmd->part_end == cmd->cmd.len);
		tx_long_read(conn, cmd);
		cmd_put(conn, cmd);
	}
	tx_flush(conn, &sent, &nr, &len, false);
}

/* What there is to answer; true when there will be nothing more. */
static bool tx_collect(struct viovm_tgt_conn *conn, struct list_head *done)
{
	bool over;

	spin_lock_irq(&conn->lock);
	list_splice_tail_init(&conn->done, done);
	over = conn->dying && !conn->nr_busy;
	spin_unlock_irq(&conn->lock);
	return over;
}

static int tx_thread(void *arg)
{
	struct viovm_tgt_conn *conn = arg;
	unsigned int noio = memalloc_noio_save();
	LIST_HEAD(done);
	bool over;

	do {
		wait_event_idle(conn->tx_wait,
				(over = tx_collect(conn, &done)) || !list_empty(&done));
		tx_replies(conn, &done);
		cond_resched();
	} while (!over);
	/* until it is stopped, the session's other connections may go on */
	kernel_sock_shutdown(conn->s.sock, SHUT_RDWR);
	viovm_tgt_conn_ended(conn);
	wait_event_idle(conn->tx_wait, kthread_should_stop());
	memalloc_noio_restore(noio);
	return 0;
}

/* ---- beginning and end ---- */

/**
 * viovm_tgt_conn_new - a connection, with its socket
 * @sess: to which it will belong
 * @fd: in the caller's table
 * @msg: IOVM_MSG_MAX bytes: what is wrong
 *
 * Process context. Return: it, or an ERR_PTR().
 */
struct viovm_tgt_conn *viovm_tgt_conn_new(struct viovm_tgt_sess *sess, int fd, char *msg)
{
	struct viovm_tgt_conn *conn;
	int err = -ENOMEM;
	u32 i;

	conn = kzalloc(sizeof(*conn), GFP_KERNEL_ACCOUNT);
	if (!conn)
		return ERR_PTR(-ENOMEM);
	conn->sess = sess;
	spin_lock_init(&conn->lock);
	INIT_LIST_HEAD(&conn->free);
	INIT_LIST_HEAD(&conn->done);
	init_waitqueue_head(&conn->wait);
	init_waitqueue_head(&conn->tx_wait);
	conn->stage = alloc_page(GFP_KERNEL);
	conn->hdr_page = alloc_page(GFP_KERNEL);
	conn->cmds = kvcalloc(VTGT_COMMANDS, sizeof(*conn->cmds), GFP_KERNEL_ACCOUNT);
	if (!conn->stage || !conn->hdr_page || !conn->cmds)
		goto free;
	for (i = 0; i < VTGT_COMMANDS; i++) {
		conn->cmds[i].conn = conn;
		list_add_tail(&conn->cmds[i].node, &conn->free);
	}
	err = viovm_nbd_sock_take(&conn->s, fd, VTGT_DEAD_MS, msg);
	if (err)
		goto free;
	return conn;
free:
	viovm_tgt_conn_free(conn);
	return ERR_PTR(err);
}

/**
 * viovm_tgt_conn_start - let it run
 * @conn: new
 *
 * Process context. Return: 0; or a negative errno: it does not run, and viovm_tgt_conn_ended() is
 * not called.
 */
int viovm_tgt_conn_start(struct viovm_tgt_conn *conn)
{
	struct task_struct *rx, *tx;

	BUILD_BUG_ON(VTGT_COMMANDS * VNBD_SIMPLE_SIZE > PAGE_SIZE);
	BUILD_BUG_ON(VTGT_STAGE > PAGE_SIZE);
	rx = kthread_create(rx_thread, conn, "iovm-tgt-rx/%u", conn->sess->id);
	if (IS_ERR(rx))
		return PTR_ERR(rx);
	tx = kthread_create(tx_thread, conn, "iovm-tgt-tx/%u", conn->sess->id);
	if (IS_ERR(tx)) {
		kthread_stop(rx);
		return PTR_ERR(tx);
	}
	conn->rx_task = rx;
	conn->tx_task = tx;
	wake_up_process(tx);
	wake_up_process(rx);
	return 0;
}

/**
 * viovm_tgt_conn_shut - it shall take nothing more, and end
 * @conn: has its socket still: the caller holds tgt->mutex, or the session's start is not over
 */
void viovm_tgt_conn_shut(struct viovm_tgt_conn *conn)
{
	WRITE_ONCE(conn->shut, true);
	kernel_sock_shutdown(conn->s.sock, SHUT_RDWR);
	conn_dies(conn);
}

/**
 * viovm_tgt_conn_stop - the threads end
 * @conn: has ended, or was never started
 */
void viovm_tgt_conn_stop(struct viovm_tgt_conn *conn)
{
	if (conn->rx_task)
		kthread_stop(conn->rx_task);
	if (conn->tx_task)
		kthread_stop(conn->tx_task);
	conn->rx_task = NULL;
	conn->tx_task = NULL;
}

/**
 * viovm_tgt_conn_free - the end
 * @conn: stopped; may be NULL
 *
 * Process context.
 */
void viovm_tgt_conn_free(struct viovm_tgt_conn *conn)
{
	u32 i;

	if (!conn)
		return;
	if (conn->s.sock)
		viovm_nbd_sock_close(conn->s.sock, false);
	for (i = 0; conn->cmds && i < VTGT_COMMANDS; i++)
		kfree(conn->cmds[i].big);
	kvfree(conn->cmds);
	while (conn->nr_cached)
		put_page(conn->cache[--conn->nr_cached]);
	while (conn->nr_lent)
		put_page(conn->lent[(conn->first_lent + --conn->nr_lent) % VTGT_CACHE]);
	if (conn->stage)
		put_page(conn->stage);
	if (conn->hdr_page)
		put_page(conn->hdr_page);
	kfree(conn);
}
