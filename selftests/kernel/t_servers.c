// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Other people's NBD servers as paths, reached by iovmctl: nbdkit, qemu-nbd, nbd-server, and qemu-storage-daemon serving a qcow2
 * image. Each is killed with -9 under a verifying load, started again and connected again; the guest sees no error. And which of
 * them answer from their page cache, and what then happens.
 */
#include "fix.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define MB 16
#define SECTORS (MB * 2048ull)

static char dir[64], sock[128], uri[256], iovmctl[512];
static unsigned int port;		/* the server is at 127.0.0.1, not at sock */
static pid_t server;
static struct vload L;
static bool loading;

static int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int sh(const char *fmt, ...)
{
	char cmd[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	return system(cmd);
}

/* nbd-server has a child a connection: all of them, until they are gone (orphans become ours). */
static void end_tree(pid_t pid, int sig)
{
	char path[64];
	pid_t child;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	f = fopen(path, "r");
	/* no new ones while this is read */
	kill(pid, SIGSTOP);
	while (f && fscanf(f, "%d", &child) == 1)
		end_tree(child, sig);
	if (f)
		fclose(f);
	kill(pid, sig);
	kill(pid, SIGCONT);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static void end_server(int sig)
{
	if (server > 0)
		end_tree(server, sig);
	server = 0;
}

static void cleanup(void)
{
	if (ktap_failed())
		sh("sed 's/^/# server: /' %s/log 2>/dev/null | tail -5", dir);
	if (loading) {
		ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE);
		L.abandon = true;
		vload_stop(&L);
	}
	loading = false;
	end_server(SIGKILL);
	fix_cleanup();
	port = 0;
	if (dir[0])
		sh("rm -rf %s", dir);
	dir[0] = 0;
}

static void begin(void)
{
	snprintf(dir, sizeof(dir), "/tmp/iovm-srv-XXXXXX");
	T_REQUIRE(mkdtemp(dir), "mkdtemp: %s", strerror(errno));
	snprintf(sock, sizeof(sock), "%s/s", dir);
	snprintf(uri, sizeof(uri), "nbd+unix:///x?socket=%s", sock);
}

/* By the shell's rules; the server must stay in the foreground. */
static void start_server(const char *cmd)
{
	struct sockaddr_in in = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int i, status;

	unlink(sock);
	server = fork();
	if (!server) {
		char line[2048], log[128];
		int fd;

		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(log, sizeof(log), "%s/log", dir);
		fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
		dup2(fd, 1);
		dup2(fd, 2);
		snprintf(line, sizeof(line), "exec %s", cmd);
		execl("/bin/sh", "sh", "-c", line, NULL);
		_exit(127);
	}
	strcpy(sa.sun_path, sock);
	for (i = 0; i < 600; i++) {
		int fd = socket(port ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

		r = port ? connect(fd, (void *)&in, sizeof(in)) : connect(fd, (void *)&sa, sizeof(sa));

		close(fd);
		if (!r)
			return;
		if (waitpid(server, &status, WNOHANG) == server) {
			server = 0;
			T_REQUIRE(server > 0, "server ended at once: %s", cmd);
		}
		sleep_ms(50);
	}
	T_REQUIRE(0, "server does not listen: %s", cmd);
}

static bool have(const char *prog)
{
	return !sh("command -v %s >/dev/null", prog);
}

static void create(void)
{
	int r;

	ctl_must_create("kt-0", SECTORS, 2);
	strcpy(F[0].name, "kt-0");
	r = sh("%s path add kt-0 n '%s' --timeout 60 >%s/out 2>&1 || { sed 's/^/# iovmctl: /' %s/out; false; }", iovmctl, uri, dir, dir);
	T_REQUIRE(!r, "iovmctl path add");
	T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_LIVE, 2000), "path is not live");
}

