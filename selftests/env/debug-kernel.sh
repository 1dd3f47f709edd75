#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Builds the kernel that finds memory and locking bugs, in build/kernels/debug,
# laid out like the others, from the sources in build/src (setup.sh source).
# Takes 15 to 40 minutes on two cores.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
dir=$top/build/kernels/debug
src=$top/build/src/linux
obj=$dir.obj

# Made from these: others, another kernel.
id=$(cat "$here/debug.config" "$src/Makefile" | sha256sum | cut -c1-16)
[ "$(cat "$dir/id" 2>/dev/null)" != "$id" ] || exit 0

echo "debug kernel: configuring"
mkdir -p "$obj"
make=(make -s -C "$src" O="$obj" CC="${CC:-gcc-12}" LOCALVERSION=-debug KBUILD_BUILD_USER=iovm KBUILD_BUILD_HOST=iovm)
"${make[@]}" x86_64_defconfig
"$src/scripts/kconfig/merge_config.sh" -m -O "$obj" "$obj/.config" "$here/debug.config" >"$obj/merge.log"
"${make[@]}" olddefconfig
# Options that went away unnoticed would make this kernel worthless.
for must in KASAN PROVE_LOCKING DEBUG_KMEMLEAK DEBUG_ATOMIC_SLEEP FAULT_INJECTION_DEBUG_FS \
	9P_FS NET_9P_VIRTIO OVERLAY_FS VIRTIO_CONSOLE; do
	grep -q "^CONFIG_$must=y" "$obj/.config" || { echo "debug kernel: no $must" >&2; exit 1; }
done
for must in VHOST_NET BLK_DEV_NULL_BLK BLK_DEV_NBD BLK_DEV_RAM BLK_DEV_LOOP SCSI_DEBUG ISCSI_TARGET ISCSI_TCP \
	BLK_DEV_DM DM_FLAKEY DM_DELAY TUN TLS KVM_AMD; do
	grep -q "^CONFIG_$must=[ym]" "$obj/.config" || { echo "debug kernel: no $must" >&2; exit 1; }
done

echo "debug kernel: building (log in $obj/log)"
nice -n 15 "${make[@]}" -j"$(nproc)" bzImage modules >"$obj/log" 2>&1 || { tail -20 "$obj/log" >&2; exit 1; }
release=$("${make[@]}" kernelrelease)
rm -rf "$dir.new"
mkdir -p "$dir.new/boot"
"${make[@]}" modules_install INSTALL_MOD_PATH="$dir.new" INSTALL_MOD_STRIP=1 >>"$obj/log" 2>&1
cp "$obj/arch/x86/boot/bzImage" "$dir.new/boot/vmlinuz-$release"
cp "$obj/.config" "$dir.new/boot/config-$release"
ln -sfn "$obj" "$dir.new/lib/modules/$release/build"
ln -s "boot/vmlinuz-$release" "$dir.new/vmlinuz"
ln -s "boot/config-$release" "$dir.new/config"
ln -s "$obj" "$dir.new/kdir"
ln -s "lib/modules/$release" "$dir.new/modules"
echo "$release" >"$dir.new/release"
echo "$id" >"$dir.new/id"
rm -rf "$dir"
mv "$dir.new" "$dir"
# Enough is kept to build modules.
find "$obj" -name '*.o' ! -path '*/scripts/*' ! -path '*/tools/*' -delete
rm -f "$obj"/vmlinux.unstripped "$obj"/.tmp_vmlinux*
