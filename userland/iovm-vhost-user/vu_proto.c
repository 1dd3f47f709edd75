// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One handler per message. Sizes and file descriptor counts are checked against the table before a handler runs.
 *
 * A handler returns 0, NOT_DONE (refused, nothing is broken) or a negative errno with the reason in s->error. Whoever
 * asked for an acknowledgement hears of it and the connection goes on; else an error ends the connection, as
 * the front end would go on from a state that is not the real one.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vu.h"

#define BIT(n)		(1ull << (n))
#define NOT_DONE	1
#define REPLY_MS	10000

#define PROTO_OFFERED	(BIT(VU_PROTO_MQ) | BIT(VU_PROTO_LOG_SHMFD) | BIT(VU_PROTO_REPLY_ACK) | \
			 BIT(VU_PROTO_BACKEND_REQ) | BIT(VU_PROTO_CONFIG) | BIT(VU_PROTO_INFLIGHT_SHMFD) | \
			 BIT(VU_PROTO_CONFIGURE_MEM_SLOTS) | BIT(VU_PROTO_STATUS))

/**
 * struct handler - how a message is checked and who handles it
 * @name: for people
 * @fn: the handler; when @reply is set, it leaves the answer's payload in msg->p and its size in msg->size, and a file
 *	descriptor that goes with it in msg->fds[0]
 * @min: least bytes of payload
 * @max: most bytes of payload
 * @min_fds: least file descriptors
 * @max_fds: most file descriptors
 * @reply: it has an answer of its own
 */
struct handler {
	const char *name;
	int (*fn)(struct vu_session *s, struct vu_msg *msg);
	uint16_t min;
	uint16_t max;
	uint8_t min_fds;
	uint8_t max_fds;
	bool reply;
};

uint64_t vu_proto_offered(void)
{
	return PROTO_OFFERED;
}

static int answer_u64(struct vu_msg *msg, uint64_t v)
{
	msg->p.u64 = v;
	msg->size = sizeof(v);
	return 0;
}

static int get_features(struct vu_session *s, struct vu_msg *msg)
{
	return answer_u64(msg, s->offered | BIT(VU_F_PROTOCOL_FEATURES));
}

static int set_features(struct vu_session *s, struct vu_msg *msg)
{
	uint64_t f = msg->p.u64, known = s->offered | BIT(VU_F_PROTOCOL_FEATURES);
	int ret;

	if (f & ~known)
		return vu_fail(s, -EOPNOTSUPP, "features 0x%" PRIx64 " were not offered", f & ~known);
	ret = vu_log_check(s, f, &s->mem, &s->log);
	if (ret)
		return ret;
	ret = vuk_set_features(s->node, f & s->offered);
	if (ret)
		return vu_fail(s, ret, "VHOST_SET_FEATURES 0x%" PRIx64 ": %s", f & s->offered, strerror(-ret));
	s->features = f;
	vu_trace("features 0x%" PRIx64, f);
	return f & BIT(VU_F_PROTOCOL_FEATURES) ? 0 : vu_ring_enable_all(s);
}

/* The node is owned since it was opened; and RESET_OWNER is deprecated and must not stop anything. */
static int nothing(struct vu_session *s, struct vu_msg *msg)
{
	(void)s;
	(void)msg;
	return 0;
}

static int set_mem_table(struct vu_session *s, struct vu_msg *msg)
{
	uint32_t nr = msg->p.mem.nr;

	if (nr > VU_MAX_FDS || msg->size != offsetof(struct vu_wire_mem, r) + nr * sizeof(struct vu_wire_region) ||
	    msg->nr_fds != nr)
		return vu_fail(s, -EINVAL, "SET_MEM_TABLE of %u regions in %u bytes with %u file descriptors", nr,
			       msg->size, msg->nr_fds);
	return vu_mem_set(s, msg->p.mem.r, nr, msg);
}

static int add_mem_reg(struct vu_session *s, struct vu_msg *msg)
{
	int fd = vu_msg_take_fd(msg);
	int ret = vu_mem_add(s, &msg->p.reg.r, fd);

	close(fd);
	return ret;
}

static int rem_mem_reg(struct vu_session *s, struct vu_msg *msg)
{
	return vu_mem_remove(s, &msg->p.reg.r);
}

