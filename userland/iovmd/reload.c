// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Takes up what was changed in the configuration while iovmd runs: 'iovmctl config reload', SIGHUP.
 *
 * First everything is looked at, and nothing changed: what was written must be right, by itself and together with what stays as it
 * is. A device stays as it is while a guest uses it, or a peer its data, and what was changed would need it to be made anew or to
 * go; so do a guest that is being migrated, its devices and the peer. Whatever stays is named, with its reason and what to do.
 * Then the new configuration takes the place of the old one (config_merge()), and each part of iovmd looks for itself what is new
 * and what has gone.
 */
#include <stdlib.h>
#include <string.h>

#include "reload.h"
#include "../iovmctl/iovmctl.h"

/* --- what stays as it is --- */

static void keep(struct reload *w, const void *item, const char *what, const char *name, const char *why, const char *remedy)
{
	struct stay *s;

	if (reload_stays(w, item))
		return;
	s = calloc(1, sizeof(*s));
	if (!s)
		abort();
	s->item = item;
	snprintf(s->why, sizeof(s->why), "%s", why);
	s->next = w->stays;
	w->stays = s;
	reload_hint(reload_note(w, "kept", what, name, "%s", why), remedy);
}

/* Is it to be otherwise, or to go? is: what it is to be, NULL: to go */
static bool differs(enum section_kind kind, const void *was, const void *is)
{
	return !is || config_diff(kind, was, is, NULL, NULL);
}

/* A peer's session with the device's export, or what was sent to it and may still land; true and why, and the remedy */
static bool peer_busy(const struct config_device *d, const struct config_peer *p, char why[WHY_MAX], char remedy[256])
{
	struct iovm_path_info pi;
	struct iovm_dev_info di;
	uint32_t id = 0;
	bool there = kernel_has_device(d->name, &di) && kernel_has_path(d->name, p->name, &pi);

	if (data_next_session(d, p, &id)) {
		snprintf(why, WHY_MAX, "'%s' is connected to its data", p->name);
		snprintf(remedy, 256, "take '%s' out of its 'peers' on '%s', 'iovmctl config reload' there, then here", agent.config->host.name,
			 p->name);
	} else if (there && (pi.in_doubt || pi.unsettled || pi.held)) {
		snprintf(why, WHY_MAX, "what was sent to '%s' may still land there", p->name);
		snprintf(remedy, 256, "'iovmctl status' says what settles it; then 'iovmctl config reload' again");
	} else if (there && di.in_use && pi.id == di.route_id) {
		snprintf(why, WHY_MAX, "its guest's requests go by path '%s'", p->name);
		snprintf(remedy, 256, "'iovmctl failback %s' or 'failover', then 'iovmctl config reload' again", d->name);
	} else {
		return false;
	}
	return true;
}

/* Whether it can be destroyed now without harm */
static bool device_busy(const struct config_device *d, char why[WHY_MAX], char remedy[256])
{
	struct iovm_dev_info di;
	unsigned int i;

	snprintf(remedy, 256, "'iovmctl config reload' again, in a moment");
	if (kernel_has_device(d->name, &di) && di.in_use) {
		snprintf(why, WHY_MAX, "a guest uses it");
		snprintf(remedy, 256, "stop the guest, then 'iovmctl config reload' again");
		return true;
	}
	if (epoch_busy(d)) {
		snprintf(why, WHY_MAX, "its epoch is being taken or given up");
		return true;
	}
	if (drain_busy(d)) {
		snprintf(why, WHY_MAX, "what a peer has sent to it is being drained");
		return true;
	}
	for (i = 0; i < d->nr_peers; i++)
		if (peer_busy(d, d->peers[i], why, remedy))
			return true;
	return false;
}

