// SPDX-License-Identifier: GPL-2.0-or-later
/* One connection: from the open node to the orderly end. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vu.h"

#ifndef OPEN_MS			/* a test may be less patient */
#define OPEN_MS		30000	/* how long the requests of an earlier front end may take to finish */
#endif
#define RETRY_MIN_MS	10
#define RETRY_MAX_MS	500
#define DEVICE_ID_BLOCK	2

void vu_session_reset(struct vu_session *s)
{
	memset(s, 0, sizeof(*s));
	s->node = -1;
	s->rd.fd = -1;
	s->signal_fd = -1;
	s->backend_fd = -1;
	s->config_call = -1;
	vu_rings_init(s);
}

/* Wait, but not longer than the front end and whoever ends us do. False: give up. */
static bool wait_a_little(struct vu_session *s, int ms)
{
	struct pollfd p[2] = {
		{ .fd = s->rd.fd, .events = POLLRDHUP },
		{ .fd = s->signal_fd, .events = POLLIN },
	};

	return poll(p, 2, ms) == 0;
}

/*
 * EBUSY: the requests of an earlier front end still finish, or another process has the device. The first passes.
 */
static int open_node(struct vu_session *s)
{
	uint64_t begin = vu_now_ms();
	int ms = RETRY_MIN_MS, ret;
	bool said = false;

	for (;;) {
		ret = vuk_open(s->node_path);
		if (ret != -EBUSY)
			break;
		if (vu_now_ms() - begin >= OPEN_MS)
			return vu_fail(s, ret, "%s is busy since %d s: another front end has it, or requests hang",
				       s->node_path, OPEN_MS / 1000);
		if (!said && vu_now_ms() - begin >= 1000) {
			vu_say("%s is busy; waiting for it", s->node_path);
			said = true;
		}
		if (!wait_a_little(s, ms))
			return vu_fail(s, -EINTR, "given up while %s was busy", s->node_path);
		ms = ms * 2 < RETRY_MAX_MS ? ms * 2 : RETRY_MAX_MS;
	}
	if (ret == -ENOENT || ret == -ENXIO)
		ret = -ENODEV;
	if (ret < 0)
		return vu_fail(s, ret, "%s: %s", s->node_path, strerror(-ret));
	s->node = ret;
	return 0;
}

static int ask_node(struct vu_session *s)
{
	const char *what;
	uint32_t id;
	int ret;

	what = "VHOST_SET_OWNER";
	ret = vuk_set_owner(s->node);
	if (!ret) {
		/* however we end, the front end hears of it only when a successor can open the node */
		what = "VHOST_IOVM_LEND_SOCKET";
		ret = vuk_lend_socket(s->node, s->rd.fd);
	}
	if (!ret) {
		what = "VHOST_VDPA_GET_DEVICE_ID";
		ret = vuk_get_device_id(s->node, &id);
	}
	if (!ret && id != DEVICE_ID_BLOCK)
		return vu_fail(s, -EINVAL, "%s is of virtio device type %u, not a block device", s->node_path, id);
	if (!ret) {
		what = "VHOST_GET_FEATURES";
		ret = vuk_get_features(s->node, &s->offered);
	}
	if (!ret) {
		what = "VHOST_VDPA_GET_VQS_COUNT";
		ret = vuk_get_queue_count(s->node, &s->nr_queues);
	}
	if (!ret) {
		what = "VHOST_VDPA_GET_CONFIG_SIZE";
		ret = vuk_get_config_size(s->node, &s->config_size);
	}
	if (!ret) {
		what = "VHOST_VDPA_SET_CONFIG_CALL";
		ret = vuk_set_config_call(s->node, s->config_call);
	}
	if (ret)
		return vu_fail(s, ret, "%s: %s: %s", s->node_path, what, strerror(-ret));
	if (!s->nr_queues || s->nr_queues > VU_MAX_QUEUES)
		return vu_fail(s, -EINVAL, "%s has %u queues", s->node_path, s->nr_queues);
	s->offered &= ~(1ull << VU_F_PROTOCOL_FEATURES);
	vu_trace("features 0x%" PRIx64 ", %u queues, %u bytes of configuration", s->offered, s->nr_queues, s->config_size);
	return 0;
}

