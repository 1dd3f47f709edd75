// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * iovm-vhost-user with stock QEMU, 7.2 and 10, and a node in user space that serves the disk (vu_fake_disk.h).
 *
 * The guest is a boot sector: through SeaBIOS it reads 96 sectors into 96 pages, pass after pass, each time looking
 * first whether a page still holds what the pass before read into it. So a page that migration lost, as the log
 * did not name it, is found at once. It ends, and QEMU with it, when sector 1 says so.
 */
#define _GNU_SOURCE
#include "vu_fake.h"
#include "vu_front.h"
#include "vu_fake_disk.h"

#include <limits.h>
#include <signal.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "vu_program.h"

#define GUEST_GOOD	(0x10 << 1 | 1)
#define WAIT_S		60

/* Real mode; es:0 is the page at hand, ebp the pass's first sector, edi that of the pass before, esi the page. */
asm(".pushsection .rodata\n"
    "boot_start:\n"
    "	.code16\n"
    "	cli\n"
    "	xorw %ax, %ax\n"
    "	movw %ax, %ds\n"
    "	movw %ax, %ss\n"
    "	movw $0x7c00, %sp\n"
    "	sti\n"
    "	movb %dl, 0x500\n"
    "	movl $2048, %ebp\n"
    "	xorl %edi, %edi\n"
    "1:	xorl %esi, %esi\n"
    "2:	movw %si, %ax\n"
    "	shlw $8, %ax\n"
    "	addw $0x1000, %ax\n"
    "	movw %ax, %es\n"
    "	testl %edi, %edi\n"
    "	jz 3f\n"
    "	movl %edi, %eax\n"
    "	addl %esi, %eax\n"
    "	cmpl %eax, %es:0\n"
    "	jne 8f\n"
    "	cmpl %eax, %es:508\n"
    "	jne 8f\n"
    "3:	movl %ebp, %eax\n"
    "	addl %esi, %eax\n"
    "	movb $0x42, %cl\n"
    "	call 9f\n"
    "	jc 8f\n"
    "	incl %esi\n"
    "	cmpl $96, %esi\n"
    "	jb 2b\n"
    "	movl %ebp, %edi\n"
    "	addl $96, %ebp\n"
    "	movl $1024, %eax\n"		/* write the last page's sector to 1024 */
    "	movb $0x43, %cl\n"
    "	call 9f\n"
    "	jc 8f\n"
    "	movw $0x0900, %ax\n"
    "	movw %ax, %es\n"
    "	movl $1, %eax\n"
    "	movb $0x42, %cl\n"
    "	call 9f\n"
    "	jc 8f\n"
    "	cmpl $0, %es:0\n"
    "	je 1b\n"
    "	movb $0x10, %al\n"
    "	outb %al, $0xf4\n"
    "4:	hlt\n"			/* QEMU 10 ends a little later */
    "	jmp 4b\n"
    "8:	movb $0x11, %al\n"
    "	outb %al, $0xf4\n"
    "5:	hlt\n"
    "	jmp 5b\n"
    "9:	movl $0x00010010, 0x600\n"	/* one sector at eax, to or from es:0 */
    "	movw $0, 0x604\n"
    "	movw %es, 0x606\n"
    "	movl %eax, 0x608\n"
    "	movl $0, 0x60c\n"
    "	pushl %esi\n"
    "	movw $0x600, %si\n"
    "	movb %cl, %ah\n"
    "	movb $0, %al\n"
    "	movb 0x500, %dl\n"
    "	int $0x13\n"
    "	popl %esi\n"
    "	ret\n"
    "boot_end:\n"
    "	.code64\n"
    ".popsection\n");
extern const uint8_t boot_start[], boot_end[];

static char dir[64];
static const char *qemu;
static char qemu10[PATH_MAX];

struct host {
	struct fake_disk *disk;
	char sock[96];
	char qmp[96];
	char log[96];
	pid_t backend;
	pid_t vm;
	int monitor;
};

static struct host hosts[2];

