// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * userland/iovmd/libvirt.c with scripts in the place of iovm-libvirt: how it is run, what is made of what it writes, be that nonsense, and
 * what becomes of one that is not there, says nothing, or is killed.
 */
#define _GNU_SOURCE
#include "../../userland/common/json.c"
#include "../../userland/common/json_read.c"
#include "../../userland/common/line_read.c"
#include "../../userland/common/net.c"
#include "../../userland/iovmd/log.c"
#include "../../userland/iovmd/line.c"
#include "../../userland/iovmd/libvirt.c"
#include "ktap.h"

#include <sys/stat.h>

struct agent agent;

/* As bandwidth.c has it without a [host] rate */
uint64_t bandwidth_of_migration(const struct config_guest *g)
{
	return g->max_bandwidth;
}

/* As child.c has it, in short */
void child_reason(int status, const char *output, char why[WHY_MAX])
{
	(void)output;
	snprintf(why, WHY_MAX, "status %d", status);
}

static char dir[64] = "/tmp/iovm-libvirt-XXXXXX", ctl[128], why[WHY_MAX], said[4096];
static struct config_guest guest = { .name = "g", .libvirt = "vm1" };
static struct config_peer peer = { .name = "b", .address = "10.0.0.2", .libvirt_uri = "qemu+tls://10.0.0.2/system" };
static struct migrate_progress last;
static unsigned int nr_progress, cancel_after, hold_until;

static void on_progress(void *ctx, const struct migrate_progress *p)
{
	(void)ctx;
	last = *p;
	last.phase = NULL;
	snprintf(said + strlen(said), sizeof(said) - strlen(said), "%s;", p->phase);
	nr_progress++;
}

static bool on_cancelled(void *ctx)
{
	(void)ctx;
	return cancel_after && nr_progress >= cancel_after;
}

static bool on_may_switch(void *ctx)
{
	(void)ctx;
	return nr_progress >= hold_until;
}

static const struct migrate_ops ops = { .progress = on_progress, .cancelled = on_cancelled, .may_switch = on_may_switch };

/* Runs a shell script as iovm-libvirt. */
static enum migrate_outcome run(const char *script, bool settle)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/iovm-libvirt", dir);
	unlink(path);
	f = script ? fopen(path, "w") : NULL;
	if (f) {
		fprintf(f, "#!/bin/sh\ncd %s\n%s\n", dir, script);
		fclose(f);
		chmod(path, 0700);
	}
	nr_progress = 0;
	*said = *why = 0;
	return libvirt_out(&guest, &peer, settle, &ops, NULL, why, sizeof(why));
}

/* What a script left in a file */
static bool left(const char *name, const char *want)
{
	char path[128], text[1024] = "";
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "r");
	if (f) {
		text[fread(text, 1, sizeof(text) - 1, f)] = 0;
		fclose(f);
		unlink(path);
	}
	if (strcmp(text, want))
		printf("# %s: '%s'\n", name, text);
	return !strcmp(text, want);
}

#define END(word) "echo '{\"outcome\":\"" word "\",\"why\":\"so\"}'"

static void outcomes(void)
{
	CHECK(run(END("migrated"), false) == MIGRATE_DONE);
	CHECK(run(END("rolled-back"), false) == MIGRATE_ROLLED_BACK && !strcmp(why, "so"));
	CHECK(run(END("refused"), false) == MIGRATE_REFUSED && !strcmp(why, "so"));
	CHECK(run(END("lost"), false) == MIGRATE_LOST && !strcmp(why, "so"));
	CHECK(run(END("unclear") "; exit 3", false) == MIGRATE_UNCLEAR && !strcmp(why, "so"));
}

static void words(void)
{
	CHECK(run("echo \"$@\" >words;" END("migrated"), false) == MIGRATE_DONE);
	CHECK(left("words", "migrate --domain vm1 --to qemu+tls://10.0.0.2/system --guest-uri tcp://10.0.0.2\n"));
	guest.libvirt_tls = guest.auto_converge = true;
	guest.channels = 4;
	guest.max_bandwidth = 1 << 30;
	guest.max_downtime_ms = 300;
	guest.timeout_ms = 60000;
	strcpy(peer.address, "fd00::2");
	CHECK(run("echo \"$@\" >words;" END("rolled-back"), true) == MIGRATE_ROLLED_BACK);
	CHECK(left("words", "settle --domain vm1 --to qemu+tls://10.0.0.2/system --guest-uri tcp://[fd00::2] --tls --auto-converge --channels 4 "
		   "--bandwidth 1073741824 --downtime 300ms --timeout 60000ms\n"));
}

