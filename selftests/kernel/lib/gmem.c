// SPDX-License-Identifier: GPL-2.0-or-later
/* Guest memory: see vdrv.h. */
#include "vdrv.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int add_mapped(struct gmem *g, u64 gpa, u64 size, void *p, int fd)
{
	struct gmem_region *r = &g->r[g->nr];

	r->gpa = gpa;
	r->size = size;
	r->hva = p;
	r->fd = fd;
	r->used = 0;
	return g->nr++;
}

int gmem_add(struct gmem *g, u64 gpa, u64 size, enum gmem_kind kind)
{
	int fd = -1, prot = PROT_READ | PROT_WRITE;
	void *p;

	if (g->nr == GMEM_MAX_REGIONS)
		return -ENOSPC;
	if (kind == GMEM_MEMFD || kind == GMEM_HUGE) {
		fd = memfd_create("guest", MFD_CLOEXEC | (kind == GMEM_HUGE ? MFD_HUGETLB : 0));
		if (fd < 0)
			return -errno;
		if (ftruncate(fd, size)) {
			int err = -errno;

			close(fd);
			return err;
		}
	}
	if (kind == GMEM_RDONLY)
		prot = PROT_READ;
	p = mmap(NULL, size, prot, fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
	if (p == MAP_FAILED) {
		int err = -errno;

		if (fd >= 0)
			close(fd);
		return err;
	}
	return add_mapped(g, gpa, size, p, fd);
}

int gmem_add_file(struct gmem *g, u64 gpa, u64 size, const char *path)
{
	int fd, err;
	void *p;

	if (g->nr == GMEM_MAX_REGIONS)
		return -ENOSPC;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, size)) {
		err = -errno;
		close(fd);
		return err;
	}
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		err = -errno;
		close(fd);
		return err;
	}
	return add_mapped(g, gpa, size, p, fd);
}

void gmem_del(struct gmem *g, int idx)
{
	munmap(g->r[idx].hva, g->r[idx].size);
	if (g->r[idx].fd >= 0)
		close(g->r[idx].fd);
	memmove(&g->r[idx], &g->r[idx + 1], (g->nr - idx - 1) * sizeof(g->r[0]));
	g->nr--;
}

void gmem_free(struct gmem *g)
{
	while (g->nr)
		gmem_del(g, g->nr - 1);
}

u64 gmem_alloc(struct gmem *g, int idx, u64 size, u64 align)
{
	int i, from = idx < 0 ? 0 : idx, to = idx < 0 ? g->nr : idx + 1;

	for (i = from; i < to; i++) {
		struct gmem_region *r = &g->r[i];
		u64 at = ((r->gpa + r->used + align - 1) & ~(align - 1)) - r->gpa;

		if (at + size <= r->size) {
			r->used = at + size;
			return r->gpa + at;
		}
	}
	return GMEM_NONE;
}

void *gmem_ptr(const struct gmem *g, u64 gpa)
{
	int i;

	for (i = 0; i < g->nr; i++)
		if (gpa >= g->r[i].gpa && gpa - g->r[i].gpa < g->r[i].size)
			return g->r[i].hva + (gpa - g->r[i].gpa);
	return NULL;
}
