#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# iovmctl save and restore, under ASan, on the stand-in of the kernel (iovmctl_fake.c): what is saved is restored and found
# equal, what differs or cannot be made is named, and files that somebody damaged are refused as a whole.
#
# Writes KTAP. OUT= is where the programs are built.

export LC_ALL=C TZ=UTC
# shellcheck source=selftests/unit/iovmctl.sh
. "$(dirname "$0")/iovmctl.sh" || exit 1
on_stand_in

# want RC PATTERN-of-stdout PATTERN-of-stderr ARGS...
want() {
	local code=$1 so=$2 se=$3
	shift 3
	exits "$code" "$@"
	[ -z "$so" ] || says "$so" "$out" "$@"
	[ -z "$se" ] || says "$se" "$err" "$@"
}
logged() { grep -Eq -- "$1" "$IOVM_FAKE_LOG" || complain "not asked /$1/: $(cat "$IOVM_FAKE_LOG")"; }
not_logged() { ! grep -Eq -- "$1" "$IOVM_FAKE_LOG" || complain "was asked /$1/: $(cat "$IOVM_FAKE_LOG")"; }
fresh_log() { : >"$IOVM_FAKE_LOG"; }
export IOVM_FAKE_LOG=$tmp/log
fresh_log

# edit FROM TO EXPRESSION: a file with the Python expression done to it (d)
edit() {
	python3 -c 'import json,sys
d = json.load(open(sys.argv[1]))
exec(sys.argv[3])
json.dump(d, open(sys.argv[2], "w"), indent=1)' "$1" "$2" "$3" || complain "edit: $3"
}

echo "KTAP version 1"
echo "1..10"

serve s memory size=512M
export IOVM_FAKE_ADDR="nbd+unix:///?socket=$tmp/s.sock" IOVM_FAKE_IDENTITY=id:vm2

want 0 "" "" save -o "$tmp/all.json"
[ -z "$out" ] || complain "it wrote to stdout too: $out"
json 'd == json.load(open("'"$tmp/all.json"'"))' save
python3 - "$tmp/all.json" <<-'END' >"$tmp/why" 2>&1 || complain "$(tail -1 "$tmp/why"): $(cat "$tmp/all.json")"
	import json, sys
	d = json.load(open(sys.argv[1]))
	assert d["format"] == "iovm-devices" and d["version"] == 1
	a, b = d["devices"]
	assert a["name"] == "vm1" and a["size_bytes"] == 1 << 29 and a["serial"] == "12345678901234567890"
	assert (a["node_mode"], a["node_uid"], a["node_gid"]) == ("0640", 12, 34)
	assert a["features"] == 0x130001e54 and a["route"] == "local" and not a["suspended"]
	assert [(p["name"], p["type"], p["addr"], p["cache"], p["fence"]) for p in a["paths"]] == [
	    ("local", "bdev", "/dev/sdb", "survives", "local-error"),
	    ("hostb", "nbd", "nbd://hostb:10809/vm1", "dies", "none")]
	assert a["paths"][1]["connections"] == 4
	assert b["route"] is None and b["paths"][0]["identity"] == "id:vm2" and b["paths"][0]["identity_given"]
END
want 0 '"vm-2.data"' "" save vm-2.data
[ "$(grep -c '"format"\|"name": "vm1"' "$tmp/out")" = 1 ] || complain "not the one device: $out"
want 3 "" "no device 'nope'" save vm1 nope
want 3 "" "cannot write" save -o "$tmp/no/such/dir"
[ "$(find "$tmp" -name 'all.json*' | wc -l)" = 1 ] || complain "something is left beside the file: $(ls "$tmp")"
ok "save: all of it, some of it, to a file"

unset IOVM_FAKE_ADDR
want 4 "" "path a: its address is no UTF-8" save
export IOVM_FAKE_ADDR="nbd+unix:///?socket=$tmp/s.sock"
ok "save: what cannot be written is named"

fresh_log
want 0 "^vm1: is there already$" "" restore "$tmp/all.json"
says "^vm-2.data: is there already$" "$out" restore
[ ! -s "$IOVM_FAKE_LOG" ] || complain "the kernel was asked to change something: $(cat "$IOVM_FAKE_LOG")"
LD_PRELOAD=$preload "$ctl" restore - <"$tmp/all.json" >"$tmp/out" 2>&1 || complain "from standard input: $(cat "$tmp/out")"
json 'd == [{"device": "vm1", "created": False, "paths_added": 0, "complete": True, "usable": True},
	{"device": "vm-2.data", "created": False, "paths_added": 0, "complete": True, "usable": True}]' restore "$tmp/all.json"