static void figures(void)
{
	CHECK(run("echo '{\"phase\":\"setup\"}'\n"
		  "echo '{\"phase\":\"active\",\"rate\":1,\"transferred\":2,\"remaining\":3,\"total\":4,\"dirty_rate\":5,"
		  "\"expected_downtime_ms\":6,\"downtime_ms\":7,\"total_ms\":8,\"throttle_percent\":9}'\n" END("migrated"), false) == MIGRATE_DONE);
	CHECK(!strcmp(said, "setup;active;"), "%s", said);
	CHECK(last.rate == 1 && last.transferred == 2 && last.remaining == 3 && last.total == 4 && last.dirty_rate == 5);
	CHECK(last.expected_downtime == 6 && last.downtime == 7 && last.total_ms == 8 && last.throttle == 9);
}

static void nonsense(void)
{
	CHECK(run("echo nonsense; echo '[]'; echo '{\"phase\":7,\"outcome\":[]}'; echo '{\"outcome\":\"fine\"}'; printf '\\0\\377\\n'\n"
		  "echo '{\"phase\":\"active\",\"rate\":-1,\"remaining\":1e300,\"total\":\"x\",\"total_ms\":99999999999999999999}'\n"
		  END("migrated"), false) == MIGRATE_DONE);
	CHECK(!strcmp(said, "active;") && !last.rate && !last.remaining && !last.total && !last.total_ms, "%s", said);
	/* a line that is too long to be one is given up, and so is who wrote it */
	CHECK(run("case $1 in migrate) head -c 3000000 /dev/zero | tr '\\0' x;; *) " END("rolled-back") ";; esac", false) == MIGRATE_ROLLED_BACK);
}

static void wishes(void)
{
	cancel_after = 1;
	CHECK(run("echo '{\"phase\":\"active\"}'; read w; echo $w >wish; " END("rolled-back"), false) == MIGRATE_ROLLED_BACK);
	CHECK(left("wish", "cancel\n"));
	cancel_after = 0;
	hold_until = 2;
	CHECK(run("read w; echo $w >wish; echo '{\"phase\":\"active\"}'; echo '{\"phase\":\"active\"}'; read w; echo $w >>wish;" END("migrated"),
		  false) == MIGRATE_DONE);
	CHECK(left("wish", "hold\ngo\n") && !strcmp(said, "held;held;"), "%s", said);
	hold_until = 0;
}

static void ends_early(void)
{
	CHECK(run(NULL, false) == MIGRATE_REFUSED && strstr(why, "built without libvirt-dev"), "%s", why);
	CHECK(run(NULL, true) == MIGRATE_UNCLEAR && strstr(why, "built without libvirt-dev"), "%s", why);
	/* killed in the middle: another one finds out */
	CHECK(run("case $1 in migrate) echo '{\"phase\":\"active\"}'; kill -9 $$;; *) " END("migrated") ";; esac", false) == MIGRATE_DONE);
	CHECK(run("echo $1 >>ran; exit 1", false) == MIGRATE_UNCLEAR && strstr(why, "did not say what became of it"), "%s", why);
	CHECK(left("ran", "migrate\nsettle\n"));
}

static const struct ktap_case cases[] = {
	{ "outcomes", outcomes },
	{ "the command line", words },
	{ "figures", figures },
	{ "what makes no sense", nonsense },
	{ "cancel, hold, go", wishes },
	{ "not there, killed, silent", ends_early },
};

int main(void)
{
	char line[128];
	int status;

	if (!mkdtemp(dir))
		return 1;
	snprintf(ctl, sizeof(ctl), "%s/iovmctl", dir);
	agent.iovmctl = ctl;
	status = KTAP_RUN(cases);
	snprintf(line, sizeof(line), "rm -rf %s", dir);
	return system(line) || status;
}