static int get_max_mem_slots(struct vu_session *s, struct vu_msg *msg)
{
	(void)s;
	return answer_u64(msg, VU_MAX_REGIONS);
}

static int set_log_base(struct vu_session *s, struct vu_msg *msg)
{
	int fd = vu_msg_take_fd(msg);
	int ret = vu_log_set(s, &msg->p.log, fd);

	close(fd);
	return ret ? ret : answer_u64(msg, 0);
}

static int set_log_fd(struct vu_session *s, struct vu_msg *msg)
{
	int fd = vu_msg_take_fd(msg);
	int ret = vuk_set_log_fd(s->node, fd);

	close(fd);
	return ret ? vu_fail(s, ret, "VHOST_SET_LOG_FD: %s", strerror(-ret)) : 0;
}

/* The answer is as long as the request, so that it fits whoever asks. */
static int get_inflight_fd(struct vu_session *s, struct vu_msg *msg)
{
	int ret = vu_inflight_make(s, &msg->p.inflight, &msg->fds[0]);

	if (!ret)
		msg->nr_fds = 1;
	return ret;
}

static int set_inflight_fd(struct vu_session *s, struct vu_msg *msg)
{
	int fd = vu_msg_take_fd(msg);
	int ret = vu_inflight_set(s, &msg->p.inflight, fd);

	close(fd);
	return ret;
}

static int set_vring_num(struct vu_session *s, struct vu_msg *msg)
{
	return vu_ring_set_num(s, msg->p.state.index, msg->p.state.num);
}

static int set_vring_addr(struct vu_session *s, struct vu_msg *msg)
{
	return vu_ring_set_addr(s, &msg->p.addr);
}

static int set_vring_base(struct vu_session *s, struct vu_msg *msg)
{
	return vu_ring_set_base(s, msg->p.state.index, msg->p.state.num);
}

static int get_vring_base(struct vu_session *s, struct vu_msg *msg)
{
	msg->size = sizeof(msg->p.state);
	return vu_ring_get_base(s, msg->p.state.index, &msg->p.state.num);
}

static int set_vring_enable(struct vu_session *s, struct vu_msg *msg)
{
	if (msg->p.state.num > 1)
		return vu_fail(s, -EINVAL, "SET_VRING_ENABLE %u", msg->p.state.num);
	return vu_ring_enable(s, msg->p.state.index, msg->p.state.num);
}

/* The common part of KICK, CALL and ERR: a queue's number, and one file descriptor or the flag that says none. */
static int ring_file(struct vu_session *s, struct vu_msg *msg, int (*set)(struct vu_session *s, uint32_t i, int fd))
{
	uint64_t v = msg->p.u64;

	if (v & ~(VU_FD_INDEX_MASK | VU_FD_NONE))
		return vu_fail(s, -EINVAL, "%s of 0x%" PRIx64, vu_request_name(msg->request), v);
	if (!!(v & VU_FD_NONE) == !!msg->nr_fds)
		return vu_fail(s, -EINVAL, "%s of 0x%" PRIx64 " with %u file descriptors", vu_request_name(msg->request), v,
			       msg->nr_fds);
	return set(s, v & VU_FD_INDEX_MASK, vu_msg_take_fd(msg));
}

static int set_vring_kick(struct vu_session *s, struct vu_msg *msg)
{
	return ring_file(s, msg, vu_ring_set_kick);
}

static int set_vring_call(struct vu_session *s, struct vu_msg *msg)
{
	return ring_file(s, msg, vu_ring_set_call);
}

static int set_vring_err(struct vu_session *s, struct vu_msg *msg)
{
	return ring_file(s, msg, vu_ring_set_err);
}

static int get_protocol_features(struct vu_session *s, struct vu_msg *msg)
{
	(void)s;
	return answer_u64(msg, PROTO_OFFERED);
}

static int set_protocol_features(struct vu_session *s, struct vu_msg *msg)
{
	uint64_t f = msg->p.u64;

	if (f & ~PROTO_OFFERED)
		return vu_fail(s, -EOPNOTSUPP, "protocol features 0x%" PRIx64 " were not offered",
			       (uint64_t)(f & ~PROTO_OFFERED));
	s->proto = f;
	vu_trace("protocol features 0x%" PRIx64, f);
	return 0;
}

