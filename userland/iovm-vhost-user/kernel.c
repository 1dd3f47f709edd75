// SPDX-License-Identifier: GPL-2.0-or-later
/* The ioctls of a device's node. Every function returns 0 (vuk_open: the fd) or a negative errno. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhost_iovm.h"
#include "vu.h"

_Static_assert(VU_MAX_REGIONS == VHOST_IOVM_MAX_REGIONS, "regions of a memory table");
_Static_assert(VU_MAX_RING == VHOST_IOVM_MAX_RING, "descriptors of a queue");
_Static_assert(sizeof(struct vu_wire_addr) == sizeof(struct vhost_vring_addr), "layout of a ring's addresses");
_Static_assert(offsetof(struct vu_wire_addr, avail) == offsetof(struct vhost_vring_addr, avail_user_addr), "order");

static int do_ioctl(int node, unsigned long request, void *arg)
{
	int ret;

	do {
		ret = ioctl(node, request, arg);
	} while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : 0;
}

int vuk_check_node(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return -errno;
	return S_ISCHR(st.st_mode) ? 0 : -ENOTTY;
}

int vuk_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

void vuk_close(int node)
{
	close(node);
}

int vuk_set_owner(int node)
{
	return do_ioctl(node, VHOST_SET_OWNER, NULL);
}

int vuk_get_features(int node, uint64_t *features)
{
	__u64 v = 0;
	int ret = do_ioctl(node, VHOST_GET_FEATURES, &v);

	*features = v;
	return ret;
}

int vuk_set_features(int node, uint64_t features)
{
	__u64 v = features;

	return do_ioctl(node, VHOST_SET_FEATURES, &v);
}

int vuk_get_device_id(int node, uint32_t *id)
{
	__u32 v = 0;
	int ret = do_ioctl(node, VHOST_VDPA_GET_DEVICE_ID, &v);

	*id = v;
	return ret;
}

int vuk_get_queue_count(int node, uint32_t *nr)
{
	__u32 v = 0;
	int ret = do_ioctl(node, VHOST_VDPA_GET_VQS_COUNT, &v);

	*nr = v;
	return ret;
}

int vuk_get_config_size(int node, uint32_t *size)
{
	__u32 v = 0;
	int ret = do_ioctl(node, VHOST_VDPA_GET_CONFIG_SIZE, &v);

	*size = v;
	return ret;
}

int vuk_get_config(int node, uint32_t off, void *buf, uint32_t len)
{
	struct vhost_vdpa_config *c = calloc(1, sizeof(*c) + len);
	int ret;

	if (!c)
		return -ENOMEM;
	c->off = off;
	c->len = len;
	ret = do_ioctl(node, VHOST_VDPA_GET_CONFIG, c);
	if (!ret)
		memcpy(buf, c->buf, len);
	free(c);
	return ret;
}

int vuk_set_config_call(int node, int fd)
{
	return do_ioctl(node, VHOST_VDPA_SET_CONFIG_CALL, &fd);
}

int vuk_set_mem_table(int node, const struct vu_memory *mem)
{
	struct vhost_memory *m;
	uint32_t i;
	int ret;

	m = calloc(1, sizeof(*m) + mem->nr * sizeof(m->regions[0]));
	if (!m)
		return -ENOMEM;
	m->nregions = mem->nr;
	for (i = 0; i < mem->nr; i++) {
		m->regions[i].guest_phys_addr = mem->r[i].gpa;
		m->regions[i].memory_size = mem->r[i].size;
		m->regions[i].userspace_addr = mem->r[i].hva;
	}
	ret = do_ioctl(node, VHOST_SET_MEM_TABLE, m);
	free(m);
	return ret;
}

int vuk_set_log_base(int node, uint64_t hva)
{
	__u64 v = hva;

	return do_ioctl(node, VHOST_SET_LOG_BASE, &v);
}

int vuk_set_log_fd(int node, int fd)
{
	return do_ioctl(node, VHOST_SET_LOG_FD, &fd);
}

static int set_state(int node, unsigned long request, uint32_t i, uint32_t num)
{
	struct vhost_vring_state st = { .index = i, .num = num };

	return do_ioctl(node, request, &st);
}

int vuk_set_vring_num(int node, uint32_t i, uint32_t num)
{
	return set_state(node, VHOST_SET_VRING_NUM, i, num);
}

int vuk_set_vring_base(int node, uint32_t i, uint32_t base)
{
	return set_state(node, VHOST_SET_VRING_BASE, i, base);
}

int vuk_get_vring_base(int node, uint32_t i, uint32_t *base)
{
	struct vhost_vring_state st = { .index = i };
	int ret = do_ioctl(node, VHOST_GET_VRING_BASE, &st);

	if (!ret)
		*base = st.num;
	return ret;
}

int vuk_set_vring_addr(int node, const struct vu_wire_addr *a)
{
	struct vhost_vring_addr v = {
		.index = a->index,
		.flags = a->flags & VU_ADDR_F_LOG ? 1 << VHOST_VRING_F_LOG : 0,
		.desc_user_addr = a->desc,
		.used_user_addr = a->used,
		.avail_user_addr = a->avail,
		.log_guest_addr = a->log,
	};

	return do_ioctl(node, VHOST_SET_VRING_ADDR, &v);
}

int vuk_set_inflight(int node, uint32_t i, uint32_t desc_num, uint64_t hva, uint64_t size)
{
	struct vhost_iovm_inflight v = { .index = i, .desc_num = desc_num, .addr = hva, .size = size };

	return do_ioctl(node, VHOST_IOVM_SET_INFLIGHT, &v);
}

int vuk_lend_socket(int node, int fd)
{
	return do_ioctl(node, VHOST_IOVM_LEND_SOCKET, &fd);
}

static int set_vring_file(int node, unsigned long request, uint32_t i, int fd)
{
	struct vhost_vring_file f = { .index = i, .fd = fd };

	return do_ioctl(node, request, &f);
}

int vuk_set_vring_kick(int node, uint32_t i, int fd)
{
	return set_vring_file(node, VHOST_SET_VRING_KICK, i, fd);
}

int vuk_set_vring_call(int node, uint32_t i, int fd)
{
	return set_vring_file(node, VHOST_SET_VRING_CALL, i, fd);
}

int vuk_set_vring_err(int node, uint32_t i, int fd)
{
	return set_vring_file(node, VHOST_SET_VRING_ERR, i, fd);
}
