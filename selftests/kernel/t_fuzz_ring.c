// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Rings and requests of a hostile guest, at random, against the loaded modules: valid requests with some of their fields changed, and
 * rings that change while they are served.
 *
 * Whatever is in a ring, the device may write nothing but the used ring and what a descriptor names as writable, and on its store
 * nothing beyond its own capacity. To be able to tell while descriptors are rewritten under the device, one field after the other, a
 * descriptor's slot decides what it may name:
 *
 *	even	addresses of the two writable stretches (W), or of nothing
 *	odd	addresses of the readable stretch (P), never with F_WRITE; in indirect tables it is the other way round
 *
 *	host addresses	guard | W1 | guard | W2 | guard | P: headers, data | guard
 *	guest addresses	        W1 W2 without a gap; behind W2, and around P, nothing
 *
 * Guards, P's data and in rounds without a rewriter also what no descriptor names of W1 and W2 hold a pattern that is looked at after
 * each round. The store is larger than the device (which was resized), the rest of it holds a pattern too.
 */
#include "fix.h"
#include "fuzz.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define STORE_MB	16
#define DEV_SECTORS	(12 * 2048ull)
#define STORE_SECTORS	(STORE_MB * 2048ull)
#define NUM		64u
#define NQ		3u	/* two are fuzzed, one is not */
#define TABLES		8u	/* indirect ones */
#define ENTRIES		32u
#define GAP		(64 * KiB)
#define STRETCH		(256 * KiB)
#define ARENA		(4 * GAP + 3 * STRETCH)
#define W_GPA		(256 * MiB)
#define P_GPA		(512 * MiB)
#define HDRS		256u	/* of 64 bytes each, at the beginning of P */
#define WAIT_MS		20000	/* for what must not take long on any machine */
#define LOAD_EVERY	16	/* rounds between two loads on the fuzzed queues */
#define CASE_SECONDS	6
#define MIN_ROUNDS	4
#define OTHER_IOPS	200	/* of the device that is not to be disturbed: leaves the processor to the others */

#define NEXT	VRING_DESC_F_NEXT
#define WRITE	VRING_DESC_F_WRITE
#define INDIR	VRING_DESC_F_INDIRECT

static u64 rnd, seed;
static u8 *arena, *golden;	/* as the device finds it; as it was filled */
static u8 *named;		/* a byte for each of W1 and W2 */
static u64 tables_gpa, record_gpa;
static struct vload other;
static bool other_runs;
static u64 rounds, broken, served;
static unsigned int hdrs;	/* of the headers, how many are used: few, so that those in use are rewritten often */

static u8 *at_w1, *at_w2, *at_p;

/* --- the guest's memory --- */

static void region(u64 gpa, u8 *hva)
{
	struct gmem *g = &F[0].mem;

	g->r[g->nr++] = (struct gmem_region){ .gpa = gpa, .size = STRETCH, .hva = (char *)hva, .fd = -1, .used = STRETCH };
}

static void make_arena(void)
{
	u64 x = 0x5eed, i;

	arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	golden = malloc(ARENA);
	named = malloc(2 * STRETCH);
	T_REQUIRE(arena != MAP_FAILED && golden && named, "memory");
	for (i = 0; i < ARENA / 8; i++)
		((u64 *)golden)[i] = rnd64(&x) | 1ull << 62;
	memcpy(arena, golden, ARENA);
	at_w1 = arena + GAP;
	at_w2 = at_w1 + STRETCH + GAP;
	at_p = at_w2 + STRETCH + GAP;
	region(W_GPA, at_w1);
	region(W_GPA + STRETCH, at_w2);
	region(P_GPA, at_p);
	T_REQUIRE(!vdev_set_mem(&F[0].d, &F[0].mem), "memory table: %s", strerror(errno));
}

static void drop_arena(void)
{
	if (arena)
		munmap(arena, ARENA);
	free(golden);
	free(named);
	arena = golden = named = NULL;
}

/* The first byte in [from, from + len) of the arena that is not as it was; it is mended. -1: none. */
static long differs(u64 from, u64 len, const u8 *not_named)
{
	u64 i;
	long found = -1;

	if (!memcmp(arena + from, golden + from, len))
		return -1;
	for (i = 0; i < len; i++) {
		if (arena[from + i] == golden[from + i])
			continue;
		if (found < 0 && !(not_named && not_named[i]))
			found = from + i;
		arena[from + i] = golden[from + i];
	}
	return found;
}

