#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# iovmctl serve: NBD clients of every kind against a target device. What a client can do wrong behind the handshake is
# t_target's.

top=$(cd "$(dirname "$0")/../.." && pwd)
ctl=$(command -v iovmctl || echo "$top/build/userland/iovmctl/iovmctl")
# shellcheck source=selftests/unit/iovmctl.sh
. "$top/selftests/unit/iovmctl.sh" || exit 1

echo "KTAP version 1"
for need in nbdinfo nbdcopy qemu-io qemu-img nbd-client fio socat python3; do
	command -v $need >/dev/null || { echo "1..0 # SKIP no $need"; exit 4; }
done
modprobe brd rd_nr=2 rd_size=65536 || { echo "1..0 # SKIP no brd"; exit 4; }
[ -e /dev/iovm-mux ] || modprobe vhost_iovm_blk
ip link set lo up
echo "1..10"

finish() {
	nbd-client -d /dev/nbd0 >/dev/null 2>&1
	"$ctl" destroy guest --force >/dev/null 2>&1
	"$ctl" destroy disk --force >/dev/null 2>&1
	tidy
	rmmod brd
}
trap finish EXIT

sessions() { "$ctl" session list disk --json | python3 -c 'import json,sys; print(len(json.load(sys.stdin)))'; }
are() { [ "$(sessions)" = "$1" ]; }
sessions_are() { until_true 20 are "$1" || complain "$(sessions) sessions, not $1"; }

offer() { # ARGS...: iovmctl serve disk, until it listens; sets $server
	"$ctl" serve disk "$@" >"$tmp/serve" 2>&1 &
	server=$!
	bg+=("$server")
	until_true 20 grep -q "serving at" "$tmp/serve" || complain "it does not listen: $(cat "$tmp/serve")"
}

same() { # FILE OFFSET: is what the disk has there
	dd if=/dev/ram0 iflag=direct bs=1M skip="$2" count=$(($(stat -c %s "$1") >> 20)) status=none | cmp -s - "$1" ||
		complain "the disk does not hold $1"
}

uri=nbd://127.0.0.1:10809/disk
head -c 20M /dev/urandom >"$tmp/a"
head -c 20M /dev/urandom >"$tmp/b"

want 2 'no guest' create disk --target --size 64M --queues 2
want 0 'disk: created, 64M, for NBD clients' create disk --target --size-from /dev/ram0 --identity local:ram0
want 0 'is live' path add disk local /dev/ram0 --assume-same-data --shared
json 'd["class"] == "target" and d["node"] is None and not d["in_use"]' show disk
want 0 'disk .*0 sessions' list
want 0 created create guest --size 64M
want 4 'for a guest' serve guest
want 4 'for a guest' session list guest
want 2 'is not HOST:PORT' serve disk --listen a:b:c
want 2 '--listen' serve disk --listen unix:
want 3 'no device' serve none
want 0 '^ID ' session list disk
want 3 'no session 7' session end disk 7
want 2 'neither' session end disk x
ok "create --target; serve and session refuse what cannot be"

offer --listen 127.0.0.1
want 1 'another server' serve disk --listen 127.0.0.1:10809
try nbdinfo --json "$uri"
python3 - "$tmp/try" <<'P' || complain "nbdinfo: $(cat "$tmp/try")"
import json, sys
e = json.load(open(sys.argv[1]))["exports"][0]
assert e["export-size"] == 64 << 20 and e["block_size_minimum"] == 512 and e["block_size_maximum"] == 32 << 20, e
assert e["description"] == "iovm-id=local:ram0" and e["export-name"] == "disk", e
assert not e["is_read_only"] and e["can_fua"] and e["can_flush"] and e["can_trim"] and e["can_zero"] and e["can_multi_conn"], e
P
try nbdinfo --list nbd://127.0.0.1
grep -q 'export="disk"' "$tmp/try" || complain "list: $(cat "$tmp/try")"
nbdinfo nbd://127.0.0.1/other >"$tmp/try" 2>&1 && complain "another export is found: $(cat "$tmp/try")"
sessions_are 0
ok "nbdinfo: size, flags, block sizes, names"

try nbdcopy "$tmp/a" "$uri"
same "$tmp/a" 0
try nbdcopy "$uri" "$tmp/out"
cmp -s -n $((20 << 20)) "$tmp/a" "$tmp/out" || complain "nbdcopy brings other data"
sessions_are 0
ok "nbdcopy, several connections, both ways"

try qemu-io -f raw -c "write -P 0x5a 1M 3M" -c flush -c "write -z 2M 1M" -c "discard 8M 4M" -c "write -f -P 0x66 512 512" \
	-c "read -P 0x5a 1M 1M" -c "read -P 0 2M 1M" -c "read -P 0x5a 3M 1M" -c "read -P 0x66 512 512" "$uri"
grep -q 'verification failed' "$tmp/try" && complain "qemu-io: $(cat "$tmp/try")"
try qemu-img convert -n -f raw -O raw "$tmp/b" "$uri"
try qemu-img compare -f raw -F raw "$tmp/b" "$uri"
same "$tmp/b" 0
ok "qemu-io and qemu-img"

