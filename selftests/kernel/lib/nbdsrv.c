// SPDX-License-Identifier: GPL-2.0-or-later
#include "nbdsrv.h"
#include "ctl.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQ_MAGIC	0x25609513u
#define SIMPLE_MAGIC	0x67446698u
#define CHUNK_MAGIC	0x668e33efu
#define MAX_LEN		(32u << 20)
#define MAX_BATCH	64

struct nbd_req {
	u32 magic;
	u16 flags;
	u16 type;
	u64 cookie;
	u64 off;
	u32 len;
} __attribute__((packed));

struct nbdsrv_stashed {
	struct nbdsrv_stashed *next;
	u64 off;
	u32 len;
	char data[];
};

struct reply {
	bool pending;
	u64 cookie;
	u32 error;
	bool read;
	u32 len;
	u64 off;
	void *data;
};

static int rd(int fd, void *buf, size_t len)
{
	while (len) {
		ssize_t n = recv(fd, buf, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		buf = (char *)buf + n;
		len -= n;
	}
	return 0;
}

static int wr(int fd, const void *buf, size_t len)
{
	while (len) {
		ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		buf = (const char *)buf + n;
		len -= n;
	}
	return 0;
}

/* A read or write came: is another one of its sectors not answered yet? */
static void pending_add(struct nbdsrv *s, struct reply *r)
{
	u32 i;

	pthread_mutex_lock(&s->pending_lock);
	for (i = 0; i < s->pending; i++)
		if (r->off < s->range[i].off + s->range[i].len && s->range[i].off < r->off + r->len)
			s->overlaps++;
	if (s->pending < NBDSRV_MAX_PENDING) {
		s->range[s->pending].off = r->off;
		s->range[s->pending++].len = r->len;
		r->pending = true;
	}
	pthread_mutex_unlock(&s->pending_lock);
}

/* It is about to be answered, or never will be. */
static void pending_del(struct nbdsrv *s, struct reply *r)
{
	u32 i;

	if (!r->pending)
		return;
	r->pending = false;
	pthread_mutex_lock(&s->pending_lock);
	for (i = 0; i < s->pending; i++) {
		if (s->range[i].off == r->off && s->range[i].len == r->len) {
			s->range[i] = s->range[--s->pending];
			break;
		}
	}
	pthread_mutex_unlock(&s->pending_lock);
}

static int send_reply(struct nbdsrv *s, int fd, struct reply *r)
{
	u32 nr = __atomic_add_fetch(&s->replies, 1, __ATOMIC_RELAXED);

	if (s->delay_us)
		usleep(s->delay_us);
	pending_del(s, r);
	if (s->die_after && nr >= s->die_after) {
		u32 magic = htobe32(SIMPLE_MAGIC);

		s->die_after = 0;
		wr(fd, &magic, 3);
		return -1;
	}
	if (s->corrupt && !s->structured) {
		u32 how = __atomic_exchange_n(&s->corrupt, NBDSRV_FINE, __ATOMIC_RELAXED);
		struct {
			u32 magic, error;
			u64 cookie;
		} __attribute__((packed)) h = { htobe32(SIMPLE_MAGIC), htobe32(how == NBDSRV_SAYS_EIO ? 5 : 0), r->cookie };

		if (how == NBDSRV_BAD_COOKIE)
			h.cookie ^= 0x0100000000000001ull;
		if (how == NBDSRV_BAD_MAGIC)
			h.magic ^= 1;
		if (how == NBDSRV_CUT_SHORT) {
			wr(fd, &h, sizeof(h) / 2);
			return -1;
		}
		if (how != NBDSRV_FINE)
			return wr(fd, &h, sizeof(h));
	}
	if (s->structured && r->read && !r->error) {
		/* two chunks of data where there is enough, in the order second, first; then an empty one */
		u32 half = (r->len / 2) & ~511u, part[2][2] = { { half, r->len - half }, { 0, half } };
		unsigned int i;

		for (i = 0; i < 3; i++) {
			u32 len = i < 2 && part[i][1] ? part[i][1] : 0;
			struct {
				u32 magic;
				u16 flags, type;
				u64 cookie;
				u32 len;
				u64 off;
			} __attribute__((packed)) c = {
				htobe32(CHUNK_MAGIC), htobe16(i == 2), htobe16(i == 2 ? 0 : 1), r->cookie,
				htobe32(i == 2 ? 0 : len + 8), htobe64(r->off + (i < 2 ? part[i][0] : 0)),
			};

			if (i < 2 && !len)
				continue;
			if (wr(fd, &c, i == 2 ? 20 : 28) || (i < 2 && wr(fd, (char *)r->data + part[i][0], len)))
				return -1;
		}
	} else if (s->structured && r->read) {
		struct {
			u32 magic;
			u16 flags, type;
			u64 cookie;
			u32 len;
			u32 error;
			u16 msg_len;
			char msg[4];
		} __attribute__((packed)) c = {
			htobe32(CHUNK_MAGIC), htobe16(1), htobe16((1u << 15) | 1), r->cookie, htobe32(10),
			htobe32(r->error), htobe16(4), "test",
		};

		return wr(fd, &c, sizeof(c));
	} else {
		struct {
			u32 magic, error;
			u64 cookie;
		} __attribute__((packed)) h = { htobe32(SIMPLE_MAGIC), htobe32(r->error), r->cookie };

		if (wr(fd, &h, sizeof(h)) || (r->read && !r->error && wr(fd, r->data, r->len)))
			return -1;
	}
	return 0;
}

static int store_io(struct nbdsrv *s, bool write, void *buf, u32 len, u64 off)
{
	if (off > s->bytes || len > s->bytes - off)
		return EINVAL;
	if (s->fd < 0) {
		if (write)
			memcpy(s->mem + off, buf, len);
		else
			memcpy(buf, s->mem + off, len);
		return 0;
	}
	if (write)
		return pwrite(s->fd, buf, len, off) == (ssize_t)len ? 0 : EIO;
	return pread(s->fd, buf, len, off) == (ssize_t)len ? 0 : EIO;
}

/* [off, off + len) is stable from now on. */
static void store_commit(struct nbdsrv *s, u64 off, u64 len)
{
	if (s->stable && off <= s->bytes && len <= s->bytes - off)
		memcpy(s->stable + off, s->mem + off, len);
}

/* Writes alone: what else is in flight changes nothing. */
static int keep(struct nbdsrv *s, u16 type, const void *buf, u32 len, u64 off)
{
	struct nbdsrv_stashed *k;

	if (type != 1)
		return 0;
	k = malloc(sizeof(*k) + len);
	if (!k)
		return -1;
	k->next = NULL;
	k->off = off;
	k->len = len;
	memcpy(k->data, buf, len);
	pthread_mutex_lock(&s->stash_lock);
	if (!s->stashed)
		s->stashed_end = &s->stashed;
	*s->stashed_end = k;
	s->stashed_end = &k->next;
	pthread_mutex_unlock(&s->stash_lock);
	return 0;
}

unsigned int nbdsrv_land(struct nbdsrv *s, bool drop)
{
	struct nbdsrv_stashed *k, *next;
	unsigned int n = 0;
	void *buf;

	pthread_mutex_lock(&s->stash_lock);
	k = s->stashed;
	s->stashed = NULL;
	pthread_mutex_unlock(&s->stash_lock);
	for (; k; k = next) {
		next = k->next;
		/* O_DIRECT wants it aligned */
		if (!drop && !posix_memalign(&buf, 4096, k->len)) {
			memcpy(buf, k->data, k->len);
			if (s->io)
				s->io(s, 1, true, buf, k->len, k->off);
			else
				store_io(s, true, buf, k->len, k->off);
			free(buf);
			__atomic_add_fetch(&s->writes, 1, __ATOMIC_RELAXED);
		}
		free(k);
		n++;
	}
	return n;
}

/* The data of a write */
static int take(struct nbdsrv *s, int fd, u8 *buf, u32 len)
{
	u32 n, ms;

	for (; len; buf += n, len -= n) {
		for (ms = 0; ms < s->sip_ms; ms += 10)
			sleep_ms(10);
		n = s->sip_ms && len > NBDSRV_SIP ? NBDSRV_SIP : len;
		if (rd(fd, buf, n))
			return -1;
	}
	return 0;
}

static void *serve(void *arg)
{
	struct nbdsrv_conn *c = arg;
	struct nbdsrv *s = c->s;
	struct reply held[MAX_BATCH];
	unsigned int nheld = 0, count = 0;
	int room = 4 * NBDSRV_SIP;	/* with less, what comes at once may not fit, and is lost */
	void *buf = NULL;
	u32 buf_size = 0;

	if (s->sip_ms)
		setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	for (;;) {
		struct nbd_req q;
		struct reply r = {};
		u32 len;
		u64 off;
		u16 type;

		/* An idle line: send what is held back. */
		if (nheld) {
			struct pollfd p = { .fd = c->fd, .events = POLLIN };

			if (s->hold && nheld < MAX_BATCH) {
				if (poll(&p, 1, 2) == 0)
					continue;
			} else if (nheld >= s->batch || nheld == MAX_BATCH || poll(&p, 1, 2) == 0) {
				while (nheld) {
					struct reply *h = &held[--nheld];
					int e = send_reply(s, c->fd, h);

					free(h->data);
					if (e)
						goto out;
				}
				continue;
			}
		}
		if (rd(c->fd, &q, 28) || be32toh(q.magic) != REQ_MAGIC)
			break;
		len = be32toh(q.len);
		off = be64toh(q.off);
		type = be16toh(q.type);
		if (type == 2 || (type <= 1 && len > MAX_LEN))
			break;
		if (type <= 1 && len > buf_size) {
			free(buf);
			if (posix_memalign(&buf, 4096, len)) {
				buf = NULL;
				break;
			}
			buf_size = len;
		}
		if (type == 1 && take(s, c->fd, buf, len))
			break;
		if (s->hang)
			continue;
		if (s->stash) {
			if (keep(s, type, buf, len, off))
				break;
			continue;
		}
		r.cookie = q.cookie;
		r.off = off;
		r.len = len;
		if (type <= 1)
			pending_add(s, &r);
		if (be16toh(q.flags) & 1)
			__atomic_add_fetch(&s->fua, 1, __ATOMIC_RELAXED);
		count++;
		if (s->fail_every && count % s->fail_every == 0) {
			r.read = type == 0;
			r.error = 5;
		} else if (s->full && (type == 1 || type == 6)) {
			r.error = 28;
		} else if (s->io) {
			r.read = type == 0;
			r.error = s->io(s, type, be16toh(q.flags) & 1, buf, len, off);
		} else {
			switch (type) {
			case 0:
				__atomic_add_fetch(&s->reads, 1, __ATOMIC_RELAXED);
				r.read = true;
				r.error = store_io(s, false, buf, len, off);
				break;
			case 1:
				__atomic_add_fetch(&s->writes, 1, __ATOMIC_RELAXED);
				r.error = store_io(s, true, buf, len, off);
				break;
			case 3:
				__atomic_add_fetch(&s->flushes, 1, __ATOMIC_RELAXED);
				if (s->fd >= 0 && fdatasync(s->fd))
					r.error = 5;
				store_commit(s, 0, s->bytes);
				break;
			case 4:
				__atomic_add_fetch(&s->trims, 1, __ATOMIC_RELAXED);
				break;
			case 6: {
				static u8 zeroes[1 << 20] __attribute__((aligned(4096)));
				u32 done = 0;

				__atomic_add_fetch(&s->zeroes, 1, __ATOMIC_RELAXED);
				while (done < len && !r.error) {
					u32 n = len - done < sizeof(zeroes) ? len - done : sizeof(zeroes);

					r.error = store_io(s, true, zeroes, n, off + done);
					done += n;
				}
				break;
			}
			default:
				r.error = 22;
			}
			if (be16toh(q.flags) & 1)
				store_commit(s, off, len);
		}
		if (s->batch > 1 || s->hold) {
			if (r.read && !r.error) {
				r.data = buf;
				buf = NULL;
				buf_size = 0;
			}
			held[nheld++] = r;
			continue;
		}
		r.data = buf;
		if (send_reply(s, c->fd, &r))
			break;
	}
out:
	while (nheld) {
		pending_del(s, &held[--nheld]);
		free(held[nheld].data);
	}
	free(buf);
	shutdown(c->fd, SHUT_RDWR);
	return NULL;
}

int nbdsrv_init(struct nbdsrv *s, const char *store_node, u64 mem_bytes)
{
	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->pending_lock, NULL);
	pthread_mutex_init(&s->stash_lock, NULL);
	s->fd = -1;
	if (store_node) {
		off_t end;

		s->fd = open(store_node, O_RDWR | O_DIRECT | O_CLOEXEC);
		if (s->fd < 0)
			return -errno;
		end = lseek(s->fd, 0, SEEK_END);
		s->bytes = end;
		return 0;
	}
	s->bytes = mem_bytes;
	s->mem = calloc(1, mem_bytes);
	return s->mem ? 0 : -ENOMEM;
}