ok "restore: what is there as in the file is left alone"

# Everything a device and a path can have, on a device that is not there
edit "$tmp/all.json" "$tmp/new.json" '
b = d["devices"].pop(); d["devices"] = [b]
b.update(name="new", features=0x130001e54, read_only=True, bounce_reads=True, block_size=4096, queues=3, queue_size=256, seg_max=33, opt_io_size=8192,
	max_discard_bytes=4096, discard_granularity=8192, max_write_zeroes_bytes=8192, serial="serial \u00e4", identity="id:vm2",
	no_path_timeout_ms=0, no_space_timeout_ms=7, failback_after_ms=8, iops=9, bps=10, node_mode="0604", node_uid=56, node_gid=78,
	suspended=True, route="a", route_by_hand=True)
b["paths"][0].update(cache="survives", assume_same_data=True, io_timeout_ms=0, heartbeat_ms=11, dead_ms=12, connections=2)'
fresh_log
want 0 "^new: created, 1 of 1 paths added$" "" restore "$tmp/new.json"
logged "^create new flags=3 mode=604 uid=56 gid=78 no_path=0 failback=8 iops=9 bps=10 capacity=1048576 bs=4096 pbs=4096 queues=3 qsize=256 seg=33 discard=8 zeroes=16 serial=serial"
logged "^create identity=id:vm2 no_space=7$"
logged "^path-add new a type=2 addr=nbd\+unix:.* flags=13 fence=2 fd=none heartbeat=11 dead=12$"
logged "^path-add identity=id:vm2$"
logged "^connect new a fds=2 "
logged "^connect identity=id:vm2$"
not_logged "^path-ctl"
logged "^ctl new op=1 path=a value=0$"
logged "^ctl new op=3 path= value=0$"
edit "$tmp/new.json" "$tmp/failed.json" 'd["devices"][0]["paths"][0]["failed_by_hand"] = True'
fresh_log
want 0 "^new: created, 1 of 1 paths added$" "" restore "$tmp/failed.json"
not_logged "^connect"
logged "^path-ctl a op=1$"
fresh_log
want 0 "^new: would be created$" "" restore --dry-run "$tmp/new.json"
says "^new: path 'a' .* would be added$" "$out" restore --dry-run
[ ! -s "$IOVM_FAKE_LOG" ] || complain "--dry-run asked the kernel to change something: $(cat "$IOVM_FAKE_LOG")"
ok "restore: everything that is in the file, and a dry run that does nothing"

edit "$tmp/all.json" "$tmp/other.json" '
a, b = d["devices"]
a.update(size_bytes=1 << 30, serial=None, no_path_timeout_ms=1, node_mode="0600", bounce_reads=True)
a["paths"][1].update(fence="local-error", addr="nbd://hostc/vm1")
a["paths"] = [a["paths"][1]]
a["route"] = None'
fresh_log
want 4 "^vm-2.data: is there already$" "^iovmctl: vm1: size_bytes is 536870912, in the file it is 1073741824$" restore "$tmp/other.json"
for what in "vm1: serial is 12345678901234567890, in the file it is nothing" "vm1: no_path_timeout_ms is 300000, in the file it is 1" \
	"vm1: node_mode is 0640, in the file it is 0600" "vm1: bounce_reads is false, in the file it is true" \
	"vm1: path 'hostb': fence is none, in the file it is local-error" \
	"vm1: path 'hostb': addr is nbd://hostb:10809/vm1, in the file it is nbd://hostc/vm1" \
	"vm1: path 'local': it is there, in the file it is not" "1 of 2 devices is not as the file says"; do
	says "^iovmctl: $what" "$err" restore "$tmp/other.json"
done
[ ! -s "$IOVM_FAKE_LOG" ] || complain "the kernel was asked to change something: $(cat "$IOVM_FAKE_LOG")"
want 4 "" "size_bytes is 536870912" restore -n "$tmp/other.json"
json 'd["devices"]' save
ok "restore: each field that differs is named, and left alone"

