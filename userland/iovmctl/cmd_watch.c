// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * path watch: connect nbd paths again when their server is back, or their keys are old; fence failed paths for which writes wait.
 *
 * Connecting: a path is taken care of while it is connecting, or failed with an error; one that was failed by hand is left alone until
 * somebody connects it. Each attempt is made by a child process, so that a server that does not answer holds up nobody else's; a failed
 * attempt is followed by the next after about 1, 2, 4, ... 30 seconds. A handshake may take long: what the operator has done meanwhile counts.
 * So is a live path whose TLS keys are old; its connections go on until new ones have replaced them.
 *
 * Fencing: what has failed, says how it is to be fenced, and has writes that wait, by hand or not. Also a child process each, with
 * the same pauses. A path is not connected while it is being fenced: the fence ends the very server that is back.
 *
 * Events only say when to look; what there is to do is read afresh each time, so that a watch that is started anew goes on where
 * another one was. A fence that the other one began, and that still runs, is waited for (see fence.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "iovmctl.h"

#define FIRST_PAUSE_MS	1000
#define LAST_PAUSE_MS	30000
#define LOOK_MS		5000	/* at the latest, while a path is not live */
#define REAP_MS		200
#define MAX_CHILDREN	16
#define NOT_WANTED	65	/* exit status: there was nothing to be connected any more */

static struct opt_u64 opt_connections, opt_timeout, opt_fence_timeout;

static const struct opt watch_opts[] = {
	{ "connections", 'c', OPT_NUM, &opt_connections, "N",
	  "Connections to make, 1 to 16. Default 4, or 1 when the\nserver does not allow several.", 1, IOVM_MAX_SOCKETS },
	{ "timeout", 0, OPT_TIME, &opt_timeout, "TIME", "Time limit for one attempt to connect. Default 10s.", 0, 0 },
	{ "pace", 0, OPT_RATE, &nbd_pace, "RATE", "The most that a connection sends. Default: no limit.", 0, 0 },
	{ "fence-timeout", 0, OPT_TIME, &opt_fence_timeout, "TIME", "Time limit for one attempt to fence. Default 1min.", 0, 0 },
	{ 0 }
};

/* What is tried again and again until it succeeds */
struct work {
	pid_t pid;		/* of the attempt under way, 0 when none */
	uint64_t next_ms;	/* not before */
	uint64_t pause_ms;
	bool told;		/* that it does not work; attempts are silent from then on */
};

/* What a path wants */
enum want {
	WANTS_NOTHING,
	WANTS_CONNECTION,
	WANTS_REPLACEMENT,	/* of its connections, while they are used */
};

/* A path, as far as this process has to do with it */
struct job {
	char dev[IOVM_NAME_MAX], path[IOVM_NAME_MAX];
	uint32_t id;
	struct work connect, fence;
	enum want want;		/* what the attempt to connect is for */
	uint32_t fence_by, fence_after_ms;	/* how it is to be fenced */
	char fence_command[IOVM_ADDR_MAX];
	bool seen;
	struct job *next;
};

static struct job *jobs;
static unsigned int nr_children;
static bool all_live;	/* and no keys old; else what there is to be done may change without an event, by 'path set' for instance */

static struct job *find_job(const char *dev, const char *path)
{
	struct job *j;

	for (j = jobs; j; j = j->next)
		if (!strcmp(j->dev, dev) && !strcmp(j->path, path))
			return j;
	return NULL;
}

static void afresh(struct work *w)
{
	w->next_ms = w->pause_ms = 0;
	w->told = false;
}

static struct job *job_of(const struct iovm_path_info *pi)
{
	struct job *j = find_job(pi->dev, pi->name);

	if (!j) {
		j = calloc(1, sizeof(*j));
		if (!j)
			return NULL;
		strcpy(j->dev, pi->dev);
		strcpy(j->path, pi->name);
		j->id = pi->id;
		j->next = jobs;
		jobs = j;
	}
	if (j->id != pi->id) {		/* another path of the same name */
		j->id = pi->id;
		afresh(&j->connect);
		afresh(&j->fence);
	}
	return j;
}

static enum want what_it_wants(const struct iovm_path_info *pi)
{
	switch (pi->state) {
	case IOVM_PATH_CONNECTING:
		return WANTS_CONNECTION;
	case IOVM_PATH_FAILED:
		return pi->by_hand ? WANTS_NOTHING : WANTS_CONNECTION;
	case IOVM_PATH_LIVE:
	case IOVM_PATH_SUSPECT:
		return pi->keys_old ? WANTS_REPLACEMENT : WANTS_NOTHING;
	default:
		return WANTS_NOTHING;
	}
}

/* Is there still the same to be done? */
static bool still_wants(const struct iovm_path_info *pi)
{
	struct iovm_path_info now;

	IOVM_INIT(&now);
	memcpy(now.dev, pi->dev, sizeof(now.dev));
	memcpy(now.name, pi->name, sizeof(now.name));
	return !mux_ioctl(IOVM_PATH_GET, &now) && now.id == pi->id && what_it_wants(&now) == what_it_wants(pi);
}

static void connect_child(const struct iovm_path_info *pi, bool silent)
{
	bool replace = what_it_wants(pi) == WANTS_REPLACEMENT;
	unsigned int nr = (unsigned int)opt_connections.v;
	struct nbd_export ex;
	int err, fd;

	if (replace && !opt_connections.set)
		nr = pi->nr_sockets;
	if (silent) {
		fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
		if (fd >= 0)
			dup2(fd, STDERR_FILENO);
	}
	err = nbd_open_export(pi->addr, nr, false, opt_timeout.v, &ex);
	if (!err) {
		ex.replace = replace;
		err = still_wants(pi) ? reconnect_path(pi, &ex) : NOT_WANTED;
	}
	/* a path that has failed meanwhile is to be connected at once */
	if (err && replace && !still_wants(pi))
		err = NOT_WANTED;
	_exit(err);
}

/* Not silent, but less and less talkative: writes wait until the operator does something about it. */
static void fence_child(const struct iovm_path_info *pi)
{
	uint32_t n = pi->fence_tries + 1;

	_exit(fence_path(pi, opt_fence_timeout.v, !(n & (n - 1))));
}

static void start(struct work *w, const struct iovm_path_info *pi, bool fence)
{
	pid_t self = getpid();

	fflush(stdout);
	w->pid = fork();
	if (!w->pid) {
		if (fence)
			fence_child(pi);
		/* it keeps the modules in use: not longer than the watch does */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != self)
			_exit(EX_FAILED);
		connect_child(pi, w->told);
	}
	if (w->pid < 0) {
		warn("cannot start a process: %s", strerror(errno));
		w->pid = 0;
		w->next_ms = now_ms() + LAST_PAUSE_MS;
		return;
	}
	nr_children++;
}