static void load(void)
{
	int r;

	fix_open_mem(0, ALL_FEATURES, 2, 128, 32 * MiB, 0);
	r = vload_start(&L, &F[0].d, &(struct vload_cfg){ .depth = 16, .mem_idx = -1, .flush_pct = 2, .zero_pct = 2,
							  .indirect = true });
	T_REQUIRE(!r, "load: %s", strerror(-r));
	loading = true;
	T_REQUIRE(vload_progress(&L, 100, 30000), "no progress");
}

static void kill_rounds(const char *cmd, unsigned int rounds)
{
	unsigned int i;
	int r;

	for (i = 0; i < rounds && !ktap_failed(); i++) {
		end_server(SIGKILL);
		T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 10000), "a killed server is not noticed");
		start_server(cmd);
		r = sh("%s path connect kt-0 n --timeout 60 >%s/out 2>&1 || { sed 's/^/# iovmctl: /' %s/out; false; }", iovmctl, dir, dir);
		T_CHECK(!r, "iovmctl path connect");
		T_CHECK(vload_progress(&L, 100, 30000), "no progress behind round %u", i);
	}
}

static void finish(const char *node)
{
	vload_stop(&L);
	loading = false;
	T_CHECK(!L.stuck && vload_check_dev(&L) == 0, "wrong data, read through the device");
	if (node) {
		T_CHECK(vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_FLUSH, 0, 0) == 0, "flush");
		T_CHECK(vload_check_node(&L, node) == 0, "wrong data on %s", node);
	}
	vload_finish(&L, "load");
}

static void raw(const char *fmt)
{
	char cmd[1024];

	fix_store_make(MB, 512);
	snprintf(cmd, sizeof(cmd), fmt, sock, fix_store);
	start_server(cmd);
	create();
	load();
	kill_rounds(cmd, 3);
	finish(fix_store);
}

static void nbdkit(void)
{
	if (!have("nbdkit"))
		ktap_skip("no nbdkit");
	begin();
	raw("nbdkit -f -U %s file %s");
}

static void qemu_nbd(void)
{
	if (!have("qemu-nbd"))
		ktap_skip("no qemu-nbd");
	begin();
	raw("qemu-nbd -t -f raw -k %s -x x -e 8 --cache=none %s");
}

static void nbd_server(void)
{
	char conf[128], cmd[512];
	FILE *f;

	if (!have("nbd-server"))
		ktap_skip("no nbd-server");
	begin();
	fix_store_make(MB, 512);
	snprintf(conf, sizeof(conf), "%s/conf", dir);
	f = fopen(conf, "w");
	T_REQUIRE(f, "conf");
	port = 10899;
	snprintf(uri, sizeof(uri), "nbd://127.0.0.1:%u/x", port);
	fprintf(f, "[generic]\n\tlistenaddr = 127.0.0.1\n\tport = %u\n[x]\n\texportname = %s\n\tflush = true\n\tfua = true\n", port,
		fix_store);
	fclose(f);
	/* it forks away more than once: in a pid namespace, all of it dies with its first process */
	snprintf(cmd, sizeof(cmd), "unshare -p -f --kill-child sh -c 'nbd-server -C %s; exec sleep 1000'", conf);
	start_server(cmd);
	create();
	load();
	kill_rounds(cmd, 1);		/* it takes its time to say hello where names are not resolved */
	finish(fix_store);
}

/* Says something to the daemon's monitor and looks for an answer without "error". */
static bool qmp(int fd, const char *text)
{
	char buf[8192];
	size_t n = 0;
	ssize_t r;

	if (write(fd, text, strlen(text)) < 0)
		return false;
	while (n < sizeof(buf) - 1 && (r = read(fd, buf + n, sizeof(buf) - 1 - n)) > 0) {
		n += r;
		buf[n] = 0;
		if (strstr(buf, "\"error\"")) {
			ktap_note("%s: %s", text, buf);
			return false;
		}
		if (strstr(buf, "\"return\""))
			return true;
	}
	return false;
}

