// SPDX-License-Identifier: GPL-2.0
/*
 * Do all paths of a device lead to the same data? The kernel cannot know. User space says what it
 * found, a string that names the data ("wwn:naa.5000c500a1b2c3d4"), and here it is compared: a
 * path that shows another one, or none, is refused, unless the operator takes it upon himself
 * (IOVM_PATH_F_ASSUME_SAME), which the path is marked with as long as it exists.
 *
 * A device's data is what its first path shows, or what was said at its creation, and stays that
 * when all its paths have gone. A device whose only path shows nothing has nothing to compare
 * with: a second path is refused then, whatever it shows.
 */
#include <linux/blk_types.h>
#include <linux/module.h>

#include "internal.h"

/**
 * iovm_identity_check - is it one?
 * @id: IOVM_IDENTITY_MAX bytes from user space
 * @msg: why not
 *
 * Return: 0 (also for the empty string) or -EINVAL.
 */
int iovm_identity_check(const char *id, char *msg)
{
	if (iovm_identity_valid(id))
		return 0;
	return iovm_refuse(-EINVAL, msg,
			   "an identity is SCHEME:TEXT, at most %u printable characters, no spaces",
			   IOVM_IDENTITY_MAX - 1);
}

/* A path other than @but that has been live, NULL when there is none. dev->mutex. */
static const struct iovm_path *iovm_other_path(struct iovm_dev *dev, const struct iovm_path *but)
{
	const struct iovm_path *path;

	lockdep_assert_held(&dev->mutex);
	list_for_each_entry(path, &dev->paths, node)
		if (path != but && READ_ONCE(path->generation))
			return path;
	return NULL;
}

/**
 * iovm_identity_admit - may a path serve its device, going by its data?
 * @path: of the device, or about to become one of it; dev->mutex is held
 * @id: what it shows, valid; "" when it shows nothing
 * @msg: why not
 *
 * Return: 0 or -EMEDIUMTYPE.
 */
int iovm_identity_admit(const struct iovm_path *path, const char *id, char *msg)
{
	struct iovm_dev *dev = path->dev;
	const struct iovm_path *other = iovm_other_path(dev, path);

	lockdep_assert_held(&dev->mutex);
	if (path->flags & IOVM_PATH_F_ASSUME_SAME)
		return 0;
	if (!dev->identity[0]) {
		if (!other)
			return 0;
		return iovm_refuse(-EMEDIUMTYPE, msg,
				   "the data of path %.32s has no identity: is that of %.32s the same?",
				   other->name, path->name);
	}
	if (!strcmp(dev->identity, id))
		return 0;
	if (!id[0])
		return iovm_refuse(-EMEDIUMTYPE, msg,
				   "path %.20s shows no identity of its data, device %.20s has %s",
				   path->name, dev->name, dev->identity);
	return iovm_refuse(-EMEDIUMTYPE, msg, "path %.20s leads to %.64s, device %.20s has %.64s",
			   path->name, id, dev->name, dev->identity);
}

/**
 * iovm_identity_connect - may a path that is connected again serve as before?
 * @path: of its device; dev->mutex is held
 * @id: what it shows now, valid; "" when it shows nothing
 * @msg: why not
 *
 * Return: 0 or -EMEDIUMTYPE.
 */
int iovm_identity_connect(const struct iovm_path *path, const char *id, char *msg)
{
	lockdep_assert_held(&path->dev->mutex);
	/* it did not say any more when it was accepted */
	if (!path->identity[0] && !id[0] && READ_ONCE(path->generation))
		return 0;
	if (!path->identity[0])
		return iovm_identity_admit(path, id, msg);
	if (path->flags & IOVM_PATH_F_ASSUME_SAME || !strcmp(path->identity, id))
		return 0;
	if (!id[0])
		return iovm_refuse(-EMEDIUMTYPE, msg,
				   "path %.20s led to %s before, now it shows no identity",
				   path->name, path->identity);
	return iovm_refuse(-EMEDIUMTYPE, msg, "path %.20s led to %.72s before, now to %.72s",
			   path->name, path->identity, id);
}

/**
 * iovm_identity_take - a path was accepted with what it shows
 * @path: of its device; dev->mutex is held
 * @id: what it shows, valid; "" when it shows nothing
 *
 * It is the device's from now on, if that had none.
 */
void iovm_identity_take(struct iovm_path *path, const char *id)
{
	struct iovm_dev *dev = path->dev;

	lockdep_assert_held(&dev->mutex);
	if (!id[0])
		return;
	memcpy(path->identity, id, sizeof(path->identity));
	if (!dev->identity[0])
		memcpy(dev->identity, id, sizeof(dev->identity));
}

int iovm_path_fits(const struct iovm_path *path, u64 bytes, u64 sectors, const char *id, char *msg)
{
	const struct iovm_dev *dev = path->dev;

	lockdep_assert_held(&dev->mutex);
	if (bytes >> SECTOR_SHIFT < sectors)
		return iovm_refuse(-EMEDIUMTYPE, msg,
				   "path %.32s has %llu sectors, device %.32s has %llu: grow it first",
				   path->name, bytes >> SECTOR_SHIFT, dev->name, sectors);
	if (bytes == sectors << SECTOR_SHIFT || path->flags & IOVM_PATH_F_ASSUME_SAME ||
	    (id[0] && !strcmp(dev->identity, id)))
		return 0;
	return iovm_refuse(-EMEDIUMTYPE, msg,
			   "path %.32s has %llu sectors, device %.32s only %llu, and no identity shows that it is the same data",
			   path->name, bytes >> SECTOR_SHIFT, dev->name, sectors);
}
EXPORT_SYMBOL_GPL(iovm_path_fits);
