// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * /dev/iovm-mux: what is there, and that something has happened. An event only says when to look: what there is to do is read afresh.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "iovmd.h"
#include "../iovmctl/iovmctl.h"

bool opt_json;		/* of iovmctl's mux.c: how it prints errors */

static sd_event_source *soon;

static void look(void *data)
{
	(void)data;
	timer_clear(&soon);
	apply_look();
	epoch_look();
	doubt_look();
	guest_look();
}

/* A fault makes many events: one look for all. */
static int on_events(sd_event_source *source, int fd, uint32_t events, void *data)
{
	static char buf[64 * 1024];
	bool any = false;

	(void)source;
	(void)events;
	(void)data;
	while (read(fd, buf, sizeof(buf)) > 0)
		any = true;
	if (any && !soon)
		timer_set(&soon, 50, look, NULL);
	return 0;
}

int kernel_open(char why[WHY_MAX])
{
	int r;

	if (mux_open()) {
		snprintf(why, WHY_MAX, "the kernel side cannot be reached: see above");
		return -1;
	}
	r = fcntl(mux_fd, F_SETFL, fcntl(mux_fd, F_GETFL) | O_NONBLOCK) ? -errno :
	    sd_event_add_io(agent.loop, NULL, mux_fd, EPOLLIN, on_events, NULL);
	if (r < 0) {
		snprintf(why, WHY_MAX, "cannot wait for events of the kernel: %s", strerror(-r));
		return -1;
	}
	return 0;
}

bool kernel_in_child(void)
{
	mux_fd = -1;		/* the parent's: it was closed */
	return !mux_open();
}

bool kernel_has_device(const char *name, struct iovm_dev_info *info)
{
	IOVM_INIT(info);
	snprintf(info->name, sizeof(info->name), "%s", name);
	return !mux_ioctl(IOVM_DEV_GET, info);
}

bool kernel_has_path(const char *dev, const char *name, struct iovm_path_info *info)
{
	IOVM_INIT(info);
	snprintf(info->dev, sizeof(info->dev), "%s", dev);
	snprintf(info->name, sizeof(info->name), "%s", name);
	return !mux_ioctl(IOVM_PATH_GET, info);
}