static void check_arena(bool racing)
{
	static const char *const what[] = { "before W1", "between W1 and W2", "between W2 and P", "behind P" };
	u64 hdr_bytes = HDRS * 64, from = 0;
	unsigned int i;
	long at;

	for (i = 0; i < 4; i++, from += GAP + STRETCH) {
		at = differs(from, GAP, NULL);
		T_CHECK(at < 0, "round %llu: byte %ld %s was written", (unsigned long long)rounds, at, what[i]);
	}
	at = differs(at_p - arena + hdr_bytes, STRETCH - hdr_bytes, NULL);
	T_CHECK(at < 0, "round %llu: byte %ld of readable data was written", (unsigned long long)rounds, at);
	for (i = 0; i < 2; i++) {
		if (racing)
			memset(named, 1, 2 * STRETCH);
		at = differs((i ? at_w2 : at_w1) - arena, STRETCH, named + i * STRETCH);
		T_CHECK(at < 0, "round %llu: byte %ld of W%u was written, no descriptor names it", (unsigned long long)rounds, at,
			i + 1);
	}
}

/* --- descriptors --- */

static struct vring_desc *table(unsigned int t)
{
	return (struct vring_desc *)gmem_ptr(&F[0].mem, tables_gpa) + t * ENTRIES;
}

static u32 some_len(u64 *r)
{
	static const u32 lens[] = {
		0, 1, 2, 15, 16, 17, 20, 31, 32, 48, 511, 512, 513, 1024, 4095, 4096, 4097, 8192, 65536, 131072, 1 << 17, 1 << 18, 1 << 19,
		0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff,
	};

	return fuzz_one_in(r, 4) ? 512u * fuzz_below(r, 64) : lens[fuzz_below(r, ARRAY_SIZE(lens))];
}

static u64 some_addr(u64 *r, bool w)
{
	u64 base = w ? W_GPA : P_GPA, len = w ? 2 * STRETCH : STRETCH;

	switch (fuzz_below(r, 12)) {
	case 0:
		return base + len - fuzz_below(r, 4096);	/* the end */
	case 1:
		return base + STRETCH - fuzz_below(r, 4096);	/* the seam */
	case 2:
		return base + len + fuzz_below(r, 4096);	/* behind it */
	case 3:
		return base - 1 - fuzz_below(r, 4096);		/* before it */
	case 4:
		return ~0ull - fuzz_below(r, 8192);		/* wraps */
	case 5:
		return (1ull << (32 + fuzz_below(r, 32))) | fuzz_below(r, 1 << 20);
	case 6:
		return base + fuzz_below(r, len);
	default:
		return base + 512 * fuzz_below(r, len / 512);
	}
}

static u64 hdr_gpa(unsigned int i)
{
	return P_GPA + 64 * i;
}

/*
 * A request's header, and at +16 a segment of DISCARD and WRITE_ZEROES. None of it, taken for a descriptor, is an address of the
 * guest's with F_WRITE.
 */
static void fill_header(u64 *r, unsigned int i)
{
	static const u32 types[] = { 0, 0, 0, 0, 1, 1, 1, 4, 8, 11, 13, 13, 14, 2, 16, 0x80000000, 0xffffffff };
	struct {
		struct virtio_blk_outhdr h;
		struct virtio_blk_discard_write_zeroes z;
	} *p = (void *)(at_p + 64 * i);
	u64 sector = fuzz_below(r, DEV_SECTORS);
	u32 n = fuzz_below(r, 64);

	switch (fuzz_below(r, 12)) {
	case 0:
		sector = DEV_SECTORS - fuzz_below(r, 130);
		break;
	case 1:
		sector = DEV_SECTORS + fuzz_below(r, STORE_SECTORS - DEV_SECTORS);
		break;
	case 2:
		sector = ~0ull - fuzz_below(r, 130);
		break;
	case 3:
		sector = 1ull << fuzz_below(r, 64);
		break;
	}
	if (fuzz_one_in(r, 6))
		n = fuzz_value(r);
	/* field by field: the device may be reading it */
	__atomic_store_n(&p->h.type, types[fuzz_below(r, ARRAY_SIZE(types))], __ATOMIC_RELAXED);
	__atomic_store_n(&p->h.ioprio, fuzz_one_in(r, 8) ? 1 + fuzz_below(r, 1000) : 0, __ATOMIC_RELAXED);
	__atomic_store_n(&p->h.sector, sector, __ATOMIC_RELAXED);
	__atomic_store_n(&p->z.sector, sector, __ATOMIC_RELAXED);
	__atomic_store_n(&p->z.num_sectors, n, __ATOMIC_RELAXED);
	__atomic_store_n(&p->z.flags, fuzz_one_in(r, 3) ? fuzz_below(r, 4) : 0, __ATOMIC_RELAXED);
}