/* The kernel signals a change of the configuration space, or the end of the device. */
static int on_config_call(struct vu_session *s)
{
	uint32_t size;
	uint64_t n;

	if (read(s->config_call, &n, sizeof(n)) != sizeof(n))
		return 0;
	if (vuk_get_config_size(s->node, &size) == -ENODEV)
		return vu_fail(s, -ENODEV, "%s: the device was destroyed", s->node_path);
	s->config_pending = true;
	return 0;
}

/* Tell the front end that the configuration space changed, as soon as it has given us a channel for it. */
static void tell_config_change(struct vu_session *s)
{
	int ret;

	if (!s->config_pending || s->backend_fd < 0)
		return;
	ret = vu_msg_send(s->backend_fd, VU_BACKEND_CONFIG_CHANGE_MSG, 0, NULL, 0, -1, 0);
	if (ret == -EAGAIN)
		return;
	s->config_pending = false;
	if (ret)
		vu_say("the front end was not told of the new configuration: %s", strerror(-ret));
	else
		vu_trace("told the front end of the new configuration");
}

/* Nothing is expected on the back-end channel, as nothing we send asks for an answer. */
static void drop_backend_input(struct vu_session *s)
{
	char buf[256];
	ssize_t n = recv(s->backend_fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	vu_trace("the back-end channel is closed");
	close(s->backend_fd);
	s->backend_fd = -1;
}

static int handle_input(struct vu_session *s)
{
	int ret = vu_msg_recv(s);

	if (ret != 1)
		return ret;
	ret = vu_dispatch(s);
	vu_reader_reset(&s->rd);
	return ret;
}

/* Until the connection ends (VU_EOF), somebody ends us (0) or something is wrong. */
static int loop(struct vu_session *s)
{
	for (;;) {
		struct pollfd p[4] = {
			{ .fd = s->rd.fd, .events = POLLIN },
			{ .fd = s->signal_fd, .events = POLLIN },
			{ .fd = s->config_call, .events = POLLIN },
			{ .fd = s->backend_fd, .events = POLLIN | (s->config_pending ? POLLOUT : 0) },
		};
		int ret;

		if (poll(p, 4, -1) < 0) {
			if (errno == EINTR)
				continue;
			return vu_fail(s, -errno, "poll: %s", strerror(errno));
		}
		if (p[1].revents)
			return 0;
		if (p[2].revents) {
			ret = on_config_call(s);
			if (ret)
				return ret;
		}
		if (p[3].revents & (POLLIN | POLLHUP | POLLERR))
			drop_backend_input(s);
		tell_config_change(s);
		if (p[0].revents) {
			ret = handle_input(s);
			if (ret)
				return ret;
		}
	}
}

/*
 * Serve the connection @conn, which becomes ours. 0: ended from outside or by the front end, else a negative errno,
 * logged.
 *
 * If the front end is still there it must not see the connection end before every request is done and in its rings:
 * it reads from them where to go on. So queues first, then the node, then our mappings, and the connection last.
 */
int vu_session_run(struct vu_session *s, int conn, const char *node_path, int signal_fd, struct vu_shared *shared)
{
	bool busy = false;
	int ret;

	vu_session_reset(s);
	vu_reader_init(&s->rd, conn);
	s->node_path = node_path;
	s->signal_fd = signal_fd;
	s->shared = shared;
	s->config_call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = s->config_call < 0 ? vu_fail(s, -errno, "eventfd: %s", strerror(errno)) : 0;
	if (!ret) {
		ret = open_node(s);
		busy = ret == -EBUSY;
	}
	if (!ret)
		ret = ask_node(s);
	if (!ret)
		ret = loop(s);

	s->exit_status = !ret || ret == VU_EOF ? 0 : busy ? VU_EXIT_BUSY : ret == -ENODEV ? VU_EXIT_GONE : 1;
	if (ret == VU_EOF)
		vu_trace("the front end closed the connection");
	else if (ret)
		vu_say("connection closed: %s", s->error);
	if (s->node >= 0) {
		if (ret != VU_EOF && ret != -ENODEV)
			vu_rings_drain(s);
		vuk_close(s->node);
		s->node = -1;
	}
	vu_mem_destroy(s);
	vu_inflight_end(s);
	vu_rings_close(s);
	vu_reader_reset(&s->rd);
	if (s->backend_fd >= 0)
		close(s->backend_fd);
	if (s->config_call >= 0)
		close(s->config_call);
	s->backend_fd = -1;
	s->config_call = -1;
	close(conn);
	s->rd.fd = -1;
	return ret == VU_EOF ? 0 : ret;
}