int nbdsrv_tcp_pair(int sv[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, r = -1;

	sv[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!bind(l, (void *)&a, n) && !listen(l, 1) && !getsockname(l, (void *)&a, &n) &&
	    !connect(sv[0], (void *)&a, n)) {
		sv[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
		r = sv[1] < 0 ? -1 : 0;
	}
	if (r) {
		r = -errno;
		close(sv[0]);
	} else {
		setsockopt(sv[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		setsockopt(sv[1], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	}
	close(l);
	return r;
}

int nbdsrv_adopt(struct nbdsrv *s, int fd)
{
	int i, r = 0;

	pthread_mutex_lock(&s->lock);
	for (i = 0; i < NBDSRV_MAX_CONN && s->conn[i].running; i++)
		;
	if (i < NBDSRV_MAX_CONN) {
		s->conn[i].s = s;
		s->conn[i].fd = fd;
		s->conn[i].running = !pthread_create(&s->conn[i].thread, NULL, serve, &s->conn[i]);
	}
	if (i == NBDSRV_MAX_CONN || !s->conn[i].running) {
		close(fd);
		r = -EMFILE;
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

int nbdsrv_connect(struct nbdsrv *s, bool tcp)
{
	int sv[2], r;

	if (tcp)
		r = s->pair ? s->pair(sv) : nbdsrv_tcp_pair(sv);
	else
		r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) ? -errno : 0;
	if (r)
		return r;
	r = nbdsrv_adopt(s, sv[1]);
	if (r) {
		close(sv[0]);
		return r;
	}
	return sv[0];
}

void nbdsrv_cut(struct nbdsrv *s)
{
	int i;

	pthread_mutex_lock(&s->lock);
	for (i = 0; i < NBDSRV_MAX_CONN; i++)
		if (s->conn[i].running)
			shutdown(s->conn[i].fd, SHUT_RDWR);
	pthread_mutex_unlock(&s->lock);
}

void nbdsrv_kill(struct nbdsrv *s)
{
	int i;

	pthread_mutex_lock(&s->lock);
	for (i = 0; i < NBDSRV_MAX_CONN; i++)
		if (s->conn[i].running)
			shutdown(s->conn[i].fd, SHUT_RDWR);
	for (i = 0; i < NBDSRV_MAX_CONN; i++)
		if (s->conn[i].running) {
			pthread_join(s->conn[i].thread, NULL);
			close(s->conn[i].fd);
			s->conn[i].running = false;
		}
	pthread_mutex_unlock(&s->lock);
}

int nbdsrv_cache(struct nbdsrv *s)
{
	s->stable = malloc(s->bytes);
	if (!s->stable)
		return -ENOMEM;
	memcpy(s->stable, s->mem, s->bytes);
	return 0;
}

void nbdsrv_drop_cache(struct nbdsrv *s)
{
	memcpy(s->mem, s->stable, s->bytes);
}

void nbdsrv_free(struct nbdsrv *s)
{
	if (!s->bytes)
		return;
	nbdsrv_kill(s);
	nbdsrv_land(s, true);
	if (s->fd >= 0)
		close(s->fd);
	free(s->mem);
	free(s->stable);
	memset(s, 0, sizeof(*s));
	s->fd = -1;
}

int nbdsrv_attach(struct nbdsrv *s, const char *dev, const char *path, unsigned int nconn, bool tcp)
{
	int fds[IOVM_MAX_SOCKETS] = {}, r;
	unsigned int i;

	for (i = 0; i < nconn; i++) {
		fds[i] = nbdsrv_connect(s, tcp);
		if (fds[i] < 0)
			return fds[i];
	}
	r = ctl_path_connect_id(dev, path, fds, nconn, s->bytes, NBDSRV_FLAGS, s->structured ? IOVM_NBD_F_STRUCTURED : 0,
				s->identity);
	for (i = 0; i < nconn; i++)
		close(fds[i]);
	return r;
}