/* One field of one descriptor of a table of @n; @w: its slot is one for W */
static void mutate_desc(u64 *r, struct vring_desc *d, bool w, unsigned int n)
{
	u16 flags;

	switch (fuzz_below(r, 6)) {
	case 0:
		__atomic_store_n(&d->addr, some_addr(r, w), __ATOMIC_RELAXED);
		break;
	case 1:
	case 2:
		__atomic_store_n(&d->len, some_len(r), __ATOMIC_RELAXED);
		break;
	case 3:
		flags = fuzz_one_in(r, 8) ? rnd64(r) : d->flags ^ 1u << fuzz_below(r, 3);
		__atomic_store_n(&d->flags, w ? flags : flags & ~WRITE, __ATOMIC_RELAXED);
		break;
	case 4:
		__atomic_store_n(&d->next, fuzz_one_in(r, 4) ? fuzz_value(r) : fuzz_below(r, n), __ATOMIC_RELAXED);
		break;
	case 5:
		fill_header(r, fuzz_below(r, hdrs));
		break;
	}
}

/* A chain of a valid request in slots of @d from *w and *p on; its head. */
static int chain(u64 *r, struct vring_desc *d, unsigned int n, unsigned int *w, unsigned int *p)
{
	unsigned int i = fuzz_below(r, hdrs), data = fuzz_below(r, 4), head = *p, at = head, k;
	struct virtio_blk_outhdr *h = (void *)(at_p + 64 * i);
	bool in;

	fill_header(r, i);
	in = h->type == VIRTIO_BLK_T_IN || h->type == VIRTIO_BLK_T_GET_ID;
	if (*p + 2 * (data + 1) >= n || *w + 2 * (data + 1) >= n)
		return -1;
	d[at] = (struct vring_desc){ .addr = hdr_gpa(i), .len = 16, .flags = NEXT };
	*p += 2;
	if (h->type == VIRTIO_BLK_T_DISCARD || h->type == VIRTIO_BLK_T_WRITE_ZEROES) {
		/* where its segment is */
		if (fuzz_one_in(r, 2)) {
			d[at].len = 32;
			data = 0;
		} else {
			data = 1;
		}
	} else if (h->type == VIRTIO_BLK_T_FLUSH) {
		data = 0;
	}
	for (k = 0; k < data; k++) {
		unsigned int *from = in ? w : p;
		u64 base = in ? W_GPA + fuzz_below(r, 2) * (STRETCH - 8192) : P_GPA + HDRS * 64;

		d[at].next = *from;
		at = *from;
		*from += 2;
		d[at] = (struct vring_desc){
			.addr = base + 512 * fuzz_below(r, 256), .len = 512 * (1 + fuzz_below(r, 48)),
			.flags = NEXT | (in ? WRITE : 0),
		};
		if (h->type == VIRTIO_BLK_T_GET_ID)
			d[at].len = 20;
		if (h->type == VIRTIO_BLK_T_DISCARD || h->type == VIRTIO_BLK_T_WRITE_ZEROES) {
			d[at].addr = hdr_gpa(i) + 16;
			d[at].len = 16;
		}
		/* not aligned */
		if (fuzz_one_in(r, 6))
			d[at].addr += fuzz_below(r, 511);
	}
	d[at].next = *w;
	at = *w;
	*w += 2;
	d[at] = (struct vring_desc){ .addr = W_GPA + fuzz_below(r, 2 * STRETCH), .len = 1, .flags = WRITE };
	return head;
}