static void backend_start(struct host *h)
{
	const char *argv[] = { "iovm-vhost-user", "--device", FAKE_NODE, "--verbose", "--socket", h->sock, NULL };
	int fd = creat(h->log, 0600);

	h->backend = fork();
	if (h->backend == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fd, STDERR_FILENO);
		fake_disk = h->disk;
		fake.start = fake_disk_start;
		fake.stop = fake_disk_stop;
		fake.capacity = 1ull << 31;
		optind = 0;
		exit(vu_main(6, (char **)argv));
	}
	close(fd);
}

static int wait_for(pid_t pid, int seconds)
{
	int status;

	for (int i = 0; i < seconds * 100; i++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
		usleep(10000);
	}
	return -1;
}

/* Its exit status; killed when it takes too long. */
static int finish(pid_t *pid, int seconds)
{
	int status = -1;

	if (*pid > 0) {
		status = wait_for(*pid, seconds);
		if (status < 0) {
			kill(*pid, SIGKILL);
			waitpid(*pid, NULL, 0);
		}
	}
	*pid = 0;
	return status;
}

/* The guest says that all was well, within the time there is. */
static bool guest_is_good(struct host *h)
{
	int status = finish(&h->vm, WAIT_S);

	if (status != GUEST_GOOD)
		printf("# QEMU ended with %d\n", status);
	return status == GUEST_GOOD;
}

static const char *read_log(struct host *h)
{
	static char buf[1 << 20];
	FILE *f = fopen(h->log, "r");
	size_t n = fread(buf, 1, sizeof(buf) - 1, f);

	fclose(f);
	buf[n] = 0;
	return buf;
}

static bool log_has(struct host *h, const char *what, const char *after)
{
	const char *buf = read_log(h), *at = buf;

	if (after)
		at = strstr(buf, after);
	return at && strstr(at, what);
}

static bool soon_log(struct host *h, const char *what, const char *after)
{
	for (int i = 0; i < WAIT_S * 100; i++) {
		if (log_has(h, what, after))
			return true;
		usleep(10000);
	}
	printf("# the back end never said: %s\n", what);
	return false;
}

static unsigned int log_count(struct host *h, const char *what)
{
	const char *at = read_log(h);
	unsigned int n;

	for (n = 0; (at = strstr(at, what)); n++)
		at++;
	return n;
}

static void vm_start(struct host *h, const char *incoming)
{
	char chardev[160], qmp[160], log[128];
	const char *argv[] = {
		qemu, "-machine", "pc,accel=tcg,memory-backend=ram", "-m", "64,slots=4,maxmem=512M", "-smp", "1",
		"-nodefaults", "-no-user-config", "-display", "none",
		"-object", "memory-backend-memfd,id=ram,size=64M,share=on",
		"-chardev", chardev, "-device", "vhost-user-blk-pci,chardev=c,id=disk,bootindex=0,num-queues=1",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-qmp", qmp,
		incoming ? "-incoming" : NULL, incoming, NULL,
	};
	int fd;

	snprintf(chardev, sizeof(chardev), "socket,id=c,path=%s,reconnect=1", h->sock);
	snprintf(qmp, sizeof(qmp), "unix:%s,server=on,wait=off", h->qmp);
	snprintf(log, sizeof(log), "%s.qemu", h->log);
	fd = creat(log, 0600);
	h->monitor = -1;
	h->vm = fork();
	if (h->vm == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fd, STDOUT_FILENO);
		dup2(fd, STDERR_FILENO);
		execvp(qemu, (char **)argv);
		exit(99);
	}
	close(fd);
}

/* One line of the monitor that contains @want, events skipped; NULL when it does not come. */
static const char *qmp_line(struct host *h, const char *want)
{
	static char line[65536];
	size_t n = 0;

	while (n < sizeof(line) - 1) {
		struct pollfd p = { .fd = h->monitor, .events = POLLIN };

		if (poll(&p, 1, WAIT_S * 1000) != 1 || read(h->monitor, line + n, 1) != 1)
			return NULL;
		if (line[n++] != '\n')
			continue;
		line[n] = 0;
		if (strstr(line, want))
			return line;
		if (strstr(line, "\"error\"")) {
			printf("# %s", line);
			return NULL;
		}
		n = 0;
	}
	return NULL;
}

