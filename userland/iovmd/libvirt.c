// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A migration by libvirt: iovm-libvirt does it, a program of its own, so that this one needs no libvirt. It has one socket as its
 * stdin and stdout: lines of JSON come, as iovm-libvirt's main.c has them, and the words cancel, hold and go are sent.
 *
 * When iovmd ends, this worker and iovm-libvirt go on; the next iovmd runs it again, to settle, and it asks libvirt how things are.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libvirt.h"

#define PROGRAM		"iovm-libvirt"
#define LOOK_MS		300
#define NO_PROGRAM	127
#define LINE_ROOM	4096	/* line_read() takes no more when there is less */
#define MAX_WORDS	24
#define GUEST_URI_MAX	(CONFIG_HOST_MAX + 16)

/**
 * struct run - iovm-libvirt, running
 * @sock: its stdin and stdout
 * @in: what came from there
 * @cancelled: it was told so
 * @held: likewise
 * @over: it has said how it ended: @outcome, and in why
 */
struct run {
	const struct migrate_ops *ops;
	void *ctx;
	pid_t pid;
	int sock;
	struct line_buf in;
	bool cancelled, held, over;
	enum migrate_outcome outcome;
};

/* Where iovmctl is, unless that is looked for in the PATH, too. */
static void program(char path[512])
{
	const char *slash = strrchr(agent.iovmctl, '/');

	snprintf(path, 512, "%.*s%s", slash ? (int)(slash + 1 - agent.iovmctl) : 0, agent.iovmctl, PROGRAM);
}

/**
 * struct words - a command line
 * @text: of what is made for it
 */
struct words {
	const char *argv[MAX_WORDS];
	unsigned int nr;
	char path[512], guest_uri[GUEST_URI_MAX], channels[16], bandwidth[32], downtime[32], timeout[32];
};

static void add(struct words *w, const char *option, const char *value)
{
	w->argv[w->nr++] = option;
	if (value)
		w->argv[w->nr++] = value;
}

static void set_words(struct words *w, const struct config_guest *g, const struct config_peer *to, bool settle)
{
	bool v6 = strchr(to->address, ':');

	w->nr = 0;
	program(w->path);
	snprintf(w->guest_uri, sizeof(w->guest_uri), "tcp://%s%s%s", v6 ? "[" : "", to->address, v6 ? "]" : "");
	snprintf(w->channels, sizeof(w->channels), "%u", g->channels);
	snprintf(w->bandwidth, sizeof(w->bandwidth), "%llu", (unsigned long long)bandwidth_of_migration(g));
	snprintf(w->downtime, sizeof(w->downtime), "%llums", (unsigned long long)g->max_downtime_ms);
	snprintf(w->timeout, sizeof(w->timeout), "%llums", (unsigned long long)g->timeout_ms);
	add(w, w->path, NULL);
	add(w, settle ? "settle" : "migrate", NULL);
	add(w, "--domain", g->libvirt);
	add(w, "--to", to->libvirt_uri);
	add(w, "--guest-uri", w->guest_uri);
	if (g->libvirt_tls)
		add(w, "--tls", NULL);
	if (g->auto_converge)
		add(w, "--auto-converge", NULL);
	if (g->channels)
		add(w, "--channels", w->channels);
	if (bandwidth_of_migration(g))
		add(w, "--bandwidth", w->bandwidth);
	if (g->max_downtime_ms)
		add(w, "--downtime", w->downtime);
	if (g->timeout_ms)
		add(w, "--timeout", w->timeout);
	add(w, NULL, NULL);
}

static bool start(struct run *r, const struct config_guest *g, const struct config_peer *to, bool settle, char *why, size_t n)
{
	struct words w;
	int fds[2];

	set_words(&w, g, to, settle);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) || (r->pid = fork()) < 0) {
		snprintf(why, n, "%s cannot be started: %s", PROGRAM, strerror(errno));
		return false;
	}
	if (!r->pid) {
		dup2(fds[1], STDIN_FILENO);
		dup2(fds[1], STDOUT_FILENO);
		close_range(3, ~0u, 0);
		execvp(w.argv[0], (char *const *)(uintptr_t)w.argv);
		_exit(NO_PROGRAM);
	}
	close(fds[1]);
	r->sock = fds[0];
	return true;
}

