// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzzes the agent's QMP client (userland/iovmd/qmp.c, qemu.c) with whatever may come from a monitor: the input is what that says
 * after its greeting, while the agent looks where the guest is and sets what it sets before a migration. Nothing is waited for,
 * each failure comes with a sentence, and what is not right ends the connection.
 */
#define _GNU_SOURCE
#include "../../userland/common/json.c"
#include "../../userland/common/json_read.c"
#include "../../userland/iovmd/qmp.c"
#include "../../userland/iovmd/qemu.c"

#define ASSERT(cond) do { \
	if (!(cond)) \
		__builtin_trap(); \
} while (0)

static const char greeting[] = "{\"QMP\": {}}\n{\"return\": {}, \"id\": 1}\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char *const names[] = { "MIGRATION", "STOP", NULL };
	struct qemu_settings want = { 0 }, old;
	char why[QMP_WHY] = "";
	struct json_node *event;
	struct qemu_migration m;
	enum qmp_result r;
	enum guest_at at;
	struct qmp q = { .wake_fd = -1, .addr.sun_path = "/fuzz" };
	int fds[2];

	if (n > 60000)
		return 0;
	ASSERT(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	q.fd = fds[0];
	q.out = open_memstream(&q.out_text, &q.out_len);
	ASSERT(q.out);
	ASSERT(write(fds[1], greeting, sizeof(greeting) - 1) == sizeof(greeting) - 1);
	ASSERT(!read_greeting(&q, ms_now() + 1000, why, sizeof(why)));
	ASSERT(!qmp_execute(&q, "qmp_capabilities", 1000, NULL, why, sizeof(why)));
	ASSERT(write(fds[1], data, n) == (ssize_t)n);
	if (n & 1)
		shutdown(fds[1], SHUT_WR);

	at = qemu_guest_at(&q, 0, why, sizeof(why));
	ASSERT(at != GUEST_GONE && (at != GUEST_SILENT || *why) && guest_at_text[at]);
	qemu_wish_cap(&want, CAP_PAUSE, WISH, true);
	qemu_wish_num(&want, NUM_BANDWIDTH, 1);
	qemu_wish_text(&want, TEXT_TLS_CREDS, "");
	*why = 0;
	r = q.broken ?: qemu_apply(&q, 0, &want, &old, why, sizeof(why));
	ASSERT(!r || *why || q.broken);
	r = q.broken ?: qemu_migration(&q, 0, &m, why, sizeof(why));
	ASSERT(q.broken || r != QMP_CLOSED);
	ASSERT(q.nr_events <= QMP_EVENTS_MAX);
	r = qmp_wait_event(&q, names, 0, &event, why, sizeof(why));
	ASSERT(!r == !!event);
	json_free(event);
	qmp_close(&q);
	close(fds[1]);
	return 0;
}