edit "$tmp/all.json" "$tmp/part.json" '
b = d["devices"][1]
b["paths"].insert(0, {**d["devices"][0]["paths"][0], "addr": "/dev/no-such-disk", "identity": None})
b["paths"].append({**b["paths"][1], "name": "away", "addr": "nbd+unix:///?socket='"$tmp"'/none", "connections": 4})
d["devices"].append({**b, "name": "vm3"})'
fresh_log
want 3 "^vm3: created, 1 of 3 paths added; not as it was$" "cannot open '/dev/no-such-disk'" restore "$tmp/part.json"
says "path 'away' of 'vm3' was added all the same; 'iovmctl path connect vm3 away' connects it" "$err" restore
says "hint: run it again" "$err" restore
logged "^path-add vm3 away .*"
logged "^connect vm3 a "
not_logged "^path-add vm3 local"
not_logged "^path-add vm1"
logged "^path-add vm-2.data away"
[ "$(grep -c '^create' "$IOVM_FAKE_LOG")" = 1 ] || complain "created: $(cat "$IOVM_FAKE_LOG")"
edit "$tmp/all.json" "$tmp/away.json" '
p = {**d["devices"][1]["paths"][0], "addr": "nbd+unix:///?socket='"$tmp"'/none", "connections": 0}
d["devices"] = [{**d["devices"][1], "name": "vm4", "paths": [p]}]'
want 0 "^vm4: created, 1 of 1" "connects it" restore "$tmp/away.json"
ok "restore: what cannot be made is named, the rest is made"

fresh_log
IOVM_FAKE_FEATURES=0x130001254 want 4 "" "new: virtio features 0xc00, which a running guest may use, are not offered any more" \
	restore "$tmp/new.json"
IOVM_FAKE_FEATURES=0x1130001e54 want 0 "" "" restore "$tmp/new.json"
IOVM_FAKE_FAIL=1:28:"there are 1024 devices already" want 4 "new: not as in the file" "cannot create device 'new': there are 1024" \
	restore "$tmp/new.json"
IOVM_FAKE_FAIL=0x10:124:"path a leads to other data" want 4 "" "cannot add path 'a' to 'new'" restore "$tmp/new.json"
IOVM_FAKE_FAIL=0x13:124:"the export differs" want 4 "" "cannot connect path 'a' of 'new': the export differs" restore "$tmp/new.json"
edit "$tmp/new.json" "$tmp/said.json" 'd["devices"][0]["paths"][0].update(identity_given=False, assume_same_data=False)'
fresh_log
want 4 "" "path 'a': identity is nothing, in the file it is id:vm2" restore "$tmp/said.json"
# the server says nothing: what the path had shown is not made up for it
not_logged "^connect identity"
ok "restore: features that a guest would miss, refusals of the kernel"

# An epoch is held in one boot of the host, and across an upgrade in it.
boot=$(cat /proc/sys/kernel/random/boot_id)
edit "$tmp/new.json" "$tmp/epoch.json" '
d["devices"][0].update(needs_epoch=True, epoch=7, epoch_held_in_boot="'"$boot"'", route=None, suspended=False)'
fresh_log
want 0 "^new: it held epoch 7, and does not any more: 'iovmctl epoch take'" "" restore "$tmp/epoch.json"
logged "^create new flags=7 "
logged "^create epoch=7$"
not_logged "^ctl"
fresh_log
want 0 "^new: created, 1 of 1 paths added$" "" restore --hand-over "$tmp/epoch.json"
not_logged "^create epoch="
logged "^ctl new op=14 path= value=7$"
edit "$tmp/epoch.json" "$tmp/boot.json" 'd["devices"][0].update(epoch_held_in_boot="another")'
fresh_log
want 4 "" "new: it held epoch 7 in another boot: that may not be restored" restore --hand-over "$tmp/boot.json"
logged "^create epoch=7$"
not_logged "^ctl"
edit "$tmp/epoch.json" "$tmp/given.json" 'd["devices"][0].update(epoch_held_in_boot=None)'
fresh_log
want 0 "^new: created, 1 of 1 paths added$" "" restore --hand-over "$tmp/given.json"
logged "^create epoch=7$"
not_logged "^ctl"
ok "restore: an epoch that was held is taken again by --hand-over, in the same boot"

