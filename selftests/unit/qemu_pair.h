/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two QEMUs, a source and a destination of a migration, for tests of userland/iovmd: the source is started here, the destination by
 * incoming_prepare(). The guest is a BIOS of a few instructions, that writes to its memory and counts, for ever.
 */
#ifndef QEMU_PAIR_H
#define QEMU_PAIR_H

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define BIOS_SIZE	65536

/* Real mode, no stack: a word in each page from 0x10000 to 0x8ffff, and the counter at 0x500. */
asm(".pushsection .rodata\n"
    "guest_start:\n"
    "	.code16\n"
    "	cli\n"
    "	xorw %ax, %ax\n"
    "	movw %ax, %ds\n"
    "1:	movw $0x1000, %ax\n"
    "2:	movw %ax, %es\n"
    "	incl %es:0\n"
    "	incl 0x500\n"
    "	addw $0x100, %ax\n"
    "	cmpw $0x9000, %ax\n"
    "	jb 2b\n"
    "	jmp 1b\n"
    "guest_end:\n"
    "	.code64\n"
    ".popsection\n");
extern const uint8_t guest_start[], guest_end[];

static char dir[64];		/* of this program, without a slash at the end */
static char bios[96];
static const char *qemu;	/* the binary under test */
static char qemu10[PATH_MAX];

/* A file name in dir; one buffer for each call site. */
#define FILE_IN_DIR(name)	({ static char at_[128]; snprintf(at_, sizeof(at_), "%s/%s", dir, name); at_; })

static inline void make_dir(void)
{
	static const uint8_t reset[] = { 0xea, 0, 0, 0, 0xf0 };		/* jmp f000:0000 */
	uint8_t image[BIOS_SIZE] = { 0 };
	int fd;

	snprintf(dir, sizeof(dir), "/tmp/iovmd-test-XXXXXX");
	if (!mkdtemp(dir)) {
		perror("mkdtemp");
		exit(1);
	}
	memcpy(image, guest_start, (size_t)(guest_end - guest_start));
	memcpy(image + 0xfff0, reset, sizeof(reset));
	snprintf(bios, sizeof(bios), "%s/bios", dir);
	fd = creat(bios, 0600);
	if (fd < 0 || write(fd, image, sizeof(image)) != sizeof(image)) {
		perror(bios);
		exit(1);
	}
	close(fd);
}

static inline void remove_dir(void)
{
	char cmd[96];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	if (system(cmd))
		printf("# %s is left behind\n", dir);
}

/* The QEMUs to test with, by number; NULL: no more. */
static inline const char *qemu_nr(unsigned int i)
{
	ssize_t len = readlink("/proc/self/exe", qemu10, sizeof(qemu10) - 64);

	if (i == 0)
		return "qemu-system-x86_64";
	if (i > 1 || len < 0)
		return NULL;
	qemu10[len] = 0;
	*strrchr(qemu10, '/') = 0;
	strcat(qemu10, "/../trixie/bin/qemu-system-x86_64");
	return qemu10;
}

/* What both have in common, as words for a shell */
static inline const char *machine(void)
{
	static char words[512];

	snprintf(words, sizeof(words), "%s -M pc -accel tcg -m 64 -nodefaults -no-user-config -display none -bios %s", qemu, bios);
	return words;
}

static inline pid_t spawn(const char *command)
{
	char line[2048];
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(line, sizeof(line), "exec %s >%s/spawned.log 2>&1", command, dir);
		execl("/bin/sh", "sh", "-c", line, (char *)NULL);
		_exit(127);
	}
	return pid;
}

/* The counter of a guest, read with QEMU's own monitor. */
static inline unsigned long guest_count(const char *qmp)
{
	char why[QMP_WHY], *end;
	struct json_node *reply;
	unsigned long count = 0;
	const char *colon;
	struct qmp q;

	if (qmp_open(&q, qmp, 10000, why, sizeof(why)))
		return 0;
	json_str(qmp_command(&q, "human-monitor-command"), "command-line", "xp /1wx 0x500");
	if (!qmp_run(&q, 10000, &reply, why, sizeof(why))) {
		colon = reply->type == JSON_STRING ? strchr(reply->str, ':') : NULL;
		if (colon)
			count = strtoul(colon + 1, &end, 16);
		json_free(reply);
	}
	qmp_close(&q);
	return count;
}

/* It counts on. */
static inline bool guest_works(const char *qmp)
{
	unsigned long first = guest_count(qmp);

	for (int i = 0; i < 200; i++) {
		if (guest_count(qmp) != first)
			return true;
		usleep(20000);
	}
	return false;
}

/* Has this child ended, or does it soon? Reaps it. */
static inline bool child_ended(pid_t *pid)
{
	for (int i = 0; *pid > 0 && i < 500; i++) {
		if (waitpid(*pid, NULL, WNOHANG) == *pid)
			*pid = 0;
		else
			usleep(10000);
	}
	return *pid == 0;
}

static inline void end_child(pid_t *pid)
{
	if (*pid > 0) {
		kill(*pid, SIGKILL);
		waitpid(*pid, NULL, 0);
	}
	*pid = 0;
}

#endif