/* Requests in the ring of an idle queue, all of them valid; how many heads. */
static unsigned int build(u64 *r, struct vq *q, u16 *heads)
{
	unsigned int w = 0, p = 1, n = 0, want = 1 + fuzz_below(r, 10), t = 0;

	memset(q->ring.desc, 0, 16 * q->num);
	memset(table(0), 0, 16 * TABLES * ENTRIES);
	while (n < want) {
		int head;

		if (t < TABLES && p < NUM && fuzz_one_in(r, 3)) {
			/* it begins with entry 0, the header's: here the even ones are P's */
			unsigned int tw = 1, tp = 0;

			chain(r, table(t), ENTRIES, &tw, &tp);
			head = p;
			p += 2;
			q->ring.desc[head] = (struct vring_desc){
				.addr = tables_gpa + 16 * ENTRIES * t, .len = 16 * ENTRIES, .flags = INDIR,
			};
			t++;
		} else {
			head = chain(r, q->ring.desc, NUM, &w, &p);
			if (head < 0)
				break;
		}
		heads[n++] = head;
	}
	return n;
}

static void mutate_some(u64 *r, struct vq *q)
{
	if (fuzz_one_in(r, 3)) {
		unsigned int t = fuzz_below(r, TABLES), i = fuzz_one_in(r, 2) ? fuzz_below(r, 6) : fuzz_below(r, ENTRIES);

		mutate_desc(r, table(t) + i, i % 2, ENTRIES);
	} else {
		unsigned int i = fuzz_below(r, fuzz_one_in(r, 2) ? 16 : NUM);

		mutate_desc(r, &q->ring.desc[i], i % 2 == 0, NUM);
	}
}

/* --- what the descriptors of a round name --- */

static void name_range(u64 addr, u64 len)
{
	if (addr < W_GPA || addr >= W_GPA + 2 * STRETCH)
		return;
	if (len > W_GPA + 2 * STRETCH - addr)
		len = W_GPA + 2 * STRETCH - addr;
	memset(named + (addr - W_GPA), 1, len);
}

static void name_all(const struct vq *q)
{
	unsigned int i;

	memset(named, 0, 2 * STRETCH);
	for (i = 0; i < NUM; i++)
		if (q->ring.desc[i].flags & WRITE)
			name_range(q->ring.desc[i].addr, q->ring.desc[i].len);
	for (i = 0; i < TABLES * ENTRIES; i++)
		if (table(0)[i].flags & WRITE)
			name_range(table(0)[i].addr, table(0)[i].len);
}

/* --- devices --- */

static void check_tail(void)
{
	u64 bytes = (STORE_SECTORS - DEV_SECTORS) * 512, i;
	u8 *buf;
	int r;

	T_REQUIRE(!posix_memalign((void **)&buf, 4096, bytes), "memory");
	r = stor_pread(fix_store, buf, bytes, DEV_SECTORS * 512);
	T_CHECK(!r, "read behind the device: %s", strerror(-r));
	for (i = 0; i < bytes / 512 && !r; i++)
		if (!T_CHECK(pat_ok(buf + 512 * i, seed, DEV_SECTORS + i, 1), "sector %llu, %llu behind the device's end, was written",
			     (unsigned long long)(DEV_SECTORS + i), (unsigned long long)i))
			break;
	free(buf);
}

static void make_tail(void)
{
	u64 bytes = (STORE_SECTORS - DEV_SECTORS) * 512, i;
	u8 *buf;
	int r;

	T_REQUIRE(!posix_memalign((void **)&buf, 4096, bytes), "memory");
	for (i = 0; i < bytes / 512; i++)
		pat_fill(buf + 512 * i, seed, DEV_SECTORS + i, 1);
	r = stor_pwrite(fix_store, buf, bytes, DEV_SECTORS * 512);
	free(buf);
	T_REQUIRE(!r, "write behind the device: %s", strerror(-r));
}