/* A guest that is being migrated, and all that has a part in that */
static void look_at_guest(struct reload *w, const struct config_guest *g)
{
	const struct config_guest *is = config_guest(w->next, g->name);
	const struct config_peer *from, *p = guest_goes_to(g);
	static const char remedy[] = "'iovmctl config reload' again, when that has ended";
	char why[CONFIG_WHY_MAX];
	unsigned int i;

	snprintf(why, sizeof(why), "guest '%s' is being migrated", g->name);
	if (arrival_busy(g, &from))
		p = from ?: p;
	else if (!p)
		return;
	if (differs(SECTION_GUEST, g, is))
		keep(w, g, "guest", g->name, why, remedy);
	for (i = 0; i < g->nr_devices; i++)
		if (differs(SECTION_DEVICE, g->devices[i], config_device(w->next, g->devices[i]->name)))
			keep(w, g->devices[i], "device", g->devices[i]->name, why, remedy);
	if (p && differs(SECTION_PEER, p, config_peer(w->next, p->name)))
		keep(w, p, "peer", p->name, why, remedy);
}

static void look_at_device(struct reload *w, const struct config_device *d)
{
	const struct config_device *is = config_device(w->next, d->name);
	const struct config_peer *p;
	char why[WHY_MAX], remedy[256];
	unsigned int mask, i;

	if (reload_stays(w, d))
		return;
	mask = is ? config_diff(SECTION_DEVICE, d, is, NULL, NULL) : 0;
	if (!is || mask & 1u << TAKEN_DEVICE_ANEW || epoch_needed(d) != epoch_needed(is)) {
		if (device_busy(d, why, remedy))
			keep(w, d, "device", d->name, why, remedy);
		return;
	}
	for (i = 0; i < d->nr_peers; i++) {
		p = config_peer(w->next, d->peers[i]->name);
		if ((!p || config_peer_of(is, p) < 0) && peer_busy(d, d->peers[i], why, remedy)) {
			keep(w, d, "device", d->name, why, remedy);
			return;
		}
	}
}

/* What stays names it. */
static void look_at_peer(struct reload *w, const struct config_peer *p)
{
	const struct config_device *d;
	char why[CONFIG_WHY_MAX];

	if (config_peer(w->next, p->name))
		return;
	for (d = w->now->devices; d; d = d->next)
		if (reload_stays(w, d) && config_peer_of(d, p) >= 0) {
			snprintf(why, sizeof(why), "device '%s', which is kept, has it among its peers", d->name);
			keep(w, p, "peer", p->name, why, "");
			return;
		}
}

static void look(struct reload *w)
{
	const struct config_device *d;
	const struct config_guest *g;
	const struct config_peer *p;

	for (g = w->now->guests; g; g = g->next)
		look_at_guest(w, g);
	for (d = w->now->devices; d; d = d->next)
		look_at_device(w, d);
	for (p = w->now->peers; p; p = p->next)
		look_at_peer(w, p);
}

/* --- does that go together? --- */

static void clash(struct reload *w, struct config_at at, const char *what, const char *name, const char *key, const char *kept,
		  const char *why)
{
	struct note *n = reload_note(w, "error", what, name, "'%s' is that of %s '%s', which stays as it is: %s", key, what, kept, why);

	n->at = at;
	reload_hint(n, "see above what that takes, or leave it as it was for now");
}

static bool devices_clash(struct reload *w)
{
	const struct config_device *d, *n;
	bool any = false;

	for (d = w->now->devices; d; d = d->next)
		for (n = w->next->devices; n && reload_stays(w, d); n = n->next)
			if (strcmp(n->name, d->name) && *d->disk && !strcmp(n->disk, d->disk)) {
				clash(w, n->at, "device", n->name, "disk", d->name, reload_stays(w, d)->why);
				any = true;
			}
	return any;
}

static bool shares_device(const struct config_guest *a, const struct config_guest *b)
{
	unsigned int i, k;

	for (i = 0; i < a->nr_devices; i++)
		for (k = 0; k < b->nr_devices; k++)
			if (!strcmp(a->devices[i]->name, b->devices[k]->name))
				return true;
	return false;
}

