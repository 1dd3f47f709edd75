// SPDX-License-Identifier: GPL-2.0-or-later
/* A device behind the node's ioctls or a vhost-user socket: see vdrv.h. */
#include "vdrv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* --- the node --- */

static int ret(int r)
{
	return r < 0 ? -errno : r;
}

static int node_set_owner(struct vdev *d)
{
	return ret(ioctl(d->fd, VHOST_SET_OWNER, NULL));
}

static int node_get_features(struct vdev *d, u64 *f)
{
	return ret(ioctl(d->fd, VHOST_GET_FEATURES, f));
}

static int node_set_features(struct vdev *d, u64 f)
{
	return ret(ioctl(d->fd, VHOST_SET_FEATURES, &f));
}

static int node_set_mem(struct vdev *d, const struct gmem *g)
{
	char buf[sizeof(struct vhost_memory) + GMEM_MAX_REGIONS * sizeof(struct vhost_memory_region)] = {};
	struct vhost_memory *m = (void *)buf;
	int i;

	m->nregions = g->nr;
	for (i = 0; i < g->nr; i++) {
		m->regions[i].guest_phys_addr = g->r[i].gpa;
		m->regions[i].memory_size = g->r[i].size;
		m->regions[i].userspace_addr = (uintptr_t)g->r[i].hva;
	}
	return ret(ioctl(d->fd, VHOST_SET_MEM_TABLE, m));
}

static int node_state(struct vdev *d, unsigned long req, unsigned int q, unsigned int num)
{
	struct vhost_vring_state s = { .index = q, .num = num };

	return ret(ioctl(d->fd, req, &s));
}

static int node_set_num(struct vdev *d, unsigned int q, unsigned int num)
{
	return node_state(d, VHOST_SET_VRING_NUM, q, num);
}

static int node_set_base(struct vdev *d, unsigned int q, unsigned int base)
{
	return node_state(d, VHOST_SET_VRING_BASE, q, base);
}

static int node_get_base(struct vdev *d, unsigned int q, unsigned int *base)
{
	struct vhost_vring_state s = { .index = q };
	int r = ret(ioctl(d->fd, VHOST_GET_VRING_BASE, &s));

	*base = s.num;
	return r;
}

static int node_set_addr(struct vdev *d, const struct vhost_vring_addr *a)
{
	return ret(ioctl(d->fd, VHOST_SET_VRING_ADDR, a));
}

static int node_set_fd(struct vdev *d, enum vdev_fd what, unsigned int q, int fd)
{
	static const unsigned long req[] = {
		[VDEV_KICK] = VHOST_SET_VRING_KICK,
		[VDEV_CALL] = VHOST_SET_VRING_CALL,
		[VDEV_ERR] = VHOST_SET_VRING_ERR,
	};
	struct vhost_vring_file f = { .index = q, .fd = fd };

	return ret(ioctl(d->fd, req[what], &f));
}

static int node_enable(struct vdev *d, unsigned int q, bool on)
{
	(void)d;
	(void)q;
	(void)on;
	return 0;
}

static int node_get_config(struct vdev *d, unsigned int off, void *buf, unsigned int len)
{
	char tmp[sizeof(struct vhost_vdpa_config) + 256];
	struct vhost_vdpa_config *c = (void *)tmp;
	int r;

	if (len > 256)
		return -EINVAL;
	memset(tmp, 0, sizeof(tmp));
	c->off = off;
	c->len = len;
	r = ret(ioctl(d->fd, VHOST_VDPA_GET_CONFIG, c));
	memcpy(buf, c->buf, len);
	return r;
}

static const struct vtp_ops vdev_node_ops = {
	.set_owner = node_set_owner,
	.get_features = node_get_features,
	.set_features = node_set_features,
	.set_mem = node_set_mem,
	.set_num = node_set_num,
	.set_base = node_set_base,
	.get_base = node_get_base,
	.set_addr = node_set_addr,
	.set_fd = node_set_fd,
	.enable = node_enable,
	.get_config = node_get_config,
};

/* --- a vhost-user socket --- */

enum {
	VU_GET_FEATURES = 1, VU_SET_FEATURES = 2, VU_SET_OWNER = 3, VU_SET_MEM_TABLE = 5, VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9, VU_SET_VRING_BASE = 10, VU_GET_VRING_BASE = 11, VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13, VU_SET_VRING_ERR = 14, VU_GET_PROTOCOL_FEATURES = 15, VU_SET_PROTOCOL_FEATURES = 16,
	VU_SET_VRING_ENABLE = 18, VU_GET_CONFIG = 24,
};