/* Until when the rounds go on */
static u64 begin(void)
{
	struct nullb_opts o = { .size_mb = 8, .memory_backed = true, .discard = true };
	struct vload_cfg c = { .depth = 4, .flush_pct = 3, .zero_pct = 3, .seed = seed, .mem_idx = -1 };
	char node[64];
	u64 i;
	int r;

	rounds = broken = served = 0;
	hdrs = HDRS;
	fix_store_make(STORE_MB, 512);
	make_tail();
	fix_create(0, fix_store, STORE_SECTORS, NQ);
	r = ctl_dev_ctl("kt-0", IOVM_DEV_RESIZE, NULL, DEV_SECTORS);
	T_REQUIRE(!r, "resize: %s: %s", strerror(-r), ctl_msg);
	fix_open_mem(0, ALL_FEATURES, NQ, NUM, 16 * MiB, 0);
	record_gpa = gmem_alloc(&F[0].mem, -1, VHOST_IOVM_INFLIGHT_BYTES(NUM), 8);
	/* a table that is said to be longer than it is finds zeroes behind it */
	tables_gpa = gmem_alloc(&F[0].mem, -1, 16 * TABLES * ENTRIES + 16 * 65536, 4096);
	T_REQUIRE(tables_gpa != GMEM_NONE, "no room in guest memory");
	make_arena();
	for (i = 0; i < HDRS; i++)
		fill_header(&rnd, i);

	r = nullb_create("iovmtother", &o, node);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	fix_create(1, node, 8 * 2048, 2);
	fix_open(1, ALL_FEATURES, 2, 64);
	T_REQUIRE(!ctl_dev_ctl("kt-1", IOVM_DEV_SET_IOPS, NULL, OTHER_IOPS), "limit");
	T_REQUIRE(!vload_start(&other, &F[1].d, &c), "load");
	other_runs = true;
	return now_ns() + fuzz_seconds(CASE_SECONDS) * 1000000000ull;
}

static void end(void)
{
	check_tail();
	T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 0), "a guest's ring failed the path");
	other_runs = false;
	vload_finish(&other, "the other device");
	ktap_note("%llu rounds, %llu completions, %llu times broken", (unsigned long long)rounds, (unsigned long long)served,
		  (unsigned long long)broken);
	T_CHECK(served, "nothing was served");
}

static void cleanup(void)
{
	if (other_runs) {
		other.abandon = true;
		vload_stop(&other);
		vload_free(&other);
		other_runs = false;
	}
	fix_cleanup();
	drop_arena();
}

/* Stops and starts a queue of which nothing is known but that it must be possible. */
static void anew(struct vq *q)
{
	int r = vq_stop(q);

	T_REQUIRE(!r, "round %llu: stop: %s", (unsigned long long)rounds, strerror(-r));
	vq_reset(q);
	broken += vq_err_signalled(q, 0);
	r = vq_start(q);
	T_REQUIRE(!r, "round %llu: start: %s", (unsigned long long)rounds, strerror(-r));
}

/* The queue that is not fuzzed */
static void look_at_neighbour(void)
{
	char id[VIRTIO_BLK_ID_BYTES];
	struct vblk_sync *s = &F[0].s;
	struct vq *q = &F[0].d.vqs[NQ - 1];
	int r;

	r = vblk_io(s, q, VIRTIO_BLK_T_GET_ID, 0, sizeof(id));
	T_CHECK(!r && !memcmp(gmem_ptr(&F[0].mem, s->data_gpa), "serial-0123456789abc", sizeof(id)),
		"round %llu: the neighbour's serial number: %d", (unsigned long long)rounds, r);
	r = vblk_io(s, q, VIRTIO_BLK_T_IN, 8, 4096);
	T_CHECK(r == 0, "round %llu: the neighbour: %d", (unsigned long long)rounds, r);
}

/* A load that verifies, on all queues, which are idle and as new. */
static void load(void)
{
	struct vload_cfg c = { .depth = 4, .flush_pct = 3, .zero_pct = 3, .seed = seed + rounds, .indirect = true, .max_ios = 96 };
	u64 used = F[0].mem.r[0].used;
	struct vload l;

	c.nr = DEV_SECTORS;
	T_REQUIRE(!vload_start(&l, &F[0].d, &c), "load");
	vload_wait(&l);
	vload_finish(&l, "the fuzzed device afterwards");
	F[0].mem.r[0].used = used;
}

/* After each round, with the fuzzed queues started anew */
static void look_at_all(bool racing)
{
	unsigned int i;

	check_arena(racing);
	for (i = 0; i < HDRS; i++)
		fill_header(&rnd, i);
	look_at_neighbour();
	for (i = 0; i < NQ - 1; i++) {
		int r = vblk_io(&F[0].s, &F[0].d.vqs[i], VIRTIO_BLK_T_IN, 0, 4096);

		T_CHECK(r == 0, "round %llu: queue %u afterwards: %d", (unsigned long long)rounds, i, r);
	}
	if (rounds % LOAD_EVERY == 0) {
		load();
		check_tail();
	}
}

