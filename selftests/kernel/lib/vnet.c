// SPDX-License-Identifier: GPL-2.0-or-later
#include "vnet.h"
#include "ktap.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define NBUF	1024

static struct vbuf *buf[NBUF];
static unsigned int nbuf;

static int net_enable(struct vdev *d, unsigned int q, bool on)
{
	return vdev_net_backend(d, q, on ? d->backend[q] : -1);
}

static int node_open(struct vdev *d, const char *path)
{
	static struct vtp_ops net_ops;
	int r = vdev_open_net(d, path);

	if (r)
		return r;
	net_ops = *d->tp;
	net_ops.enable = net_enable;
	d->tp = &net_ops;
	d->backend[0] = d->backend[1] = -1;
	return 0;
}

void vnet_open(struct vnet *v, const char *node, u64 features, unsigned int num)
{
	unsigned int i;
	int r;

	memset(v, 0, sizeof(*v));
	r = node_open(&v->d, node);
	T_REQUIRE(!r, "%s: %s", node, strerror(-r));
	v->open = true;
	T_REQUIRE((features & v->d.offered) == features, "%s offers %#llx of %#llx", node,
		  (unsigned long long)(features & v->d.offered), (unsigned long long)features);
	T_REQUIRE(gmem_add(&v->mem, 0, 2 * MiB, GMEM_MEMFD) >= 0 && gmem_add(&v->mem, VNET_GPA, VNET_DATA, GMEM_ANON) >= 0,
		  "no memory");
	v->d.mem = &v->mem;
	v->d.features = features;
	r = v->d.tp->set_features(&v->d, features);
	T_REQUIRE(!r, "%s: features %#llx: %s", node, (unsigned long long)features, strerror(-r));
	r = v->d.tp->set_mem(&v->d, &v->mem);
	T_REQUIRE(!r, "%s: memory table: %s", node, strerror(-r));
	v->d.vqs = calloc(2, sizeof(*v->d.vqs));
	for (i = 0; i < 2; i++) {
		r = vq_init(&v->d.vqs[i], &v->d, i, num, features & INDIR ? 64 : 0);
		T_REQUIRE(!r, "no memory for rings");
		v->d.nvqs++;
	}
	v->rx = &v->d.vqs[VNET_RX];
	v->tx = &v->d.vqs[VNET_TX];
	v->hlen = features & (MRG | V1) ? sizeof(struct virtio_net_hdr_mrg_rxbuf) : sizeof(struct virtio_net_hdr);
	vnet_rewind(v);
}

void vnet_start(struct vnet *v, int backend)
{
	int r;

	v->d.backend[0] = v->d.backend[1] = backend;
	r = vdev_start(&v->d);
	T_REQUIRE(!r, "start: %s", strerror(-r));
}

void vnet_stop(struct vnet *v)
{
	int r = vdev_stop(&v->d);

	T_REQUIRE(!r, "stop: %s", strerror(-r));
}

void vnet_close(struct vnet *v)
{
	if (!v->open)
		return;
	v->open = false;
	vdev_close(&v->d);
	gmem_free(&v->mem);
	while (nbuf)
		free(buf[--nbuf]);
}

void vnet_rewind(struct vnet *v)
{
	v->at = VNET_GPA + 64;
	while (nbuf)
		free(buf[--nbuf]);
}

struct vbuf *vbuf_new(struct vnet *v, u32 len, const u32 *cut, unsigned int ncut, bool in)
{
	struct vbuf *b = calloc(1, sizeof(*b) + (ncut + 1) * sizeof(b->seg[0]));
	u32 left = len;
	unsigned int i;

	T_REQUIRE(b && nbuf < NBUF && ncut < VNET_SEGS, "too many buffers");
	buf[nbuf++] = b;
	b->len = len;
	/* odd addresses, and something between segments that stays as it is */
	for (i = 0; left; i++) {
		u32 n = i < ncut && cut[i] < left ? cut[i] : left;

		T_REQUIRE(v->at + n + 3 <= VNET_GPA + VNET_DATA, "buffers are full");
		b->seg[i].gpa = v->at;
		b->seg[i].len = n;
		b->seg[i].in = in;
		memset(gmem_ptr(&v->mem, v->at), VNET_POISON, n + 3);
		v->at += n + 3;
		left -= n;
	}
	b->nsegs = i;
	return b;
}

static void vbuf_copy(struct vnet *v, const struct vbuf *b, u32 off, void *p, u32 len, bool put)
{
	u32 i, n;

	for (i = 0; i < b->nsegs && len; i++) {
		char *g = gmem_ptr(&v->mem, b->seg[i].gpa);

		if (off >= b->seg[i].len) {
			off -= b->seg[i].len;
			continue;
		}
		n = b->seg[i].len - off;
		if (n > len)
			n = len;
		if (put)
			memcpy(g + off, p, n);
		else
			memcpy(p, g + off, n);
		p = (char *)p + n;
		len -= n;
		off = 0;
	}
	T_CHECK(!len, "%u bytes behind the buffer's end", len);
}

void vbuf_put(struct vnet *v, const struct vbuf *b, u32 off, const void *from, u32 len)
{
	vbuf_copy(v, b, off, (void *)from, len, true);
}

