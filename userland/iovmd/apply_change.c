// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The configuration was read anew: what becomes of a device that was made by the one before. See apply.h.
 */
#include <string.h>

#include "apply.h"
#include "config_file.h"

/* --- steps --- */

void remove_step(struct step *s, const struct config_device *d, const char *path)
{
	step_add(s, "path");
	step_add(s, "remove");
	step_add(s, d->name);
	step_add(s, path);
}

static void destroy_step(struct step *s, const char *dev)
{
	step_add(s, "destroy");
	step_add(s, dev);
}

/* Limits and times, all of them: those that are not configured any more are what they are by default. */
static void set_step(struct step *s, const struct config_device *d)
{
	const struct config_key *k;
	static char options[16][32];
	unsigned int n = 0;

	step_add(s, "set");
	step_add(s, d->name);
	for (k = config_keys[SECTION_DEVICE]; k->name && n < 16; k++) {
		if (k->taken != TAKEN_SET)
			continue;
		snprintf(options[n], sizeof(options[n]), "--%s", k->option);
		step_add(s, options[n++]);
		step_add(s, config_arg(&d->create, k->option) ?: k->fallback);
	}
}

static void path_set_step(struct step *s, const char *dev, const char *path, const struct config_args *a)
{
	const char *command = config_arg(a, "fence-command"), *by = config_arg(a, "fence-by") ?: command ? "command" : "hand";

	step_add(s, "path");
	step_add(s, "set");
	step_add(s, dev);
	step_add(s, path);
	step_add(s, "--fence-by");
	step_add(s, by);
	if (command) {
		step_add(s, "--fence-command");
		step_add(s, command);
	}
	if (strcmp(by, "hand")) {
		step_add(s, "--fence-after");
		step_add(s, config_arg(a, "fence-after") ?: "3s");
	}
}

/* The first thing that is to be changed; what is not there is made as it has to be. */
bool change_step(struct work *w, struct step *s)
{
	const struct config_device *d = w->d;
	struct iovm_dev_info di;
	struct iovm_path_info pi;
	unsigned int i;

	export_name(d, s->text[1]);
	if (!(w->todo & TODO_SET) || !kernel_has_device(d->name, &di))
		w->todo &= ~TODO_SET;
	if (!(w->todo & TODO_LOCAL) || !kernel_has_path(d->name, "local", &pi))
		w->todo &= ~TODO_LOCAL;
	if (!(w->todo & TODO_EXPORT) || !kernel_has_path(s->text[1], "local", &pi))
		w->todo &= ~TODO_EXPORT;
	for (i = 0; i < CONFIG_MAX_PEERS; i++)
		if (i >= d->nr_peers || !(w->todo & TODO_REMOTE(i)) || !kernel_has_path(d->name, d->peers[i]->name, &pi))
			w->todo &= ~TODO_REMOTE(i);
	for (i = 0; i < CONFIG_MAX_PEERS && !(w->todo & TODO_REMOTE(i));)
		i++;
	if (w->todo & TODO_SET) {
		s->todo = TODO_SET;
		set_step(s, d);
	} else if (w->todo & TODO_LOCAL) {
		s->todo = TODO_LOCAL;
		path_set_step(s, d->name, "local", &d->local);
	} else if (w->todo & TODO_EXPORT) {
		s->todo = TODO_EXPORT;
		path_set_step(s, s->text[1], "local", &d->local);
	} else if (i < CONFIG_MAX_PEERS) {
		s->todo = TODO_REMOTE(i);
		path_set_step(s, d->name, d->peers[i]->name, &d->remote);
	}
	return s->todo;
}

/* A guest's requests go by it: it stays until they go elsewhere. */
static bool stays(const struct iovm_dev_info *di, const struct iovm_path_info *pi)
{
	return di->in_use && pi->id == di->route_id;
}

/* The first path that is to be removed and may be */
bool gone_step(struct work *w, const struct iovm_dev_info *di, struct step *s)
{
	struct iovm_path_info pi;
	unsigned int i;

	for (i = 0; i < w->nr_gone;) {
		if (!kernel_has_path(w->d->name, w->gone[i], &pi)) {
			memmove(w->gone[i], w->gone[i + 1], sizeof(w->gone[0]) * (--w->nr_gone - i));
			continue;
		}
		if (!stays(di, &pi)) {
			remove_step(s, w->d, w->gone[i]);
			return true;
		}
		i++;
	}
	return false;
}

/* Device and export are to go: false once they have. */
bool leave_step(struct work *w, struct step *s)
{
	struct iovm_dev_info di;

	export_name(w->d, s->text[1]);
	if (kernel_has_device(s->text[1], &di))
		destroy_step(s, s->text[1]);
	else if (kernel_has_device(w->d->name, &di))
		destroy_step(s, w->d->name);
	else
		return false;
	return true;
}

/* --- what was changed --- */

static void path_goes(struct work *w, const char *path)
{
	unsigned int i;

	for (i = 0; i < w->nr_gone && strcmp(w->gone[i], path);)
		i++;
	if (i < w->nr_gone || i == MAX_GONE)
		return;
	snprintf(w->gone[w->nr_gone++], IOVM_NAME_MAX, "%s", path);
}

/* Does a peer have another address than before? */
static bool is_elsewhere(const struct config_peer *was, const struct config_peer *is)
{
	return strcmp(was->address, is->address) || was->data_port != is->data_port;
}

void apply_change(const struct config_device *d, const struct config *next)
{
	const struct config_device *is = config_device(next, d->name);
	struct work *w = work_of(d);
	const struct config_peer *p;
	unsigned int mask, i;

	if (!w)
		return;
	if (!is) {
		disk_forget(d);
		w->leaving = true;
		return;
	}
	mask = config_diff(SECTION_DEVICE, d, is, NULL, NULL);
	if (mask & 1u << TAKEN_DEVICE_ANEW || epoch_needed(d) != epoch_needed(is)) {
		disk_forget(d);
		w->anew = true;
	}
	if (mask & 1u << TAKEN_SET)
		w->todo |= TODO_SET;
	if (mask & 1u << TAKEN_PATH_SET)
		w->todo |= TODO_LOCAL | TODO_EXPORT | TODO_REMOTES;
	for (i = 0; i < d->nr_peers; i++) {
		p = config_peer(next, d->peers[i]->name);
		if (!p || config_peer_of(is, p) < 0 || mask & 1u << TAKEN_PATH_ANEW || is_elsewhere(d->peers[i], p))
			path_goes(w, d->peers[i]->name);
	}
}
