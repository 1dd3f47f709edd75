// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Anything in the in-flight record, which the VMM shares, and in the ring, which the guest does: it is refused, or a
 * bounded number of heads of this ring comes out, in order, and what is served from there on stays within both.
 */
#include <stdlib.h>
#include <string.h>

#include "../unit/ring_user.h"
#include "../../vhost_iovm/ring.c"
#include "../../vhost_iovm/inflight.c"

#define MAX 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint16_t used[3 + 4 * MAX + 1];
	struct vhost_iovm_inflight_record *rec;
	struct viovm_inflight_item items[MAX];
	struct viovm_inflight f = { 0 };
	struct viovm_ring r = { 0 };
	bool out[MAX] = { 0 };
	u16 avail[3 + MAX] = { 0 }, num, desc_num, nr, head;
	size_t len;
	int ret;

	if (size < 8)
		return 0;
	num = 1 << data[0] % 5;
	desc_num = data[1] % (2 * MAX) + 1;
	memcpy(&used[1], data + 2, 2);
	memcpy(&avail[1], data + 4, 2);
	len = VHOST_IOVM_INFLIGHT_BYTES(desc_num);
	rec = calloc(1, len);	/* what it has room for and no more: the sanitizer looks on */
	memcpy(rec, data + 8, size - 8 < len ? size - 8 : len);
	if (data[6] & 1) {
		rec->features = 0;
		rec->version = 1;
		rec->desc_num = desc_num;
	}
	r.used = (void *)used;
	r.avail = (void *)avail;
	viovm_ring_init(&r, num, avail[1], false);
	ret = viovm_inflight_start(&f, rec, desc_num, &r, items, &nr);
	if (ret < 0 && ret != -ESTALE && f.record)
		abort();
	if (nr > num || (ret <= 0 && nr))
		abort();
	for (u16 i = 0; i < nr; i++) {
		if (items[i].head >= num || out[items[i].head] || (i && items[i - 1].counter <= items[i].counter))
			abort();
		out[items[i].head] = true;
	}
	if (ret >= 0) {
		while (nr)
			viovm_inflight_push(&f, &r, items[--nr].head, 0);
		for (int i = 0; i < MAX && viovm_ring_peek(&r, &head) == 1; i++) {
			viovm_ring_take(&r);
			viovm_inflight_take(&f, head);
			viovm_inflight_push(&f, &r, head, 0);
		}
		/* all came back: a successor finds nothing */
		if (viovm_inflight_start(&f, rec, desc_num, &r, items, &nr) < 0 || nr)
			abort();
	}
	free(rec);
	return 0;
}
