// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Data identities: strings that name data, the same whatever host or path they are seen from, and never the same for
 * different data. The kernel compares them; here they are found. What is unique only as long as everybody is careful (T10 vendor
 * names, serial numbers, NAA type 3, file systems, which snapshots have too) is left out: no identity is safer than a wrong one.
 *
 * Also: is the server at the other end of a unix socket one that answers from its page cache?
 */
#include <ctype.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "iovmctl.h"

bool read_attr(const char *dir, const char *name, char *buf, size_t n)
{
	char path[512], *end;
	size_t skip;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(buf, (int)n, f))
		*buf = 0;
	fclose(f);
	skip = strspn(buf, " \t");
	memmove(buf, buf + skip, strlen(buf + skip) + 1);
	for (end = buf + strlen(buf); end > buf && isspace((unsigned char)end[-1]); end--)
		;
	*end = 0;
	return *buf;
}

static bool all_hex(const char *s, size_t len)
{
	return strlen(s) == len && strspn(s, "0123456789abcdef") == len;
}

/* "naa.5000c500a1b2c3d4", "eui...": SCSI names that are unique in the world */
static bool scsi_name(const char *wwid)
{
	if (!strncmp(wwid, "eui.", 4))
		return all_hex(wwid + 4, 16) || all_hex(wwid + 4, 24) || all_hex(wwid + 4, 32);
	return !strncmp(wwid, "naa.", 4) && wwid[4] != '3' && (all_hex(wwid + 4, 16) || all_hex(wwid + 4, 32));
}

/* Scheme and text, if that makes an identity; else id is empty. */
static void put(char *id, const char *scheme, const char *text)
{
	if ((size_t)snprintf(id, IOVM_IDENTITY_MAX, "%s:%s", scheme, text) >= IOVM_IDENTITY_MAX || parse_identity(id))
		*id = 0;
}

static void disk_identity(const char *dir, char *id)
{
	char text[256], naa[256];

	*id = 0;
	if (read_attr(dir, "dm/name", text, sizeof(text))) {
		/* multipath is the disk's own data; its name is "3" (as in NAA) and the number */
		if (!read_attr(dir, "dm/uuid", text, sizeof(text)))
			return;
		snprintf(naa, sizeof(naa), "naa.%.200s", strncmp(text, "mpath-3", 7) ? "" : text + 7);
		if (scsi_name(naa))
			put(id, "wwn", naa);
		else
			put(id, "dm-uuid", text);
	} else if (read_attr(dir, "md/uuid", text, sizeof(text))) {
		put(id, "md-uuid", text);
	} else if (read_attr(dir, "wwid", text, sizeof(text))) {
		if (!strncmp(text, "uuid.", 5))
			put(id, "nvme-uuid", text + 5);
		else if (!strncmp(text, "eui.", 4))
			put(id, "nvme-eui", text + 4);
	} else if (read_attr(dir, "device/wwid", text, sizeof(text)) && scsi_name(text)) {
		put(id, "wwn", text);
	}
}

void identity_of_sysfs(const char *dir, char *id)
{
	char disk[512], start[64];
	size_t n;

	if (!read_attr(dir, "partition", start, sizeof(start))) {
		disk_identity(dir, id);
		return;
	}
	/* a part of the disk's data, which another partition never is */
	snprintf(disk, sizeof(disk), "%s/..", dir);
	disk_identity(disk, id);
	n = strlen(id);
	if (n && (!read_attr(dir, "start", start, sizeof(start)) ||
		  (size_t)snprintf(id + n, IOVM_IDENTITY_MAX - n, "+start=%s", start) >= IOVM_IDENTITY_MAX - n))
		*id = 0;
}

void identity_of_bdev(int fd, char *id)
{
	struct stat st;
	char dir[64];

	*id = 0;
	if (fstat(fd, &st) || !S_ISBLK(st.st_mode))
		return;
	snprintf(dir, sizeof(dir), "/sys/dev/block/%u:%u", major(st.st_rdev), minor(st.st_rdev));
	identity_of_sysfs(dir, id);
}

void identity_of_description(const char *text, char *id)
{
	const char *p = text;
	size_t n;

	*id = 0;
	while (p && (p = strstr(p, IDENTITY_TOKEN))) {
		bool whole = p == text || isspace((unsigned char)p[-1]);

		p += strlen(IDENTITY_TOKEN);
		n = strcspn(p, " \t\r\n");
		if (!whole)
			continue;
		if (n < IOVM_IDENTITY_MAX) {
			memcpy(id, p, n);
			id[n] = 0;
		}
		if (parse_identity(id))
			*id = 0;
		return;
	}
}

int identity_settle(const struct cmd *cmd, const char *what, const char *given, const char *found, char *id)
{
	const char *bad = given ? parse_identity(given) : NULL;

	if (bad)
		return usage_error(cmd, "--identity: '%s' %s", given, bad);
	if (given && *found && strcmp(given, found))
		return fail(EX_REFUSED, "leave --identity out; if it is the same data all the same, say --assume-same-data",
			    "%s shows the identity %s, not %s", what, found, given);
	strcpy(id, *found ? found : given ? given : "");
	return EX_DONE;
}

/* ---- the other end of a unix socket ---- */

/* Does one of the arguments hold any of these? */
static bool has_any(const char *const *argv, const char *const *what)
{
	size_t i;

	for (; *argv; argv++)
		for (i = 0; what[i]; i++)
			if (strstr(*argv, what[i]))
				return true;
	return false;
}

const char *server_buffers(const char *const *argv)
{
	static const char *const direct[] = { "cache=none", "cache=directsync", "--nocache", "cache.direct=on", "cache.direct=true",
					      "\"direct\":true", NULL };
	static const char *const file[] = { "driver=file", "driver=host_device", NULL };
	const char *name;
	size_t i;

	if (!argv[0])
		return NULL;
	name = strrchr(argv[0], '/');
	name = name ? name + 1 : argv[0];
	if (!strcmp(name, "qemu-nbd")) {
		for (i = 1; argv[i]; i++)
			if (!strcmp(argv[i], "-n") || (!strcmp(argv[i - 1], "--cache") &&
						       (!strcmp(argv[i], "none") || !strcmp(argv[i], "directsync"))))
				return NULL;
		return has_any(argv, direct) ? NULL : "qemu-nbd without --cache=none";
	}
	if (!strcmp(name, "qemu-storage-daemon"))
		return has_any(argv, file) && !has_any(argv, direct) ? "qemu-storage-daemon without cache.direct=on" : NULL;
	if (!strcmp(name, "nbd-server"))
		return "nbd-server";
	if (!strcmp(name, "nbdkit"))
		for (i = 1; argv[i]; i++)
			if (!strcmp(argv[i], "file"))
				return "nbdkit's file plugin";
	return NULL;
}

const char *peer_buffers(int sock)
{
	const char *argv[128];
	static char buf[16384];
	struct ucred peer;
	socklen_t len = sizeof(peer);
	unsigned int n = 0;
	char path[64];
	ssize_t got;
	char *p;
	int fd;

	/* TCP: an error */
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) || peer.pid <= 0)
		return NULL;
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)peer.pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	got = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (got <= 0)
		return NULL;
	buf[got] = 0;
	for (p = buf; p < buf + got && n < 127; p += strlen(p) + 1)
		argv[n++] = p;
	argv[n] = NULL;
	return server_buffers(argv);
}
