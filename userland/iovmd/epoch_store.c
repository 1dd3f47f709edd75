// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Epochs: stable storage, and the worker that writes there and speaks to the kernel. See epoch_store.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "epoch_store.h"
#include "../iovmctl/iovmctl.h"

/* --- stable storage --- */

static void file_of(const struct config_device *d, char name[512], const char *suffix)
{
	snprintf(name, 512, "%.200s/epochs/%s%s", agent.state_dir, d->name, suffix);
}

void epoch_load(const struct config_device *d, struct epoch_record *r)
{
	unsigned long long epoch;
	char name[512];
	FILE *f;

	memset(r, 0, sizeof(*r));
	file_of(d, name, "");
	f = fopen(name, "re");
	if (!f) {
		if (errno != ENOENT)
			warning("cannot read '%s': %s", name, strerror(errno));
		return;
	}
	/* the holder may be nobody */
	if (fscanf(f, "%llu %63s", &epoch, r->holder) < 1) {
		warning("'%s' is damaged: nothing is known of the epoch of '%s' here", name, d->name);
		memset(r, 0, sizeof(*r));
	} else {
		r->epoch = epoch;
	}
	fclose(f);
}

/* It is there after a power failure. 0, or -1 and why. */
static int store(const struct config_device *d, const struct epoch_record *r, char why[WHY_MAX])
{
	char name[512], temp[512], dir[512], text[128];
	int fd, dir_fd, n, err;

	snprintf(dir, sizeof(dir), "%.200s/epochs", agent.state_dir);
	file_of(d, name, "");
	file_of(d, temp, ".new");
	n = snprintf(text, sizeof(text), "%llu %s\n", (unsigned long long)r->epoch, r->holder);
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, (size_t)n) != n || fsync(fd))
		goto fail;
	close(fd);
	fd = -1;
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		goto fail;
	n = rename(temp, name) || fsync(dir_fd);
	err = errno;
	close(dir_fd);
	errno = err;
	if (!n)
		return 0;
fail:
	err = errno ?: ENOSPC;
	if (fd >= 0)
		close(fd);
	snprintf(why, WHY_MAX, "the epoch of '%s' cannot be kept in '%.200s': %s", d->name, dir, strerror(err));
	return -1;
}

/* --- workers --- */

static int ctl(const char *dev, uint32_t op, uint64_t value, char why[WHY_MAX])
{
	struct iovm_dev_ctl c;
	int err;

	IOVM_INIT(&c);
	c.op = op;
	c.value = value;
	snprintf(c.name, sizeof(c.name), "%s", dev);
	err = mux_ioctl(IOVM_DEV_CTL, &c);
	if (err)
		snprintf(why, WHY_MAX, "device '%s': %s", dev, *c.msg ? c.msg : strerror(err));
	return err ? -1 : 0;
}

static int do_job(const struct epoch_job *j, char why[WHY_MAX])
{
	char export[IOVM_NAME_MAX];
	struct iovm_dev_info di;

	export_name(j->d, export);
	switch (j->what) {
	case EPOCH_JOB_GIVE:
		if (j->holds && ctl(j->d->name, IOVM_DEV_EPOCH_GIVE, j->record.epoch, why))
			return -1;
		return store(j->d, &j->record, why);
	case EPOCH_JOB_RAISE:
		if (store(j->d, &j->record, why))
			return -1;
		/* one that is made later gets it then */
		return kernel_has_device(export, &di) ? ctl(export, IOVM_DEV_EPOCH_TAKE, j->record.epoch, why) : 0;
	case EPOCH_JOB_STORE:
		return store(j->d, &j->record, why);
	case EPOCH_JOB_TAKE:
		if (kernel_has_device(export, &di) && ctl(export, IOVM_DEV_EPOCH_TAKE, j->record.epoch, why))
			return -1;
		return ctl(j->d->name, IOVM_DEV_EPOCH_TAKE, j->record.epoch, why);
	}
	return -1;
}

int epoch_work(int sock, void *data)
{
	char why[WHY_MAX] = "";
	struct msg m;
	int r;

	if (!kernel_in_child())
		return 1;
	r = do_job(data, why);
	msg_begin(&m);
	json_bool(&m.j, "ok", !r);
	json_str(&m.j, "error", why);
	msg_write(&m, sock);
	return !!r;
}
