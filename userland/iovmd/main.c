// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * iovmd: options, start, end, the loop.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "iovmd.h"

struct agent agent = { .iovmctl = "iovmctl", .run_dir = RUN_DIR, .state_dir = STATE_DIR };

static const char usage[] =
	"Usage: iovmd [OPTION]...\n"
	"The agent of vhost-iovm: makes the devices that are configured, keeps their paths, serves peers, and migrates\n"
	"guests away from failed disks. See iovmd(8) and iovmd.conf(5).\n"
	"\n"
	"  -c, --config FILE   Default " CONFIG_FILE ".\n"
	"  -d, --dir DIR       Its *.conf are read too. Default " CONFIG_DIR ".\n"
	"      --check         Read the configuration, say what is wrong, and end.\n"
	"      --run-dir DIR   Where the socket for iovmctl is. Default " RUN_DIR ".\n"
	"      --state-dir DIR Where epochs are kept. Default " STATE_DIR ".\n"
	"      --iovmctl FILE  The program. Default: iovmctl, of the PATH.\n"
	"  -h, --help\n"
	"  -V, --version\n";

static struct config *read_config(const char *file, const char *dir)
{
	static struct config_errors errs;
	struct config *c = config_read(file, dir, &errs);
	unsigned int i;

	if (c)
		return c;
	for (i = 0; i < errs.nr && i < CONFIG_MAX_ERRORS; i++)
		warning("%s:%u: %s%s%s%s", errs.e[i].at.file, errs.e[i].at.line, errs.e[i].text, *errs.e[i].remedy ? " (" : "",
			errs.e[i].remedy, *errs.e[i].remedy ? ")" : "");
	if (errs.nr > CONFIG_MAX_ERRORS)
		warning("and %u more errors", errs.nr - CONFIG_MAX_ERRORS);
	config_errors_free(&errs);
	return NULL;
}

/* modprobe, if need be: the kernel side has to be there before anything can be asked of it. */
static void load_modules(void)
{
	int status;
	pid_t pid;

	if (!access("/dev/iovm-mux", F_OK))
		return;
	pid = fork();
	if (!pid) {
		execlp("modprobe", "modprobe", "vhost_iovm_blk", NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || status)
		warning("cannot load vhost_iovm_blk by modprobe");
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *data)
{
	(void)source;
	(void)data;
	info("ends, by signal %u; devices and their I/O stay as they are", si->ssi_signo);
	agent.ending = true;
	apply_end();
	return sd_event_exit(agent.loop, 0);
}

static int on_hup(sd_event_source *source, const struct signalfd_siginfo *si, void *data)
{
	(void)source;
	(void)si;
	(void)data;
	info("reads its configuration anew, by SIGHUP");
	reload(NULL, 0);
	return 0;
}

int main_listen(char why[WHY_MAX])
{
	static bool peers, data;

	if (!agent.config->peers)
		return 0;
	peers = peers || !peer_listen(why);
	data = data || (peers && !data_listen(why));
	return data ? 0 : -1;
}

static int set_up(char why[WHY_MAX])
{
	static const int ends[] = { SIGTERM, SIGINT };
	sigset_t set;
	size_t i;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = sd_event_default(&agent.loop);
	for (i = 0; i < 2 && r >= 0; i++)
		r = sd_event_add_signal(agent.loop, NULL, ends[i], on_signal, NULL);
	if (r >= 0)
		r = sd_event_add_signal(agent.loop, NULL, SIGHUP, on_hup, NULL);
	if (r < 0) {
		snprintf(why, WHY_MAX, "cannot set up the event loop: %s", strerror(-r));
		return -1;
	}
	if (mkdir(agent.run_dir, 0755) && errno != EEXIST) {
		snprintf(why, WHY_MAX, "cannot make '%s': %s", agent.run_dir, strerror(errno));
		return -1;
	}
	load_modules();
	if (kernel_open(why) || control_start(why) || epoch_start(why) || arrival_start(why))
		return -1;
	return main_listen(why);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "dir", required_argument, NULL, 'd' },
		{ "check", no_argument, NULL, 'k' },	    { "run-dir", required_argument, NULL, 'r' },
		{ "iovmctl", required_argument, NULL, 'i' }, { "state-dir", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },	    { 0 }
	};
	const char *file = CONFIG_FILE, *dir = CONFIG_DIR;
	char why[WHY_MAX];
	bool check = false;
	int c;

	while ((c = getopt_long(argc, argv, "c:d:hV", options, NULL)) >= 0) {
		switch (c) {
		case 'c':
			file = optarg;
			break;
		case 'd':
			dir = optarg;
			break;
		case 'k':
			check = true;
			break;
		case 'r':
			agent.run_dir = optarg;
			break;
		case 's':
			agent.state_dir = optarg;
			break;
		case 'i':
			agent.iovmctl = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			puts("iovmd " IOVM_RELEASE);
			return 0;
		default:
			fputs("see 'iovmd --help'\n", stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "iovmd: unexpected argument '%s'; see 'iovmd --help'\n", argv[optind]);
		return 2;
	}
	agent.config_file = file;
	agent.config_dir = dir;
	agent.config_sum = config_sum(file, dir);
	agent.config = read_config(file, dir);
	if (!agent.config || check)
		return agent.config ? 0 : 2;
	if (set_up(why)) {
		warning("%s", why);
		return 1;
	}
	if (agent.config->host.plain_tcp)
		warning("connections between hosts are plain TCP, as configured: whoever reaches the network may read and change all data");
	doubt_reload();
	fence_host_reload();
	apply_start();
	bandwidth_start();
	guest_reload();
	check_reload();
	certs_start();
	peer_reload();
	sd_notify(0, "READY=1");
	info("host '%s', release %s", agent.config->host.name, IOVM_RELEASE);
	c = sd_event_loop(agent.loop);
	return c < 0 ? 1 : 0;
}
