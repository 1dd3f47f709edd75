// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of how iovmctl finds out what data it is (userland/iovmctl/identity.c): by what sysfs says of a device, in a tree
 * made up for it, by the description of an NBD export; and which servers it knows to answer from their page cache.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ktap.h"
#include "../../userland/common/parse.c"
#include "../../userland/iovmctl/identity.c"

int fail(enum exit_code code, const char *hint, const char *fmt, ...)
{
	(void)hint;
	(void)fmt;
	return code;
}

int usage_error(const struct cmd *cmd, const char *fmt, ...)
{
	(void)cmd;
	(void)fmt;
	return EX_USAGE_ERR;
}

static char dir[] = "/tmp/iovm-identity-XXXXXX";

/* A device with one attribute, or two; what it is then. The tree is gone afterwards. */
static void try_disk(const char *attr, const char *text, const char *attr2, const char *text2, const char *want)
{
	const char *names[] = { attr, attr2 }, *texts[] = { text, text2 };
	char path[256], cmd[256], id[IOVM_IDENTITY_MAX];
	unsigned int i;
	FILE *f;

	for (i = 0; i < 2 && names[i]; i++) {
		snprintf(path, sizeof(path), "%s/disk", dir);
		mkdir(path, 0700);
		snprintf(path, sizeof(path), "%s/disk/%s", dir, names[i]);
		*strrchr(path, '/') = 0;
		mkdir(path, 0700);
		snprintf(path, sizeof(path), "%s/disk/%s", dir, names[i]);
		f = fopen(path, "w");
		CHECK(f, "%s", path);
		if (!f)
			return;
		fputs(texts[i], f);
		fclose(f);
	}
	snprintf(path, sizeof(path), "%s/disk", dir);
	identity_of_sysfs(path, id);
	CHECK(!strcmp(id, want), "%s '%s': '%s', not '%s'", attr, text, id, want);
	snprintf(cmd, sizeof(cmd), "rm -rf %s/disk", dir);
	CHECK(!system(cmd), "%s", cmd);
}

static void disks(void)
{
	char uuid[256];

	try_disk("device/wwid", "naa.5000c500a1b2c3d4\n", NULL, NULL, "wwn:naa.5000c500a1b2c3d4");
	try_disk("device/wwid", "naa.600140500000000000000000000000ab\n", NULL, NULL, "wwn:naa.600140500000000000000000000000ab");
	try_disk("device/wwid", "eui.0123456789abcdef\n", NULL, NULL, "wwn:eui.0123456789abcdef");
	try_disk("device/wwid", "naa.3333333000001388\n", NULL, NULL, "");	/* locally assigned */
	try_disk("device/wwid", "t10.ATA     QEMU HARDDISK                           QM00001\n", NULL, NULL, "");
	try_disk("device/wwid", "naa.xyz\n", NULL, NULL, "");
	try_disk("device/wwid", "naa.\n", NULL, NULL, "");
	try_disk("device/wwid", "\n", NULL, NULL, "");
	try_disk("wwid", "uuid.0f2d1c3b-0000-1111-2222-333344445555\n", NULL, NULL, "nvme-uuid:0f2d1c3b-0000-1111-2222-333344445555");
	try_disk("wwid", "eui.0025385b71b00001\n", NULL, NULL, "nvme-eui:0025385b71b00001");
	try_disk("wwid", "nvme.1b36-64656164-51454d55-00000001\n", NULL, NULL, "");
	try_disk("dm/name", "vg-lv\n", "dm/uuid", "LVM-abcDEF012\n", "dm-uuid:LVM-abcDEF012");
	try_disk("dm/name", "x\n", "dm/uuid", "\n", "");
	try_disk("dm/name", "x\n", "device/wwid", "naa.5000c500a1b2c3d4\n", "");	/* what dm makes of a disk is not the disk */
	/* the same as by one of its paths */
	try_disk("dm/name", "mpatha\n", "dm/uuid", "mpath-35000c500a1b2c3d4\n", "wwn:naa.5000c500a1b2c3d4");
	try_disk("dm/name", "mpathb\n", "dm/uuid", "mpath-SVENDOR_DISK_1\n", "dm-uuid:mpath-SVENDOR_DISK_1");
	try_disk("dm/name", "part\n", "dm/uuid", "part1-mpath-35000c500a1b2c3d4\n", "dm-uuid:part1-mpath-35000c500a1b2c3d4");
	try_disk("md/uuid", "01234567:89abcdef:01234567:89abcdef\n", NULL, NULL, "md-uuid:01234567:89abcdef:01234567:89abcdef");
	try_disk("loop/backing_file", "/srv/image\n", NULL, NULL, "");
	memset(uuid, 'u', sizeof(uuid));
	uuid[200] = 0;
	try_disk("dm/name", "x\n", "dm/uuid", uuid, "");			/* too long to be told apart */
	try_disk("dm/name", "x\n", "dm/uuid", "a b\n", "");
}

static void write_attr(const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	CHECK(f, "%s", path);
	if (f) {
		fputs(text, f);
		fclose(f);
	}
}