static void say_word(struct run *r, const char *word)
{
	send(r->sock, word, strlen(word), MSG_NOSIGNAL);
}

static void tell_wishes(struct run *r)
{
	bool hold = !r->ops->may_switch(r->ctx);

	if (!r->cancelled && r->ops->cancelled(r->ctx)) {
		r->cancelled = true;
		say_word(r, "cancel\n");
	}
	if (hold != r->held) {
		r->held = hold;
		say_word(r, hold ? "hold\n" : "go\n");
	}
}

static void take_outcome(struct run *r, const char *word, const struct json_node *o, char *why, size_t n)
{
	static const char *const words[] = {
		[MIGRATE_DONE] = "migrated", [MIGRATE_ROLLED_BACK] = "rolled-back", [MIGRATE_REFUSED] = "refused",
		[MIGRATE_LOST] = "lost", [MIGRATE_UNCLEAR] = "unclear",
	};
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(*words); i++) {
		if (!words[i] || strcmp(words[i], word))
			continue;
		r->over = true;
		r->outcome = (enum migrate_outcome)i;
		snprintf(why, n, "%s", member_str(o, "why") ?: "");
	}
}

static void take_said(struct run *r, const struct json_node *o, char *why, size_t n)
{
	const char *phase = member_str(o, "phase"), *outcome = member_str(o, "outcome");
	char said[64];

	if (outcome)
		take_outcome(r, outcome, o, why, n);
	if (!phase)
		return;
	snprintf(said, sizeof(said), "%s", r->held && !strcmp(phase, "active") ? "held" : phase);

	const struct migrate_progress p = {
		.phase = said, .rate = member_u64(o, "rate"), .transferred = member_u64(o, "transferred"),
		.remaining = member_u64(o, "remaining"), .total = member_u64(o, "total"), .dirty_rate = member_u64(o, "dirty_rate"),
		.expected_downtime = member_u64(o, "expected_downtime_ms"), .downtime = member_u64(o, "downtime_ms"),
		.total_ms = member_u64(o, "total_ms"), .throttle = (unsigned int)member_u64(o, "throttle_percent"),
	};

	r->ops->progress(r->ctx, &p);
}

/* Until it has ended; its status as of waitpid(). */
static int follow(struct run *r, char *why, size_t n)
{
	bool ended = false;
	struct json_node *o;
	int status = 0;

	for (;;) {
		o = line_read(r->sock, &r->in, LOOK_MS);
		if (o)
			take_said(r, o, why, n);
		else if (r->in.n && memchr(r->in.text, '\n', r->in.n))
			continue;	/* that one was no JSON */
		else if (ended)
			break;
		else if (waitpid(r->pid, &status, WNOHANG) == r->pid)
			ended = true;	/* what it wrote before is read first */
		else if (r->in.n + LINE_ROOM > LINE_MAX_BYTES)
			kill(r->pid, SIGKILL);	/* never a line */
		else
			poll(NULL, 0, LOOK_MS / 10);
		json_free(o);
		if (!ended)
			tell_wishes(r);
	}
	close(r->sock);
	free(r->in.text);
	return status;
}

enum migrate_outcome libvirt_out(const struct config_guest *g, const struct config_peer *to, bool settle,
				 const struct migrate_ops *ops, void *ctx, char *why, size_t n)
{
	struct run r = { .ops = ops, .ctx = ctx };
	char reason[WHY_MAX];
	int status;

	if (!start(&r, g, to, settle, why, n))
		return settle ? MIGRATE_UNCLEAR : MIGRATE_REFUSED;
	status = follow(&r, why, n);
	if (r.over)
		return r.outcome;
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_PROGRAM) {
		snprintf(why, n, "%s cannot be run: vhost-iovm was built without libvirt-dev, or it is not installed", PROGRAM);
		return settle ? MIGRATE_UNCLEAR : MIGRATE_REFUSED;
	}
	/* whatever it has begun may be going on */
	if (!settle)
		return libvirt_out(g, to, true, ops, ctx, why, n);
	child_reason(status, "", reason);
	snprintf(why, n, "%s did not say what became of it: %.300s; see 'virsh list' on both hosts", PROGRAM, reason);
	return MIGRATE_UNCLEAR;
}
