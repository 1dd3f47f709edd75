/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lists with an entry for each thing that is configured. When the configuration is read anew, a list is made anew, in its order, of the
 * old entries and of new ones; what is left of the old list is not configured any more.
 */
#ifndef _IOVMD_KEPT_H
#define _IOVMD_KEPT_H

#include <stdlib.h>

/*
 * Takes the entry for what is configured, 'key', out of a list, or makes one of zeroes. 'next' and 'of' are the members that link the list
 * and say what an entry is for: one whose 'of' is NULL is new.
 */
#define kept_take(list, next, of, key) __extension__ ({						\
	typeof(list) *at_ = &(list), one_;							\
												\
	while (*at_ && (*at_)->of != (key))							\
		at_ = &(*at_)->next;								\
	one_ = *at_;										\
	if (one_)										\
		*at_ = one_->next;								\
	else											\
		one_ = calloc(1, sizeof(*one_));						\
	if (!one_)										\
		abort();									\
	one_->next = NULL;									\
	one_;											\
})

#endif