/* A local image in a format that the kernel does not know, and a snapshot of it taken under load. */
static void qcow2_snapshot(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char cmd[1024], text[1024];
	int fd;

	if (!have("qemu-storage-daemon") || !have("qemu-img"))
		ktap_skip("no qemu-storage-daemon");
	begin();
	T_REQUIRE(!sh("qemu-img create -q -f qcow2 %s/base %uM && qemu-img create -q -f qcow2 -b %s/base -F qcow2 %s/over", dir, MB,
		      dir, dir), "qemu-img");
	snprintf(cmd, sizeof(cmd), "qemu-storage-daemon --chardev socket,path=%s/qmp,server=on,wait=off,id=c --monitor chardev=c "
		 "--blockdev driver=file,node-name=f,filename=%s/base --blockdev driver=qcow2,node-name=q,file=f "
		 "--nbd-server addr.type=unix,addr.path=%s,max-connections=0 --export nbd,id=e,node-name=q,name=x,writable=on", dir, dir,
		 sock);
	start_server(cmd);
	create();
	load();
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/qmp", dir);
	T_REQUIRE(!connect(fd, (void *)&sa, sizeof(sa)), "qmp: %s", strerror(errno));
	snprintf(text, sizeof(text), "{\"execute\":\"blockdev-add\",\"arguments\":{\"driver\":\"qcow2\",\"node-name\":\"o\",\"backing\":null,"
		 "\"file\":{\"driver\":\"file\",\"filename\":\"%s/over\"}}}\n", dir);
	T_CHECK(qmp(fd, "{\"execute\":\"qmp_capabilities\"}\n") && qmp(fd, text), "overlay");
	T_CHECK(vload_progress(&L, 50, 30000), "no progress");
	T_CHECK(qmp(fd, "{\"execute\":\"blockdev-snapshot\",\"arguments\":{\"node\":\"q\",\"overlay\":\"o\"}}\n"), "snapshot");
	close(fd);
	T_CHECK(vload_progress(&L, 300, 30000), "no progress behind the snapshot");
	finish(NULL);
	/* both images are sound, and what came behind the snapshot went to the overlay */
	fix_close(0);
	ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE);
	end_server(SIGTERM);
	T_CHECK(!sh("qemu-img check -q %s/base && qemu-img check -q %s/over", dir, dir), "qemu-img check");
	T_CHECK(!sh("test $(stat -c %%b %s/over) -gt 1000", dir), "nothing went to the overlay");
}

#define TOLD "wwn:naa.6000000000000001"		/* what the server says of its data */

/*
 * A block is read through the server, then written past it, on the local path; after a failover it is read through the server
 * again. Is it the old one?
 */
static bool stale(const char *cmd)
{
	const u64 sector = 4096;
	char a_node[64], b_node[64];
	struct iovm_path_info i;
	struct vq *q;
	u8 buf[512];
	int r;

	fix_two_paths(a_node, b_node);
	start_server(cmd);
	ctl_must_create("kt-0", SECTORS, 1);
	strcpy(F[0].name, "kt-0");
	r = ctl_path_add_bdev_id("kt-0", "a", a_node, 0, 0, TOLD);
	T_REQUIRE(!r, "path a: %s: %s", strerror(-r), ctl_msg);
	r = sh("%s path add kt-0 n '%s' --timeout 60 >%s/out 2>&1", iovmctl, uri, dir);
	sh("sed 's/^/# iovmctl: /' %s/out", dir);
	T_REQUIRE(!r, "iovmctl path add");
	r = ctl_path_get("kt-0", "n", &i);
	T_CHECK(!r && !strcmp(i.identity, TOLD) && !(i.flags & IOVM_PATH_F_ASSUME_SAME), "what the server says of its data: '%s'",
		i.identity);

	fix_open_mem(0, ALL_FEATURES, 1, 64, 16 * MiB, 0);
	q = &F[0].d.vqs[0];
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, "n", 0);
	T_REQUIRE(!r, "to n: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(!vblk_read(&F[0].s, q, sector, buf, 512), "read through the server");
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, "a", 0);
	T_REQUIRE(!r, "to a: %s: %s", strerror(-r), ctl_msg);
	pat_fill(buf, 1, sector, 1);
	T_CHECK(!vblk_write(&F[0].s, q, sector, buf, 512), "write on the local path");
	T_CHECK(!vblk_io(&F[0].s, q, VIRTIO_BLK_T_FLUSH, 0, 0), "flush");
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, "n", 0);
	T_REQUIRE(!r, "to n: %s: %s", strerror(-r), ctl_msg);
	memset(buf, 0, sizeof(buf));
	T_CHECK(!vblk_read(&F[0].s, q, sector, buf, 512), "read through the server again");
	return !pat_ok(buf, 1, sector, 1);
}

