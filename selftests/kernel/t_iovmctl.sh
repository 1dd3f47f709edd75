#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# iovmctl against the real modules: every command once, exit codes, events, NBD servers that go and come back, udev.
# What it says to a stand-in of the kernel is tested in selftests/unit/test_iovmctl_cli.sh.

top=$(cd "$(dirname "$0")/../.." && pwd)
ctl=$(command -v iovmctl || echo "$top/build/userland/iovmctl/iovmctl")
# shellcheck source=selftests/unit/iovmctl.sh
. "$top/selftests/unit/iovmctl.sh" || exit 1

echo "KTAP version 1"
for need in nbdkit python3; do
	command -v $need >/dev/null || { echo "1..0 # SKIP no $need"; exit 4; }
done
modprobe brd rd_nr=3 rd_size=65536 || { echo "1..0 # SKIP no brd"; exit 4; }
[ -e /dev/iovm-mux ] || modprobe vhost_iovm_blk
echo "1..11"

finish() {
	local n
	for n in one two three; do "$ctl" destroy $n --force; done >/dev/null 2>&1
	tidy
	rmmod brd
}
trap finish EXIT

# The number of the newest event; what follows it is waited for by came.
newest() { "$ctl" events --no-follow --json | tail -1 | sed 's/^{"seq":\([0-9]*\),.*/\1/'; }
mark() { seq=$(newest); }
came() { # TYPE PATTERN: such an event of device one came after mark, or comes soon
	local deadline=$((SECONDS + 30))
	until "$ctl" events --since $((seq + 1)) --no-follow --json --device one >"$tmp/events" &&
		grep "\"type\":\"$1\"" "$tmp/events" | grep -Eq -- "$2"; do
		[ $SECONDS -lt $deadline ] || { complain "no event $1 /$2/ in: $(cat "$tmp/events")"; return; }
		sleep 0.2
	done
}

want 0 '^path types: bdev nbd$' version
want 0 '^one: created /dev/vhost-iovm/one, 64M, 4 queues$' create one --size-from /dev/ram0 --queues 4 --owner 1234:5678 \
	--mode 0640 --serial 12345678901234567890 --iops 10k --bps 1G
[ "$(stat -c %F:%u:%g:%a /dev/vhost-iovm/one)" = "character special file:1234:5678:640" ] ||
	complain "the node: $(ls -l /dev/vhost-iovm)"
want 4 'there is a device one already' create one --size 1G
want 0 created create two --size 1M --block-size 4096 --readonly
group=$(getent group kvm | cut -d: -f3)
[ "$(stat -c %u:%g:%a /dev/vhost-iovm/two)" = "0:${group:-0}:660" ] || complain "the node: $(ls -l /dev/vhost-iovm)"
json 'd["serial"] == "12345678901234567890" and d["queues"] == 4 and d["iops"] == 10000 and d["bps"] == 1 << 30 and
	d["no_path_timeout_ms"] == 300000 and d["state"] == "parked" and d["route"] is None and d["mem_bytes"] > 0' show one
json 'd["read_only"] and d["block_size"] == 4096 and d["max_discard_bytes"] == 0' show two
ok "create: node, owner, mode and configuration"

mark
want 0 "path 'local' .* is live and takes requests" path add one local /dev/ram0
came path-state '"path":"local".*"new_state":"live"'
want 4 'in use' path add one again /dev/ram0 --assume-same-data
want 4 'neither is shared' path add one again /dev/ram0 --assume-same-data
want 4 'that one is not shared' path add one again /dev/ram0 --assume-same-data --shared
want 4 'sectors' path add two big /dev/ram1
want 4 'no identity' path add one other /dev/ram1
want 4 'has a path local already' path add one local /dev/ram1
want 0 changed set one --no-space-timeout 10min
json 'd["no_space_timeout_ms"] == 600000 and d["no_space"] == 0 and d["identity"] is None' show one
want 3 "no device 'three'" path add three p /dev/ram1
json '[(p["name"], p["type"], p["routed"], p["cache"], p["fence"]) for p in d] ==
	[("local", "bdev", True, "survives", "local-error")]' path list one
ok "path add: a block device, and what does not fit"

serve n memory size=64M
uri="nbd+unix:///?socket=$tmp/n.sock"
mark
want 4 'no identity' path add one n "$uri"
json '[p["same_data"] for p in d] == ["unknown"]' path list one
want 0 "path 'n' .* is live" path add one n "$uri" --assume-same-data
json '[p["same_data"] for p in d] == ["unknown", "assumed"]' path list one
came path-state '"path":"n".*"old_state":"connecting","new_state":"live"'
json 'd["paths"][1]["sockets"] == 4 and d["paths"][1]["addr"] == "'"$uri"'" and "flush" in d["paths"][1]["nbd_flags"] and
	d["paths"][1]["cache"] == "dies" and d["paths"][1]["fence"] == "none" and d["paths"][1]["size_bytes"] == 1 << 26' show one
