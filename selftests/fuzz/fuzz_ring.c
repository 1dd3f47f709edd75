// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest puts anything into its ring: no byte of it may lead the walk out of its buffers, or make it hang.
 *
 * Input: ring size exponent, base, then the descriptor table, the available ring and "guest memory" for indirect tables.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "../../vhost_iovm/ring.c"

struct memory {
	const uint8_t *data;
	size_t size;
};

static int fetch(void *ctx, void *to, u64 gpa, u32 len)
{
	const struct memory *m = ctx;

	if (gpa > m->size || len > m->size - gpa)
		return -EFAULT;
	memcpy(to, m->data + gpa, len);
	return 0;
}

static void *take(const uint8_t **data, size_t *size, size_t want)
{
	size_t n = *size < want ? *size : want;
	uint8_t *p = calloc(1, want);

	memcpy(p, *data, n);
	*data += n;
	*size -= n;
	return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct viovm_seg segs[VIOVM_MAX_CHAIN];
	static struct vring_desc table[VIOVM_MAX_CHAIN];
	struct viovm_ring r;
	struct memory m;
	unsigned int num, turns;
	u16 base, head;

	if (size < 4)
		return 0;
	num = 1u << (data[0] % 11);
	base = data[1] | data[2] << 8;
	memset(&r, 0, sizeof(r));
	r.event_idx = data[3] & 1;
	data += 4;
	size -= 4;
	r.desc = take(&data, &size, viovm_ring_desc_bytes(num));
	r.avail = take(&data, &size, viovm_ring_avail_bytes(num));
	r.used = take(&data, &size, viovm_ring_used_bytes(num));
	m.data = data;
	m.size = size;
	assert(!viovm_ring_init(&r, num, base, r.event_idx));

	for (turns = 0; turns < 2 * num && viovm_ring_peek(&r, &head) == 1; turns++) {
		struct viovm_chain c = {
			.segs = segs, .max = VIOVM_MAX_CHAIN, .table = table, .fetch = fetch, .ctx = &m,
		};
		u32 i;

		assert(head < num);
		viovm_ring_take(&r);
		if (!viovm_ring_walk(&r, head, &c)) {
			assert(c.nr && c.nr <= VIOVM_MAX_CHAIN && c.nr_out <= c.nr);
			for (i = 0; i < c.nr; i++) {
				assert(segs[i].len);
				assert(segs[i].write == (i >= c.nr_out));
				assert(segs[i].gpa + segs[i].len - 1 >= segs[i].gpa);
			}
		}
		viovm_ring_push(&r, head, 1);
		viovm_ring_should_signal(&r);
	}
	/* a ring of num entries holds no more than that without new input */
	assert(turns <= num);
	viovm_ring_kick_off(&r);
	viovm_ring_kick_on(&r);
	free(r.desc);
	free(r.avail);
	free(r.used);
	return 0;
}