static void take_event(const char *rec, uint32_t size)
{
	struct iovm_event e;
	struct job *j;

	memset(&e, 0, sizeof(e));
	memcpy(&e, rec, size < sizeof(e) ? size : sizeof(e));
	e.dev[sizeof(e.dev) - 1] = 0;
	e.path[sizeof(e.path) - 1] = 0;
	if (e.type != IOVM_EV_PATH_STATE)
		return;
	j = find_job(e.dev, e.path);
	if (!j)
		return;
	if (e.new_state == IOVM_PATH_LIVE)
		j->connect.next_ms = j->connect.pause_ms = 0;
}

static int drain_events(void)
{
	static char buf[64 * 1024];
	size_t at;
	ssize_t n;
	uint32_t size;

	while ((n = read(mux_fd, buf, sizeof(buf))) > 0)
		for (at = 0; (size_t)n - at >= sizeof(size); at += size) {
			memcpy(&size, buf + at, sizeof(size));
			if (size < offsetof(struct iovm_event, dev) || size > (size_t)n - at)
				break;
			take_event(buf + at, size);
		}
	return n < 0 && errno != EAGAIN && errno != EINTR ? errno : 0;
}

static bool due(const struct work *w)
{
	return !w->pid && now_ms() >= w->next_ms;
}