#define VU_MAX_MEM	8
#define VU_F_PROTOCOL	30
#define VU_PF_MQ	0
#define VU_PF_REPLY_ACK	3
#define VU_PF_CONFIG	9
#define VU_FLAG_REPLY	4u
#define VU_FLAG_NEED_REPLY 8u

struct vu_msg {
	u32 request;
	u32 flags;
	u32 size;
	union {
		u64 num;
		struct vhost_vring_state state;
		struct vhost_vring_addr addr;
		struct {
			u32 nregions;
			u32 pad;
			struct { u64 gpa, size, uva, off; } r[VU_MAX_MEM];
		} mem;
		struct {
			u32 off, size, flags;
			u8 buf[256];
		} config;
	} u;
} __attribute__((packed));

static int vu_send(struct vdev *d, struct vu_msg *m, const int *fds, int nfds)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * VU_MAX_MEM)];
		struct cmsghdr align;
	} ctl;
	struct iovec iov = { .iov_base = m, .iov_len = 12 + m->size };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	m->flags |= 1;		/* version */
	if (nfds) {
		struct cmsghdr *c;

		mh.msg_control = ctl.buf;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		memset(&ctl, 0, sizeof(ctl));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	n = sendmsg(d->fd, &mh, MSG_NOSIGNAL);
	if (n != (ssize_t)iov.iov_len)
		return n < 0 ? -errno : -EIO;
	return 0;
}

