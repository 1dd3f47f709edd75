// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What this host serves to whom: each device with peers and a disk, who may have it, who may write it now, and who is connected.
 */
#include <string.h>

#include "iovmd.h"
#include "../iovmctl/iovmctl.h"

static unsigned int connections_of(const struct config_device *d, const struct config_peer *p)
{
	unsigned int n = 0;
	uint32_t id;

	for (id = 0; data_next_session(d, p, &id); id++)
		n++;
	return n;
}

static void export_json(struct json *j, const struct config_device *d)
{
	char name[IOVM_NAME_MAX];
	struct iovm_dev_info di;
	unsigned int i;

	export_name(d, name);
	json_open(j, NULL, '{');
	json_str(j, "device", d->name);
	json_str(j, "disk", d->disk);
	json_str(j, "target", name);
	json_bool(j, "there", kernel_has_device(name, &di));
	json_open(j, "granted", '[');
	for (i = 0; i < d->nr_peers; i++) {
		uint64_t epoch = epoch_for_peer(d, d->peers[i]);

		json_open(j, NULL, '{');
		json_str(j, "peer", d->peers[i]->name);
		json_str(j, "address", d->peers[i]->address);
		json_bool(j, "admitted", epoch);
		json_u64(j, "epoch", epoch);
		json_u64(j, "connections", connections_of(d, d->peers[i]));
		json_close(j);
	}
	json_close(j);
	json_close(j);
}

void exports_json(struct json *j, const char *key)
{
	const struct config_device *d;

	json_open(j, key, '[');
	for (d = agent.config->devices; d; d = d->next)
		if (d->nr_peers && *d->disk)
			export_json(j, d);
	json_close(j);
}