static void partitions(void)
{
	char path[256], id[IOVM_IDENTITY_MAX], other[IOVM_IDENTITY_MAX];

	snprintf(path, sizeof(path), "%s/device", dir);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/sda1", dir);
	mkdir(path, 0700);
	write_attr("sda1/partition", "1\n");
	write_attr("sda1/start", "2048\n");
	identity_of_sysfs(path, id);
	CHECK(!*id, "the disk shows nothing: '%s'", id);
	write_attr("device/wwid", "naa.5000c500a1b2c3d4\n");
	identity_of_sysfs(path, id);
	CHECK(!strcmp(id, "wwn:naa.5000c500a1b2c3d4+start=2048"), "'%s'", id);
	write_attr("sda1/start", "4096\n");
	identity_of_sysfs(path, other);
	CHECK(strcmp(id, other), "two partitions are one: '%s'", id);
	identity_of_sysfs(dir, other);
	CHECK(strcmp(id, other) && *other, "disk and partition are one: '%s'", id);
	write_attr("sda1/start", "");
	identity_of_sysfs(path, id);
	CHECK(!*id, "it begins nowhere: '%s'", id);
}

static void descriptions(void)
{
	static const struct { const char *text, *want; } t[] = {
		{ NULL, "" }, { "", "" }, { "the disk of vm1", "" },
		{ "iovm-id=id:x", "id:x" }, { "disk of vm1, iovm-id=wwn:naa.5 (sas)", "wwn:naa.5" }, { "a\niovm-id=id:x\nb", "id:x" },
		{ "not-iovm-id=id:x", "" }, { "not-iovm-id=id:x iovm-id=id:y", "id:y" }, { "iovm-id= id:x", "" }, { "iovm-id=x", "" },
		{ "iovm-id=", "" }, { "iovm-id=id:\xc3\xa4", "" }, { "iovm-id", "" },
	};
	char id[IOVM_IDENTITY_MAX], text[400] = "iovm-id=id:";
	unsigned int i;

	for (i = 0; i < sizeof(t) / sizeof(*t); i++) {
		identity_of_description(t[i].text, id);
		CHECK(!strcmp(id, t[i].want), "'%s': '%s', not '%s'", t[i].text ? t[i].text : "none", id, t[i].want);
	}
	memset(text + strlen(text), 'x', 124);
	identity_of_description(text, id);
	CHECK(strlen(id) == IOVM_IDENTITY_MAX - 1, "the longest: %zu", strlen(id));
	text[strlen(text)] = 'x';
	identity_of_description(text, id);
	CHECK(!*id, "one more: '%s'", id);
}

static void settled(void)
{
	char id[IOVM_IDENTITY_MAX];

	CHECK(!identity_settle(NULL, "x", NULL, "", id) && !*id, "nothing: '%s'", id);
	CHECK(!identity_settle(NULL, "x", NULL, "id:a", id) && !strcmp(id, "id:a"), "found: '%s'", id);
	CHECK(!identity_settle(NULL, "x", "id:a", "", id) && !strcmp(id, "id:a"), "given: '%s'", id);
	CHECK(!identity_settle(NULL, "x", "id:a", "id:a", id) && !strcmp(id, "id:a"), "both: '%s'", id);
	CHECK(identity_settle(NULL, "x", "id:b", "id:a", id) == EX_REFUSED, "they differ");
	CHECK(identity_settle(NULL, "x", "b", "", id) == EX_USAGE_ERR, "not one");
}

static void servers(void)
{
	static const struct { const char *argv[8]; bool buffers; } t[] = {
		{ { "qemu-nbd", "-t", "-k", "/s", "/dev/sdb" }, true },
		{ { "/usr/bin/qemu-nbd", "--cache=writeback", "/dev/sdb" }, true },
		{ { "qemu-nbd", "--cache=none", "/dev/sdb" }, false }, { { "qemu-nbd", "--cache", "none", "/dev/sdb" }, false },
		{ { "qemu-nbd", "--cache=directsync", "/dev/sdb" }, false }, { { "qemu-nbd", "-n", "/dev/sdb" }, false },
		{ { "qemu-nbd", "--image-opts", "driver=raw,file.filename=/dev/sdb,cache.direct=on" }, false },
		{ { "nbdkit", "-f", "file", "/dev/sdb" }, true }, { { "nbdkit", "memory", "1G" }, false }, { { "nbd-server" }, true },
		{ { "qemu-storage-daemon", "--blockdev", "driver=file,node-name=f,filename=/x" }, true },
		{ { "qemu-storage-daemon", "--blockdev", "driver=host_device,node-name=f,filename=/x,cache.direct=on" }, false },
		{ { "python3", "server.py" }, false }, { { "" }, false }, { { NULL }, false },
	};
	unsigned int i;

	for (i = 0; i < sizeof(t) / sizeof(*t); i++)
		CHECK(!!server_buffers(t[i].argv) == t[i].buffers, "%s %s", t[i].argv[0] ? t[i].argv[0] : "nothing",
		      t[i].argv[0] && t[i].argv[1] ? t[i].argv[1] : "");
}

static const struct ktap_case cases[] = {
	{ "disks", disks },
	{ "partitions", partitions },
	{ "descriptions of exports", descriptions },
	{ "given and found", settled },
	{ "servers that buffer", servers },
};

int main(void)
{
	char cmd[64];
	int ret;

	if (!mkdtemp(dir))
		return 1;
	ret = KTAP_RUN(cases);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd) ? 1 : ret;
}
