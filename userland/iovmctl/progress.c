// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is shown while an ioctl waits for requests in flight: a line on stderr that is rewritten on a terminal, and
 * repeated now and then elsewhere. The main thread sits in the ioctl (Ctrl-C ends it); a second one watches.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "iovmctl.h"
#include "../common/clock.h"

struct watch {
	const char *what, *dev, *path;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	bool tty;
	bool shown;
};

uint64_t now_ms(void)
{
	return ms_now();
}

/* Requests in flight, -1 when that cannot be told. */
static int64_t in_flight(const struct watch *w)
{
	struct iovm_path_info pi;
	struct iovm_dev_info di;

	if (w->path) {
		IOVM_INIT(&pi);
		snprintf(pi.dev, sizeof(pi.dev), "%s", w->dev);
		snprintf(pi.name, sizeof(pi.name), "%s", w->path);
		return mux_ioctl(IOVM_PATH_GET, &pi) ? -1 : (int64_t)pi.inflight;
	}
	IOVM_INIT(&di);
	snprintf(di.name, sizeof(di.name), "%s", w->dev);
	return mux_ioctl(IOVM_DEV_GET, &di) ? -1 : (int64_t)di.inflight;
}

static void show(struct watch *w, int64_t n, uint64_t ms)
{
	char left[64] = "";

	if (n >= 0)
		snprintf(left, sizeof(left), ": %" PRId64 " request%s in flight", n, n == 1 ? "" : "s");
	fprintf(stderr, "%s%s%s, %.1f s%s", w->tty ? "\r\033[K" : "iovmctl: ", w->what, left, (double)ms / 1000,
		w->tty ? " (Ctrl-C stops waiting)" : "\n");
	fflush(stderr);
	w->shown = true;
}

static void *watcher(void *arg)
{
	struct watch *w = arg;
	uint64_t start = now_ms(), pause = w->tty ? 500 : 2000;
	struct timespec until;
	int64_t n;

	pthread_mutex_lock(&w->lock);
	while (!w->done) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += (time_t)(pause / 1000);
		until.tv_nsec += (long)(pause % 1000) * 1000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
		if (pthread_cond_timedwait(&w->cond, &w->lock, &until) != ETIMEDOUT)
			continue;
		pthread_mutex_unlock(&w->lock);
		n = in_flight(w);
		pthread_mutex_lock(&w->lock);
		if (!w->done)
			show(w, n, now_ms() - start);
		if (!w->tty)
			pause = pause < 10000 ? pause * 2 : pause;
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

int mux_ioctl_wait(unsigned long req, void *arg, const char *what, const char *dev, const char *path)
{
	struct watch w = { .what = what, .dev = dev, .path = path, .tty = isatty(STDERR_FILENO) };
	pthread_condattr_t attr;
	pthread_t thread;
	bool watched;
	int err;

	pthread_mutex_init(&w.lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w.cond, &attr);
	watched = !pthread_create(&thread, NULL, watcher, &w);

	err = mux_ioctl(req, arg);

	if (watched) {
		pthread_mutex_lock(&w.lock);
		w.done = true;
		pthread_cond_signal(&w.cond);
		pthread_mutex_unlock(&w.lock);
		pthread_join(thread, NULL);
	}
	if (w.tty && w.shown)
		fputs("\r\033[K", stderr);
	pthread_cond_destroy(&w.cond);
	pthread_condattr_destroy(&attr);
	pthread_mutex_destroy(&w.lock);
	return err;
}
