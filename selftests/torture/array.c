// SPDX-License-Identifier: GPL-2.0-or-later
#include "array.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int array_init(struct array *a, u64 bytes)
{
	unsigned int i;

	memset(a, 0, sizeof(*a));
	pthread_mutex_init(&a->lock, NULL);
	a->bytes = bytes;
	a->medium = calloc(1, bytes);
	a->cache = calloc(1, bytes);
	a->owner = calloc(1, bytes / 512);
	for (i = 0; i < ARRAY_CONTROLLERS; i++)
		a->c[i] = (struct array_controller){ .a = a, .nr = i };
	return a->medium && a->cache && a->owner ? 0 : -ENOMEM;
}

void array_free(struct array *a)
{
	free(a->medium);
	free(a->cache);
	free(a->owner);
	memset(a, 0, sizeof(*a));
}

void array_destage(struct array *a, unsigned int controller)
{
	u64 i;

	pthread_mutex_lock(&a->lock);
	for (i = 0; i < a->bytes / 512; i++) {
		if (a->owner[i] != controller + 1)
			continue;
		memcpy(a->medium + 512 * i, a->cache + 512 * i, 512);
		a->owner[i] = 0;
		a->c[controller].flushed++;
	}
	pthread_mutex_unlock(&a->lock);
}

static void lose(struct array *a, int controller)
{
	u64 i;

	for (i = 0; i < a->bytes / 512; i++) {
		if (!a->owner[i] || (controller >= 0 && a->owner[i] != controller + 1))
			continue;
		a->lost++;
		a->owner[i] = 0;
	}
}

void array_lose(struct array *a, int controller)
{
	pthread_mutex_lock(&a->lock);
	lose(a, controller);
	pthread_mutex_unlock(&a->lock);
}

void array_power_fail(struct array *a, void (*then)(void *arg), void *arg)
{
	pthread_mutex_lock(&a->lock);
	lose(a, -1);
	then(arg);
	pthread_mutex_unlock(&a->lock);
}

int array_read(void *priv, void *buf, size_t len, u64 off)
{
	struct array *a = priv;
	u64 i, first = off / 512;

	pthread_mutex_lock(&a->lock);
	for (i = 0; i < len / 512; i++)
		memcpy((u8 *)buf + 512 * i, (a->owner[first + i] ? a->cache : a->medium) + 512 * (first + i), 512);
	pthread_mutex_unlock(&a->lock);
	return 0;
}

/* @buf NULL: zeroes */
static void array_write(struct array_controller *c, bool fua, const u8 *buf, u32 len, u64 off)
{
	struct array *a = c->a;
	u64 i, first = off / 512;

	pthread_mutex_lock(&a->lock);
	for (i = 0; i < len / 512; i++) {
		u8 *to = (fua ? a->medium : a->cache) + 512 * (first + i), *owner = &a->owner[first + i];

		/* another controller's write, which a flush may already count on, does not go with this one */
		if (*owner && *owner != c->nr + 1)
			memcpy(a->medium + 512 * (first + i), a->cache + 512 * (first + i), 512);
		if (buf)
			memcpy(to, buf + 512 * i, 512);
		else
			memset(to, 0, 512);
		*owner = fua ? 0 : c->nr + 1;
		c->cached += !fua;
	}
	pthread_mutex_unlock(&a->lock);
}

static int array_io(struct nbdsrv *s, u16 type, bool fua, void *buf, u32 len, u64 off)
{
	struct array_controller *c = s->io_priv;

	if (type != 3 && (off > c->a->bytes || len > c->a->bytes - off || (off | len) % 512))
		return EINVAL;
	switch (type) {
	case 0:
		return array_read(c->a, buf, len, off);
	case 1:
		array_write(c, fua, buf, len, off);
		return 0;
	case 3:
		if (c->a->flush_us)
			usleep(c->a->flush_us);
		array_destage(c->a, c->nr);
		return 0;
	case 4:
	case 6:
		array_write(c, fua, NULL, len, off);
		return 0;
	default:
		return EINVAL;
	}
}

int array_serve(struct array *a, unsigned int controller, struct nbdsrv *s)
{
	int r = nbdsrv_init(s, NULL, 4096);

	if (r)
		return r;
	s->bytes = a->bytes;
	s->io = array_io;
	s->io_priv = &a->c[controller];
	return 0;
}
