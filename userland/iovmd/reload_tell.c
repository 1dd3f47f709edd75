// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A configuration that is read anew: what it changes, told to whoever asked and to the log. See reload.h.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "reload.h"

struct note *reload_note(struct reload *w, const char *did, const char *what, const char *name, const char *fmt, ...)
{
	struct note *n = calloc(1, sizeof(*n));
	va_list ap;

	if (!n)
		abort();
	n->did = did;
	n->what = what;
	snprintf(n->name, sizeof(n->name), "%s", name);
	va_start(ap, fmt);
	vsnprintf(n->text, sizeof(n->text), fmt, ap);
	va_end(ap);
	*w->end = n;
	w->end = &n->next;
	return n;
}

void reload_hint(struct note *n, const char *text)
{
	snprintf(n->hint, sizeof(n->hint), "%s", text);
}

/* "no-path-timeout 1min -> 5min" */
static void tell_key(const struct config_key *k, const char *was, const char *is, void *data)
{
	struct note *n = data;
	size_t len = strlen(n->text);

	if (!was && !is)
		snprintf(n->text + len, TEXT_MAX - len, "%s%s", len ? ", " : "", k->name);
	else
		snprintf(n->text + len, TEXT_MAX - len, "%s%s %s -> %s", len ? ", " : "", k->name, config_quote(was ?: "(none)"),
			 config_quote(is ?: "(none)"));
}

static void notes_json(struct json *j, const char *key, const struct reload *w)
{
	const struct note *n;

	json_open(j, key, '[');
	for (n = w->notes; n; n = n->next) {
		json_open(j, NULL, '{');
		json_str(j, "did", n->did);
		json_str(j, "what", *n->what ? n->what : NULL);
		json_str(j, "name", *n->name ? n->name : NULL);
		json_str(j, "file", n->at.file);
		if (n->at.line)
			json_u64(j, "line", n->at.line);
		else
			json_null(j, "line");
		json_str(j, "text", *n->text ? n->text : NULL);
		json_str(j, "hint", *n->hint ? n->hint : NULL);
		json_close(j);
	}
	json_close(j);
}

/* The values are not the log's business: it may be read by others than root. */
static void tell_log(const struct reload *w)
{
	const struct note *n;
	bool good;

	for (n = w->notes; n; n = n->next) {
		good = !strcmp(n->did, "added") || !strcmp(n->did, "changed") || !strcmp(n->did, "removed");
		if (!strcmp(n->did, "error") && n->at.file)
			warning("%s:%u: %s%s%s%s", n->at.file, n->at.line, n->text, *n->hint ? " (" : "", n->hint, *n->hint ? ")" : "");
		else if (good)
			info("configuration: %s%s%s%s: %s", n->what, *n->name ? " '" : "", n->name, *n->name ? "'" : "", n->did);
		else
			warning("configuration: %s%s%s%s%s: %s%s%s%s", n->what, *n->name ? " '" : "", n->name, *n->name ? "' " : " ", n->did,
				n->text, *n->hint ? " (" : "", n->hint, *n->hint ? ")" : "");
	}
}

void reload_finish(struct reload *w, struct line *l, uint64_t id, const char *error)
{
	struct note *n;
	struct stay *s;
	struct msg m;

	if (error)
		warning("the configuration was not taken up: %s", error);
	tell_log(w);
	if (l) {
		msg_begin(&m);
		json_u64(&m.j, "id", id);
		json_bool(&m.j, "ok", !error);
		json_str(&m.j, "error", error);
		notes_json(&m.j, "changes", w);
		msg_send(&m, l);
	}
	while ((n = w->notes)) {
		w->notes = n->next;
		free(n);
	}
	while ((s = w->stays)) {
		w->stays = s->next;
		free(s);
	}
	config_errors_free(&w->errs);
}

const struct stay *reload_stays(const struct reload *w, const void *item)
{
	const struct stay *s;

	for (s = w->stays; s && s->item != item;)
		s = s->next;
	return s;
}

/* --- what differs --- */

/* One of a kind that is not the same: it is told, and true. */
static bool tell_item(struct reload *w, enum section_kind kind, const char *name, const void *was, const void *is)
{
	struct note *n;

	if (was && reload_stays(w, was))
		return false;
	if (was && is && !config_diff(kind, was, is, NULL, NULL))
		return false;
	n = reload_note(w, !was ? "added" : !is ? "removed" : "changed", section_names[kind], name, "%s", "");
	if (was && is)
		config_diff(kind, was, is, tell_key, n);
	return true;
}

static void tell_host(struct reload *w)
{
	const struct config_key *k;
	unsigned int mask = config_diff(SECTION_HOST, &w->now->host, &w->next->host, NULL, NULL);
	struct config_host is = w->next->host;
	struct note *n;

	if (mask & 1u << TAKEN_RESTART) {
		/* of these only what is not taken up */
		is = w->now->host;
		for (k = config_keys[SECTION_HOST]; k->name; k++)
			if (k->taken == TAKEN_RESTART)
				memcpy((char *)&is + k->off, (char *)&w->next->host + k->off, k->size);
		n = reload_note(w, "restart", "host", "", "%s", "");
		config_diff(SECTION_HOST, &w->now->host, &is, tell_key, n);
		reload_hint(n, "it is so after 'systemctl restart iovmd'");
		is = w->next->host;
		for (k = config_keys[SECTION_HOST]; k->name; k++)
			if (k->taken == TAKEN_RESTART)
				memcpy((char *)&is + k->off, (char *)&w->now->host + k->off, k->size);
	}
	if (!(mask & ~(1u << TAKEN_RESTART)))
		return;
	n = reload_note(w, "changed", "host", "", "%s", "");
	config_diff(SECTION_HOST, &w->now->host, &is, tell_key, n);
	if (is.io_rate != w->now->host.io_rate)
		reload_hint(n, "'io-rate' is that of connections that are made from now on");
}

/* Others on other hosts may still count on it. */
static void tell_epoch(struct reload *w, const struct config_device *d)
{
	if (epoch_needed(d) && epoch_held(d))
		reload_hint(reload_note(w, "note", "device", d->name,
					"its epoch is held here: hosts that have '%s' among its peers cannot take it any more",
					w->now->host.name), "take this host out of its 'peers' there");
}

bool reload_tell(struct reload *w)
{
	const struct config_device *d;
	const struct config_guest *g;
	const struct config_peer *p;
	bool peers = false;

	tell_host(w);
	for (p = w->now->peers; p; p = p->next)
		peers |= tell_item(w, SECTION_PEER, p->name, p, config_peer(w->next, p->name));
	for (p = w->next->peers; p; p = p->next)
		if (!config_peer(w->now, p->name))
			peers |= tell_item(w, SECTION_PEER, p->name, NULL, p);
	for (d = w->now->devices; d; d = d->next) {
		if (!tell_item(w, SECTION_DEVICE, d->name, d, config_device(w->next, d->name)))
			continue;
		peers |= d->nr_peers;
		if (!config_device(w->next, d->name))
			tell_epoch(w, d);
	}
	for (d = w->next->devices; d; d = d->next)
		if (!config_device(w->now, d->name))
			tell_item(w, SECTION_DEVICE, d->name, NULL, d);
	for (g = w->now->guests; g; g = g->next)
		tell_item(w, SECTION_GUEST, g->name, g, config_guest(w->next, g->name));
	for (g = w->next->guests; g; g = g->next)
		if (!config_guest(w->now, g->name))
			tell_item(w, SECTION_GUEST, g->name, NULL, g);
	return peers;
}