void vbuf_get(struct vnet *v, const struct vbuf *b, u32 off, void *to, u32 len)
{
	vbuf_copy(v, b, off, to, len, false);
}

int vnet_add(struct vq *q, struct vbuf *b, unsigned int flags)
{
	int r = vq_add(q, b->seg, b->nsegs, b, flags);

	if (r >= 0)
		b->head = r;
	return r;
}

int vnet_wait_ms(void)
{
	return 5000 * ktap_slowness();
}

static void count_calls(struct vnet *v, unsigned int q)
{
	u64 n;

	if (read(v->d.vqs[q].call, &n, sizeof(n)) == sizeof(n))
		v->calls[q] += n;
}

struct vbuf *vnet_used(struct vnet *v, struct vq *q, u32 *len, int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;

	/* not by the call: whether it comes is one of the things to find out */
	while (!vq_has_used(q)) {
		struct pollfd p = { .fd = q->call, .events = POLLIN };

		if (now_ns() >= end)
			return NULL;
		poll(&p, 1, 2);
		count_calls(v, q->idx);
	}
	return vq_pop(q, len);
}

/* Does a task, by the directory of its /proc entry, serve queues of this process and run, or is it about to? */
static bool worker_runs(const char *dir)
{
	char path[64], line[256], mine[2][24];
	bool runs = false;
	const char *end;
	FILE *f;

	snprintf(mine[0], sizeof(mine[0]), "(vhost-%d)", getpid());
	snprintf(mine[1], sizeof(mine[1]), "(iovm-%d)", getpid());
	snprintf(path, sizeof(path), "%s/stat", dir);
	f = fopen(path, "r");
	if (!f)
		return false;
	if (fgets(line, sizeof(line), f) && (strstr(line, mine[0]) || strstr(line, mine[1]))) {
		end = strrchr(line, ')');
		runs = end && end[1] == ' ' && end[2] != 'S' && end[2] != 'I';
	}
	fclose(f);
	return runs;
}

/* Threads of this process (6.12), or of the kernel (6.1) */
static bool workers_run(void)
{
	static const char *const where[] = { "/proc/self/task", "/proc" };
	bool runs = false;
	struct dirent *e;
	unsigned int i;
	char dir[48];
	DIR *d;

	for (i = 0; i < ARRAY_SIZE(where) && !runs; i++) {
		d = opendir(where[i]);
		T_REQUIRE(d, "%s: %s", where[i], strerror(errno));
		while (!runs && (e = readdir(d))) {
			if (!isdigit((unsigned char)e->d_name[0]))
				continue;
			snprintf(dir, sizeof(dir), "%s/%.20s", where[i], e->d_name);
			runs = worker_runs(dir);
		}
		closedir(d);
	}
	return runs;
}

void vnet_settle(struct vnet *v)
{
	u64 end = now_ns() + 200 * ktap_slowness() * 1000000ull;
	int none = -1, r;
	unsigned int i;

	/* what was kicked is looked at, on another CPU maybe; some that is not done at once is tried for ever */
	while (workers_run() && now_ns() < end)
		usleep(500);
	/* takes each queue's lock behind the workers */
	r = ioctl(v->d.fd, VHOST_SET_LOG_FD, &none);
	T_REQUIRE(!r, "SET_LOG_FD: %s", strerror(errno));
	for (i = 0; i < v->d.nvqs; i++) {
		r = v->d.tp->set_fd(&v->d, VDEV_ERR, i, v->d.vqs[i].err);
		T_REQUIRE(!r, "SET_VRING_ERR: %s", strerror(-r));
	}
}

u64 vnet_calls(struct vnet *v, unsigned int q)
{
	u64 n;

	vnet_settle(v);
	count_calls(v, q);
	n = v->calls[q];
	v->calls[q] = 0;
	return n;
}

bool vnet_err(struct vnet *v, unsigned int q)
{
	return vq_err_signalled(&v->d.vqs[q], 0);
}

void frame_make(u8 *f, u32 len, u32 tag, bool from_guest)
{
	u64 x = tag;
	u32 i;

	memcpy(f, from_guest ? vlink_peer_mac : vlink_guest_mac, 6);
	memcpy(f + 6, from_guest ? vlink_guest_mac : vlink_peer_mac, 6);
	f[12] = 0x88;
	f[13] = 0xb5;
	memcpy(f + 14, &tag, len >= 18 ? 4 : 0);
	for (i = 18; i < len; i += 8) {
		u64 r = rnd64(&x);

		memcpy(f + i, &r, len - i < 8 ? len - i : 8);
	}
}

u64 digest(const void *p, size_t n)
{
	u64 h = n, w;
	size_t i;

	for (i = 0; i < n; i += 8) {
		w = 0;
		memcpy(&w, (const char *)p + i, n - i < 8 ? n - i : 8);
		h = (h ^ w) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 29;
	}
	return h;
}

const char *hex(const void *p, size_t n)
{
	static char text[4][129];
	static unsigned int next;
	char *t = text[next++ % 4];
	size_t i;

	t[0] = 0;
	for (i = 0; i < n && i < 64; i++)
		sprintf(t + 2 * i, "%02x", ((const u8 *)p)[i]);
	return t;
}