static bool guests_clash(struct reload *w)
{
	const struct config_guest *g, *n;
	const char *key;
	bool any = false;

	for (g = w->now->guests; g; g = g->next)
		for (n = w->next->guests; n && reload_stays(w, g); n = n->next) {
			key = shares_device(g, n) ? "devices" : *g->qmp && !strcmp(g->qmp, n->qmp) ? "qmp" :
			      *g->libvirt && !strcmp(g->libvirt, n->libvirt) ? "libvirt" : NULL;
			if (!key || !strcmp(n->name, g->name))
				continue;
			clash(w, n->at, "guest", n->name, key, g->name, reload_stays(w, g)->why);
			any = true;
		}
	return any;
}

static bool peers_clash(struct reload *w)
{
	const struct config_peer *p, *n;
	bool any = false;

	for (p = w->now->peers; p; p = p->next)
		for (n = w->next->peers; n && reload_stays(w, p); n = n->next)
			if (strcmp(n->name, p->name) && !strcmp(n->address, p->address) && n->peer_port == p->peer_port) {
				clash(w, n->at, "peer", n->name, "address", p->name, reload_stays(w, p)->why);
				any = true;
			}
	return any;
}

/* --- taking it up --- */

static void mark_kept(struct reload *w, const void *item, char kept[CONFIG_WHY_MAX])
{
	const struct stay *s = reload_stays(w, item);

	snprintf(kept, CONFIG_WHY_MAX, "%s", s ? s->why : "");
}

static void take_up(struct reload *w)
{
	uint64_t io_rate = w->now->host.io_rate;
	bool peers = reload_tell(w);
	char why[WHY_MAX];
	struct config_device *d;
	struct config_guest *g;
	struct config_peer *p;

	for (p = w->now->peers; p; p = p->next)
		mark_kept(w, p, p->kept);
	for (g = w->now->guests; g; g = g->next)
		mark_kept(w, g, g->kept);
	for (d = w->now->devices; d; d = d->next) {
		mark_kept(w, d, d->kept);
		if (!*d->kept)
			apply_change(d, w->next);
	}
	config_merge(w->now, w->next);
	/* handshakes under way go by what was granted before */
	if (peers)
		data_cut();
	epoch_reload();
	doubt_reload();
	fence_host_reload();
	arrival_reload();
	guest_reload();
	check_reload();
	peer_reload();
	apply_reload(io_rate != w->now->host.io_rate);
	config_sweep(w->now);
	if (main_listen(why))
		reload_hint(reload_note(w, "note", "host", "", "no peer can connect: %s", why),
			    "'listen', 'peer-port' and 'data-port' in [host] say where");
}

static void take_mistakes(struct reload *w)
{
	unsigned int i;

	for (i = 0; i < w->errs.nr && i < CONFIG_MAX_ERRORS; i++) {
		const struct config_error *e = &w->errs.e[i];
		struct note *n = reload_note(w, "error", "", "", "%s", e->text);

		n->at = e->at;
		reload_hint(n, e->remedy);
	}
	if (w->errs.nr > CONFIG_MAX_ERRORS)
		reload_note(w, "error", "", "", "and %u more", w->errs.nr - CONFIG_MAX_ERRORS);
}

void reload(struct line *l, uint64_t id)
{
	struct reload w = { .now = agent.config };
	uint64_t sum = config_sum(agent.config_file, agent.config_dir);
	const char *error = NULL;
	bool any;

	w.end = &w.notes;
	if (policy_drains()) {
		reload_finish(&w, l, id, "the host is being drained: do it when that has ended, or end it by 'iovmctl drain-host --cancel'");
		return;
	}
	w.next = config_read(agent.config_file, agent.config_dir, &w.errs);
	if (!w.next) {
		take_mistakes(&w);
		reload_finish(&w, l, id, "it has mistakes; the one in force stays so");
		return;
	}
	look(&w);
	any = devices_clash(&w);
	any |= guests_clash(&w);
	any |= peers_clash(&w);
	if (any) {
		error = "it does not go together with what has to stay as it is; the one in force stays so";
		reload_finish(&w, l, id, error);
		config_free(w.next);
		return;
	}
	take_up(&w);
	agent.config_sum = sum;
	reload_finish(&w, l, id, NULL);
}