static bool stale_qemu(const char *cache)
{
	char cmd[1024];

	if (!have("qemu-nbd"))
		ktap_skip("no qemu-nbd");
	begin();
	fix_store_make(MB, 512);
	snprintf(cmd, sizeof(cmd), "qemu-nbd -t -f raw -k %s -x x -D 'the LUN, iovm-id=%s' -e 8 --cache=%s %s", sock, TOLD, cache,
		 fix_store);
	return stale(cmd);
}

/* Why the README warns: if this one fails, nothing shows what it warns of any more. */
static void buffered_is_stale(void)
{
	T_CHECK(stale_qemu("writeback"), "a buffered server did not answer from its cache");
	T_CHECK(!sh("grep -q 'without --cache=none, which answers from the page cache' %s/out", dir), "iovmctl does not warn");
}

static void unbuffered_is_not(void)
{
	T_CHECK(!stale_qemu("none"), "the guest has read old data");
	T_CHECK(sh("grep -q warning %s/out", dir), "iovmctl warns");
}

/* The server is replaced by one with other data while the path is down. */
static void other_data(void)
{
	char cmd[1024];

	if (!have("qemu-nbd"))
		ktap_skip("no qemu-nbd");
	unbuffered_is_not();
	end_server(SIGKILL);
	T_REQUIRE(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 10000), "a killed server is not noticed");
	snprintf(cmd, sizeof(cmd), "qemu-nbd -t -f raw -k %s -x x -D iovm-id=id:other -e 8 --cache=none %s", sock, fix_store);
	start_server(cmd);
	T_CHECK(sh("%s path connect kt-0 n --timeout 60 >%s/out 2>&1", iovmctl, dir), "other data is connected");
	sh("sed 's/^/# iovmctl: /' %s/out", dir);
	T_CHECK(!sh("grep -q '%s before, now to id:other' %s/out", TOLD, dir), "it does not say why");
	T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 0), "the path is not failed any more");
}

static const char *setup(void)
{
	char self[400];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *p;

	if (!system("command -v iovmctl >/dev/null")) {
		strcpy(iovmctl, "iovmctl");
	} else {
		/* build/selftests/t_servers: beside it, build/userland */
		self[n > 0 ? n : 0] = 0;
		p = strstr(self, "/selftests/");
		if (p)
			*p = 0;
		snprintf(iovmctl, sizeof(iovmctl), "%s/userland/iovmctl/iovmctl", self);
		if (access(iovmctl, X_OK))
			return "no iovmctl";
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return ctl_setup();
}

static const struct ktap_case cases[] = {
	{ "nbdkit", nbdkit, 90 },
	{ "qemu_nbd", qemu_nbd, 90 },
	{ "nbd_server", nbd_server, 170 },
	{ "qcow2_snapshot", qcow2_snapshot, 90 },
	{ "buffered_is_stale", buffered_is_stale },
	{ "unbuffered_is_not", unbuffered_is_not },
	{ "other_data", other_data },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), setup, NULL);
}
