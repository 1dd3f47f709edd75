// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzzes the JSON reader (userland/common/json_read.c) with any bytes. What it takes is written again by json.c and must be read
 * again, as the same tree; what it refuses comes with a sentence.
 */
#define _GNU_SOURCE
#include "../../userland/common/json.c"
#include "../../userland/common/json_read.c"

#define ASSERT(cond) do { \
	if (!(cond)) \
		__builtin_trap(); \
} while (0)

static void put(struct json *j, const struct json_node *node)
{
	const struct json_node *child;

	switch (node->type) {
	case JSON_NULL:
		json_null(j, node->key);
		break;
	case JSON_BOOL:
		json_bool(j, node->key, node->b);
		break;
	case JSON_NUMBER:
		json_u64(j, node->key, node->u64);
		break;
	case JSON_STRING:
		json_str(j, node->key, node->str);
		break;
	default:
		json_open(j, node->key, node->type == JSON_OBJECT ? '{' : '[');
		for (child = node->first; child; child = child->next)
			put(j, child);
		json_close(j);
	}
}

static void same(const struct json_node *a, const struct json_node *b)
{
	for (; a && b; a = a->next, b = b->next) {
		ASSERT(a->type == b->type && !a->key == !b->key);
		ASSERT(!a->key || !strcmp(a->key, b->key));
		ASSERT(a->type != JSON_STRING || !strcmp(a->str, b->str));
		ASSERT(a->type != JSON_BOOL || a->b == b->b);
		ASSERT(a->type != JSON_NUMBER || !a->whole || (b->whole && a->u64 == b->u64));
		same(a->first, b->first);
	}
	ASSERT(!a && !b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct json_node *root, *again;
	char error[JSON_READ_ERROR], *text = NULL;
	size_t len = 0;
	struct json j;
	FILE *f;

	root = json_read((const char *)data, n, error);
	ASSERT(!root == !!*error);
	if (!root)
		return 0;
	f = open_memstream(&text, &len);
	ASSERT(f);
	json_init(&j, f, n & 1);
	put(&j, root);
	fclose(f);
	again = json_read(text, len, error);
	ASSERT(again);
	same(root, again);
	json_free(root);
	json_free(again);
	free(text);
	return 0;
}
