// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * serve: the NBD server in front of a target device. This process listens; a child for each client shakes hands and gives the
 * socket to the kernel, which serves it from then on, whatever becomes of this process.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "iovmctl.h"
#include "nbd_server.h"
#include "offer.h"
#include "../common/net.h"

#define MAX_CHILDREN	32		/* that shake hands at the same time */
#define HANDSHAKE_MS	10000

static struct {
	const char *listen, *export, *tls, *tls_dir;
	bool readonly, tls_required;
	struct opt_u64 timeout, epoch;
} o;

static volatile sig_atomic_t stop;

static const struct opt serve_opts[] = {
	{ "listen", 'l', OPT_STR, &o.listen, "ADDR",
	  "HOST:PORT, [V6ADDRESS]:PORT or unix:FILE to listen on.\nDefault localhost:10809.", 0, 0 },
	{ "export", 'e', OPT_STR, &o.export, "NAME", "Name of the export. Default: the device's.", 0, 0 },
	{ "readonly", 'r', OPT_FLAG, &o.readonly, NULL, "Clients may not write.", 0, 0 },
	{ "epoch", 0, OPT_NUM, &o.epoch, "N", "The epoch of the clients, of a device that needs one.", 1, UINT64_MAX },
	{ "tls", 0, OPT_STR, &o.tls, "required|offered",
	  "Encrypt with TLS 1.3; both ends show certificates. With\n'offered', clients without TLS are served too.", 0, 0 },
	{ "tls-dir", 0, OPT_STR, &o.tls_dir, "DIR",
	  "Where host.crt, host.key and peers/NAME.crt are. Default\n" TLS_DIR ".", 0, 0 },
	{ "timeout", 0, OPT_TIME, &o.timeout, "TIME", "How long a client may take to shake hands. Default 10s.", 0, 0 },
	{ 0 }
};

static void on_signal(int sig)
{
	stop = sig;
}

/* --- listening --- */

static int listen_unix(const char *file, int fds[], unsigned int *nr)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd;

	if (!*file || strlen(file) >= sizeof(a.sun_path))
		return usage_error(NULL, "--listen: '%s' is no name for a unix socket", file);
	strcpy(a.sun_path, file);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* not for everybody, whatever the umask is */
	if (fd < 0 || fchmod(fd, 0600) || bind(fd, (void *)&a, sizeof(a)) || listen(fd, 128)) {
		int err = errno;

		if (fd >= 0)
			close(fd);
		return mux_fail(err, NULL, err == EADDRINUSE ? "is a server running? If not, remove the file" : NULL,
				"cannot listen on '%s'", file);
	}
	fds[(*nr)++] = fd;
	return EX_DONE;
}

/* "HOST:PORT" or "[HOST]:PORT"; either may be left out. */
static int split_addr(const char *addr, char *host, size_t n, const char **port)
{
	const char *colon = strrchr(addr, ':'), *end = colon ? colon : addr + strlen(addr);

	if (*addr == '[') {
		end = strchr(addr, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -1;
		colon = end[1] ? end + 1 : NULL;
		addr++;
	} else if (colon && strchr(addr, ':') != colon) {
		return -1;
	}
	if ((size_t)(end - addr) >= n)
		return -1;
	memcpy(host, addr, (size_t)(end - addr));
	host[end - addr] = 0;
	*port = colon && colon[1] ? colon + 1 : NBDS_DEFAULT_PORT;
	return 0;
}

static int listen_tcp(const char *addr, int fds[], unsigned int *nr)
{
	char host[256], why[NET_WHY];
	const char *port;
	int err;

	if (split_addr(addr, host, sizeof(host), &port))
		return usage_error(NULL, "--listen: '%s' is not HOST:PORT, [V6ADDRESS]:PORT or unix:FILE", addr);
	*nr = net_listen(host, port, fds, &err, why);
	if (*nr)
		return EX_DONE;
	if (err)
		return mux_fail(err, NULL, err == EADDRINUSE ? "another server has this port" : NULL, "cannot listen on '%s'", addr);
	return fail(EX_USAGE_ERR, NULL, "--listen: %s", why);
}

/* --- a client --- */

/* In a child: shakes hands, gives the socket away. */
static int client(const char *dev, int fd)
{
	const struct nbds_export *chosen;
	struct iovm_session_add s;
	struct iovm_dev_info d;
	struct nbds_tls tls = { .required = o.tls_required };
	struct offer offer;
	char why[512];
	int err;

	/* its size may have changed */
	err = get_dev(dev, &d);
	if (err)
		return err;
	offer_device(&offer, &d, o.export ? o.export : dev, o.readonly);
	chosen = &offer.ex;
	IOVM_INIT(&s);
	net_peer_text(fd, s.peer, sizeof(s.peer));
	/* as the certificates are now: a peer may have been added */
	if (o.tls) {
		tls.creds = tls_load(o.tls_dir, why, sizeof(why));
		if (!tls.creds)
			return fail(EX_FAILED, NULL, "%s: client %s cannot be served: %s", dev, s.peer, why);
	}
	switch (nbds_handshake_tls(fd, &chosen, o.tls ? &tls : NULL, (unsigned int)(o.timeout.set ? o.timeout.v : HANDSHAKE_MS),
				   why, sizeof(why))) {
	case NBDS_LEFT:
		return EX_DONE;
	case NBDS_BAD:
		warn("%s: client %s refused: %s", dev, s.peer, why);
		return EX_FAILED;
	case NBDS_GO:
		break;
	}
	offer.epoch = o.epoch.v;
	offer.tls = *tls.peer;
	if (offer.tls) {
		char addr[sizeof(s.peer)];

		strcpy(addr, s.peer);
		snprintf(s.peer, sizeof(s.peer), "%.128s, %.100s", tls.peer, addr);
	}
	err = offer_taken(&offer, fd, &s);
	if (err)
		return mux_fail(err, s.msg, err == ESTALE || err == ERANGE || err == EBUSY ?
				"'iovmctl show' tells the device's epoch: 'serve --epoch' and 'epoch take' must agree" : NULL,
				"%s: client %s cannot be served", dev, s.peer);
	if (!opt_json)
		printf("%s: session %u, client %s\n", dev, s.id, s.peer);
	return EX_DONE;
}

/* Takes in who has ended; how many are left of @n. */
static unsigned int reap(unsigned int n, int flags)
{
	while (n && waitpid(-1, NULL, flags) > 0)
		n--;
	return n;
}

static int accept_from(const char *dev, int listener, unsigned int *children)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	pid_t pid;

	if (fd < 0)
		return errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS ? errno : 0;
	fflush(NULL);
	pid = fork();
	if (!pid) {
		int err;

		signal(SIGTERM, SIG_DFL);
		signal(SIGINT, SIG_DFL);
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		err = client(dev, fd);
		fflush(NULL);
		_exit(err);
	}
	if (pid > 0)
		++*children;
	else
		warn("%s: cannot fork for a client: %s", dev, strerror(errno));
	close(fd);
	return 0;
}

