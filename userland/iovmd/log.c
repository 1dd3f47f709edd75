// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Messages and time.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "iovmd.h"
#include "../common/clock.h"

/* priority: as syslog and sd_journal have it; the journal takes it from the line. One write a line: children write, too. */
static void say(int priority, const char *fmt, va_list ap)
{
	static int journal = -1;
	char line[1024];
	size_t i;
	int n, m;

	if (journal < 0)
		journal = getenv("JOURNAL_STREAM") != NULL;
	n = journal ? snprintf(line, sizeof(line), "<%d>", priority) : snprintf(line, sizeof(line), "iovmd: ");
	m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	n = m < 0 ? n : n + m;
	if ((size_t)n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	/* peers and programs have their say in it */
	for (i = 0; i < (size_t)n; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = ' ';
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return;		/* nowhere left to say it */
}

void info(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(6, fmt, ap);
	va_end(ap);
}

void warning(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(4, fmt, ap);
	va_end(ap);
}

/* --- refused connections --- */

#define TOLD_AT_ONCE	20
#define TELL_AGAIN_MS	3000	/* then one more is told */

static struct {
	char from[128], why[WHY_MAX], to[16];
	uint64_t at_ms, nr;
} last_refusal;

void refusal(const char *from, const char *why, const char *to)
{
	static uint64_t full_ms;	/* then all may be told again that are told at once */
	uint64_t now = clock_ms();

	snprintf(last_refusal.from, sizeof(last_refusal.from), "%s", from);
	snprintf(last_refusal.why, sizeof(last_refusal.why), "%s", why);
	snprintf(last_refusal.to, sizeof(last_refusal.to), "%s", to);
	last_refusal.at_ms = now;
	last_refusal.nr++;
	if (full_ms < now)
		full_ms = now;
	if (full_ms - now > (TOLD_AT_ONCE - 1) * TELL_AGAIN_MS)
		return;
	full_ms += TELL_AGAIN_MS;
	warning("a connection from %s was refused: %s%s", from, why,
		full_ms - now > (TOLD_AT_ONCE - 1) * TELL_AGAIN_MS ? " (not all that follow are told)" : "");
}

void refusal_json(struct json *j, const char *key)
{
	if (!last_refusal.nr) {
		json_null(j, key);
		return;
	}
	json_open(j, key, '{');
	json_str(j, "from", last_refusal.from);
	json_str(j, "to", last_refusal.to);
	json_str(j, "why", last_refusal.why);
	json_u64(j, "ago_ms", clock_ms() - last_refusal.at_ms);
	json_u64(j, "count", last_refusal.nr);
	json_close(j);
}

uint64_t clock_ms(void)
{
	return ms_now();
}

/* --- time --- */

struct timer {
	timer_fn fn;
	void *data;
};

static int on_timer(sd_event_source *source, uint64_t usec, void *data)
{
	struct timer *t = data;

	(void)source;
	(void)usec;
	t->fn(t->data);
	return 0;
}

void timer_clear(sd_event_source **source)
{
	*source = sd_event_source_disable_unref(*source);
}

void timer_set(sd_event_source **source, uint64_t ms, timer_fn fn, void *data)
{
	struct timer *t = malloc(sizeof(*t));
	int r;

	timer_clear(source);
	if (!t) {
		warning("out of memory");
		return;
	}
	*t = (struct timer){ .fn = fn, .data = data };
	/* the accuracy is what lets the kernel wake up for several things at once */
	r = sd_event_add_time_relative(agent.loop, source, CLOCK_MONOTONIC, ms * 1000, ms * 125, on_timer, t);
	if (r < 0) {
		warning("cannot set a timer: %s", strerror(-r));
		free(t);
		return;
	}
	sd_event_source_set_destroy_callback(*source, free);
}

uint64_t next_pause(uint64_t *pause, uint64_t first, uint64_t last)
{
	uint32_t by_chance = 0;

	*pause = !*pause ? first : *pause * 2 < last ? *pause * 2 : last;
	/* without chance all of them come at once when a host is back */
	if (getrandom(&by_chance, sizeof(by_chance), GRND_NONBLOCK) < 0)
		by_chance = (uint32_t)clock_ms() * 2654435761u;
	return *pause - (*pause / 4) * (by_chance >> 8) / (1u << 24);
}