serve small memory size=32M
want 4 'sectors' path add one small "nbd+unix:///?socket=$tmp/small.sock" --assume-same-data
want 1 'cannot connect' path add one none "nbd+unix:///?socket=$tmp/none"
json 'len(d) == 2' path list one
ok "path add: an NBD server, and what does not fit"

mark
want 0 "requests go to path 'n'" failover one
came rerouted '"path":"n"'
want 0 "requests go to path 'local'" failback one
came rerouted '"path":"local"'
want 3 'no path zz' failover one zz
want 0 "is failed" path fail one local
came path-state '"path":"local".*"error":null.*"new_state":"failed"'
came rerouted '"path":"n"'
want 4 'path connect' path retry one n
want 0 "is live" path retry one local
want 0 "requests go to path 'local'" failback one
want 0 "is failed" path fail one n
want 4 'no other live path' failover one
want 0 "is live" path connect one n
ok "failover, failback, fail, retry, connect"

# With nothing but the watcher to bring the path back
"$ctl" path watch one -c 2 >"$tmp/watch" 2>&1 &
watcher=$!
bg+=("$watcher")
mark
kill $server 2>/dev/null	# the last one started: small; n is the first
kill "${bg[0]}"
wait "${bg[0]}"
came path-state '"path":"n".*"new_state":"failed"'
serve n memory size=64M
came path-state '"path":"n".*"old_state":"failed","new_state":"live"'
json 'd[1]["sockets"] == 2 and d[1]["generation"] >= 3' path list one
mark
want 0 "is failed" path fail one n
sleep 3
json 'd[1]["state"] == "failed"' path list one
want 0 "is live" path connect one n
kill $watcher
wait $watcher
ok "path watch: brings back what broke, not what was failed by hand"

mark
want 0 'suspended, nothing is in flight' suspend one
json 'd["state"] == "suspended" and d["route"] is None' show one
came suspended one
want 0 "requests go to path" resume one
came resumed one
want 0 changed set one --iops 0 --bps 200M --no-path-timeout never --failback-after 1min
json 'd["iops"] == 0 and d["bps"] == 200 << 20 and d["no_path_timeout_ms"] == 0 and d["failback_after_ms"] == 60000' show one
want 4 'in use' path fenced one n
want 0 "is failed" path fail one n
want 0 "is failed" path fenced one n
want 0 "is live" path connect one n
want 4 'sectors' resize one 128M
want 0 'the size is now 32M' resize one 32M
came resized '"value":65536'
want 0 'failed' fail-parked one
came fail-parked one
ok "suspend, resume, set, resize, fail-parked, fenced"

want 0 '^NAME +STATE' list
json 'd["name"] == "one" and [p["name"] for p in d["paths"]] == ["local", "n"] and d["errors"] == 0' stats one
json 'd[0]["device"] == "one" and d[0]["iops"] == 0' top one --once --interval 200ms
json 'len(d) == 2' list
"$ctl" events --no-follow >"$tmp/out" 2>&1 || complain "events: $(cat "$tmp/out")"
awk '{ if (prev && $3 != prev + 1) exit 1; prev = $3 }' "$tmp/out" || complain "sequence numbers: $(cat "$tmp/out")"
ok "list, stats, top, events"

truncate -s 32M "$tmp/disk"
serve grow file "$tmp/disk"
grow="nbd+unix:///?socket=$tmp/grow.sock"
want 0 created create three --size 32M
want 0 'is live' path add three a "$grow" --assume-same-data
want 0 'is live' path add three b "$grow" --assume-same-data
want 4 'exports 32M, not 48M' resize three 48M
json 'd["size_bytes"] == 32 << 20' show three
truncate -s 48M "$tmp/disk"
want 4 'connected before it grew' resize three 48M --no-connect
want 0 "they go to 'b' meanwhile" resize three 48M
json 'd["size_bytes"] == 48 << 20 and d["route"] == "a" and
	[(p["state"], p["size_bytes"]) for p in d["paths"]] == [("live", 48 << 20)] * 2' show three
want 0 'the size is now 48M' resize three 48M
want 0 removed path remove three b
truncate -s 64M "$tmp/disk"
want 0 'is suspended meanwhile' resize three 64M
json 'd["size_bytes"] == 64 << 20 and d["state"] == "routed"' show three
truncate -s 80M "$tmp/disk"
want 0 'is failed' path fail three a
want 0 'is failed: it can only come back with the new size' resize three 80M
want 0 'is live' path connect three a
exec 9<>/dev/vhost-iovm/three || complain "the node does not open"
want 4 'made smaller while no front end' resize three 32M
exec 9>&-
want 0 'the size is now 32M' resize three 32M
want 0 destroyed destroy three
ok "resize: nbd paths are connected again"