/* --- cases --- */

/* What the device has made of a ring that nobody changes: wait for it, then see what it wrote */
static void serve(struct vq *q, const u16 *heads, unsigned int n, u16 idx)
{
	static u8 descs[16 * NUM], avails[6 + 2 * NUM], tabs[16 * TABLES * ENTRIES];
	u64 end = now_ns() + WAIT_MS * 1000000ull;
	unsigned int i, k, want[NUM] = {}, nused;
	bool is_broken = false;

	name_all(q);
	memcpy(descs, q->ring.desc, sizeof(descs));
	memcpy(tabs, table(0), sizeof(tabs));
	__atomic_store_n(&q->ring.avail->idx, idx, __ATOMIC_RELEASE);
	memcpy(avails, q->ring.avail, sizeof(avails));
	vq_kick(q);
	while (!is_broken && __atomic_load_n(&q->ring.used->idx, __ATOMIC_ACQUIRE) != idx && now_ns() < end)
		is_broken = vq_err_signalled(q, 1);
	if (!is_broken)
		T_REQUIRE(q->ring.used->idx == idx || vq_err_signalled(q, 0),
			  "round %llu: %u of %u requests in %u ms, and the ring is not said to be broken", (unsigned long long)rounds,
			  q->ring.used->idx, idx, WAIT_MS);
	broken += is_broken;
	T_REQUIRE(!vq_stop(q), "round %llu: stop", (unsigned long long)rounds);

	nused = q->ring.used->idx;
	served += nused;
	T_CHECK(!memcmp(descs, q->ring.desc, sizeof(descs)), "round %llu: the descriptors were written", (unsigned long long)rounds);
	T_CHECK(!memcmp(avails, q->ring.avail, sizeof(avails)), "round %llu: the available ring was written",
		(unsigned long long)rounds);
	T_CHECK(!memcmp(tabs, table(0), sizeof(tabs)), "round %llu: an indirect table was written", (unsigned long long)rounds);
	/* each head at most as often as it was made available */
	for (i = 0; i < n; i++)
		want[heads[i] % NUM]++;
	if (T_CHECK(nused <= n, "round %llu: %u completions of %u requests", (unsigned long long)rounds, nused, n)) {
		for (i = 0; i < nused; i++) {
			k = q->ring.used->ring[i].id;
			if (!T_CHECK(k < NUM && want[k], "round %llu: head %u was completed once too often",
				     (unsigned long long)rounds, k))
				break;
			want[k]--;
		}
	}
	T_CHECK(q->base >= nused && q->base <= (u16)(nused + 1), "round %llu: base %u after %u completions",
		(unsigned long long)rounds, q->base, nused);
}

/* A ring is filled, handed over, and left alone. */
static void still(void)
{
	u64 until;

	until = begin();
	for (; (now_ns() < until || rounds < MIN_ROUNDS) && !ktap_failed(); rounds++) {
		struct vq *q = &F[0].d.vqs[fuzz_below(&rnd, NQ - 1)];
		unsigned int n, m, i;
		u16 heads[NUM], idx;

		T_REQUIRE(!vq_stop(q), "stop");
		vq_reset(q);
		n = build(&rnd, q, heads);
		for (m = fuzz_below(&rnd, 6); m; m--)
			mutate_some(&rnd, q);
		for (i = 0; i < n; i++) {
			if (fuzz_one_in(&rnd, 40))
				heads[i] = fuzz_one_in(&rnd, 4) ? fuzz_value(&rnd) : fuzz_below(&rnd, NUM);
			q->ring.avail->ring[i] = heads[i];
		}
		idx = n;
		if (fuzz_one_in(&rnd, 30)) {
			/* more than were filled in: the rest is head 0, again and again, or too many */
			idx = fuzz_one_in(&rnd, 2) ? fuzz_value(&rnd) : fuzz_below(&rnd, NUM);
			for (; n < idx && n < NUM; n++)
				heads[n] = q->ring.avail->ring[n] = fuzz_below(&rnd, NUM);
			if (idx && idx < n)
				n = idx;
		}
		if (fuzz_one_in(&rnd, 2))
			vring_used_event(&q->ring) = rnd64(&rnd);
		T_REQUIRE(!vq_start(q), "start");
		serve(q, heads, n, idx);
		vq_reset(q);
		vq_err_signalled(q, 0);
		T_REQUIRE(!vq_start(q), "round %llu: start afterwards", (unsigned long long)rounds);
		look_at_all(false);
	}
	end();
}

