// SPDX-License-Identifier: GPL-2.0-or-later
/* t_vnet: what a queue is set up with: numbers, addresses, memory, log; and what of it may change while it runs. */
#include "cases.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

void s_num_base(const char *node)
{
	static const u32 nums[] = { 0, 1, 2, 3, 255, 256, 1024, 2048, 32768, 32769, 65535, 65536, 0x80000000, 0xffffffff };
	static const u32 bases[] = { 0, 1, 255, 32768, 65535, 65536, 0x10000, 0xffffffff };
	int fd = own_node(node);
	struct vhost_vring_state s;
	unsigned int i, q;

	for (q = 0; q < 2; q++) {
		for (i = 0; i < ARRAY_SIZE(nums); i++) {
			rec_at("queue %u, num %u", q, nums[i]);
			s = (struct vhost_vring_state){ .index = q, .num = nums[i] };
			rec_ret("set", ioctl(fd, VHOST_SET_VRING_NUM, &s));
		}
		for (i = 0; i < ARRAY_SIZE(bases); i++) {
			rec_at("queue %u, base %u", q, bases[i]);
			s = (struct vhost_vring_state){ .index = q, .num = bases[i] };
			rec_ret("set", ioctl(fd, VHOST_SET_VRING_BASE, &s));
			s.num = 7;
			rec_ret("get", ioctl(fd, VHOST_GET_VRING_BASE, &s));
			rec("get", "index %u num %u", s.index, s.num);
		}
	}
	rec_at(NULL);
}

