// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Epochs: stable storage, and the worker that writes there and speaks to the kernel. See epoch_store.h.
 */
#include <errno.h>
#include <string.h>

#include "epoch_store.h"
#include "../iovmctl/iovmctl.h"

#define EPOCHS	"epochs"

/* --- stable storage --- */

int epoch_dir(char why[WHY_MAX])
{
	return stable_dir(EPOCHS, why);
}

void epoch_load(const struct config_device *d, struct epoch_record *r)
{
	unsigned long long epoch;
	char text[128];
	int err;

	memset(r, 0, sizeof(*r));
	err = stable_read(EPOCHS, d->name, text, sizeof(text));
	if (err == -ENOENT)
		return;
	/* the holder may be nobody */
	if (err) {
		warning("the epoch of '%s' cannot be read: %s", d->name, strerror(-err));
	} else if (sscanf(text, "%llu %63s", &epoch, r->holder) < 1) {
		warning("what is kept of the epoch of '%s' is damaged: nothing is known of it here", d->name);
		memset(r, 0, sizeof(*r));
	} else {
		r->epoch = epoch;
	}
}

/* It is there after a power failure. 0, or -1 and why. */
static int store(const struct config_device *d, const struct epoch_record *r, char why[WHY_MAX])
{
	char text[128];
	int err;

	snprintf(text, sizeof(text), "%llu %s\n", (unsigned long long)r->epoch, r->holder);
	err = stable_write(EPOCHS, d->name, text);
	if (err)
		snprintf(why, WHY_MAX, "the epoch of '%s' cannot be kept in '%.200s/" EPOCHS "': %s", d->name, agent.state_dir,
			 strerror(-err));
	return err ? -1 : 0;
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