static int vu_read(int fd, void *buf, size_t len)
{
	while (len) {
		ssize_t n = recv(fd, buf, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ECONNRESET;
		buf = (char *)buf + n;
		len -= n;
	}
	return 0;
}

/* Sends and takes the reply into *m. */
static int vu_call(struct vdev *d, struct vu_msg *m)
{
	u32 request = m->request;
	int r = vu_send(d, m, NULL, 0);

	if (!r)
		r = vu_read(d->fd, m, 12);
	if (!r && (m->request != request || m->size > sizeof(m->u)))
		r = -EPROTO;
	if (!r)
		r = vu_read(d->fd, &m->u, m->size);
	return r;
}

/* Sends and, where it was negotiated, waits until the back end has done it. */
static int vu_set(struct vdev *d, struct vu_msg *m, const int *fds, int nfds)
{
	u32 request = m->request;
	int r;

	if (!(d->proto & BIT64(VU_PF_REPLY_ACK)))
		return vu_send(d, m, fds, nfds);
	m->flags |= VU_FLAG_NEED_REPLY;
	r = vu_send(d, m, fds, nfds);
	if (!r)
		r = vu_read(d->fd, m, 12);
	if (!r && (m->request != request || m->size != 8))
		r = -EPROTO;
	if (!r)
		r = vu_read(d->fd, &m->u, 8);
	if (!r && m->u.num)
		r = -EINVAL;
	return r;
}

static int vu_set_owner(struct vdev *d)
{
	struct vu_msg m = { .request = VU_SET_OWNER };

	return vu_send(d, &m, NULL, 0);
}

static int vu_get_u64(struct vdev *d, u32 request, u64 *v)
{
	struct vu_msg m = { .request = request };
	int r = vu_call(d, &m);

	*v = m.u.num;
	return r;
}

static int vu_get_features(struct vdev *d, u64 *f)
{
	u64 p;
	int r = vu_get_u64(d, VU_GET_FEATURES, f);

	if (r || !(*f & BIT64(VU_F_PROTOCOL)) || d->proto)
		return r;
	r = vu_get_u64(d, VU_GET_PROTOCOL_FEATURES, &p);
	if (!r) {
		u64 want = p & (BIT64(VU_PF_MQ) | BIT64(VU_PF_CONFIG) | BIT64(VU_PF_REPLY_ACK));
		struct vu_msg m = { .request = VU_SET_PROTOCOL_FEATURES, .size = 8, .u.num = want };

		r = vu_send(d, &m, NULL, 0);
		d->proto = want;
	}
	return r;
}

static int vu_set_features(struct vdev *d, u64 f)
{
	struct vu_msg m = { .request = VU_SET_FEATURES, .size = 8, .u.num = f };

	if (d->proto)
		m.u.num |= BIT64(VU_F_PROTOCOL);
	return vu_set(d, &m, NULL, 0);
}

static int vu_set_mem(struct vdev *d, const struct gmem *g)
{
	struct vu_msg m = { .request = VU_SET_MEM_TABLE, .size = 8 + g->nr * 32 };
	int fds[VU_MAX_MEM], i;

	if (g->nr > VU_MAX_MEM)
		return -E2BIG;
	m.u.mem.nregions = g->nr;
	for (i = 0; i < g->nr; i++) {
		m.u.mem.r[i].gpa = g->r[i].gpa;
		m.u.mem.r[i].size = g->r[i].size;
		m.u.mem.r[i].uva = (uintptr_t)g->r[i].hva;
		m.u.mem.r[i].off = 0;
		fds[i] = g->r[i].fd;
	}
	return vu_set(d, &m, fds, g->nr);
}

static int vu_state(struct vdev *d, u32 request, unsigned int q, unsigned int num)
{
	struct vu_msg m = { .request = request, .size = 8, .u.state = { .index = q, .num = num } };

	return vu_set(d, &m, NULL, 0);
}

static int vu_set_num(struct vdev *d, unsigned int q, unsigned int num)
{
	return vu_state(d, VU_SET_VRING_NUM, q, num);
}

static int vu_set_base(struct vdev *d, unsigned int q, unsigned int base)
{
	return vu_state(d, VU_SET_VRING_BASE, q, base);
}

static int vu_get_base(struct vdev *d, unsigned int q, unsigned int *base)
{
	struct vu_msg m = { .request = VU_GET_VRING_BASE, .size = 8, .u.state = { .index = q } };
	int r = vu_call(d, &m);

	*base = m.u.state.num;
	return r;
}

static int vu_set_addr(struct vdev *d, const struct vhost_vring_addr *a)
{
	struct vu_msg m = { .request = VU_SET_VRING_ADDR, .size = sizeof(*a), .u.addr = *a };

	return vu_set(d, &m, NULL, 0);
}

static int vu_set_fd(struct vdev *d, enum vdev_fd what, unsigned int q, int fd)
{
	static const u32 req[] = {
		[VDEV_KICK] = VU_SET_VRING_KICK,
		[VDEV_CALL] = VU_SET_VRING_CALL,
		[VDEV_ERR] = VU_SET_VRING_ERR,
	};
	struct vu_msg m = { .request = req[what], .size = 8, .u.num = fd < 0 ? q | 0x100 : q };

	return vu_set(d, &m, &fd, fd >= 0);
}

static int vu_enable(struct vdev *d, unsigned int q, bool on)
{
	return d->proto ? vu_state(d, VU_SET_VRING_ENABLE, q, on) : 0;
}

static int vu_get_config(struct vdev *d, unsigned int off, void *buf, unsigned int len)
{
	struct vu_msg m = { .request = VU_GET_CONFIG, .size = 12 + len, .u.config = { .off = off, .size = len } };
	int r;

	if (len > sizeof(m.u.config.buf))
		return -EINVAL;
	r = vu_call(d, &m);
	if (!r && m.size != 12 + len)
		r = -EPROTO;
	memcpy(buf, m.u.config.buf, len);
	return r;
}

static const struct vtp_ops user_ops = {
	.set_owner = vu_set_owner,
	.get_features = vu_get_features,
	.set_features = vu_set_features,
	.set_mem = vu_set_mem,
	.set_num = vu_set_num,
	.set_base = vu_set_base,
	.get_base = vu_get_base,
	.set_addr = vu_set_addr,
	.set_fd = vu_set_fd,
	.enable = vu_enable,
	.get_config = vu_get_config,
};

/* --- both --- */

static int vdev_hello(struct vdev *d, bool config)
{
	int r = d->tp->set_owner(d);

	if (!r)
		r = d->tp->get_features(d, &d->offered);
	if (!r && config)
		r = d->tp->get_config(d, 0, &d->cfg, 60);
	return r < 0 ? r : 0;
}

static int open_node(struct vdev *d, const char *path, bool config)
{
	int r;

	memset(d, 0, sizeof(*d));
	d->tp = &vdev_node_ops;
	d->fd = open(path, O_RDWR | O_CLOEXEC);
	if (d->fd < 0)
		return -errno;
	r = vdev_hello(d, config);
	if (r) {
		close(d->fd);
		d->fd = -1;
	}
	return r;
}

int vdev_open_node(struct vdev *d, const char *path)
{
	return open_node(d, path, true);
}

int vdev_open_net(struct vdev *d, const char *path)
{
	return open_node(d, path, false);
}

int vdev_net_backend(struct vdev *d, unsigned int q, int fd)
{
	struct vhost_vring_file f = { .index = q, .fd = fd };

	return ret(ioctl(d->fd, VHOST_NET_SET_BACKEND, &f));
}

int vdev_open_user(struct vdev *d, const char *socket_path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int r;

	memset(d, 0, sizeof(*d));
	d->tp = &user_ops;
	if (strlen(socket_path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	strcpy(sa.sun_path, socket_path);
	d->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (d->fd < 0)
		return -errno;
	r = connect(d->fd, (void *)&sa, sizeof(sa)) ? -errno : vdev_hello(d, true);
	if (r) {
		close(d->fd);
		d->fd = -1;
	}
	return r;
}

int vdev_setup(struct vdev *d, struct gmem *mem, u64 features, unsigned int nvqs, unsigned int num)
{
	unsigned int i;
	int r;

	d->mem = mem;
	d->features = d->offered & (features | BIT64(VIRTIO_F_VERSION_1)) & ~BIT64(VU_F_PROTOCOL);
	r = d->tp->set_features(d, d->features);
	if (r < 0)
		return r;
	r = d->tp->set_mem(d, mem);
	if (r < 0)
		return r;
	d->vqs = calloc(nvqs, sizeof(*d->vqs));
	if (!d->vqs)
		return -ENOMEM;
	for (i = 0; i < nvqs; i++) {
		r = vq_init(&d->vqs[i], d, i, num,
			    d->features & BIT64(VIRTIO_RING_F_INDIRECT_DESC) ? (num < 32 ? 32 : num) : 0);
		if (r < 0)
			return r;
		d->nvqs++;
	}
	return 0;
}

int vdev_start(struct vdev *d)
{
	unsigned int i;
	int r = 0;

	for (i = 0; i < d->nvqs && r >= 0; i++)
		r = vq_start(&d->vqs[i]);
	return r;
}

int vdev_stop(struct vdev *d)
{
	unsigned int i;
	int r = 0;

	for (i = 0; i < d->nvqs; i++) {
		if (d->vqs[i].running) {
			int e = vq_stop(&d->vqs[i]);

			if (!r)
				r = e;
		}
	}
	return r;
}

void vdev_close(struct vdev *d)
{
	unsigned int i;

	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
	for (i = 0; i < d->nvqs; i++)
		vq_free(&d->vqs[i]);
	free(d->vqs);
	d->vqs = NULL;
	d->nvqs = 0;
}

int vdev_set_mem(struct vdev *d, const struct gmem *mem)
{
	return d->tp->set_mem(d, mem);
}

/* --- dirty log --- */

int vlog_alloc(struct vlog *l, const struct gmem *g)
{
	u64 top = 0;
	void *p;
	int i;

	for (i = 0; i < g->nr; i++)
		if (g->r[i].gpa + g->r[i].size > top)
			top = g->r[i].gpa + g->r[i].size;
	l->bytes = ((top + 4096 * 64 - 1) / (4096 * 64)) * 8;
	l->bytes = (l->bytes + 4095) & ~4095ull;
	p = mmap(NULL, l->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	l->bits = p;
	return 0;
}

void vlog_free(struct vlog *l)
{
	if (l->bits)
		munmap(l->bits, l->bytes);
	l->bits = NULL;
}

bool vlog_test(const struct vlog *l, u64 gpa)
{
	u64 page = gpa / 4096;

	return (__atomic_load_n(&l->bits[page / 64], __ATOMIC_ACQUIRE) >> (page % 64)) & 1;
}

void vlog_clear(struct vlog *l)
{
	u64 i;

	for (i = 0; i < l->bytes / 8; i++)
		__atomic_store_n(&l->bits[i], 0, __ATOMIC_RELAXED);
}

int vdev_log_on(struct vdev *d, struct vlog *l)
{
	u64 base = (uintptr_t)l->bits;
	unsigned int i;
	int r;

	r = ret(ioctl(d->fd, VHOST_SET_LOG_BASE, &base));
	if (r < 0)
		return r;
	r = d->tp->set_features(d, d->features | BIT64(VHOST_F_LOG_ALL));
	for (i = 0; i < d->nvqs && r >= 0; i++)
		r = vq_start_addr(&d->vqs[i], true);
	return r;
}

int vdev_log_off(struct vdev *d)
{
	unsigned int i;
	int r = d->tp->set_features(d, d->features);

	for (i = 0; i < d->nvqs && r >= 0; i++)
		r = vq_start_addr(&d->vqs[i], false);
	return r;
}