/* Another way is tried at once. */
static void look_at_way(struct job *j, const struct iovm_path_info *pi)
{
	if (j->fence_by == pi->fence_by && j->fence_after_ms == pi->fence_after_ms && !strcmp(j->fence_command, pi->fence_command))
		return;
	j->fence_by = pi->fence_by;
	j->fence_after_ms = pi->fence_after_ms;
	strcpy(j->fence_command, pi->fence_command);
	afresh(&j->fence);
}

/* Returns whether it is being fenced. */
static bool look_at_fence(struct job *j, const struct iovm_path_info *pi)
{
	uint64_t after;

	look_at_way(j, pi);
	if (!fence_is_ours(pi) || !fence_waits(pi)) {
		afresh(&j->fence);
		return j->fence.pid;
	}
	if (pi->state_since_ms < pi->fence_after_ms) {
		after = now_ms() + pi->fence_after_ms - pi->state_since_ms;
		if (j->fence.next_ms < after)
			j->fence.next_ms = after;
	}
	if (!due(&j->fence) || nr_children >= MAX_CHILDREN)
		return j->fence.pid;
	/* its server may be there: too late */
	if (j->connect.pid)
		kill(j->connect.pid, SIGKILL);
	start(&j->fence, pi, true);
	return true;
}

static void look_at_connection(struct job *j, const struct iovm_path_info *pi)
{
	enum want want = what_it_wants(pi);

	if (want == WANTS_NOTHING || (want != j->want && !j->connect.pid))
		afresh(&j->connect);
	if (want != WANTS_NOTHING && due(&j->connect) && nr_children < MAX_CHILDREN) {
		j->want = want;
		start(&j->connect, pi, false);
	}
}

static void look_at(const struct iovm_path_info *pi)
{
	struct job *j;

	if (pi->state != IOVM_PATH_LIVE || pi->keys_old)
		all_live = false;
	if (pi->type != IOVM_PATH_NBD && !fence_is_ours(pi))
		return;
	j = job_of(pi);
	if (!j)
		return;
	j->seen = true;
	if (!look_at_fence(j, pi) && pi->type == IOVM_PATH_NBD)
		look_at_connection(j, pi);
}

static int look_at_dev(const char *dev)
{
	struct iovm_path_info pi = { .id = 0 };
	int err;

	while (!(err = next_path(dev, &pi))) {
		look_at(&pi);
		if (pi.id++ == IOVM_NO_ID - 1)
			break;
	}
	return err == ENOENT ? 0 : err;
}

static void forget_gone(void)
{
	struct job **p = &jobs, *j;

	while ((j = *p)) {
		if (j->seen || j->connect.pid || j->fence.pid) {
			j->seen = false;
			p = &j->next;
		} else {
			*p = j->next;
			free(j);
		}
	}
}

static int look(const char *only)
{
	struct iovm_dev_info di = { .id = 0 };
	int err;

	all_live = true;
	if (only) {
		err = look_at_dev(only);
	} else {
		while (!(err = next_dev(&di))) {
			err = look_at_dev(di.name);
			if (err || di.id++ == IOVM_NO_ID - 1)
				break;
		}
		if (err == ENOENT)
			err = 0;
	}
	forget_gone();
	return err;
}

/* A line for people, or an object a line. */
static void say(const struct job *j, bool good)
{
	bool replaced = j->want == WANTS_REPLACEMENT;
	struct json js;

	if (opt_json) {
		json_init(&js, stdout, false);
		json_open(&js, NULL, '{');
		json_str(&js, "device", j->dev);
		json_str(&js, "path", j->path);
		json_bool(&js, replaced ? "replaced" : "connected", good);
		json_close(&js);
	} else if (good) {
		printf("%s: path '%s' %s\n", j->dev, j->path, replaced ? "has new connections: its keys were old" : "is connected");
	} else {
		fprintf(stderr, "iovmctl: %s: path '%s' %s now; trying on\n", j->dev, j->path,
			replaced ? "cannot have new connections, and its keys are old" : "cannot be connected");
	}
	fflush(stdout);
}