struct racer {
	pthread_t thread;
	struct vq *q;
	u64 rnd;
	bool stop;
};

/* Rewrites everything there is while the device works on it. */
static void *race(void *arg)
{
	struct racer *c = arg;
	struct vq *q = c->q;
	u64 *r = &c->rnd;

	while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
		u16 idx = __atomic_load_n(&q->ring.avail->idx, __ATOMIC_RELAXED);

		switch (fuzz_below(r, 8)) {
		case 0:
			/* one more, or a few, or a jump */
			if (fuzz_one_in(r, 400))
				idx = fuzz_value(r);
			else
				idx = __atomic_load_n(&q->ring.used->idx, __ATOMIC_RELAXED) + fuzz_below(r, NUM);
			__atomic_store_n(&q->ring.avail->idx, idx, __ATOMIC_RELEASE);
			vq_kick(q);
			break;
		case 1:
			__atomic_store_n(&q->ring.avail->ring[fuzz_below(r, NUM)],
					 fuzz_one_in(r, 200) ? fuzz_value(r) : fuzz_below(r, NUM), __ATOMIC_RELAXED);
			break;
		case 2:
			__atomic_store_n(&vring_used_event(&q->ring), (u16)rnd64(r), __ATOMIC_RELAXED);
			if (fuzz_one_in(r, 8))
				__atomic_store_n(&q->ring.avail->flags, (u16)rnd64(r), __ATOMIC_RELAXED);
			break;
		case 3:
			/* the device's own part: only it shall be confused by that */
			if (fuzz_one_in(r, 50))
				__atomic_store_n(&q->ring.used->ring[fuzz_below(r, NUM)].id, (u32)rnd64(r), __ATOMIC_RELAXED);
			break;
		case 4:
		case 5:
			fill_header(r, fuzz_below(r, hdrs));
			break;
		default:
			mutate_some(r, q);
		}
		if (fuzz_one_in(r, 64))
			sched_yield();
	}
	return NULL;
}

/* W2 goes and comes while requests name it. */
static void replug(bool there)
{
	struct gmem g = F[0].mem;

	if (!there) {
		g.r[2] = g.r[3];
		g.nr--;
	}
	T_CHECK(!vdev_set_mem(&F[0].d, &g), "round %llu: memory table", (unsigned long long)rounds);
}

static void racing(void)
{
	u64 until;

	until = begin();
	hdrs = 8;
	for (; (now_ns() < until || rounds < MIN_ROUNDS) && !ktap_failed(); rounds++) {
		struct racer c[NQ - 1] = {};
		unsigned int i, k, turns = 2 + fuzz_below(&rnd, 6);

		for (i = 0; i < NQ - 1; i++) {
			struct vq *q = &F[0].d.vqs[i];
			u16 heads[NUM];

			T_REQUIRE(!vq_stop(q), "stop");
			vq_reset(q);
			/* the tables are those of the queue that was built last: the others' heads lead there too */
			k = build(&rnd, q, heads);
			while (k--)
				q->ring.avail->ring[k] = heads[k];
			T_REQUIRE(!vq_start(q), "start");
			c[i].q = q;
			c[i].rnd = rnd64(&rnd);
			T_REQUIRE(!pthread_create(&c[i].thread, NULL, race, &c[i]), "thread");
		}
		for (k = 0; k < turns; k++) {
			struct vq *q = &F[0].d.vqs[fuzz_below(&rnd, NQ - 1)];

			look_at_neighbour();
			switch (fuzz_below(&rnd, 4)) {
			case 0:
				replug(false);
				sleep_ms(fuzz_below(&rnd, 4));
				replug(true);
				break;
			case 1:
				F[0].d.tp->set_fd(&F[0].d, VDEV_CALL, q->idx, fuzz_one_in(&rnd, 2) ? -1 : q->call);
				break;
			default:
				sleep_ms(fuzz_below(&rnd, 4));
			}
			/* a broken one goes on with what is there now */
			if (vq_err_signalled(q, 0) || fuzz_one_in(&rnd, 3)) {
				broken++;
				T_CHECK(!vq_stop(q), "round %llu: stop", (unsigned long long)rounds);
				served += q->base;
				T_CHECK(!vq_start(q), "round %llu: start", (unsigned long long)rounds);
			}
		}
		for (i = 0; i < NQ - 1; i++)
			__atomic_store_n(&c[i].stop, true, __ATOMIC_RELAXED);
		for (i = 0; i < NQ - 1; i++) {
			pthread_join(c[i].thread, NULL);
			anew(c[i].q);
		}
		look_at_all(true);
	}
	end();
}