static int get_queue_num(struct vu_session *s, struct vu_msg *msg)
{
	return answer_u64(msg, s->nr_queues);
}

static int set_backend_req_fd(struct vu_session *s, struct vu_msg *msg)
{
	int fd = vu_msg_take_fd(msg), type;
	socklen_t len = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_STREAM) {
		close(fd);
		return vu_fail(s, -ENOTSOCK, "SET_BACKEND_REQ_FD with something that is no stream socket");
	}
	if (s->backend_fd >= 0)
		close(s->backend_fd);
	s->backend_fd = fd;
	return 0;
}

/*
 * The answer has the size that was asked for: what is behind the end of the configuration space reads as zero. An answer
 * without payload says that it failed.
 */
static int get_config(struct vu_session *s, struct vu_msg *msg)
{
	struct vu_wire_config *c = &msg->p.config;
	uint32_t have = 0;
	int ret = 0;

	if (msg->size != VU_CONFIG_HEADER + c->size || !c->size || c->off > VU_MAX_CONFIG ||
	    c->size > VU_MAX_CONFIG - c->off) {
		vu_say("GET_CONFIG of %u bytes at %u in a message of %u", c->size, c->off, msg->size);
		msg->size = 0;
		return 0;
	}
	memset(c->buf, 0, sizeof(c->buf));
	if (c->off < s->config_size)
		have = s->config_size - c->off < c->size ? s->config_size - c->off : c->size;
	if (have)
		ret = vuk_get_config(s->node, c->off, c->buf, have);
	if (ret) {
		vu_say("VHOST_VDPA_GET_CONFIG: %s", strerror(-ret));
		msg->size = 0;
	}
	return 0;
}

/* The only field a guest might write is wce, with VIRTIO_BLK_F_CONFIG_WCE, which is not offered. Say so once. */
static int set_config(struct vu_session *s, struct vu_msg *msg)
{
	(void)msg;
	if (!s->said_set_config)
		vu_say("SET_CONFIG refused: the configuration space is read-only");
	s->said_set_config = true;
	return NOT_DONE;
}

/* Status 0 must not touch the rings: QEMU 7.2 sends it before it asks for their bases. */
static int set_status(struct vu_session *s, struct vu_msg *msg)
{
	if (msg->p.u64 > 0xff)
		return vu_fail(s, -EINVAL, "SET_STATUS 0x%" PRIx64, msg->p.u64);
	s->status = msg->p.u64;
	return 0;
}

static int get_status(struct vu_session *s, struct vu_msg *msg)
{
	return answer_u64(msg, s->status);
}

#define H(r, fn, min, max, min_fds, max_fds, reply) [VU_##r] = { #r, fn, min, max, min_fds, max_fds, reply }