/* Addresses that are set, then whether the queue can be started with them. */
void s_addr(const char *node)
{
	struct vhost_vring_addr good[2], a;
	unsigned int q, i;
	u64 hole;
	void *p;

	p = mmap(NULL, 4 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	T_REQUIRE(p != MAP_FAILED, "mmap: %s", strerror(errno));
	hole = (uintptr_t)p;
	vlink_tap(&L, "tap0", 0, 12);
	vnet_open(&V, node, V1, 16);
	for (q = 0; q < 2; q++) {
		good[q] = (struct vhost_vring_addr){
			.index = q,
			.desc_user_addr = (uintptr_t)V.d.vqs[q].ring.desc,
			.avail_user_addr = (uintptr_t)V.d.vqs[q].ring.avail,
			.used_user_addr = (uintptr_t)V.d.vqs[q].ring.used,
			.log_guest_addr = V.d.vqs[q].used_gpa,
		};
		V.d.tp->set_num(&V.d, q, 16);
		V.d.tp->set_fd(&V.d, VDEV_KICK, q, V.d.vqs[q].kick);
	}
	for (q = 0; q < 2; q++) {
		const struct {
			const char *name;
			u32 flags;
			u64 *field, value;
		} t[] = {
			{ "good", 0, NULL, 0 },
			{ "flag 1", 2, NULL, 0 },
			{ "flag 31", 1u << 31, NULL, 0 },
			{ "log flag", 1, NULL, 0 },
			{ "desc + 1", 0, (u64 *)&a.desc_user_addr, good[q].desc_user_addr + 1 },
			{ "desc + 8", 0, (u64 *)&a.desc_user_addr, good[q].desc_user_addr + 8 },
			{ "avail + 1", 0, (u64 *)&a.avail_user_addr, good[q].avail_user_addr + 1 },
			{ "used + 1", 0, (u64 *)&a.used_user_addr, good[q].used_user_addr + 1 },
			{ "used + 2", 0, (u64 *)&a.used_user_addr, good[q].used_user_addr + 2 },
			{ "log + 1", 0, (u64 *)&a.log_guest_addr, good[q].log_guest_addr + 1 },
			{ "log + 1, flag", 1, (u64 *)&a.log_guest_addr, good[q].log_guest_addr + 1 },
			{ "log beyond all", 1, (u64 *)&a.log_guest_addr, ~3ull },
			{ "desc in the kernel", 0, (u64 *)&a.desc_user_addr, KERNEL_ADDR },
			{ "avail in the kernel", 0, (u64 *)&a.avail_user_addr, KERNEL_ADDR },
			{ "used in the kernel", 0, (u64 *)&a.used_user_addr, KERNEL_ADDR },
			{ "desc 0", 0, (u64 *)&a.desc_user_addr, 0 },
			{ "avail 0", 0, (u64 *)&a.avail_user_addr, 0 },
			{ "used 0", 0, (u64 *)&a.used_user_addr, 0 },
			{ "desc not mapped", 0, (u64 *)&a.desc_user_addr, hole },
			{ "avail not mapped", 0, (u64 *)&a.avail_user_addr, hole },
			{ "used not mapped", 0, (u64 *)&a.used_user_addr, hole },
		};

		for (i = 0; i < ARRAY_SIZE(t); i++) {
			struct vhost_vring_file f = { .index = q, .fd = L.fd };
			long r;

			a = good[q];
			a.flags = t[i].flags;
			if (t[i].field)
				*t[i].field = t[i].value;
			rec_at("queue %u, %s", q, t[i].name);
			V.d.tp->set_addr(&V.d, &good[q]);
			r = rec_ret("set", ioctl(V.d.fd, VHOST_SET_VRING_ADDR, &a));
			r |= rec_ret("start", ioctl(V.d.fd, VHOST_NET_SET_BACKEND, &f));
			f.fd = -1;
			rec_ret("stop", ioctl(V.d.fd, VHOST_NET_SET_BACKEND, &f));
		}
		rec_at(NULL);
		V.d.tp->set_addr(&V.d, &good[q]);
	}
	vnet_start(&V, L.fd);
	rec("frame", "%s", one_frame(&V, &L) ? "sent" : "lost");
	munmap(p, 4 * 4096);
}

static long table(int fd, u32 n, u32 padding, const struct vhost_memory_region *r)
{
	static char buf[sizeof(struct vhost_memory) + 600 * sizeof(struct vhost_memory_region)];
	struct vhost_memory *m = (void *)buf;
	u32 i;

	memset(buf, 0, sizeof(buf));
	m->nregions = n;
	m->padding = padding;
	for (i = 0; i < n && i < 600; i++)
		m->regions[i] = r ? r[i] : (struct vhost_memory_region){
			.guest_phys_addr = i * 8192ull, .memory_size = 4096, .userspace_addr = 1 << 20 };
	return ioctl(fd, VHOST_SET_MEM_TABLE, m);
}

static void tables(int fd, const char *how)
{
	const u64 a = V.open && V.mem.nr ? (uintptr_t)V.mem.r[1].hva : 1 << 20;
	const struct vhost_memory_region same[2] = { { 0, 4096, a }, { 0, 4096, a } };
	const struct vhost_memory_region lap[2] = { { 0, 8192, a }, { 4096, 8192, a + 65536 } };
	const struct vhost_memory_region nothing[1] = { { 4096, 0, a } };
	const struct vhost_memory_region nothing_at_0[1] = { { 0, 0, a } };
	const struct vhost_memory_region odd[1] = { { 1, 33, a + 7 } };
	const struct vhost_memory_region wraps[1] = { { ~0ull - 4095, 8192, a } };
	const struct vhost_memory_region last[1] = { { ~0ull - 4095, 4096, a } };
	const struct vhost_memory_region kernel[1] = { { 0, 4096, KERNEL_ADDR } };
	const struct vhost_memory_region huge[1] = { { 0, ~0ull, a } };
	const struct vhost_memory_region hole[1] = { { 0, 4096, 4096 } };
	u64 *edge;

	rec_at("%s", how);
	rec_ret("no regions", table(fd, 0, 0, NULL));
	rec_ret("padding", table(fd, 1, 1, NULL));
	rec_ret("64 regions", table(fd, 64, 0, NULL));
	rec_ret("65 regions", table(fd, 65, 0, NULL));
	rec_ret("509 regions", table(fd, 509, 0, NULL));
	rec_ret("510 regions", table(fd, 510, 0, NULL));
	rec_ret("2^32 - 1 regions", table(fd, 0xffffffff, 0, NULL));
	rec_ret("the same twice", table(fd, 2, 0, same));
	rec_ret("overlapping", table(fd, 2, 0, lap));
	rec_ret("size 0", table(fd, 1, 0, nothing));
	rec_ret("size 0 at 0", table(fd, 1, 0, nothing_at_0));
	rec_ret("odd", table(fd, 1, 0, odd));
	rec_ret("wraps", table(fd, 1, 0, wraps));
	rec_ret("last page", table(fd, 1, 0, last));
	rec_ret("in the kernel", table(fd, 1, 0, kernel));
	rec_ret("everything", table(fd, 1, 0, huge));
	rec_ret("not mapped", table(fd, 1, 0, hole));
	edge = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap((char *)edge + 4096, 4096);
	edge[511] = 1;		/* one region, which is not there any more */
	rec_ret("cut", ioctl(fd, VHOST_SET_MEM_TABLE, &edge[511]));
	munmap(edge, 4096);
	rec_at(NULL);
}

void s_memory(const char *node)
{
	int fd = own_node(node);

	tables(fd, "idle");
	vnet_close(&V);
	vlink_tap(&L, "tap0", 0, 12);
	vnet_open(&V, node, V1, 16);
	vnet_start(&V, L.fd);
	tables(V.d.fd, "running");
	rec("memory table", "%d", V.d.tp->set_mem(&V.d, &V.mem));
	rec("frame", "%s", one_frame(&V, &L) ? "sent" : "lost");
}

void s_log_base(const char *node)
{
	static const struct {
		const char *name;
		u64 addr;
	} t[] = {
		{ "0", 0 }, { "not mapped", 4096 }, { "in the kernel", KERNEL_ADDR }, { "not canonical", 1ull << 63 },
		{ "the last byte", ~0ull },
	};
	unsigned int i, run;
	u64 log;
	int r;
	void *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	T_REQUIRE(p != MAP_FAILED, "mmap: %s", strerror(errno));
	vlink_tap(&L, "tap0", 0, 12);
	for (run = 0; run < 4; run++) {
		vnet_open(&V, node, V1, 16);
		rec_at("%s%s", run & 1 ? "running" : "idle", run & 2 ? ", logging" : "");
		log = (uintptr_t)p;
		if (run & 2)
			T_REQUIRE(!ioctl(V.d.fd, VHOST_SET_LOG_BASE, &log) && !V.d.tp->set_features(&V.d, V1 | LOGALL),
				  "log: %s", strerror(errno));
		if (run & 1)
			vnet_start(&V, L.fd);
		for (i = 0; i < ARRAY_SIZE(t); i++)
			rec_ret(t[i].name, ioctl(V.d.fd, VHOST_SET_LOG_BASE, &t[i].addr));
		rec_ret("good", ioctl(V.d.fd, VHOST_SET_LOG_BASE, &log));
		r = V.d.tp->set_features(&V.d, V1 | LOGALL);
		rec("LOG_ALL", "%d", r);
		r = V.d.tp->set_features(&V.d, V1);
		rec("LOG_ALL off", "%d", r);
		rec_at(NULL);
		if (run & 1)
			rec("frame", "%s", one_frame(&V, &L) ? "sent" : "lost");
		vnet_close(&V);
	}
	munmap(p, 1 << 20);
}

/* What may be changed below a running queue, and whether it goes on. */
void s_running(const char *node)
{
	static const u64 features[] = { V1 | LOGALL, V1, V1 | MRG, V1 | EVENT, 0, V1 | BIT64(63), V1 };
	struct vhost_vring_addr a;
	struct vhost_vring_file f;
	struct vhost_vring_state s;
	unsigned int i, q;
	u64 log;
	int fd;
	void *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	log = (uintptr_t)p;
	vlink_tap(&L, "tap0", 0, 12);
	vnet_open(&V, node, V1, 16);
	fd = V.d.fd;
	T_REQUIRE(p != MAP_FAILED && !ioctl(fd, VHOST_SET_LOG_BASE, &log), "log: %s", strerror(errno));
	vnet_start(&V, L.fd);
	rec("frame", "%s", one_frame(&V, &L) ? "sent" : "lost");
	for (q = 0; q < 2; q++) {
		struct vq *vq = &V.d.vqs[q];

		rec_at("queue %u", q);
		s = (struct vhost_vring_state){ .index = q, .num = 16 };
		rec_ret("SET_VRING_NUM", ioctl(fd, VHOST_SET_VRING_NUM, &s));
		s.num = 3;
		rec_ret("SET_VRING_NUM 3", ioctl(fd, VHOST_SET_VRING_NUM, &s));
		s.num = vq->base;
		rec_ret("SET_VRING_BASE", ioctl(fd, VHOST_SET_VRING_BASE, &s));
		s.num = 65536;
		rec_ret("SET_VRING_BASE 65536", ioctl(fd, VHOST_SET_VRING_BASE, &s));
		s.num = 99;
		rec_ret("GET_VRING_BASE", ioctl(fd, VHOST_GET_VRING_BASE, &s));
		rec("GET_VRING_BASE", "%u", s.num);
		s.num = 5;
		rec_ret("SET_VRING_BUSYLOOP_TIMEOUT", ioctl(fd, VHOST_SET_VRING_BUSYLOOP_TIMEOUT, &s));
		s.num = 0;
		rec_ret("SET_VRING_BUSYLOOP_TIMEOUT", ioctl(fd, VHOST_SET_VRING_BUSYLOOP_TIMEOUT, &s));
		rec("log flag", "%d", vq_start_addr(vq, true));
		rec("log flag off", "%d", vq_start_addr(vq, false));
		a = (struct vhost_vring_addr){ .index = q, .flags = 1, .log_guest_addr = 1ull << 62,
			.desc_user_addr = (uintptr_t)vq->ring.desc, .avail_user_addr = (uintptr_t)vq->ring.avail,
			.used_user_addr = (uintptr_t)vq->ring.used };
		rec_ret("log address beyond all", ioctl(fd, VHOST_SET_VRING_ADDR, &a));
		a.flags = 4;
		rec_ret("flag 2", ioctl(fd, VHOST_SET_VRING_ADDR, &a));
		a.flags = 0;
		a.log_guest_addr = 0;
		a.used_user_addr += 1;
		rec_ret("used + 1", ioctl(fd, VHOST_SET_VRING_ADDR, &a));
		a.used_user_addr = KERNEL_ADDR;
		rec_ret("used in the kernel", ioctl(fd, VHOST_SET_VRING_ADDR, &a));
		f = (struct vhost_vring_file){ .index = q, .fd = -1 };
		rec_ret("CALL -1", ioctl(fd, VHOST_SET_VRING_CALL, &f));
		rec_ret("ERR -1", ioctl(fd, VHOST_SET_VRING_ERR, &f));
		rec_ret("KICK -1", ioctl(fd, VHOST_SET_VRING_KICK, &f));
		rec_ret("KICK -1 again", ioctl(fd, VHOST_SET_VRING_KICK, &f));
		f.fd = vq->call;
		rec_ret("CALL", ioctl(fd, VHOST_SET_VRING_CALL, &f));
		f.fd = vq->err;
		rec_ret("ERR", ioctl(fd, VHOST_SET_VRING_ERR, &f));
		f.fd = vq->kick;
		rec_ret("KICK", ioctl(fd, VHOST_SET_VRING_KICK, &f));
		rec("frame", "%s", one_frame(&V, &L) ? "sent" : "lost");
	}
	rec_at(NULL);
	for (i = 0; i < ARRAY_SIZE(features); i++) {
		rec_at("features %#llx", (unsigned long long)features[i]);
		rec_ret("set", ioctl(fd, VHOST_SET_FEATURES, &features[i]));
	}
	rec_at(NULL);
	rec("frame", "%s", one_frame(&V, &L) ? "sent" : "lost");
	/* what is available when the kick comes back is served without one */
	f = (struct vhost_vring_file){ .index = VNET_TX, .fd = -1 };
	rec_ret("KICK -1", ioctl(fd, VHOST_SET_VRING_KICK, &f));
	vq_kick(V.tx);
	f.fd = V.tx->kick;
	rec_ret("KICK that is signalled", ioctl(fd, VHOST_SET_VRING_KICK, &f));
	rec("frame", "%s", one_frame(&V, &L) ? "sent" : "lost");
	munmap(p, 1 << 20);
}
