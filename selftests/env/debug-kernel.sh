#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Builds a kernel that finds bugs, laid out like the others, from the sources in
# build/src (setup.sh source). Takes 15 to 40 minutes on two cores.
#
#   debug-kernel.sh debug    memory and locking bugs, in build/kernels/debug
#   debug-kernel.sh kcsan    data races, in build/kernels/kcsan
set -eu

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
kind=${1:-debug}
mkdir -p "$top/build/kernels"
# The kernel keeps these paths, and may be used by several trees.
dir=$(cd -P "$top/build/kernels" && pwd)/$kind
src=$(cd -P "$top/build/src/linux" && pwd)
obj=$dir.obj
instrument=()
case $kind in
debug)
	configs=("$here/debug.config")
	musts="KASAN PROVE_LOCKING DEBUG_KMEMLEAK"
	modules="KVM_AMD ISCSI_TARGET ISCSI_TCP"
	;;
kcsan)
	configs=("$here/debug.config" "$here/kcsan.config")
	musts="KCSAN KCSAN_STRICT KCSAN_WEAK_MEMORY KCSAN_INTERRUPT_WATCHER"
	modules=
	# Only what shares data with our modules is instrumented: the block layer.
	# With all of the kernel, nearly all watchpoints would be set elsewhere, on
	# a kernel several times slower. The barriers of all of it are: an unlock
	# that was not seen would look as if it ordered nothing.
	# shellcheck disable=SC2016 # kbuild expands it, for each directory
	instrument=('KCSAN_SANITIZE=$(if $(filter block block/%,$(obj)),,n)'
		'KCSAN_INSTRUMENT_BARRIERS=$(if $(filter-out kernel/kcsan,$(filter block block/% drivers/% fs fs/% kernel kernel/% lib lib/% mm mm/% net net/%,$(obj))),y)')
	;;
*) echo "no kernel $kind" >&2; exit 2 ;;
esac

# Made from these: others, another kernel.
id=$({ cat "${configs[@]}" "$src/Makefile"; printf %s "${instrument[@]}"; } | sha256sum | cut -c1-16)
[ "$(cat "$dir/id" 2>/dev/null)" != "$id" ] || exit 0

echo "$kind kernel: configuring"
mkdir -p "$obj"
make=(make -s -C "$src" O="$obj" CC="${CC:-gcc-12}" LOCALVERSION="-$kind" KBUILD_BUILD_USER=iovm KBUILD_BUILD_HOST=iovm
	"${instrument[@]}")
"${make[@]}" x86_64_defconfig
"$src/scripts/kconfig/merge_config.sh" -m -O "$obj" "$obj/.config" "${configs[@]}" >"$obj/merge.log"
"${make[@]}" olddefconfig
# Options that went away unnoticed would make this kernel worthless.
for must in $musts DEBUG_ATOMIC_SLEEP FAULT_INJECTION_DEBUG_FS 9P_FS NET_9P_VIRTIO OVERLAY_FS VIRTIO_CONSOLE; do
	grep -q "^CONFIG_$must=y" "$obj/.config" || { echo "$kind kernel: no $must" >&2; exit 1; }
done
for must in $modules VHOST_NET BLK_DEV_NULL_BLK BLK_DEV_NBD BLK_DEV_RAM BLK_DEV_LOOP SCSI_DEBUG \
	BLK_DEV_DM DM_FLAKEY DM_DELAY TUN MACVTAP VLAN_8021Q NET_SCH_PLUG TLS; do
	grep -q "^CONFIG_$must=[ym]" "$obj/.config" || { echo "$kind kernel: no $must" >&2; exit 1; }
done

echo "$kind kernel: building (log in $obj/log)"
nice -n 10 "${make[@]}" -j"$(nproc)" bzImage modules >"$obj/log" 2>&1 || { tail -20 "$obj/log" >&2; exit 1; }
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