static const char *qmp(struct host *h, const char *command)
{
	if (h->monitor < 0) {
		struct sockaddr_un sa = { .sun_family = AF_UNIX };

		h->monitor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		strcpy(sa.sun_path, h->qmp);
		for (int i = 0; connect(h->monitor, (struct sockaddr *)&sa, sizeof(sa)); i++) {
			if (i == WAIT_S * 100)
				return NULL;
			usleep(10000);
		}
		if (!qmp_line(h, "\"QMP\"") || !qmp(h, "{\"execute\":\"qmp_capabilities\"}"))
			return NULL;
	}
	dprintf(h->monitor, "%s\n", command);
	return qmp_line(h, "\"return\"");
}

static bool passed(struct host *h, uint64_t reads)
{
	uint64_t until = vu_now_ms() + WAIT_S * 1000;

	while (h->disk->reads < reads) {
		if (vu_now_ms() > until)
			return false;
		usleep(10000);
	}
	return true;
}

static void begin(void)
{
	for (int i = 0; i < 2; i++) {
		struct host *h = &hosts[i];

		h->disk = mmap(NULL, sizeof(*h->disk), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		memcpy(h->disk->boot, boot_start, boot_end - boot_start);
		h->disk->boot[510] = 0x55;
		h->disk->boot[511] = 0xaa;
		snprintf(h->sock, sizeof(h->sock), "%s/sock%d", dir, i);
		snprintf(h->qmp, sizeof(h->qmp), "%s/qmp%d", dir, i);
		snprintf(h->log, sizeof(h->log), "%s/log%d", dir, i);
		h->monitor = -1;
		h->vm = h->backend = 0;
	}
}

static void show(const char *path)
{
	char line[512];
	FILE *f = fopen(path, "r");

	while (f && fgets(line, sizeof(line), f))
		printf("#   %s", line);
	if (f)
		fclose(f);
}

static void end(void)
{
	for (int i = 0; i < 2; i++) {
		struct host *h = &hosts[i];
		char path[160];

		if (h->vm > 0)
			kill(h->vm, SIGKILL);
		finish(&h->vm, 5);
		if (h->backend > 0) {
			kill(h->backend, SIGTERM);
			CHECK(finish(&h->backend, 30) == 0);
			CHECK(!log_has(h, "misled", NULL));
		}
		CHECK(h->disk->errors == 0);
		if (h->monitor >= 0)
			close(h->monitor);
		if (case_failed) {
			show(h->log);
			snprintf(path, sizeof(path), "%s.qemu", h->log);
			show(path);
		}
		unlink(h->qmp);
		munmap(h->disk, sizeof(*h->disk));
	}
}

static void start_guest(struct host *h, uint64_t reads)
{
	begin();
	backend_start(h);
	vm_start(h, NULL);
	CHECK(passed(h, reads));
}

static void end_guest(struct host *h)
{
	h->disk->stop = 1;
	CHECK(guest_is_good(h));
}

static void boot(void)
{
	struct host *h = &hosts[0];
	uint32_t v;

	start_guest(h, 300);
	end_guest(h);
	v = h->disk->written[0];
	CHECK(h->disk->writes >= 3 && v > 2048 && (v - 2048) % 96 == 95);
	CHECK(h->disk->logged == 0);
	CHECK(log_has(h, "SET_VRING_ENABLE", NULL));
	end();
}

static void memory_hotplug(void)
{
	struct host *h = &hosts[0];
	uint64_t reads;

	start_guest(h, 200);
	CHECK(qmp(h, "{\"execute\":\"object-add\",\"arguments\":{\"qom-type\":\"memory-backend-memfd\",\"id\":\"more\","
		     "\"size\":134217728,\"share\":true}}"));
	CHECK(qmp(h, "{\"execute\":\"device_add\",\"arguments\":{\"driver\":\"pc-dimm\",\"id\":\"dimm\","
		     "\"memdev\":\"more\"}}"));
	CHECK(soon_log(h, "ADD_MEM_REG", "queue 0 runs"));
	reads = h->disk->reads;
	CHECK(passed(h, reads + 200));
	end_guest(h);
	end();
}

static void guest_hears_of_resize(void)
{
	struct host *h = &hosts[0];
	unsigned int asked, i;

	start_guest(h, 200);
	/* first that it may have been resized before it started */
	CHECK(soon_log(h, "GET_CONFIG", "told the front end of the new configuration"));
	asked = log_count(h, "GET_CONFIG");
	h->disk->resize_to = 1ull << 32;
	for (i = 0; i < WAIT_S * 100 && log_count(h, "GET_CONFIG") == asked; i++)
		usleep(10000);
	CHECK(log_count(h, "GET_CONFIG") > asked);
	end_guest(h);
	end();
}

/* The back end is ended and started again; the guest goes on. */
static void backend_restarts(void)
{
	struct host *h = &hosts[0];
	uint64_t reads;

	start_guest(h, 200);
	kill(h->backend, SIGTERM);
	CHECK(finish(&h->backend, 30) == 0);
	reads = h->disk->reads;
	usleep(300000);
	CHECK(h->disk->reads == reads);
	backend_start(h);
	CHECK(passed(h, reads + 300));
	/* it may have been resized meanwhile */
	CHECK(soon_log(h, "GET_CONFIG", "told the front end of the new configuration"));
	end_guest(h);
	end();
}

static bool migrated(struct host *h)
{
	for (int i = 0; i < WAIT_S * 20; i++) {
		const char *answer = qmp(h, "{\"execute\":\"query-migrate\"}");

		if (!answer || strstr(answer, "\"failed\"")) {
			printf("# %s", answer ? answer : "no answer\n");
			return false;
		}
		if (strstr(answer, "\"completed\""))
			return true;
		usleep(50000);
	}
	return false;
}

static void migration(void)
{
	struct host *a = &hosts[0], *b = &hosts[1];
	char uri[128], command[256];
	uint64_t reads;

	begin();
	backend_start(a);
	backend_start(b);
	snprintf(uri, sizeof(uri), "unix:%s/migration", dir);
	vm_start(b, uri);
	vm_start(a, NULL);
	CHECK(passed(a, 300));
	CHECK(qmp(b, "{\"execute\":\"query-status\"}"));
	/* Slowly enough for the guest to write while memory is on its way. */
	CHECK(qmp(a, "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"max-bandwidth\":4194304}}"));
	snprintf(command, sizeof(command), "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"%s\"}}", uri);
	CHECK(qmp(a, command));
	CHECK(migrated(a));
	reads = a->disk->reads;
	CHECK(a->disk->logged > 0);
	CHECK(passed(b, 300));
	end_guest(b);
	CHECK(a->disk->reads == reads);
	printf("# %llu pages logged\n", (unsigned long long)a->disk->logged);
	/* The source, should it go on after all, still has its disk. */
	CHECK(qmp(a, "{\"execute\":\"cont\"}"));
	CHECK(passed(a, reads + 100));
	CHECK(b->disk->reads > 0);
	end();
}

int main(void)
{
	static const struct ktap_case cases[] = {
		{ "boot", boot },
		{ "memory hotplug", memory_hotplug },
		{ "resize", guest_hears_of_resize },
		{ "back end restarts", backend_restarts },
		{ "migration", migration },
	};
	const int nr = sizeof(cases) / sizeof(cases[0]);
	char cmd[128], name[64];
	ssize_t n;
	int ret = 0;

	n = readlink("/proc/self/exe", qemu10, sizeof(qemu10) - 64);
	if (n < 0)
		return 1;
	qemu10[n] = 0;
	*strrchr(qemu10, '/') = 0;
	strcat(qemu10, "/../trixie/bin/qemu-system-x86_64");

	ktap_plan(2 * nr);
	for (int i = 0; i < 2 * nr; i++) {
		strcpy(dir, "/tmp/vu-qemu-XXXXXX");
		if (!mkdtemp(dir))
			return 1;
		qemu = i < nr ? "qemu-system-x86_64" : qemu10;
		snprintf(name, sizeof(name), "%s: %s", i < nr ? "QEMU 7.2" : "QEMU 10", cases[i % nr].name);
		ktap_run(name, cases[i % nr].run);
		snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
		if (system(cmd))
			ret = 1;
	}
	return ret | ktap_status();
}