static int serve(const char *dev, const int *fds, unsigned int nr)
{
	struct pollfd p[NET_MAX_LISTEN];
	unsigned int children = 0, i;

	while (!stop) {
		for (i = 0; i < nr; i++)
			p[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
		/* wakes up for those who have ended only as long as there are any */
		if (poll(p, children < MAX_CHILDREN ? nr : 0, children ? 200 : -1) > 0)
			for (i = 0; i < nr; i++)
				if (p[i].revents && accept_from(dev, fds[i], &children))
					usleep(100000);
		children = reap(children, WNOHANG);
	}
	return EX_DONE;
}

static int take_tls(bool is_unix)
{
	struct tls_creds *creds;
	char why[512];

	if (!o.tls)
		return o.tls_dir ? usage_error(&cmd_serve, "--tls-dir is for --tls") : EX_DONE;
	o.tls_required = !strcmp(o.tls, "required");
	if (!o.tls_required && strcmp(o.tls, "offered"))
		return usage_error(&cmd_serve, "--tls: '%s' is neither required nor offered", o.tls);
	if (is_unix)
		return usage_error(&cmd_serve, "--tls: a unix socket has none; who may use it is up to its directory");
	if (!o.tls_dir)
		o.tls_dir = TLS_DIR;
	creds = tls_load(o.tls_dir, why, sizeof(why));
	if (!creds)
		return fail(EX_FAILED, TLS_HINT, "%s", why);
	tls_unload(creds);
	return tls_kernel_ready(why, sizeof(why)) ? fail(EX_NO_ACCESS, NULL, "%s", why) : EX_DONE;
}

static int run_serve(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_signal };
	const char *where = o.listen ? o.listen : "localhost";
	bool is_unix = !strncmp(where, "unix:", 5);
	char name[IOVM_NAME_MAX] = "";
	struct iovm_dev_info d;
	int fds[NET_MAX_LISTEN], code;
	unsigned int nr = 0;

	(void)argc;
	code = take_name(&cmd_serve, "device", name, argv[0]);
	if (!code && o.export && strlen(o.export) > 4096)
		code = usage_error(&cmd_serve, "--export: a name has at most 4096 bytes");
	if (!code)
		code = take_tls(is_unix);
	if (!code)
		code = mux_open();
	if (!code)
		code = get_dev(name, &d);
	if (code)
		return code;
	if (d.class != IOVM_CLASS_TARGET)
		return fail(EX_REFUSED, "'iovmctl create --target' makes one that NBD clients are served from",
			    "'%s' is a device for a guest", name);
	code = is_unix ? listen_unix(where + 5, fds, &nr) : listen_tcp(where, fds, &nr);
	if (code)
		return code;
	/* no SA_RESTART: poll() shall end */
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	if (!o.tls_required && !is_unix && strncmp(where, "localhost", 9) && strncmp(where, "127.", 4) && strncmp(where, "[::1]", 5))
		warn("%s: connections without TLS are neither encrypted nor authenticated: whoever reaches %s may read%s all data", name, where,
		     o.readonly ? "" : " and change");
	if (!opt_json)
		printf("%s: serving at %s\n", name, where);
	fflush(stdout);
	code = serve(name, fds, nr);
	if (is_unix)
		unlink(where + 5);
	return code;
}

const struct cmd cmd_serve = {
	.name = "serve", .args = "NAME", .summary = "Listen for NBD clients of a target device.",
	.detail =
	"Shakes hands with clients and gives their connections to the kernel, which serves them: when this command ends\n"
	"(SIGTERM, Ctrl-C) or dies, no new clients come, and those that are served go on. The device is one of\n"
	"'iovmctl create --target'. Any NBD client will do; 'iovmctl path add' on another host is one. Without --tls,\n"
	"connections are neither encrypted nor authenticated: listen on a network that you trust.\n"
	"\n"
	"Example:\n"
	"  iovmctl create vm1-disk --target --size-from /dev/sdb\n"
	"  iovmctl path add vm1-disk local /dev/sdb\n"
	"  iovmctl serve vm1-disk --listen 10.0.0.2:10809 --tls required\n",
	.opts = serve_opts, .min_args = 1, .max_args = 1, .run = run_serve,
};
