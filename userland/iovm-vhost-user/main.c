// SPDX-License-Identifier: GPL-2.0-or-later
/* Options. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "vhost_iovm.h"
#include "vu.h"
#include "super.h"

#define NAME_MAX_LEN	63

static void usage(FILE *f)
{
	fprintf(f,
		"usage: iovm-vhost-user --device NAME|PATH (--socket PATH | --socket-fd N) [options]\n"
		"\n"
		"Serve a VMM's vhost-user-blk device by the device NAME of vhost_iovm_blk.\n"
		"\n"
		"  --device NAME|PATH    the device, or its node (" VHOST_IOVM_NODE_DIR "/NAME)\n"
		"  --socket PATH         listen here\n"
		"  --socket-mode OCTAL   permissions of that socket (0660)\n"
		"  --socket-group GROUP  group of that socket\n"
		"  --socket-fd N         listen on this inherited socket (systemd: 3)\n"
		"  --once                end after the first connection\n"
		"  --verbose             tell every message\n"
		"  --help                this text\n");
}

static bool good_name(const char *s)
{
	size_t i, n = strlen(s);

	if (!n || n > NAME_MAX_LEN || s[0] == '.' || s[0] == '-')
		return false;
	for (i = 0; i < n; i++) {
		if (!isalnum((unsigned char)s[i]) && !strchr("._-", s[i]))
			return false;
	}
	return true;
}

static bool number(const char *s, int base, long max, int *to)
{
	char *end;
	long v;

	errno = 0;
	v = strtol(s, &end, base);
	if (errno || end == s || *end || v < 0 || v > max)
		return false;
	*to = v;
	return true;
}

/* Rings are charged to our locked memory: take what we may have. */
static void raise_memlock(void)
{
	struct rlimit r = { RLIM_INFINITY, RLIM_INFINITY };

	if (!setrlimit(RLIMIT_MEMLOCK, &r) || getrlimit(RLIMIT_MEMLOCK, &r))
		return;
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_MEMLOCK, &r);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "device", required_argument, NULL, 'd' },
		{ "socket", required_argument, NULL, 's' },
		{ "socket-mode", required_argument, NULL, 'm' },
		{ "socket-group", required_argument, NULL, 'g' },
		{ "socket-fd", required_argument, NULL, 'f' },
		{ "once", no_argument, NULL, 'o' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	const char *device = NULL, *path = NULL, *group = NULL;
	static char node[sizeof(VHOST_IOVM_NODE_DIR) + 1 + NAME_MAX_LEN];
	struct vu_options o = { 0 };
	struct vu_listener l;
	int c, ret, mode = 0660, fd = -1;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'd':
			device = optarg;
			break;
		case 's':
			path = optarg;
			break;
		case 'm':
			if (!number(optarg, 8, 0777, &mode)) {
				vu_say("--socket-mode %s: permissions in octal", optarg);
				return 2;
			}
			break;
		case 'g':
			group = optarg;
			break;
		case 'f':
			if (!number(optarg, 10, 1 << 20, &fd)) {
				vu_say("--socket-fd %s: a file descriptor's number", optarg);
				return 2;
			}
			break;
		case 'o':
			o.once = true;
			break;
		case 'v':
			vu_verbose = true;
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind != argc || !device || !path == (fd < 0)) {
		usage(stderr);
		return 2;
	}
	if (strchr(device, '/')) {
		o.node_path = device;
		vu_log_name(strrchr(device, '/') + 1);
	} else if (good_name(device)) {
		snprintf(node, sizeof(node), "%s/%s", VHOST_IOVM_NODE_DIR, device);
		o.node_path = node;
		vu_log_name(device);
	} else {
		vu_say("--device %s: a device's name or its node's path", device);
		return 2;
	}

	ret = vuk_check_node(o.node_path);
	if (ret) {
		vu_say("%s: %s", o.node_path, ret == -ENOTTY ? "not a character device" : strerror(-ret));
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	raise_memlock();
	ret = path ? vu_listen(&l, path, mode, group) : vu_listen_fd(&l, fd);
	if (ret)
		return 1;
	ret = vu_supervise(&o, &l);
	vu_listen_end(&l);
	return ret;
}
