// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * path watch: connect nbd paths again when their server is back.
 *
 * A path is taken care of while it is connecting, or failed with an error; one that was failed by hand (the event says so: no
 * error) is left alone until it is live again. Each attempt is made by a child process, so that a server that does not answer
 * holds up nobody else's; a failed attempt is followed by the next after 1, 2, 4, ... 30 seconds. Events only
 * say when to look; what there is to do is read afresh each time.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "iovmctl.h"

#define FIRST_PAUSE_MS	1000
#define LAST_PAUSE_MS	30000
#define LOOK_MS		5000	/* at the latest, whatever the events say */
#define REAP_MS		200
#define MAX_CHILDREN	16

static struct opt_u64 opt_connections, opt_timeout;

static const struct opt watch_opts[] = {
	{ "connections", 'c', OPT_NUM, &opt_connections, "N",
	  "Connections to make, 1 to 16. Default 4, or 1 when the\nserver does not allow several.", 1, IOVM_MAX_SOCKETS },
	{ "timeout", 0, OPT_TIME, &opt_timeout, "TIME", "Time limit for one attempt. Default 10s.", 0, 0 },
	{ 0 }
};

/* A path, as far as this process has to do with it */
struct job {
	char dev[IOVM_NAME_MAX], path[IOVM_NAME_MAX];
	uint32_t id;
	pid_t pid;		/* of the attempt under way, 0 when none */
	uint64_t next_ms;	/* not before */
	uint64_t pause_ms;
	bool by_hand;
	bool told;		/* that it does not work; attempts are silent from then on */
	bool seen;
	struct job *next;
};

static struct job *jobs;
static unsigned int nr_children;

static struct job *find_job(const char *dev, const char *path)
{
	struct job *j;

	for (j = jobs; j; j = j->next)
		if (!strcmp(j->dev, dev) && !strcmp(j->path, path))
			return j;
	return NULL;
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
		j->next_ms = j->pause_ms = 0;
		j->by_hand = j->told = false;
	}
	return j;
}

static void attempt(const struct iovm_path_info *pi, bool silent)
{
	struct nbd_export ex;
	int err, fd;

	if (silent) {
		fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
		if (fd >= 0)
			dup2(fd, STDERR_FILENO);
	}
	err = nbd_open_export(pi->addr, (unsigned int)opt_connections.v, false, opt_timeout.v, &ex);
	if (!err)
		err = reconnect_path(pi, &ex);
	_exit(err);
}

static void start(struct job *j, const struct iovm_path_info *pi)
{
	fflush(stdout);
	j->pid = fork();
	if (!j->pid)
		attempt(pi, j->told);
	if (j->pid < 0) {
		warn("cannot start a process: %s", strerror(errno));
		j->pid = 0;
		j->next_ms = now_ms() + LAST_PAUSE_MS;
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
	j->by_hand = e.new_state == IOVM_PATH_FAILED && !e.error;
	if (e.new_state == IOVM_PATH_LIVE)
		j->next_ms = j->pause_ms = 0;
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

static void look_at(const struct iovm_path_info *pi)
{
	struct job *j;

	if (pi->type != IOVM_PATH_NBD)
		return;
	j = job_of(pi);
	if (!j)
		return;
	j->seen = true;
	if (pi->state != IOVM_PATH_CONNECTING && pi->state != IOVM_PATH_FAILED) {
		j->next_ms = j->pause_ms = 0;
		j->by_hand = j->told = false;
		return;
	}
	if (pi->state == IOVM_PATH_FAILED && (j->by_hand || !pi->last_error))
		return;
	if (j->pid || now_ms() < j->next_ms || nr_children == MAX_CHILDREN)
		return;
	/* The event of the state just read is there by now: was it by hand? */
	if (!drain_events() && !j->by_hand)
		start(j, pi);
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
		if (j->seen || j->pid) {
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
	struct json js;

	if (opt_json) {
		json_init(&js, stdout, false);
		json_open(&js, NULL, '{');
		json_str(&js, "device", j->dev);
		json_str(&js, "path", j->path);
		json_bool(&js, "connected", good);
		json_close(&js);
	} else if (good) {
		printf("%s: path '%s' is connected\n", j->dev, j->path);
	} else {
		fprintf(stderr, "iovmctl: %s: path '%s' cannot be connected now; trying on\n", j->dev, j->path);
	}
	fflush(stdout);
}

/* An attempt has ended. */
static void ended(struct job *j, bool good)
{
	j->pid = 0;
	nr_children--;
	if (good) {
		say(j, true);
		j->told = false;
		j->next_ms = j->pause_ms = 0;
		return;
	}
	if (!j->told)
		say(j, false);
	j->told = true;
	j->pause_ms = j->pause_ms ? j->pause_ms * 2 : FIRST_PAUSE_MS;
	if (j->pause_ms > LAST_PAUSE_MS)
		j->pause_ms = LAST_PAUSE_MS;
	j->next_ms = now_ms() + j->pause_ms;
}

static void reap(void)
{
	int status;
	struct job *j;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (j = jobs; j; j = j->next)
			if (j->pid == pid) {
				ended(j, WIFEXITED(status) && WEXITSTATUS(status) == EX_DONE);
				break;
			}
}

static int pause_ms(void)
{
	uint64_t now = now_ms(), end = now + (nr_children ? REAP_MS : LOOK_MS);
	struct job *j;

	for (j = jobs; j; j = j->next)
		if (!j->pid && j->next_ms > now && j->next_ms < end)
			end = j->next_ms;
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
	.name = "path watch", .args = "[DEV]", .summary = "Connect nbd paths again whenever their server is back.",
	.detail =
	"Runs until it is stopped. Takes care of paths that are connecting or that failed with an error, of DEV or of all\n"
	"devices; not of those that 'path fail' failed. Attempts follow each other after 1, 2, 4, ... 30 seconds.\n"
	"With --json one object per line.\n"
	"The unit iovm-paths.service runs this.\n",
	.opts = watch_opts, .max_args = 1, .run = run_watch,
};
