/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A storage array in memory, for NBD servers that are its controllers. Each controller has a volatile write-back cache of its
 * own, and all see what any of them holds. A write with FUA goes to the medium; another one stays in the cache of the controller
 * that took it, until that controller is flushed. So a FLUSH that misses a controller is seen when the caches are lost.
 */
#ifndef ARRAY_H
#define ARRAY_H

#include "nbdsrv.h"

#define ARRAY_CONTROLLERS	4

struct array {
	pthread_mutex_t lock;
	u64 bytes;
	u8 *medium, *cache;
	u8 *owner;			/* of a sector: 0 not cached, else 1 + controller */
	volatile u32 flush_us;		/* how long a flush takes */
	struct array_controller {
		struct array *a;
		unsigned int nr;
		u64 cached, flushed;	/* sectors */
	} c[ARRAY_CONTROLLERS];
	u64 lost;			/* sectors that went with a cache */
};

int array_init(struct array *a, u64 bytes);
void array_free(struct array *a);
int array_serve(struct array *a, unsigned int controller, struct nbdsrv *s);
void array_destage(struct array *a, unsigned int controller);
void array_lose(struct array *a, int controller);	/* its cache; -1: all of them */
/*
 * All caches are lost at one moment, which is when @then is called: nothing is read, written or flushed meanwhile, and what was
 * begun goes on afterwards.
 */
void array_power_fail(struct array *a, void (*then)(void *arg), void *arg);
int array_read(void *a, void *buf, size_t len, u64 off);

#endif /* ARRAY_H */