static const struct handler handlers[VU_REQUEST_MAX] = {
	H(GET_FEATURES, get_features, 0, 0, 0, 0, true),
	H(SET_FEATURES, set_features, 8, 8, 0, 0, false),
	H(SET_OWNER, nothing, 0, 0, 0, 0, false),
	H(RESET_OWNER, nothing, 0, 0, 0, 0, false),
	H(SET_MEM_TABLE, set_mem_table, 8, sizeof(struct vu_wire_mem), 0, VU_MAX_FDS, false),
	H(SET_LOG_BASE, set_log_base, sizeof(struct vu_wire_log), sizeof(struct vu_wire_log), 1, 1, true),
	H(SET_LOG_FD, set_log_fd, 0, 8, 1, 1, false),
	H(SET_VRING_NUM, set_vring_num, 8, 8, 0, 0, false),
	H(SET_VRING_ADDR, set_vring_addr, sizeof(struct vu_wire_addr), sizeof(struct vu_wire_addr), 0, 0, false),
	H(SET_VRING_BASE, set_vring_base, 8, 8, 0, 0, false),
	H(GET_VRING_BASE, get_vring_base, 8, 8, 0, 0, true),
	H(SET_VRING_KICK, set_vring_kick, 8, 8, 0, 1, false),
	H(SET_VRING_CALL, set_vring_call, 8, 8, 0, 1, false),
	H(SET_VRING_ERR, set_vring_err, 8, 8, 0, 1, false),
	H(GET_PROTOCOL_FEATURES, get_protocol_features, 0, 0, 0, 0, true),
	H(SET_PROTOCOL_FEATURES, set_protocol_features, 8, 8, 0, 0, false),
	H(GET_QUEUE_NUM, get_queue_num, 0, 0, 0, 0, true),
	H(SET_VRING_ENABLE, set_vring_enable, 8, 8, 0, 0, false),
	H(SET_BACKEND_REQ_FD, set_backend_req_fd, 0, 8, 1, 1, false),
	H(GET_CONFIG, get_config, VU_CONFIG_HEADER, sizeof(struct vu_wire_config), 0, 0, true),
	H(SET_CONFIG, set_config, VU_CONFIG_HEADER, sizeof(struct vu_wire_config), 0, 0, false),
	H(GET_INFLIGHT_FD, get_inflight_fd, VU_INFLIGHT_MIN, sizeof(struct vu_wire_inflight), 0, 0, true),
	H(SET_INFLIGHT_FD, set_inflight_fd, VU_INFLIGHT_MIN, sizeof(struct vu_wire_inflight), 1, 1, false),
	H(GET_MAX_MEM_SLOTS, get_max_mem_slots, 0, 0, 0, 0, true),
	H(ADD_MEM_REG, add_mem_reg, sizeof(struct vu_wire_mem_reg), sizeof(struct vu_wire_mem_reg), 1, 1, false),
	H(REM_MEM_REG, rem_mem_reg, sizeof(struct vu_wire_mem_reg), sizeof(struct vu_wire_mem_reg), 0, 1, false),
	H(SET_STATUS, set_status, 8, 8, 0, 0, false),
	H(GET_STATUS, get_status, 0, 0, 0, 0, true),
};

const char *vu_request_name(uint32_t request)
{
	return request < VU_REQUEST_MAX && handlers[request].name ? handlers[request].name : "an unknown request";
}

static int check(struct vu_session *s, const struct handler *h, const struct vu_msg *msg)
{
	if (!h)
		return vu_fail(s, -EOPNOTSUPP, "request %u is not supported", msg->request);
	if (msg->size < h->min || msg->size > h->max)
		return vu_fail(s, -EINVAL, "%s with %u bytes of payload", h->name, msg->size);
	if (msg->nr_fds < h->min_fds || msg->nr_fds > h->max_fds)
		return vu_fail(s, -EINVAL, "%s with %u file descriptors", h->name, msg->nr_fds);
	return 0;
}

/* Handle and answer the message in s->rd. An error ends the connection. */
int vu_dispatch(struct vu_session *s)
{
	struct vu_msg *msg = &s->rd.msg;
	const struct handler *h = NULL;
	bool ack = (msg->flags & VU_FLAG_NEED_REPLY) && (s->proto & BIT(VU_PROTO_REPLY_ACK));
	uint64_t verdict;
	int ret;

	if (msg->request < VU_REQUEST_MAX && handlers[msg->request].fn)
		h = &handlers[msg->request];
	vu_trace("%s (%u), %u bytes, %u fds%s", vu_request_name(msg->request), msg->request, msg->size, msg->nr_fds,
		 ack ? ", acknowledge" : "");
	ret = check(s, h, msg);
	if (!ret)
		ret = h->fn(s, msg);
	if (!ret && h->reply)
		return vu_msg_send(s->rd.fd, msg->request, VU_FLAG_REPLY, &msg->p, msg->size,
				   msg->nr_fds ? msg->fds[0] : -1, REPLY_MS) ?
			vu_fail(s, -EIO, "the front end does not take the answer to %s", h->name) : 0;
	if (!ack)
		return ret < 0 ? ret : 0;
	if (ret < 0)
		vu_say("%s", s->error);
	verdict = ret ? 1 : 0;
	return vu_msg_send(s->rd.fd, msg->request, VU_FLAG_REPLY, &verdict, sizeof(verdict), -1, REPLY_MS) ?
		vu_fail(s, -EIO, "the front end does not take the answer to %s", vu_request_name(msg->request)) : 0;
}
