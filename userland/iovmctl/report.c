// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a command that changed something says at its end: one line, or the changed object as JSON.
 */
#include <string.h>

#include "iovmctl.h"

int report_dev(const char *name, const char *text)
{
	struct iovm_dev_info info;
	struct dev_view v;
	struct json j;
	int err;

	if (!opt_json && text) {
		printf("%s: %s\n", name, text);
		return EX_DONE;
	}
	err = get_dev(name, &info);
	if (err)
		return err;
	err = load_dev(&info, &v, NULL, NULL);
	if (err)
		return mux_fail(err, NULL, NULL, "cannot read device '%s'", name);
	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		fields_json(&j, dev_fields, &v);
		json_close(&j);
	} else if (info.state == IOVM_DEV_ROUTED) {
		printf("%s: requests go to path '%s'\n", name, v.route);
	} else {
		printf("%s: %s, no path takes requests\n", name, name_of(dev_state_names, info.state) ?: "unknown state");
	}
	return EX_DONE;
}

int report_path(const char *dev, const char *name)
{
	struct path_view paths[IOVM_MAX_PATHS];
	struct dev_view v;
	unsigned int nr, i;
	struct json j;
	int err;

	err = load_paths(dev, &v, paths, &nr);
	if (err)
		return err;
	for (i = 0; i < nr && strcmp(paths[i].i.name, name);)
		i++;
	if (i == nr)
		return fail(EX_NOT_FOUND, NULL, "device '%s' has no path '%s' any more", dev, name);
	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		fields_json(&j, path_fields, &paths[i]);
		json_close(&j);
		return EX_DONE;
	}
	printf("%s: path '%s' (%s) is %s%s\n", dev, name, paths[i].i.addr,
	       name_of(path_state_names, paths[i].i.state) ?: "in an unknown state",
	       paths[i].routed ? " and takes requests" : "");
	return EX_DONE;
}
