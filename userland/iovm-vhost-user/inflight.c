// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The in-flight record: which requests the device has taken and not completed. The kernel keeps it, in a file that is
 * made here, that the front end holds on to, and that it hands to our successor when we die.
 *
 *	GET_INFLIGHT_FD		a new one, of zeroes
 *	SET_INFLIGHT_FD		the one to use, new or not: mapped, and told to the kernel as each queue starts
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vhost_iovm.h"
#include "vu.h"

#define PIECE_ALIGN	64u	/* of a queue's piece: no two queues share a cache line */

static uint64_t piece_size(uint32_t entries)
{
	return (VHOST_IOVM_INFLIGHT_BYTES(entries) + PIECE_ALIGN - 1) / PIECE_ALIGN * PIECE_ALIGN;
}

/*
 * The queue size that a front end names is not that of its rings: QEMU 10 names 128 and starts rings of 256. So what we
 * make has room for any ring; what another back end made has the size that was named.
 */
static uint32_t entries(const struct vu_wire_inflight *w)
{
	return w->size >= w->nr_queues * piece_size(VU_MAX_RING) ? VU_MAX_RING : w->queue_size;
}

static int check_size(struct vu_session *s, const char *what, const struct vu_wire_inflight *w)
{
	if (!w->nr_queues || w->nr_queues > s->nr_queues || !w->queue_size || w->queue_size > VU_MAX_RING)
		return vu_fail(s, -EINVAL, "%s for %u queues of %u (at most %u of %u)", what, w->nr_queues, w->queue_size,
			       s->nr_queues, VU_MAX_RING);
	return 0;
}

/* A new record for the queues in @w, whose size is filled in; *@fd is the caller's. */
int vu_inflight_make(struct vu_session *s, struct vu_wire_inflight *w, int *fd)
{
	int ret = check_size(s, "GET_INFLIGHT_FD", w);

	if (ret)
		return ret;
	w->size = piece_size(VU_MAX_RING) * w->nr_queues;
	w->offset = 0;
	w->pad = 0;
	*fd = memfd_create("iovm-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0)
		return vu_fail(s, -errno, "in-flight record: memfd_create: %s", strerror(errno));
	if (ftruncate(*fd, w->size) || fcntl(*fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)) {
		ret = vu_fail(s, -errno, "in-flight record of 0x%" PRIx64 " bytes: %s", w->size, strerror(errno));
		close(*fd);
		*fd = -1;
	}
	return ret;
}

/* Use the record in @fd, which stays the caller's. */
int vu_inflight_set(struct vu_session *s, const struct vu_wire_inflight *w, int fd)
{
	struct vu_inflight new = { .nr_queues = w->nr_queues, .entries = entries(w) };
	int ret = check_size(s, "SET_INFLIGHT_FD", w);

	if (ret)
		return ret;
	if (vu_any_running(s))
		return vu_fail(s, -EBUSY, "SET_INFLIGHT_FD while a queue runs");
	if (w->offset % PIECE_ALIGN || w->size < piece_size(new.entries) * new.nr_queues)
		return vu_fail(s, -EINVAL, "SET_INFLIGHT_FD with 0x%" PRIx64 " bytes at 0x%" PRIx64 " for %u queues of %u",
			       w->size, w->offset, w->nr_queues, w->queue_size);
	ret = vu_map_file(s, "in-flight record", fd, w->offset, w->size, &new.map, &new.map_len, &new.hva);
	if (ret)
		return ret;
	vu_inflight_end(s);
	s->inflight = new;
	vu_trace("in-flight record of %u queues of %u", new.nr_queues, new.entries);
	return 0;
}

/* Tell the kernel of queue @i's piece, before it starts. */
int vu_inflight_tell(struct vu_session *s, uint32_t i)
{
	const struct vu_inflight *f = &s->inflight;
	uint64_t size = piece_size(f->entries);

	if (!f->map)
		return 0;
	if (i >= f->nr_queues)
		return vuk_set_inflight(s->node, i, 0, 0, 0);
	return vuk_set_inflight(s->node, i, f->entries, f->hva + i * size, size);
}

/* No queue runs, or the kernel has pinned what it uses. */
void vu_inflight_end(struct vu_session *s)
{
	if (s->inflight.map)
		munmap(s->inflight.map, s->inflight.map_len);
	s->inflight = (struct vu_inflight){ 0 };
}
