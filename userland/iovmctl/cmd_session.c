// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * session list, session end: the NBD clients of a target device.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "iovmctl.h"

struct session_view {
	struct iovm_session_info i;
	uint32_t rdonly, tls;
};

#define S(m)	offsetof(struct session_view, m)
static const struct field session_fields[] = {
	{ "device", NULL, F_STR, S(i.dev) },
	{ "id", "session", F_U32, S(i.id), .col = "ID", .zero = "0" },
	{ "peer", "client", F_STR, S(i.peer), .col = "CLIENT" },
	{ "readonly", "read-only", F_BOOL32, S(rdonly), .col = "READONLY" },
	{ "encrypted", "encrypted", F_BOOL32, S(tls), .col = "TLS" },
	{ "sockets", "sockets", F_U32, S(i.nr_sockets), .col = "SOCKETS", .zero = "0" },
	{ "epoch", "epoch", F_U64, S(i.epoch), .zero = "none" },
	{ "since_ms", "for", F_MS, S(i.since_ms), .col = "SINCE" },
	{ "inflight", "commands in flight", F_U32, S(i.inflight), .col = "INFLIGHT", .zero = "0" },
	{ "commands", "commands", F_U64, S(i.commands), .col = "COMMANDS" },
	{ "errors", "errors", F_U64, S(i.errors), .col = "ERRORS" },
	{ "read_bytes", "read", F_SIZE, S(i.read_bytes), .col = "READ" },
	{ "written_bytes", "written", F_SIZE, S(i.written_bytes), .col = "WRITTEN" },
	{ "mem_bytes", "kernel memory", F_SIZE, S(i.mem_bytes) },
	{ 0 }
};

static int cannot(int err, const char *name)
{
	if (err == EOPNOTSUPP)
		return fail(EX_REFUSED, "only devices of 'iovmctl create --target' have sessions", "'%s' is a device for a guest", name);
	return mux_fail(err, NULL, err == ENOENT ? "'iovmctl list' shows the devices" : NULL, "cannot list the sessions of '%s'",
			name);
}

static int run_session_list(int argc, char **argv)
{
	static struct session_view rows[IOVM_MAX_SESSIONS];
	struct iovm_dev_info d;
	struct iovm_session_info i;
	char name[IOVM_NAME_MAX] = "";
	unsigned int nr = 0;
	uint32_t next = 0;
	struct json j;
	int err;

	(void)argc;
	err = take_name(&cmd_session_list, "device", name, argv[0]);
	if (!err)
		err = mux_open();
	if (!err)
		err = get_dev(name, &d);
	if (err)
		return err;
	while (nr < IOVM_MAX_SESSIONS) {
		IOVM_INIT(&i);
		strcpy(i.dev, name);
		i.id = next;
		err = mux_ioctl(IOVM_SESSION_GET, &i);
		if (err == ENOENT)
			break;
		if (err)
			return cannot(err, name);
		rows[nr].i = i;
		rows[nr].tls = !!(i.flags & IOVM_SESSION_F_TLS);
		rows[nr++].rdonly = !!(i.flags & IOVM_SESSION_F_RDONLY);
		next = i.id + 1;
	}
	if (opt_json) {
		json_init(&j, stdout, true);
		fields_json_array(&j, NULL, session_fields, rows, nr, sizeof(*rows));
	} else {
		fields_table(session_fields, rows, nr, sizeof(*rows));
	}
	return EX_DONE;
}

const struct cmd cmd_session_list = {
	.name = "session list", .args = "NAME", .summary = "List the clients of a target device.",
	.min_args = 1, .max_args = 1, .run = run_session_list,
};

static int run_session_end(int argc, char **argv)
{
	struct iovm_session_remove r;
	struct json j;
	char *end;
	int err;

	(void)argc;
	IOVM_INIT(&r);
	err = take_name(&cmd_session_end, "device", r.dev, argv[0]);
	if (err)
		return err;
	if (!strcmp(argv[1], "all")) {
		r.id = IOVM_NO_ID;
	} else {
		errno = 0;
		r.id = (uint32_t)strtoul(argv[1], &end, 10);
		if (errno || *end || end == argv[1] || argv[1][0] < '0' || argv[1][0] > '9' || strlen(argv[1]) > 9)
			return usage_error(&cmd_session_end, "'%s' is neither the number of a session nor 'all'", argv[1]);
	}
	err = mux_open();
	if (err)
		return err;
	err = mux_ioctl(IOVM_SESSION_REMOVE, &r);
	if (err == EOPNOTSUPP)
		return cannot(err, r.dev);
	if (err)
		return mux_fail(err, r.msg, err == ENOENT ? "'iovmctl session list' shows them" : NULL,
				"cannot end session %s of '%s'", argv[1], r.dev);
	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		json_str(&j, "device", r.dev);
		json_str(&j, "ended", argv[1]);
		json_close(&j);
	} else {
		printf("%s: session %s takes nothing more, and ends with what it has in flight\n", r.dev, argv[1]);
	}
	return EX_DONE;
}

const struct cmd cmd_session_end = {
	.name = "session end", .args = "NAME ID|all", .summary = "End the connections of a client.",
	.detail =
	"It takes nothing more; it is gone from 'iovmctl session list' when what it has in flight has ended. A client may come\n"
	"again: end 'iovmctl serve' first to prevent that.\n",
	.min_args = 2, .max_args = 2, .run = run_session_end,
};