/* An in-flight record that a dead front end, or somebody else, left */
static void fill_record(struct vhost_iovm_inflight_record *rec)
{
	unsigned int i, n = fuzz_below(&rnd, 16);

	memset(rec, 0, VHOST_IOVM_INFLIGHT_BYTES(NUM));
	rec->version = 1;
	rec->desc_num = NUM;
	for (i = 0; i < n; i++) {
		struct vhost_iovm_inflight_desc *d = &rec->desc[fuzz_below(&rnd, NUM)];

		d->inflight = 1;
		d->counter = i;
		d->next = fuzz_below(&rnd, NUM);
	}
	if (fuzz_one_in(&rnd, 2))
		fuzz_mutate(&rnd, rec, VHOST_IOVM_INFLIGHT_BYTES(fuzz_one_in(&rnd, 2) ? 2 : NUM));
}

static void record(void)
{
	static const int fine[] = { 0, -EINVAL, -EOPNOTSUPP, -ERANGE, -EEXIST, -EOVERFLOW };
	u64 until, refused = 0;

	until = begin();
	for (; (now_ns() < until || rounds < MIN_ROUNDS) && !ktap_failed(); rounds++) {
		struct vhost_iovm_inflight a = {
			.desc_num = NUM, .addr = (uintptr_t)gmem_ptr(&F[0].mem, record_gpa),
			.size = VHOST_IOVM_INFLIGHT_BYTES(NUM),
		};
		struct vq *q = &F[0].d.vqs[fuzz_below(&rnd, NQ - 1)];
		struct vhost_iovm_inflight_record *rec = gmem_ptr(&F[0].mem, record_gpa);
		unsigned int i, k;
		u16 heads[NUM];
		int r;

		a.index = q->idx;
		T_REQUIRE(!vq_stop(q), "stop");
		vq_reset(q);
		k = build(&rnd, q, heads);
		q->ring.avail->idx = k;
		while (k--)
			q->ring.avail->ring[k] = heads[k];
		fill_record(rec);
		T_REQUIRE(!ioctl(F[0].d.fd, VHOST_IOVM_SET_INFLIGHT, &a), "record: %s", strerror(errno));
		r = vq_start(q);
		for (i = 0; i < ARRAY_SIZE(fine) && r != fine[i]; i++)
			;
		T_CHECK(i < ARRAY_SIZE(fine), "round %llu: start: %s", (unsigned long long)rounds, strerror(-r));
		refused += r < 0;
		if (!r) {
			/* and somebody writes into it */
			u64 end = now_ns() + (1 + fuzz_below(&rnd, 10)) * 1000000ull;

			while (now_ns() < end) {
				fuzz_mutate(&rnd, rec, VHOST_IOVM_INFLIGHT_BYTES(NUM));
				vq_kick(q);
			}
			r = vq_stop(q);
			T_REQUIRE(!r, "round %llu: stop: %s", (unsigned long long)rounds, strerror(-r));
			served += q->base;
		}
		a.addr = 0;
		T_REQUIRE(!ioctl(F[0].d.fd, VHOST_IOVM_SET_INFLIGHT, &a), "no record: %s", strerror(errno));
		vq_reset(q);
		broken += vq_err_signalled(q, 0);
		T_REQUIRE(!vq_start(q), "round %llu: start without the record", (unsigned long long)rounds);
		look_at_all(true);
	}
	ktap_note("%llu records refused", (unsigned long long)refused);
	end();
}

static struct ktap_case cases[] = {
	{ "still", still },
	{ "racing", racing },
	{ "record", record },
};

static const char *setup(void)
{
	seed = rnd = fuzz_seed();
	return ctl_setup();
}

int main(int argc, char **argv)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++)
		cases[i].limit_s = 240 + fuzz_seconds(CASE_SECONDS);
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), setup, NULL);
}
