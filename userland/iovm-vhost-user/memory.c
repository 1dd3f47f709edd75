// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Guest memory and the dirty log. They are mapped here only to give the kernel addresses to work with.
 *
 * A region that stays in a new table keeps its mapping: requests that wait in the kernel remember addresses. The kernel
 * never has an address that is not mapped: a region is mapped before the kernel hears of it, and unmapped after the
 * kernel forgot it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "vu.h"

#define HUGETLBFS	0x958458f6
#define LOG_PAGE	4096ull		/* one bit of the log */
#define F_LOG_ALL	(1ull << 26)	/* VHOST_F_LOG_ALL */

static uint64_t file_page_size(int fd)
{
	struct statfs fs;

	if (!fstatfs(fd, &fs) && (uint32_t)fs.f_type == HUGETLBFS && fs.f_bsize > 0)
		return fs.f_bsize;
	return sysconf(_SC_PAGESIZE);
}

/* Map [offset, offset + size) of a file; *hva is where its first byte lies. The caller keeps the fd. */
int vu_map_file(struct vu_session *s, const char *what, int fd, uint64_t offset, uint64_t size, void **map,
		size_t *map_len, uint64_t *hva)
{
	uint64_t page, start, end;
	struct stat st;
	void *p;

	if (!size || offset + size < offset || offset + size > INT64_MAX / 2)
		return vu_fail(s, -EINVAL, "%s: offset 0x%" PRIx64 " and size 0x%" PRIx64 " are no range of a file",
			       what, offset, size);
	if (fstat(fd, &st))
		return vu_fail(s, -errno, "%s: fstat: %s", what, strerror(errno));
	if (S_ISREG(st.st_mode) && offset + size > (uint64_t)st.st_size)
		return vu_fail(s, -EINVAL, "%s: 0x%" PRIx64 " bytes at 0x%" PRIx64 " lie beyond the file's end (0x%" PRIx64 ")",
			       what, size, offset, (uint64_t)st.st_size);
	page = file_page_size(fd);
	start = offset / page * page;
	end = (offset + size + page - 1) / page * page;
	p = mmap(NULL, end - start, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, start);
	if (p == MAP_FAILED)
		return vu_fail(s, -errno, "%s: mmap of 0x%" PRIx64 " bytes at 0x%" PRIx64 ": %s", what, end - start,
			       start, strerror(errno));
	madvise(p, end - start, MADV_DONTDUMP);	/* no guest memory in a core file of ours */
	*map = p;
	*map_len = end - start;
	*hva = (uint64_t)(uintptr_t)p + (offset - start);
	return 0;
}

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

/* Whether a region may join @mem; nothing is mapped yet. */
static int check_region(struct vu_session *s, const struct vu_memory *mem, const struct vu_wire_region *w)
{
	uint32_t i;

	if (!w->size || w->gpa + w->size < w->gpa || w->uva + w->size < w->uva)
		return vu_fail(s, -EINVAL, "memory region 0x%" PRIx64 " at 0x%" PRIx64 " (0x%" PRIx64 ") is empty or wraps",
			       w->size, w->gpa, w->uva);
	if (mem->nr == VU_MAX_REGIONS)
		return vu_fail(s, -E2BIG, "more than %d memory regions", VU_MAX_REGIONS);
	for (i = 0; i < mem->nr; i++) {
		const struct vu_region *r = &mem->r[i];

		if (overlap(w->gpa, w->size, r->gpa, r->size) || overlap(w->uva, w->size, r->uva, r->size))
			return vu_fail(s, -EEXIST, "memory region 0x%" PRIx64 " at 0x%" PRIx64 " (0x%" PRIx64
				       ") overlaps 0x%" PRIx64 " at 0x%" PRIx64 " (0x%" PRIx64 ")",
				       w->size, w->gpa, w->uva, r->size, r->gpa, r->uva);
	}
	return 0;
}

static bool same_region(const struct vu_region *r, const struct vu_wire_region *w, const struct stat *st)
{
	return r->gpa == w->gpa && r->size == w->size && r->uva == w->uva && r->offset == w->offset &&
	       r->dev == st->st_dev && r->ino == st->st_ino;
}