# wrong WHY EXPRESSION: the file with this done to it is refused, and nothing is tried
wrong() {
	edit "$tmp/all.json" "$tmp/wrong.json" 'a, b = d["devices"]; p = a["paths"][0]; '"$2"
	fresh_log
	want 4 "" "wrong.json: line [0-9]+: $1" restore "$tmp/wrong.json"
	[ ! -s "$IOVM_FAKE_LOG" ] && [ -z "$out" ] || complain "$2: something was tried: $out"
}
wrong "version: only version 1" 'd["version"] = 2'
wrong "there is no devices" 'del d["devices"]'
wrong "devices: an array should be here, not null" 'd["devices"] = None'
wrong "an object should be here, not a number" 'd["devices"] = [1]'
wrong "there is no size_bytes" 'del a["size_bytes"]'
wrong "size_bytes: a number should be here, not a string" 'a["size_bytes"] = "1G"'
wrong "size_bytes: 1000 is not a multiple of 512" 'a["size_bytes"] = 1000'
wrong "size_bytes: a whole number" 'a["size_bytes"] = -512'
wrong "queues: a whole number from 0 to 4294967295" 'a["queues"] = 1 << 32'
wrong "iops: a whole number" 'a["iops"] = 1.5'
wrong "name: 'a/b' is not a name" 'a["name"] = "a/b"'
wrong "name: a string of at most 63 bytes" 'a["name"] = "x" * 64'
wrong "name: a string should be here, not null" 'a["name"] = None'
wrong "serial: a string of at most 20 bytes" 'a["serial"] = "x" * 21'
wrong "identity: 'x' is not an identity" 'a["identity"] = "x"'
wrong "node_mode: '888' is not a mode" 'a["node_mode"] = "888"'
wrong "class: 'net2' is not known" 'a["class"] = "net2"'
wrong "device 'vm1': only the classes blk and target" 'a["class"] = "net"'
wrong "read_only: true or false should be here" 'a["read_only"] = 1'
wrong "iopps: there is no such field" 'a["iopps"] = 1'
wrong "a second device 'vm1'" 'b["name"] = "vm1"'
wrong "device 'vm1': route: there is no path 'zz'" 'a["route"] = "zz"'
wrong "there is no paths" 'del a["paths"]'
wrong "paths: an array" 'a["paths"] = {}'
wrong "more than 8 paths" 'a["paths"] = [{**p, "name": "p%u" % i} for i in range(9)]; a["route"] = None'
wrong "a second path 'local'" 'a["paths"][1]["name"] = "local"'
wrong "there is no fence" 'del p["fence"]'
wrong "fence: 'sword' is not known" 'p["fence"] = "sword"'
wrong "fence: 'default' is not known" 'p["fence"] = "default"'
wrong "cache: 'maybe' is neither" 'p["cache"] = "maybe"'
wrong "path 'local': addr: 'sdb' is not an address" 'p["addr"] = "sdb"'
wrong "path 'local': addr: 'nbd://h/x' is not the address of a path of type bdev" 'p["addr"] = "nbd://h/x"'
wrong "path 'local': identity_given without" 'p["identity_given"] = True'
wrong "path '[a-z]*': shared is for bdev paths" '[q for q in a["paths"] if q["type"] == "nbd"][0]["shared"] = True'
wrong "path 'local': shared is for bdev paths without a reservation" 'p.update(shared=True, fence_by="reservation", pr_key=1)'
wrong "devices: more than 1024 devices" 'd["devices"] = [{**a, "name": "d%u" % i} for i in range(1025)]'
ok "restore: a file with a mistake is refused as a whole, by line and field"

fresh_log
want 3 "" "cannot open '$tmp/none'" restore "$tmp/none"
echo '{"format": "other", "version": 1, "devices": []}' >"$tmp/wrong.json"
want 4 "" "is not a file of devices" restore "$tmp/wrong.json"
printf '{"format":\n "iovm-devices",, }' >"$tmp/wrong.json"
want 4 "" "wrong.json: line 2, column 17: " restore "$tmp/wrong.json"
want 4 "" "line 1, column 1: the text ends" restore /dev/null
size=$(stat -c %s "$tmp/all.json")
for ((i = 1; i < size - 1; i += size / 40)); do
	head -c "$i" "$tmp/all.json" >"$tmp/wrong.json"
	want 4 "" "wrong.json: line [0-9]+, column [0-9]+: " restore "$tmp/wrong.json"
done
head -c 40000000 /dev/zero | tr '\0' ' ' >"$tmp/wrong.json"
want 4 "" "is too large" restore "$tmp/wrong.json"
[ ! -s "$IOVM_FAKE_LOG" ] || complain "something was tried: $(cat "$IOVM_FAKE_LOG")"
ok "restore: what is no such file, or cut short"

conclude