/* An attempt has ended, with this exit status; -1 it was killed. */
static void ended(struct job *j, struct work *w, int status)
{
	bool good = status == EX_DONE;

	w->pid = 0;
	nr_children--;
	if (w == &j->connect && status == NOT_WANTED) {
		afresh(w);
		return;
	}
	/* what a fence has to say it has said */
	if (w == &j->connect && (good || !w->told))
		say(j, good);
	if (good) {
		afresh(w);
		return;
	}
	w->told = true;
	w->pause_ms = w->pause_ms ? w->pause_ms * 2 : FIRST_PAUSE_MS;
	if (w->pause_ms > LAST_PAUSE_MS)
		w->pause_ms = LAST_PAUSE_MS;
	/* up to a quarter sooner: the paths that a host lost at once are not to come back to its peer at once */
	w->next_ms = now_ms() + w->pause_ms - (uint64_t)random() % (w->pause_ms / 4 + 1);
}

static void reap(void)
{
	int status;
	struct job *j;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (j = jobs; j && j->connect.pid != pid && j->fence.pid != pid; j = j->next)
			;
		if (j)
			ended(j, j->fence.pid == pid ? &j->fence : &j->connect, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	}
}

static void not_after(uint64_t *end, const struct work *w)
{
	if (!w->pid && w->next_ms > now_ms() && w->next_ms < *end)
		*end = w->next_ms;
}

/* -1: until something happens */
static int pause_ms(void)
{
	uint64_t now = now_ms(), end = now + (nr_children ? REAP_MS : LOOK_MS);
	struct job *j;

	if (all_live && !nr_children)
		return -1;
	for (j = jobs; j; j = j->next) {
		not_after(&end, &j->connect);
		not_after(&end, &j->fence);
	}
	return (int)(end - now) + 1;
}

static int run_watch(int argc, char **argv)
{
	char name[IOVM_NAME_MAX];
	struct iovm_dev_info di;
	struct pollfd p;
	int err = EX_DONE;

	if (argc)
		err = take_name(&cmd_path_watch, "device", name, argv[0]);
	if (!err)
		err = mux_open();
	if (!err && argc)
		err = get_dev(name, &di);
	if (err)
		return err;
	if (fcntl(mux_fd, F_SETFL, fcntl(mux_fd, F_GETFL) | O_NONBLOCK))
		return mux_fail(errno, NULL, NULL, "cannot set up reading events");
	p = (struct pollfd){ .fd = mux_fd, .events = POLLIN };
	srandom((unsigned int)getpid() ^ (unsigned int)now_ms());
	for (;;) {
		reap();
		err = drain_events();
		if (err)
			return mux_fail(err, NULL, NULL, "cannot read events");
		err = look(argc ? name : NULL);
		if (err)
			return mux_fail(err, NULL, NULL, "cannot read the paths");
		if (poll(&p, 1, pause_ms()) < 0 && errno != EINTR)
			return mux_fail(errno, NULL, NULL, "cannot wait for events");
	}
}

const struct cmd cmd_path_watch = {
	.name = "path watch", .args = "[DEV]", .summary = "Connect nbd paths again when their server is back; fence paths.",
	.detail =
	"Runs until it is stopped. Takes care of paths that are connecting or that failed with an error, of DEV or of all\n"
	"devices; not of those that 'path fail' failed. Attempts follow each other after 1, 2, 4, ... 30 seconds.\n"
	"Replaces the connections of live paths when their TLS keys are old ('keys-old'): no request notices.\n"
	"\n"
	"Fences failed paths for which writes wait, in the way that '--fence-by' of 'path add' or 'path set' gave, until that succeeds.\n"
	"With --json one object per line.\n"
	"The unit iovm-paths.service runs this.\n",
	.opts = watch_opts, .max_args = 1, .run = run_watch,
};