static bool has_mapping(const struct vu_memory *mem, const void *map)
{
	uint32_t i;

	for (i = 0; i < mem->nr; i++) {
		if (mem->r[i].map == map)
			return true;
	}
	return false;
}

/* Unmap what @mem has and @keep has not. */
static void unmap_except(const struct vu_memory *mem, const struct vu_memory *keep)
{
	uint32_t i;

	for (i = 0; i < mem->nr; i++) {
		if (!has_mapping(keep, mem->r[i].map))
			munmap(mem->r[i].map, mem->r[i].map_len);
	}
}

/* Append a region to @mem: as it is mapped already in s->mem, or mapped anew. */
static int append(struct vu_session *s, struct vu_memory *mem, const struct vu_wire_region *w, int fd)
{
	struct vu_region *r = &mem->r[mem->nr];
	struct stat st;
	uint32_t i;
	int ret;

	ret = check_region(s, mem, w);
	if (ret)
		return ret;
	if (fstat(fd, &st))
		return vu_fail(s, -errno, "memory region: fstat: %s", strerror(errno));
	for (i = 0; i < s->mem.nr; i++) {
		if (same_region(&s->mem.r[i], w, &st)) {
			*r = s->mem.r[i];
			mem->nr++;
			return 0;
		}
	}
	*r = (struct vu_region){
		.gpa = w->gpa, .size = w->size, .uva = w->uva, .offset = w->offset,
		.dev = st.st_dev, .ino = st.st_ino,
	};
	ret = vu_map_file(s, "memory region", fd, w->offset, w->size, &r->map, &r->map_len, &r->hva);
	if (!ret)
		mem->nr++;
	return ret;
}

/* Make @mem the table, or leave things as they are and undo what @mem mapped. */
static int commit(struct vu_session *s, struct vu_memory *mem, int ret)
{
	if (!ret)
		ret = vu_log_check(s, s->features, mem, &s->log);
	if (!ret) {
		ret = vuk_set_mem_table(s->node, mem);
		if (ret)
			vu_fail(s, ret, "VHOST_SET_MEM_TABLE with %u regions: %s", mem->nr, strerror(-ret));
	}
	if (ret) {
		unmap_except(mem, &s->mem);
	} else {
		unmap_except(&s->mem, mem);
		s->mem = *mem;
		vu_trace("memory table of %u regions", mem->nr);
	}
	free(mem);
	return ret;
}

int vu_mem_set(struct vu_session *s, const struct vu_wire_region *w, uint32_t nr, struct vu_msg *msg)
{
	struct vu_memory *mem = calloc(1, sizeof(*mem));
	uint32_t i;
	int ret = 0;

	if (!mem)
		return vu_fail(s, -ENOMEM, "out of memory");
	for (i = 0; i < nr && !ret; i++) {
		int fd = vu_msg_take_fd(msg);

		ret = append(s, mem, &w[i], fd);
		close(fd);
	}
	return commit(s, mem, ret);
}

int vu_mem_add(struct vu_session *s, const struct vu_wire_region *w, int fd)
{
	struct vu_memory *mem = malloc(sizeof(*mem));
	int ret;

	if (!mem)
		return vu_fail(s, -ENOMEM, "out of memory");
	*mem = s->mem;
	ret = append(s, mem, w, fd);
	return commit(s, mem, ret);
}

/* The file offset need not match: the protocol identifies a region by its addresses and size. */
int vu_mem_remove(struct vu_session *s, const struct vu_wire_region *w)
{
	struct vu_memory *mem;
	uint32_t i;

	for (i = 0; i < s->mem.nr; i++) {
		const struct vu_region *r = &s->mem.r[i];

		if (r->gpa == w->gpa && r->size == w->size && r->uva == w->uva)
			break;
	}
	if (i == s->mem.nr)
		return vu_fail(s, -ENOENT, "no memory region 0x%" PRIx64 " at 0x%" PRIx64 " (0x%" PRIx64 ") to remove",
			       w->size, w->gpa, w->uva);
	mem = malloc(sizeof(*mem));
	if (!mem)
		return vu_fail(s, -ENOMEM, "out of memory");
	*mem = s->mem;
	mem->nr--;
	memmove(&mem->r[i], &mem->r[i + 1], (mem->nr - i) * sizeof(mem->r[0]));
	return commit(s, mem, 0);
}

