// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A sum over the configuration files, which tells whether they have been changed since.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

#define SEED	14695981039346656037u	/* FNV-1a */

static uint64_t add(uint64_t h, const char *bytes, size_t n)
{
	while (n--)
		h = (h ^ (unsigned char)*bytes++) * 1099511628211u;
	return h;
}

static uint64_t add_file(uint64_t h, const char *name)
{
	FILE *f = fopen(name, "re");
	char buf[4096];
	size_t n;

	h = add(h, name, strlen(name) + 1);
	while (f && (n = fread(buf, 1, sizeof(buf), f)))
		h = add(h, buf, n);
	if (f)
		fclose(f);
	return h;
}

static int is_conf(const struct dirent *d)
{
	return config_is_file(d->d_name);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

uint64_t config_sum(const char *file, const char *dir)
{
	uint64_t h = add_file(SEED, file);
	struct dirent **names;
	char path[4096];
	int nr, i;

	nr = scandir(dir, &names, is_conf, by_name);
	for (i = 0; i < nr; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
		h = add_file(h, path);
		free(names[i]);
	}
	if (nr >= 0)
		free(names);
	return h;
}