if fio --enghelp 2>/dev/null | grep -q nbd; then
	try fio --name=x --ioengine=nbd --uri="$uri" --rw=randrw --bsrange=512-256k --size=16M --io_size=16M --iodepth=16 \
		--verify=crc32c --verify_fatal=1 --randseed=4 --output="$tmp/fio"
	ok "fio verifies what it wrote"
else
	skip "fio verifies what it wrote" "fio has no nbd engine"
fi

if modprobe nbd nbds_max=1 2>/dev/null; then
	try nbd-client -C 2 -N disk 127.0.0.1 10809 /dev/nbd0
	sessions_are 2
	try dd if="$tmp/a" of=/dev/nbd0 oflag=direct bs=1M status=none
	same "$tmp/a" 0
	try mkfs.ext4 -q -F /dev/nbd0
	try fsck.ext4 -f -n /dev/nbd0
	try nbd-client -d /dev/nbd0
	sessions_are 0
	ok "the kernel's nbd client, two connections"
else
	skip "the kernel's nbd client, two connections" "no module nbd"
fi

want 0 'is live' path add guest remote "$uri" --connections 3
json '[(p["state"], p["sockets"], p["identity"], p["same_data"]) for p in d] == [("live", 3, "local:ram0", "shown")]' path list guest
sessions_are 3
json 'all(s["peer"].startswith("127.0.0.1:") and s["sockets"] == 1 and not s["readonly"] for s in d)' session list disk
kill -9 "$server"
wait "$server" 2>/dev/null
sleep 0.2
sessions_are 3
json '[p["state"] for p in d] == ["live"]' path list guest
want 4 '3 sessions' destroy disk
IOVMCTL=$ctl "$top/userland/iovm-upgrade/iovm-upgrade" --check --state "$tmp/state" >"$tmp/try" 2>&1 &&
	complain "iovm-upgrade would end the clients' connections"
grep -q 'disk: it has NBD clients' "$tmp/try" || complain "iovm-upgrade: $(cat "$tmp/try")"
want 0 'takes nothing more' session end disk all
sessions_are 0
json '[p["state"] for p in d] == ["failed"]' path list guest
ok "our own path; sessions outlive the server; session end"

offer --listen "unix:$tmp/s" --export other --readonly
[ "$(stat -c %a "$tmp/s")" = 600 ] || complain "mode of the socket: $(stat -c %a "$tmp/s")"
ro="nbd+unix:///other?socket=$tmp/s"
try nbdinfo --json "$ro"
grep -q '"is_read_only": true' "$tmp/try" || complain "not read-only: $(cat "$tmp/try")"
try qemu-io -r -f raw -c "read 0 64k" "$ro"
qemu-io -f raw -c "write 0 64k" "$ro" >"$tmp/try" 2>&1 && complain "a write is taken: $(cat "$tmp/try")"
kill "$server"
wait "$server" || complain "SIGTERM: status $?"
[ ! -e "$tmp/s" ] || complain "its socket stays"
ok "a unix socket, a name, read-only; SIGTERM"

offer --listen 127.0.0.1:10809 --timeout 1
for _ in {1..40}; do
	head -c 3000 /dev/urandom | socat -u - TCP:127.0.0.1:10809 >/dev/null 2>&1
done
printf '\0\0\0\3IHAVEOPT\0\0\0\7\0\0\0\6\xff\xff\xff\xff\0\0' | socat - TCP:127.0.0.1:10809 >"$tmp/try" 2>/dev/null
grep -q 'the name is longer' "$tmp/try" || complain "a name that is too long: $(od -c "$tmp/try" | tail -5)"
# those that say nothing are not waited for
for _ in {1..20}; do
	sleep 5 | socat - TCP:127.0.0.1:10809 >/dev/null 2>&1 &
	bg+=($!)
done
sleep 0.3
try timeout 10 nbdinfo --size "$uri"
grep -qx 67108864 "$tmp/try" || complain "size: $(cat "$tmp/try")"
sessions_are 0
grep -q 'does not speak NBD\|flags that are not known' "$tmp/serve" || complain "no word of it: $(cat "$tmp/serve")"
ok "clients that do not shake hands"

want 0 'size is now 32M' resize disk 32M
try nbdinfo --size "$uri"
grep -qx 33554432 "$tmp/try" || complain "size: $(cat "$tmp/try")"
want 0 'disk' save disk
python3 -c 'import json,sys; d = json.load(sys.stdin); assert d["devices"][0]["class"] == "target"' <<<"$out" ||
	complain "save: $out"
cp "$tmp/out" "$tmp/saved"
kill "$server"
wait "$server"
want 0 destroyed destroy disk
want 0 'disk' restore "$tmp/saved"
json 'd["class"] == "target" and d["size_bytes"] == 32 << 20 and d["state"] == "routed" and d["paths"][0]["shared"]' show disk
ok "resize, save and restore"

conclude