exec 9<>/dev/vhost-iovm/two || complain "the node does not open"
json 'd["in_use"] is True' show two
want 4 'hint: .*--force' destroy two
want 0 destroyed destroy two --force
exec 9>&-
[ ! -e /dev/vhost-iovm/two ] || complain "the node is still there"
want 0 removed path remove one n
want 3 'no path n' path remove one n
want 0 destroyed destroy one
want 3 'no device' destroy one
json 'd == []' list
setpriv --bounding-set -net_admin --inh-caps -net_admin "$ctl" list >"$tmp/out" 2>&1
[ $? = 5 ] || complain "without CAP_NET_ADMIN: $(cat "$tmp/out")"
ok "path remove, destroy, permission"

want 0 created create one --size-from /dev/ram0 --epoch
want 0 'is live' path add one local /dev/ram0
json 'd["needs_epoch"] and d["epoch"] == 0 and not d["epoch_held"] and d["state"] == "no-epoch" and d["route"] is None' show one
mark
want 0 '^one: holds epoch 5$' epoch take one 5
came epoch-taken '"value":5[,}]'
json 'd["epoch"] == 5 and d["epoch_held"] and d["state"] == "routed"' epoch take one 5
want 4 'epoch 4 is not newer than 5' epoch take one 4
want 4 'hint: .*greater than all' epoch take one 4
want 4 'holds epoch 5, not 4' epoch give one 4
want 0 '' save -o "$tmp/held" one
mark
want 0 '^one: has given up epoch 5$' epoch give one 5
came epoch-given '"value":5[,}]'
json 'd["epoch"] == 5 and not d["epoch_held"]' show one
want 4 'not newer than 5, which one had last' epoch take one 5
want 0 destroyed destroy one
# what was held is not, but in an upgrade
want 0 '^one: it held epoch 5, and does not any more' restore "$tmp/held"
json 'd["epoch"] == 5 and not d["epoch_held"] and d["state"] == "no-epoch"' show one
want 0 destroyed destroy one
want 0 'created' restore --hand-over "$tmp/held"
json 'd["epoch"] == 5 and d["epoch_held"] and d["state"] == "routed"' show one
want 0 destroyed destroy one
want 0 created create two --size 1M --target --epoch
want 4 'only raised' epoch give two 1
want 0 '^two: holds epoch 3$' epoch take two 3
want 0 destroyed destroy two
want 0 created create two --size 1M
want 4 'hint: .*create --epoch' epoch take two 1
want 0 destroyed destroy two
ok "epoch take, epoch give, save and restore"

# udev: what the creator said stands, and /dev/iovm-mux is root's whatever was done to it.
if udevadm --version >/dev/null 2>&1 && [ -x /lib/systemd/systemd-udevd ]; then
	if ! udevadm control --ping --timeout=1 2>/dev/null; then
		mkdir -p /run/udev
		/lib/systemd/systemd-udevd >"$tmp/udevd" 2>&1 &
		bg+=($!)
		for _ in {1..300}; do
			[ -S /run/udev/control ] && break
			sleep 0.1
		done
	fi
	mkdir -p /run/udev/rules.d
	cp "$top/userland/udev/60-iovm.rules" /run/udev/rules.d/
	udevadm control --reload --timeout=30 || complain "udev does not answer: $(cat "$tmp/udevd")"
	chmod 0666 /dev/iovm-mux
	udevadm trigger --settle -c change /sys/class/misc/iovm-mux || complain "udevadm trigger"
	[ "$(stat -c %u:%g:%a /dev/iovm-mux)" = 0:0:600 ] || complain "the control node: $(ls -l /dev/iovm-mux)"
	want 0 created create one --size 1M --owner 1234:5678 --mode 0604
	want 0 created create two --size 1M
	udevadm settle || complain "udevadm settle"
	[ "$(stat -c %u:%g:%a /dev/vhost-iovm/one)" = 1234:5678:604 ] || complain "the node: $(ls -l /dev/vhost-iovm)"
	[ "$(stat -c %u:%g:%a /dev/vhost-iovm/two)" = "0:${group:-0}:660" ] || complain "the node: $(ls -l /dev/vhost-iovm)"
	udevadm info /dev/vhost-iovm/one | grep -q '^E: TAGS=.*:systemd:' || complain "no tag: $(udevadm info /dev/vhost-iovm/one)"
	want 0 destroyed destroy one
	want 0 destroyed destroy two
	rm /run/udev/rules.d/60-iovm.rules
	ok "udev rule"
else
	skip "udev rule" "no udev"
fi

conclude