/* A front end's address to ours; the range must lie in one region. */
int vu_mem_translate(const struct vu_memory *mem, uint64_t uva, uint64_t len, uint64_t *hva)
{
	uint32_t i;

	for (i = 0; i < mem->nr; i++) {
		const struct vu_region *r = &mem->r[i];

		if (uva >= r->uva && uva - r->uva < r->size && len <= r->size - (uva - r->uva)) {
			*hva = r->hva + (uva - r->uva);
			return 0;
		}
	}
	return -EFAULT;
}

static void log_unmap(struct vu_dirty_log *log)
{
	if (log->map)
		munmap(log->map, log->map_len);
	*log = (struct vu_dirty_log){ 0 };
}

void vu_mem_destroy(struct vu_session *s)
{
	static const struct vu_memory none;

	unmap_except(&s->mem, &none);
	s->mem.nr = 0;
	log_unmap(&s->log);
}

/*
 * The kernel does not know how long the log is: it follows from the memory table. So a log that is too short would
 * have it write into whatever is mapped behind; this is what keeps that from happening. It matters only
 * while queues run and are logged, and when one is about to (@features is what will hold then).
 */
int vu_log_check(struct vu_session *s, uint64_t features, const struct vu_memory *mem, const struct vu_dirty_log *log)
{
	uint64_t top = 0;
	uint32_t i;
	int ret;

	if (!(features & F_LOG_ALL) || !vu_any_running(s))
		return 0;
	if (!log->map)
		return vu_fail(s, -EINVAL, "VHOST_F_LOG_ALL without a log (SET_LOG_BASE)");
	for (i = 0; i < mem->nr; i++) {
		if (mem->r[i].gpa + mem->r[i].size > top)
			top = mem->r[i].gpa + mem->r[i].size;
	}
	if (top && (top - 1) / LOG_PAGE / 8 >= log->size)
		return vu_fail(s, -ENOSPC, "the log has 0x%" PRIx64 " bytes, too few for guest memory up to 0x%" PRIx64,
			       log->size, top);
	for (i = 0; i < s->nr_queues; i++) {
		if (!s->ring[i].running)
			continue;
		ret = vu_log_check_ring(s, i, &s->ring[i].addr, log);
		if (ret)
			return ret;
	}
	return 0;
}

/* The used ring's writes are logged at an address that the front end chose. */
int vu_log_check_ring(struct vu_session *s, uint32_t i, const struct vu_wire_addr *a, const struct vu_dirty_log *log)
{
	uint64_t len = 6 + 8ull * s->ring[i].num;

	if (!(a->flags & VU_ADDR_F_LOG) || !log->map)
		return 0;
	if (a->log + len < a->log || (a->log + len - 1) / LOG_PAGE / 8 >= log->size)
		return vu_fail(s, -EINVAL, "queue %u: log address 0x%" PRIx64 " is beyond the log", i, a->log);
	return 0;
}

int vu_log_set(struct vu_session *s, const struct vu_wire_log *w, int fd)
{
	struct vu_dirty_log log = { .size = w->size }, old = s->log;
	int ret;

	ret = vu_map_file(s, "log", fd, w->offset, w->size, &log.map, &log.map_len, &log.hva);
	if (ret)
		return ret;
	ret = vu_log_check(s, s->features, &s->mem, &log);
	if (!ret) {
		ret = vuk_set_log_base(s->node, log.hva);
		if (ret)
			vu_fail(s, ret, "VHOST_SET_LOG_BASE: %s", strerror(-ret));
	}
	if (ret) {
		log_unmap(&log);
		return ret;
	}
	s->log = log;
	log_unmap(&old);
	vu_trace("log of 0x%" PRIx64 " bytes", w->size);
	return 0;
}
