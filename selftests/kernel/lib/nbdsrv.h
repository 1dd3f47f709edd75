/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small NBD server in the transmission phase: it makes a pair of sockets, keeps one end, and gives the other,
 * handshake "done", to the test. The store is a block device (O_DIRECT) or memory. Its misbehaviours are for a test to choose.
 */
#ifndef NBDSRV_H
#define NBDSRV_H

#include <pthread.h>
#include "iovm.h"
#include "vdrv.h"

#define NBD_F_HAS_FLAGS		(1u << 0)
#define NBD_F_READ_ONLY		(1u << 1)
#define NBD_F_FLUSH		(1u << 2)
#define NBD_F_FUA		(1u << 3)
#define NBD_F_TRIM		(1u << 5)
#define NBD_F_WRITE_ZEROES	(1u << 6)
#define NBD_F_MULTI_CONN	(1u << 8)
#define NBDSRV_FLAGS	(NBD_F_HAS_FLAGS | NBD_F_FLUSH | NBD_F_FUA | NBD_F_TRIM | NBD_F_WRITE_ZEROES | NBD_F_MULTI_CONN)

#define NBDSRV_MAX_CONN	64
#define NBDSRV_MAX_PENDING	1024
#define NBDSRV_SIP		32768u

/* What is wrong with one reply: nbdsrv.corrupt */
enum nbdsrv_corrupt {
	NBDSRV_FINE,
	NBDSRV_BAD_COOKIE,
	NBDSRV_BAD_MAGIC,
	NBDSRV_CUT_SHORT,		/* half a header, then the end of the connection */
	NBDSRV_SAYS_EIO,
};

struct nbdsrv_stashed;

struct nbdsrv {
	int fd;				/* store, -1: mem */
	u8 *mem;
	/* memory, one connection: what FUA and FLUSH made stable; mem is a cache before it. NULL: no cache */
	u8 *stable;
	u64 bytes;
	char identity[IOVM_IDENTITY_MAX];	/* handed over by nbdsrv_attach() */
	int (*pair)(int sv[2]);		/* makes a connection, as net_pair() does; NULL: on the loopback */
	/* behaviour; may change at any time */
	volatile bool structured;	/* replies to READ are chunks */
	volatile bool hang;		/* takes requests, executes none and answers nothing */
	volatile bool hold;		/* executes requests and keeps the replies back until it is false again */
	volatile u32 delay_us;		/* before each reply */
	volatile u32 batch;		/* replies are held until so many are due and sent in reverse; 0, 1: no. */
	volatile u32 sip_ms;		/* waits so long before each NBDSRV_SIP bytes of a write, with a small buffer; 0: no */
	volatile u32 fail_every;	/* every so manieth request is answered with EIO; 0: none */
	volatile bool full;		/* what needs space is answered with ENOSPC */
	volatile u32 die_after;		/* closes everything in the middle of reply number so; 0: no */
	volatile u32 corrupt;		/* enum nbdsrv_corrupt: the next simple reply; then it is fine again */
	/*
	 * Takes requests and answers nothing, but keeps its writes: they land at nbdsrv_land(), whatever became of their
	 * connection meanwhile.
	 */
	volatile bool stash;
	/* instead of the store, if set: type, FUA, data, length, offset; an NBD error number */
	int (*io)(struct nbdsrv *s, u16 type, bool fua, void *buf, u32 len, u64 off);
	void *io_priv;
	/* what came */
	u64 reads, writes, flushes, trims, zeroes, fua;
	u32 pending;			/* reads and writes not answered */
	u64 overlaps;			/* of those that came while another one of these sectors was pending */
	/* own */
	pthread_mutex_t pending_lock;	/* pending, overlaps, range[] */
	struct {
		u64 off;
		u32 len;
	} range[NBDSRV_MAX_PENDING];
	pthread_mutex_t lock;		/* conn[]; held while nbdsrv_kill() waits for their threads */
	struct nbdsrv_conn {
		struct nbdsrv *s;
		int fd;
		pthread_t thread;
		bool running;
	} conn[NBDSRV_MAX_CONN];
	u32 replies;
	pthread_mutex_t stash_lock;	/* not lock: that one is held while connections end */
	struct nbdsrv_stashed *stashed, **stashed_end;
};

int nbdsrv_init(struct nbdsrv *s, const char *store_node, u64 mem_bytes);	/* node NULL: memory */
int nbdsrv_tcp_pair(int sv[2]);			/* a connection on the loopback */
int nbdsrv_connect(struct nbdsrv *s, bool tcp);	/* the client's end */
int nbdsrv_adopt(struct nbdsrv *s, int fd);	/* serves this socket, an established one; takes it over */
unsigned int nbdsrv_land(struct nbdsrv *s, bool drop);	/* what was stashed lands, or is dropped; how many writes */
void nbdsrv_cut(struct nbdsrv *s);		/* no reply goes out any more, no request comes in; waits for nothing */
void nbdsrv_kill(struct nbdsrv *s);		/* all connections at once; what was begun is finished */
int nbdsrv_cache(struct nbdsrv *s);		/* of memory: gives it a volatile write cache */
void nbdsrv_drop_cache(struct nbdsrv *s);	/* which is lost; after nbdsrv_kill() */
void nbdsrv_free(struct nbdsrv *s);
/* One more connection each, handed to the path; the client's ends are closed here. */
int nbdsrv_attach(struct nbdsrv *s, const char *dev, const char *path, unsigned int nconn, bool tcp);

#endif /* NBDSRV_H */
