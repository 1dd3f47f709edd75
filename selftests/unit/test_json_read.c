// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of the JSON reader (userland/common/json_read.c). Every text is read from memory of exactly its length.
 */
#define _GNU_SOURCE
#include "ktap.h"
#include "../../userland/common/json.c"
#include "../../userland/common/json_read.c"

static char error[JSON_READ_ERROR];

static struct json_node *read_text(const char *text, size_t n)
{
	char *copy = malloc(n ? n : 1);
	struct json_node *node;

	memcpy(copy, text, n);
	node = json_read(copy, n, error);
	free(copy);
	return node;
}

static void values(void)
{
	static const char text[] = " {\"a\": [1, 18446744073709551615, 18446744073709551616, -1, 1.5, 1e3, 0],\n"
		"\t\"s\": \"x\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\ud83d\\ude00 \xc3\xa4\",\r\n \"n\": null, \"t\": true,\n\"f\": false, \"o\": {}, \"e\": [] } ";
	static const struct {
		bool whole;
		uint64_t v;
	} want[] = { { true, 1 }, { true, UINT64_MAX }, { false }, { false }, { false }, { false }, { true, 0 } };
	struct json_node *root = read_text(text, sizeof(text) - 1);
	const struct json_node *node;
	unsigned int i = 0;

	CHECK(root && root->type == JSON_OBJECT, "%s", error);
	if (!root)
		return;
	node = json_member(root, "a");
	CHECK(node && node->type == JSON_ARRAY && node->line == 1);
	for (node = node->first; node && i < 7; node = node->next, i++) {
		CHECK(node->type == JSON_NUMBER && node->whole == want[i].whole, "number %u", i);
		CHECK(!node->whole || node->u64 == want[i].v, "number %u is %llu", i, (unsigned long long)node->u64);
	}
	CHECK(i == 7 && !node);
	node = json_member(root, "s");
	CHECK(node && node->line == 2 && !strcmp(node->str, "x\"\\/\b\f\n\r\t\xc3\xa4\xf0\x9f\x98\x80 \xc3\xa4"), "%s", node->str);
	CHECK(json_member(root, "n")->type == JSON_NULL && json_member(root, "n")->line == 3);
	CHECK(json_member(root, "t")->b && !json_member(root, "f")->b && json_member(root, "f")->line == 4);
	CHECK(json_member(root, "o")->type == JSON_OBJECT && !json_member(root, "o")->first);
	CHECK(json_member(root, "e")->type == JSON_ARRAY && !json_member(root, "e")->first);
	CHECK(!json_member(root, "zz"));
	json_free(root);
}

static void refusals(void)
{
	static const struct {
		const char *text, *why;
	} table[] = {
		{ "", "line 1, column 1: the text ends" }, { "\n\n ", "line 3, column 2: the text ends" },
		{ "{", "should be" }, { "[1", "should be" }, { "[1,", "ends" }, { "[1,]", "line 1, column 4: no value" }, { "{,}", "'\"' should" },
		{ "{\"a\"}", "':' should" }, { "{\"a\":}", "no value" }, { "{\"a\":1,\n\"a\":2}", "line 2, column 4: \"a\" comes twice" },
		{ "{\"a\":1 \"b\":2}", "'}' should" }, { "[1 2]", "']' should" }, { "1 2", "something follows" }, { "{} x", "something follows" },
		{ "\"abc", "'\"' should" }, { "\"a\nb\"", "does not end" }, { "\"\\x\"", "no such escape" }, { "\"\\u12g4\"", "four hexa" },
		{ "\"\\u0000\"", "NUL" }, { "\"\\ud800\"", "half" }, { "\"\\ud800\\u0041\"", "half" }, { "\"\\udc00\"", "half" }, { "\"\\", "does not end" },
		{ "\"\\u00", "four hexa" }, { "\"\xff\"", "UTF-8" }, { "\"\xc3", "UTF-8" }, { "\"\xc0\x80\"", "UTF-8" }, { "\"\xed\xa0\x80\"", "UTF-8" },
		{ "-", "digit" }, { "01", "something follows" }, { "1.", "digit" }, { "1e", "digit" }, { "+1", "no value" }, { "nul", "no value" },
		{ "tru", "no value" }, { "'a'", "no value" }, { "// x\n1", "no value" }, { "[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", "nested" },
	};
	unsigned int i;

	for (i = 0; i < sizeof(table) / sizeof(*table); i++) {
		struct json_node *node = read_text(table[i].text, strlen(table[i].text));

		CHECK(!node, "taken: %s", table[i].text);
		CHECK(!strncmp(error, "line ", 5) && strstr(error, table[i].why), "%s: %s", table[i].text, error);
		json_free(node);
	}
	CHECK(!read_text("\"a\0b\"", 5), "a NUL in a string");
	CHECK(!read_text("1\0", 2), "a NUL behind the end");
}

/* What the writer writes, the reader reads, cut anywhere it refuses. */
static void round_trip(void)
{
	static const char str[] = "tab\t quote\" back\\ nl\n del\x7f umlaut \xc3\xa4";
	struct json_node *root;
	char *text = NULL;
	size_t n = 0, i;
	struct json j;
	FILE *f = open_memstream(&text, &n);

	json_init(&j, f, true);
	json_open(&j, NULL, '{');
	json_str(&j, "s", str);
	json_u64(&j, "u", UINT64_MAX);
	json_open(&j, "l", '[');
	json_bool(&j, NULL, true);
	json_null(&j, NULL);
	json_close(&j);
	json_close(&j);
	fclose(f);
	root = read_text(text, n);
	CHECK(root, "%s", error);
	if (root) {
		CHECK(!strcmp(json_member(root, "s")->str, str));
		CHECK(json_member(root, "u")->u64 == UINT64_MAX);
		CHECK(json_member(root, "l")->first->b && json_member(root, "l")->first->next->type == JSON_NULL);
	}
	json_free(root);
	for (i = 0; i < n - 1; i++) {
		root = read_text(text, i);
		CHECK(!root || text[i] == '\n', "cut at %zu of %zu: taken", i, n);
		json_free(root);
	}
	free(text);
}

static void members(void)
{
	char text[16 * (JSON_READ_MEMBERS + 2)];
	unsigned int nr, i;

	for (nr = JSON_READ_MEMBERS; nr <= JSON_READ_MEMBERS + 1; nr++) {
		struct json_node *root;
		size_t n = 0;

		for (i = 0; i < nr; i++)
			n += (size_t)sprintf(text + n, "%c\"k%u\":%u", i ? ',' : '{', i, i);
		text[n++] = '}';
		root = read_text(text, n);
		CHECK(!root == (nr > JSON_READ_MEMBERS), "%u members", nr);
		json_free(root);
	}
}

static const struct ktap_case cases[] = {
	{ "values of all types, and their lines", values },
	{ "what is no JSON is refused, with line and column", refusals },
	{ "what the writer writes; cut short it is refused", round_trip },
	{ "at most so many members", members },
};

int main(void)
{
	return KTAP_RUN(cases);
}
