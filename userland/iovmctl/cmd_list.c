// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * list, show, version.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "iovmctl.h"

static int run_list(int argc, char **argv)
{
	struct iovm_dev_info info = { .id = 0 };
	struct dev_view *rows = NULL, *more;
	size_t nr = 0, room = 0;
	struct json j;
	int err;

	(void)argc;
	(void)argv;
	err = mux_open();
	if (err)
		return err;
	while (!(err = next_dev(&info))) {
		if (nr == room) {
			room = room ? room * 2 : 16;
			more = realloc(rows, room * sizeof(*rows));
			if (!more) {
				err = ENOMEM;
				break;
			}
			rows = more;
		}
		/* A device that goes away between the two calls is left out. */
		err = load_dev(&info, &rows[nr], NULL, NULL);
		if (err)
			break;
		nr++;
		if (info.id++ == IOVM_NO_ID - 1)
			break;
	}
	if (err && err != ENOENT) {
		free(rows);
		return mux_fail(err, NULL, NULL, "cannot list the devices");
	}
	if (opt_json) {
		json_init(&j, stdout, true);
		fields_json_array(&j, NULL, dev_fields, rows, nr, sizeof(*rows));
	} else {
		fields_table(dev_fields, rows, nr, sizeof(*rows));
	}
	free(rows);
	return EX_DONE;
}

const struct cmd cmd_list = {
	.name = "list", .args = "", .summary = "List the devices.",
	.detail =
	"One line each: the state (routed, parked, suspended, failing), the path that requests go to,\n"
	"live paths of all, running queues of all, size, and who has the node open.\n",
	.max_args = 0, .run = run_list,
};

static int run_show(int argc, char **argv)
{
	struct path_view paths[IOVM_MAX_PATHS];
	struct dev_view v;
	unsigned int nr, i;
	struct json j;
	int err;

	(void)argc;
	err = take_paths(&cmd_show, argv[0], &v, paths, &nr);
	if (err)
		return err;
	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		fields_json(&j, dev_fields, &v);
		fields_json_array(&j, "paths", path_fields, paths, nr, sizeof(*paths));
		json_close(&j);
		return EX_DONE;
	}
	fields_text(dev_fields, &v, 0);
	for (i = 0; i < nr; i++) {
		putchar('\n');
		fields_text(path_fields, &paths[i], 2);
	}
	return EX_DONE;
}

const struct cmd cmd_show = {
	.name = "show", .args = "NAME", .summary = "Show everything about one device and its paths.",
	.min_args = 1, .max_args = 1, .run = run_show,
};

static void names_json(struct json *j, const char *key, const char *const *names, uint64_t mask)
{
	int i;

	json_open(j, key, '[');
	for (i = 1; names[i]; i++)
		if (mask & 1ULL << i)
			json_str(j, NULL, names[i]);
	json_close(j);
}

static void names_text(const char *label, const char *const *names, uint64_t mask)
{
	bool some = false;
	int i;

	printf("%s", label);
	for (i = 1; names[i]; i++)
		if (mask & 1ULL << i) {
			printf(" %s", names[i]);
			some = true;
		}
	puts(some ? "" : " none");
}

static int run_version(int argc, char **argv)
{
	char release[sizeof(mux_version.release) + 1];
	struct json j;
	int err;

	(void)argc;
	(void)argv;
	err = mux_open();
	if (err)
		return err;
	snprintf(release, sizeof(release), "%.*s", (int)sizeof(mux_version.release), mux_version.release);
	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		json_str(&j, "iovmctl", IOVM_RELEASE);
		json_str(&j, "module", release);
		json_u64(&j, "abi", mux_version.abi);
		names_json(&j, "classes", class_names, mux_version.classes);
		names_json(&j, "path_types", path_type_names, mux_version.path_types);
		json_close(&j);
		return EX_DONE;
	}
	printf("iovmctl:    %s\nmodule:     %s\nABI:        %u\n", IOVM_RELEASE, release, mux_version.abi);
	names_text("classes:   ", class_names, mux_version.classes);
	names_text("path types:", path_type_names, mux_version.path_types);
	return EX_DONE;
}

const struct cmd cmd_version = {
	.name = "version", .args = "", .summary = "Show the versions of iovmctl and of the loaded module.",
	.detail = "'iovmctl --version' tells iovmctl's alone and needs no module.\n",
	.max_args = 0, .run = run_version,
};
