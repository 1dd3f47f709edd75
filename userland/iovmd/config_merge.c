// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A configuration that was read anew takes the place of the one in force, without anything in memory being moved: all parts of
 * iovmd hold pointers to peers, devices and guests. See config_merge() in config.h.
 *
 * What a struct of the one in force has is replaced by what the new one's of the same name has. A new name's struct goes from the
 * one configuration to the other as it is; one that is not configured any more is put aside until nobody has a pointer to it. Then
 * the memory that nothing points into is freed: that is text, and structs whose contents were taken.
 */
#include <stdlib.h>
#include <string.h>

#include "config_file.h"

_Static_assert(offsetof(struct config_peer, kept) == offsetof(struct config_device, kept) &&
	       offsetof(struct config_peer, kept) == offsetof(struct config_guest, kept) &&
	       offsetof(struct config_peer, used) == offsetof(struct config_device, used) &&
	       offsetof(struct config_peer, used) == offsetof(struct config_guest, used), "they begin alike");

/* What peers, devices and guests begin with */
struct item {
	struct config_at at;
	char name[IOVM_NAME_MAX];
	char kept[CONFIG_WHY_MAX];
	bool used;
} __attribute__((may_alias));

typedef struct item *item_link __attribute__((may_alias));

_Static_assert(offsetof(struct item, name) == offsetof(struct config_peer, name) &&
	       offsetof(struct item, used) == offsetof(struct config_peer, used), "that is it");

/* A list of them: where its links are */
struct item_list {
	size_t size, next;
};

static const struct item_list peer_list = { sizeof(struct config_peer), offsetof(struct config_peer, next) };
static const struct item_list device_list = { sizeof(struct config_device), offsetof(struct config_device, next) };
static const struct item_list guest_list = { sizeof(struct config_guest), offsetof(struct config_guest, next) };

static item_link *link_of(const struct item_list *l, struct item *i)
{
	return (item_link *)(void *)((char *)i + l->next);
}

static struct item *find_item(const struct item_list *l, struct item *i, const char *name)
{
	while (i && strcmp(i->name, name))
		i = *link_of(l, i);
	return i;
}

static void take_out(const struct item_list *l, item_link *head, const struct item *i)
{
	while (*head != i)
		head = link_of(l, *head);
	*head = *link_of(l, *head);
}

static void append_item(const struct item_list *l, item_link *head, struct item *i)
{
	while (*head)
		head = link_of(l, *head);
	*head = i;
	*link_of(l, i) = NULL;
}

/* The list now, with those aside, becomes what next is. */
static void merge_list(const struct item_list *l, item_link *now, item_link *aside, struct item *next)
{
	item_link merged = NULL;
	struct item *n, *i;

	for (; next; next = n) {
		n = *link_of(l, next);
		i = find_item(l, *now, next->name);
		if (i) {
			take_out(l, now, i);
		} else {
			i = find_item(l, *aside, next->name);
			if (i)
				take_out(l, aside, i);
			else
				i = next;
		}
		if (i != next && !*i->kept)
			memcpy(i, next, l->size);
		append_item(l, &merged, i);
	}
	while ((i = *now)) {
		*now = *link_of(l, i);
		append_item(l, *i->kept ? &merged : aside, i);
	}
	*now = merged;
}

/* Names to what they name: what was read points to what was read with it. */
static void point(struct config *c)
{
	struct config_device *d;
	struct config_guest *g;
	unsigned int i;

	for (d = c->devices; d; d = d->next)
		for (i = 0; i < d->nr_peers; i++)
			d->peers[i] = config_peer(c, d->peers[i]->name);
	for (g = c->guests; g; g = g->next) {
		for (i = 0; i < g->nr_devices; i++)
			g->devices[i] = config_device(c, g->devices[i]->name);
		if (g->destination)
			g->destination = config_peer(c, g->destination->name);
	}
}

/* --- memory --- */

static const char *copy_text(void **memory, const char *s)
{
	size_t n = strlen(s) + 1;
	char *to = config_chunk(memory, n);

	if (!to)
		abort();
	return memcpy(to, s, n);
}

static void copy_args(void **memory, struct config_args *a)
{
	unsigned int i;

	for (i = 0; i < a->nr; i++)
		a->arg[i] = copy_text(memory, a->arg[i]);
}

/* Its text goes to memory, and it stays where it is. */
static void stay(struct item *i, void **memory)
{
	struct config_chunk *c = (void *)((char *)i - offsetof(struct config_chunk, data));

	c->stays = true;
	i->at.file = copy_text(memory, i->at.file);
}

static void stay_all(const struct item_list *l, struct item *i, void **memory)
{
	for (; i; i = *link_of(l, i)) {
		struct config_device *d = (void *)i;

		stay(i, memory);
		if (l != &device_list)
			continue;
		copy_args(memory, &d->create);
		copy_args(memory, &d->local);
		copy_args(memory, &d->remote);
	}
}

/* Frees what nothing points into. */
static void compact(struct config *c)
{
	struct config_chunk *all = c->memory, *next;
	void *memory = NULL;

	c->host.at.file = copy_text(&memory, c->host.at.file);
	stay_all(&peer_list, (void *)c->peers, &memory);
	stay_all(&peer_list, (void *)c->old_peers, &memory);
	stay_all(&device_list, (void *)c->devices, &memory);
	stay_all(&device_list, (void *)c->old_devices, &memory);
	stay_all(&guest_list, (void *)c->guests, &memory);
	stay_all(&guest_list, (void *)c->old_guests, &memory);
	for (; all; all = next) {
		next = all->next;
		if (all->stays) {
			all->stays = false;
			all->next = memory;
			memory = all;
		} else {
			free(all);
		}
	}
	c->memory = memory;
}

void config_merge(struct config *c, struct config *next)
{
	const struct config_key *k;
	struct config_chunk *last;

	for (k = config_keys[SECTION_HOST]; k->name; k++)
		if (k->taken == TAKEN_RESTART)
			memcpy((char *)&next->host + k->off, (char *)&c->host + k->off, k->size);
	c->host = next->host;

	merge_list(&peer_list, (void *)&c->peers, (void *)&c->old_peers, (void *)next->peers);
	merge_list(&device_list, (void *)&c->devices, (void *)&c->old_devices, (void *)next->devices);
	merge_list(&guest_list, (void *)&c->guests, (void *)&c->old_guests, (void *)next->guests);
	point(c);
	for (last = next->memory; last && last->next;)
		last = last->next;
	if (last) {
		last->next = c->memory;
		c->memory = next->memory;
	}
	free(next);
	compact(c);
}

/* --- what nobody has a pointer to --- */

static void sweep_list(const struct item_list *l, item_link *aside)
{
	struct item *i;

	while ((i = *aside)) {
		if (i->used)
			aside = link_of(l, i);
		else
			*aside = *link_of(l, i);
		i->used = false;
	}
}

void config_sweep(struct config *c)
{
	const struct config_device *d;
	const struct config_guest *g;
	unsigned int i;

	for (g = c->old_guests; g; g = g->next) {
		for (i = 0; i < g->nr_devices && g->used; i++)
			config_use_device(g->devices[i]);
		if (g->used && g->destination)
			config_use_peer(g->destination);
	}
	for (d = c->old_devices; d; d = d->next)
		for (i = 0; i < d->nr_peers && d->used; i++)
			config_use_peer(d->peers[i]);
	sweep_list(&guest_list, (void *)&c->old_guests);
	sweep_list(&device_list, (void *)&c->old_devices);
	sweep_list(&peer_list, (void *)&c->old_peers);
	compact(c);
}
