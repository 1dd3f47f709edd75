#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# iovmctl as its user sees it, under ASan: usage errors, exit codes, help, errors and their remedies, text and JSON. The
# kernel is played by a preloaded library (iovmctl_fake.c), the NBD server is nbdkit, so that what is handed to "the kernel" is
# proven to be a connection in its transmission phase.
#
# Writes KTAP. OUT= is where the programs are built.

export LC_ALL=C TZ=UTC
# shellcheck source=selftests/unit/iovmctl.sh
. "$(dirname "$0")/iovmctl.sh" || exit 1
on_stand_in

# want RC [PATTERN in stdout [PATTERN in stderr]] -- ARGS...
want() {
	local code=$1 so=$2 se=$3
	shift 3
	exits "$code" "$@"
	[ -z "$so" ] || says "$so" "$out" "$@"
	[ -z "$se" ] || says "$se" "$err" "$@"
	[ "$code" = 0 ] || [ -z "$out" ] || complain "iovmctl $*: failed, but wrote to stdout: $out"
}

# logged PATTERN: the stand-in was asked this
logged() {
	grep -Eq -- "$1" "$IOVM_FAKE_LOG" || complain "not asked /$1/: $(cat "$IOVM_FAKE_LOG")"
}
not_logged() {
	! grep -Eq -- "$1" "$IOVM_FAKE_LOG" || complain "was asked /$1/: $(cat "$IOVM_FAKE_LOG")"
}
fresh_log() { : >"$IOVM_FAKE_LOG"; }
export IOVM_FAKE_LOG=$tmp/log
fresh_log

commands=("list" "show" "stats" "top" "events" "version" "create" "destroy" "set" "resize" "path add" "path set" "path remove"
	"path list" "path connect" "path watch" "path fail" "path retry" "path fence" "path fenced" "failover" "failback" "suspend" "resume"
	"fail-parked" "identify" "save" "restore" "serve" "session list" "session end" "config check" "config show" "config reload"
	"epoch take" "epoch give" "status" "check" "migrate" "drain-host" "rehearse" "export" "metrics"
	"peers" "peers enrol" "peers renew" "peers forget"
	"reserve add" "reserve remove" "reserve list" "reserve check")

echo "KTAP version 1"
echo "1..32"

# --- help ---

"$ctl" --help >"$tmp/help" || complain "--help fails"
[ "$(grep -c '^  [a-z]' "$tmp/help")" = "${#commands[@]}" ] || complain "this test does not know all commands: $(cat "$tmp/help")"
for c in "${commands[@]}"; do
	grep -q "^  $c\b" "$tmp/help" || complain "--help does not name '$c'"
	# shellcheck disable=SC2086 # two words
	"$ctl" $c --help >"$tmp/out" 2>"$tmp/err" || complain "$c --help fails"
	[ ! -s "$tmp/err" ] || complain "$c --help writes to stderr"
	head -1 "$tmp/out" | grep -q "^Usage: iovmctl $c\b" || complain "$c --help has no usage line"
	[ "$(grep -c . "$tmp/out")" -ge 5 ] || complain "$c --help is too short"
	# shellcheck disable=SC2086
	"$ctl" help $c | cmp -s - "$tmp/out" || complain "help $c differs from $c --help"
done
ok "every command has help, without a module"

man=$top/docs/man/iovmctl.8
sed 's/\\f[BIRP]//g; s/\\//g' "$man" >"$tmp/man"
for c in "${commands[@]}"; do
	grep -Eq "^\.(B|BI|TP) .?$c\b|^\.B $c$" "$tmp/man" || complain "the manual does not describe '$c'"
	# shellcheck disable=SC2086
	for o in $("$ctl" $c --help | sed -n 's/^  \(-., \|    \)\(--[a-z-]*\).*/\2/p'); do
		grep -q -- "$o\b" "$tmp/man" || complain "the manual does not describe $o of '$c'"
	done
done
ok "the manual names every command and option"

want 2 "" "there is no command 'frobnicate'" frobnicate
want 2 "" "needs one of: add" path
want 2 "" "no command 'path frobnicate'" path frobnicate
want 2 "" "unknown option" --frobnicate list
want 2 "" "missing argument: show NAME" show
want 2 "" "too many arguments: 'b'" show a b
want 2 "" "unknown or ambiguous option '--frob'" list --frob
want 2 "" "--size needs a value" create x --size
want 2 "" "--queues: '0' is not from 1 to 64" create x --size 1G --queues 0
want 2 "" "--queues: '65' is not from 1 to 64" create x --size 1G --queues 65
want 2 "" "--size: '12q' is not a size" create x --size 12q
want 2 "" "give one of --size and --size-from" create x
want 2 "" "give one of --size and --size-from" create x --size 1G --size-from /dev/null
want 2 "" "device: 'a/b' is not a name" create a/b --size 1G
want 2 "" "not a multiple of the block size" create x --size 1000
want 2 "" "block size of 1024 is not supported" create x --size 1M --block-size 1024
want 2 "" "longer than 20 bytes" create x --size 1G --serial 123456789012345678901
want 2 "" "not a power of two" create x --size 1G --queue-size 100
want 2 "" "contradicts --readonly" create x --size 1G --readonly --discard
want 2 "" "is not a mode" create x --size 1G --mode rwx
want 2 "" "names a user that does not exist" create x --size 1G --owner nobody-has-this-name
want 2 "" "is not an address" path add vm1 p dev/sdb
want 2 "" "TLS on a unix socket" path add vm1 p "nbds+unix:///x?socket=/s"
want 2 "" "tls-hostname= nor tls-certificates=" path add vm1 p "nbds://h/x?a=b"
want 2 "" "--tls is for addresses" path add vm1 p /dev/null --tls
want 2 "" "--tls is for addresses" path add vm1 p nbd://h/x --tls-peer b
want 2 "" "neither required nor offered" serve vm1 --tls maybe
want 2 "" "a unix socket has none" serve vm1 --tls required --listen unix:/tmp/x
want 1 "" "host.crt': No such file" serve vm1 --tls required --tls-dir /nonexistent
want 2 "" "are for nbd paths" path add vm1 p /dev/null --heartbeat 5
want 2 "" "--shared is for bdev paths" path add vm1 p nbd://h --shared
want 2 "" "one reservation key" path add vm1 p /dev/null --shared --pr-key 1
want 2 "" "neither survives nor dies" path add vm1 p /dev/null --cache maybe
want 2 "" "--identity: 'vm1' is not an identity" path add vm1 p /dev/null --identity vm1
want 2 "" "--identity: 'id:a b' holds a character" create x --size 1G --identity "id:a b"
want 2 "" "neither local-error nor none" path add vm1 p /dev/null --fence maybe
want 2 "" "nothing to set" set vm1
want 2 "" "missing argument: epoch take NAME N" epoch take vm1
want 2 "" "'0' is no epoch: they begin at 1" epoch take vm1 0
want 2 "" "'-1' is not" epoch give vm1 -- -1
want 2 "" "needs one of: take, give" epoch
want 2 "" "not a multiple of 512" resize vm1 1000
want 2 "" "is not a type of event" events --wait frob
want 2 "" "hint: see 'iovmctl create --help'" create x
want 2 "" "needs one of: add, remove, list, check" reserve
want 2 "" "give the class to reserve below" reserve add vm1 --io 1G
want 2 "" "'eth0' is not a class" reserve add vm1 --class eth0 --io 1G
want 2 "" "'eth0/1:0' names no class" reserve add vm1 --class eth0/1:0 --io 1G
want 2 "" "give a rate" reserve add vm1 --class eth0/1:50
want 2 "" "--io: '1GB' is not a rate" reserve add vm1 --class eth0/1:50 --io 1GB
want 2 "" "--ceil is less" reserve add vm1 --class eth0/1:50 --io 1G --ceil 900M
want 2 "" "ports need the address" reserve add vm1 --class eth0/1:50 --io 1G --io-port 10809
want 2 "" "'hostb' is not an address" reserve add vm1 --class eth0/1:50 --io 1G --peer hostb --io-port 10809
want 2 "" "--peer needs the port" reserve add vm1 --class eth0/1:50 --io 1G --peer 10.0.0.2
want 2 "" "--io-port: '0' is not from 1 to 65535" reserve add vm1 --class eth0/1:50 --io 1G --peer 10.0.0.2 --io-port 0
want 2 "" "a port needs a rate" reserve add vm1 --class eth0/1:50 --io 1G --peer ::1 --migration-port 1
want 2 "" "cannot be told apart" reserve add vm1 --class eth0/1:50 --io 1G --migration 1G --peer ::1 --io-port 1 --migration-port 1
want 2 "" "is not a name" reserve add a/b --class eth0/1:50 --io 1G
want 2 "" "either a name or --all" reserve remove
want 2 "" "either a name or --all" reserve remove vm1 --all
want 3 "" "there is no network device nodev" reserve check --class nodev/1:50
[ ! -s "$IOVM_FAKE_LOG" ] || complain "the kernel was asked something: $(cat "$IOVM_FAKE_LOG")"
ok "usage errors: exit 2, nothing tried, a hint"

# --- the kernel side is not there ---

if [ -e /dev/iovm-mux ]; then
	complain "/dev/iovm-mux exists here: cannot tell"
else
	out=$("$ctl" list 2>&1)
	rc=$?
	[ $rc = 5 ] || complain "list without a module: exit $rc"
	grep -q 'the module iovm_mux is not loaded' <<<"$out" || complain "$out"
	grep -q 'hint: .*modprobe vhost_iovm_blk' <<<"$out" || complain "no remedy: $out"
	out=$("$ctl" --json list 2>&1)
	python3 -c 'import json,sys; d = json.loads(sys.argv[1]); sys.exit(not (d["exit"] == 5 and "modprobe" in d["hint"]))' \
		"$out" || complain "not a JSON error: $out"
fi
ok "no module: exit 5 and the remedy, in text and JSON"

IOVM_FAKE_OPEN=13 want 5 "" "hint: run it as root" list
IOVM_FAKE_FAIL=0:1 want 5 "" "hint: run it as root" list
IOVM_FAKE_ABI=2 want 5 "" "the module speaks ABI 2, this iovmctl 1" list
IOVM_FAKE_FAIL=3:25 want 5 "" "older than this iovmctl" list
ok "no permission, other version: exit 5"

want 3 "" "there is no device 'nope'" show nope
want 3 "" "hint: 'iovmctl list'" show nope
want 3 "" "there is no device 'nope'" path list nope
want 3 "" "device 'vm1' has no path 'zz'" path connect vm1 zz
want 3 "" "there is no device 'nope'" path connect nope zz
want 3 "" "cannot destroy device 'nope'" destroy nope
want 3 "" "cannot open '/dev/nope'" path add vm1 p /dev/nope
want 3 "" "" create x --size-from /dev/nope
ok "not found: exit 3"

IOVM_FAKE_FAIL=2:16:"pid 4711 has the node open" want 4 "" "cannot destroy device 'vm1': pid 4711 has the node open \(Device or resource busy\)" destroy vm1
IOVM_FAKE_FAIL=2:16 want 4 "" "hint: .*--force" destroy vm1
want 4 "" "cannot create device 'vm1': the name 'vm1' is taken" create vm1 --size 1G
IOVM_FAKE_FAIL=4:67:"no other path is live" want 4 "" "no other path is live" failover vm1
IOVM_FAKE_FAIL=4:67 want 4 "" "hint: 'iovmctl path list" failover vm1
want 4 "" "is not a block device" path add vm1 p "$ctl"
want 4 "" "hint: .*losetup" path add vm1 p "$ctl"
want 4 "" "is not an nbd path" path connect vm1 local
want 4 "" "is live" path connect vm1 hostb
IOVM_FAKE_FAIL=4:5 want 1 "" "cannot resume 'vm1': Input/output error" resume vm1
ok "refused: exit 4 with the kernel's reason and a hint; other failures 1"

IOVM_FAKE_FAIL=2:16:'say "no"' run --json destroy vm1
[ "$rc" = 4 ] || complain "exit $rc"
python3 -c 'import json,sys; d = json.loads(sys.argv[1])
assert d["exit"] == 4 and d["errno"] == "EBUSY" and "say \"no\"" in d["error"] and "--force" in d["hint"], d' "$err" ||
	complain "not the JSON error wanted: $err"
ok "an error as JSON"

# --- looking ---

want 0 "^NAME +STATE +ROUTE +PATHS +QUEUES +SIZE +IN-USE$" "" list
want 0 "^vm1 +routed +local +2/2 +4/4 +512M +pid 4711$" "" list
want 0 "^vm-2.data +parked +none +0/1 +0/4 +512M +no$" "" ls
json 'len(d) == 2 and d[0]["name"] == "vm1" and d[0]["route"] == "local" and d[0]["size_bytes"] == 1 << 29 and
	d[0]["in_use"] is True and d[0]["serial"] == "12345678901234567890" and d[1]["route"] is None and d[1]["held"] == 3' list
ok "list"

want 0 "^serial: +12345678901234567890$" "" show vm1
want 0 "^no-path timeout: +5min$" "" show vm1
want 0 "^  NBD flags: +flush fua trim write-zeroes multi-conn$" "" show vm1
want 0 "^  last error: +ECONNRESET \(Connection reset by peer\)$" "" show vm-2.data
json 'd["state"] == "routed" and [p["name"] for p in d["paths"]] == ["local", "hostb"] and d["paths"][0]["routed"] and
	not d["paths"][1]["routed"] and d["paths"][0]["last_error"] is None' show vm1
json 'd["paths"][0]["addr"] == "nbd://h/quote\"back\\slash\u0001\ufffd" and d["paths"][0]["last_error"] == "ECONNRESET"' show vm-2.data
want 0 "^local +0 +bdev +live +1min30s +yes +0 +0 +unknown +/dev/sdb$" "" path list vm1
json '[p["order"] for p in d] == [0, 1] and d[1]["fence"] == "none" and d[1]["cache"] == "dies"' path list vm1
ok "show and path list"

want 0 "^ +p?longest pause: +7.9ms$" "" stats vm1
want 0 "^  read latency: 1000  p50 <131us  p99 <131us  p99.9 <262us$" "" stats vm1 --path local
want 0 "^ +65.5us\.\. +990 \|#{40}$" "" stats vm1 --path local
run stats vm1 --no-hist
! grep -q '###' <<<"$out" || complain "--no-hist has pictures"
want 3 "" "has no path 'zz'" stats vm1 --path zz
json 'd["pause"]["count"] == 32 and d["pause"]["p99_below_ns"] == 1 << 23 and len(d["paths"]) == 2 and
	d["paths"][0]["latency"]["read"]["p50_below_ns"] == 1 << 17 and
	d["paths"][0]["latency"]["read"]["buckets"][-1] == {"from_ns": 1 << 39, "below_ns": None, "count": 1} and
	d["paths"][0]["latency"]["write"]["p50_below_ns"] is None and d["paths"][0]["ops"][0]["done"] == 1000' stats vm1
ok "stats"

want 0 "^vm1 +local +live +yes +[0-9]+ +[0-9.]+M? +0B +<131us +<131us +0 +0$" "" top vm1 --once --interval 200ms
run top --json -n 2 -i 100ms
[ "$rc" = 0 ] || complain "top: exit $rc"
[ "$(wc -l <"$tmp/out")" = 2 ] || complain "top -n 2: not two lines: $out"
python3 -c 'import json,sys
for line in open(sys.argv[1]):
    d = json.loads(line)
    assert len(d) == 3 and d[0]["iops"] > 0 and d[0]["p99_below_ns"] == 1 << 17, d' "$tmp/out" || complain "$out"
want 2 "" "--interval" top -i 1ms
ok "top"

want 0 "^2023-11-14 22:13:20.042 +42  vm1 +path local: live -> failed: EIO" "" events --no-follow
want 0 "44  vm1 +requests go to path hostb, 1.5ms after the first error$" "" events --no-follow
want 0 "43  vm1 +event 999: value 5$" "" events --no-follow
[ "$(wc -l <"$tmp/out")" = 5 ] || complain "not five events: $out"
want 0 "" "" events --no-follow --device other
[ -z "$out" ] || complain "--device other: $out"
run events --since 0 --count 2
[ "$rc" = 0 ] && [ "$(wc -l <"$tmp/out")" = 2 ] || complain "--count 2: exit $rc: $out"
run events --since 0 --wait rerouted
[ "$rc" = 0 ] && [ "$(wc -l <"$tmp/out")" = 4 ] || complain "--wait rerouted: exit $rc: $out"
LD_PRELOAD=$preload "$ctl" events --since 0 --wait parked --timeout 200ms >"$tmp/out" 2>"$tmp/err"
[ $? = 1 ] || complain "--timeout: another exit status than 1"
grep -q "no event 'parked' came in time" "$tmp/err" || complain "$(cat "$tmp/err")"
run events --no-follow --json
[ "$(wc -l <"$tmp/out")" = 5 ] || complain "not five objects: $out"
python3 -c 'import json,sys
d = [json.loads(line) for line in open(sys.argv[1])]
assert [e["seq"] for e in d] == [41, 42, 43, 44, 45], d
assert d[1]["old_state"] == "live" and d[1]["new_state"] == "failed" and d[1]["error"] == "EIO", d[1]
assert d[2]["type"] is None and d[2]["type_id"] == 999 and "old_state" not in d[2], d[2]
assert d[3]["type"] == "rerouted" and d[3]["path"] == "hostb" and d[3]["value"] == 1500000, d[3]' "$tmp/out" || complain "$out"
ok "events"

want 0 "^module: +9.9.9$" "" version
want 0 "^path types: bdev nbd$" "" version
json 'd["module"] == "9.9.9" and d["classes"] == ["blk"] and d["path_types"] == ["bdev", "nbd"]' version
"$ctl" --version | grep -q '^iovmctl [0-9]' || complain "--version"
ok "version"

# completes WANT WORD...: what bash offers for the last word, sorted, in one line
completes() {
	local want=$1 got
	shift
	# shellcheck disable=SC2016 # for the inner shell
	got=$(CTL=$ctl PRELOAD=$preload bash --norc -c '
		iovmctl() { LD_PRELOAD=$PRELOAD "$CTL" "$@"; }
		. "$0"
		COMP_WORDS=(iovmctl "$@")
		COMP_CWORD=$#
		_iovmctl
		printf "%s\n" "${COMPREPLY[@]}"' "$top/userland/iovmctl/iovmctl.bash" "$@" 2>"$tmp/err" | sort -u | xargs)
	[ "$got" = "$want" ] || complain "completion of '$*': '$got', not '$want': $(cat "$tmp/err")"
}
completes "fail-parked failback failover" fail
completes "add connect fail fence fenced list remove retry set watch" path ""
completes "add check list remove" reserve ""
completes "--ceil --class" reserve add vm1 --c
completes "vm-2.data vm1" show vm
completes "nbd+unix:/// nbd:// nbds://" identify nbd
completes "hostb local" path remove vm1 ""
completes "--cache" path add vm1 n nbd://h --ca
completes "--shared" path add vm1 n /dev/null --sh
completes "off" set vm1 --slow-factor ""
completes "epoch local-error none" path add vm1 n nbd://h --fence ""
completes "first-completion first-error" events --wait first
completes "check reload show" config ""
mkdir "$tmp/there" "$tmp/there/d.conf"
completes "$tmp/there" config check "$tmp/the"
completes "$tmp/there/d.conf" config show --dir "$tmp/there/"
completes "$tmp/there/d.conf" config show -d "$tmp/there/"
ok "bash completion"

# --- changing ---

fresh_log
kvm=$(getent group kvm | cut -d: -f3)
want 0 "^x: created /dev/vhost-iovm/x, 10G, 1 queue$" "" create x --size 10G
logged "^create x flags=0 mode=660 uid=0 gid=${kvm:-0} no_path=300000 failback=0 iops=0 bps=0 capacity=20971520 bs=512 pbs=0 queues=1 qsize=128 seg=0 discard=2097152 zeroes=131072 serial=x$"
fresh_log
want 0 "" "" create x -s 1G -q 64 --block-size 4096 --readonly --iops 5k --bps 200M --no-path-timeout never \
	--failback-after 30 --owner 1234:5678 --mode 0600 --serial 12345678901234567890 --seg-max 30 --queue-size 256
logged "^create x flags=1 mode=600 uid=1234 gid=5678 no_path=0 failback=30000 iops=5000 bps=209715200 capacity=2097152 bs=4096 pbs=0 queues=64 qsize=256 seg=30 discard=0 zeroes=0 serial=12345678901234567890$"
fresh_log
want 0 "" "" create a-name-that-is-longer-than-20-bytes -s 1G --no-discard --max-write-zeroes 1M
logged "discard=0 zeroes=2048 serial=a-name-that-is-longe$"
json 'd["name"] == "x" and d["size_bytes"] == 1 << 30 and d["state"] == "parked"' create x -s 1G
ok "create"

fresh_log
want 0 "destroyed vm1" "" destroy vm1 --force
logged "^destroy vm1 flags=1$"
want 0 "^vm1: requests go to path 'hostb'$" "" failover vm1
want 0 "" "" failover vm1 hostb
logged "^ctl vm1 op=1 path=hostb value=0$"
json 'd["name"] == "vm1" and d["route"] == "hostb"' failover vm1
want 0 "" "" failback vm1
want 0 "suspended, nothing is in flight" "" suspend vm1
want 0 "" "" resume vm1
want 0 "" "" fail-parked vm1
want 0 "the size is now 512M" "" resize vm1 512M
want 4 "" "path 'local' \(/dev/sdb\) has 512M, or 1048576 sectors, not 2G" resize vm1 2G
for op in "op=2 path= value=0" "op=3 path= value=0" "op=4 path= value=0" "op=5 path= value=0" "op=6 path= value=1048576"; do
	logged "^ctl vm1 $op$"
done
fresh_log
want 0 "" "" set vm1 --iops 10k --bps 0 --no-path-timeout 1min --failback-after never
want 0 "" "" set vm1 --no-space-timeout 10min
want 0 "" "" set vm1 --slow-factor 8 --leave-slow 30s
want 0 "" "" set vm1 --slow-factor off --leave-slow never
want 2 "" "is not from 2 to 1000" set vm1 --slow-factor 1
want 2 "" "is neither a number of times nor 'off'" set vm1 --slow-factor on
for op in "op=12 path= value=8" "op=13 path= value=30000" "op=12 path= value=4294967295" "op=13 path= value=0" \
	"op=11 path= value=600000" "op=9 path= value=10000" "op=10 path= value=0" "op=7 path= value=60000" "op=8 path= value=0"; do
	logged "^ctl vm1 $op$"
done
ok "device operations"

fresh_log
want 0 "path 'local' removed" "" path remove vm1 local
want 0 "" "" path del vm1 local -f
logged "^path-remove local flags=0$"
logged "^path-remove local flags=1$"
for op in fail:1 retry:2 fenced:3; do
	want 0 "path 'local'" "" path ${op%:*} vm1 local
	logged "^path-ctl local op=${op#*:}$"
done
json 'd["removed"] == "local" and d["device"] == "vm1"' path remove vm1 local
json 'd["name"] == "local" and d["state"] == "live"' path retry vm1 local
ok "path operations"

IOVM_FAKE_DELAY=3000 want 0 "suspended" "^iovmctl: suspending vm1: 12 requests in flight, [0-9.]+ s$" suspend vm1
IOVM_FAKE_DELAY=0 run suspend vm1
[ -z "$err" ] || complain "progress for a short wait: $err"
ok "progress of a long wait"

# --- NBD: a real server, the sockets tried by the stand-in ---

command -v nbdkit >/dev/null || complain "nbdkit is not installed"

serve multi -v -e disk memory size=512M
fresh_log
want 0 "path 'n' \(nbd\+unix:///disk\?socket=.*\) is live" "" path add vm1 n "nbd+unix:///disk?socket=$tmp/multi.sock"
logged "^path-add vm1 n type=2 addr=nbd\+unix:///disk\?socket=$tmp/multi.sock flags=0 fence=0 fd=none heartbeat=0 dead=0$"
logged "^connect vm1 n fds=4 bytes=536870912 flags=0x[0-9a-f]+ structured min=[0-9]+ max=[0-9]+$"
[ "$(grep -c '^socket [0-3]: read ok$' "$IOVM_FAKE_LOG")" = 4 ] || complain "not four good sockets: $(cat "$IOVM_FAKE_LOG")"
! grep -qi 'NBD_CMD_DISC\|client sent disconnect' "$tmp/multi.log" || complain "a disconnect was sent"
fresh_log
want 0 "" "" path add vm1 n "nbd+unix:///disk?socket=$tmp/multi.sock" -c 2 --cache survives --fence none --heartbeat 250 --dead 2s
logged "flags=1 fence=2 fd=none heartbeat=250 dead=2000$"
[ "$(grep -c '^socket .: read ok$' "$IOVM_FAKE_LOG")" = 2 ] || complain "not two good sockets: $(cat "$IOVM_FAKE_LOG")"
json 'd["state"] == "live" and d["sockets"] == 4 and "multi-conn" in d["nbd_flags"]' path add vm1 n "nbd+unix:///disk?socket=$tmp/multi.sock"
ok "path add nbd: several sockets in the transmission phase"

# A server that allows one connection and speaks simple replies only
serve single --no-sr memory size=512M --filter=multi-conn multi-conn-mode=disable
fresh_log
want 0 "is live" "" path add vm1 n "nbd+unix:///?socket=$tmp/single.sock"
logged "^connect vm1 n fds=1 .* simple"
logged "^socket 0: read ok$"
want 0 "" "warning: .*does not allow several connections" path add vm1 n "nbd+unix:///?socket=$tmp/single.sock" -c 3
ok "path add nbd: one connection, simple replies"

fresh_log
IOVM_FAKE_ADDR="nbd+unix:///disk?socket=$tmp/multi.sock" want 0 "path 'a' .* is live" "" path reconnect vm-2.data a -c 3
[ "$(grep -c '^socket .: read ok$' "$IOVM_FAKE_LOG")" = 3 ] || complain "not three good sockets: $(cat "$IOVM_FAKE_LOG")"
not_logged "^path-add"
ok "path connect: at the address the kernel keeps"

want 4 "" "path 'a' of 'vm-2.data' is failed" path connect vm-2.data a --replace
want 2 "" "drained is for a path that has failed" path connect vm1 hostb --replace --drained
ok "path connect --replace: of a live path only"

command -v qemu-nbd >/dev/null || complain "qemu-nbd is not installed"
truncate -s 512M "$tmp/image"
echo data | dd of="$tmp/image" conv=notrunc status=none	# a hole would be answered in another way
qemu-nbd -t -f raw -x disk --shared=8 -k "$tmp/qemu.sock" "$tmp/image" >"$tmp/qemu.log" 2>&1 &
bg+=($!)
listens "$tmp/qemu.sock"
fresh_log
want 0 "is live" "" path add vm1 n "nbd+unix:///disk?socket=$tmp/qemu.sock"
logged "^connect vm1 n fds=4 bytes=536870912 flags=0x[0-9a-f]+ structured min=1 max=33554432$"
[ "$(grep -c '^socket [0-3]: read ok$' "$IOVM_FAKE_LOG")" = 4 ] || complain "not four good sockets: $(cat "$IOVM_FAKE_LOG")"
# One that says what data it has, and one that bypasses its page cache
says "warning: .*qemu-nbd without --cache=none, which answers from the page cache" "$err" path add
[ "$(grep -c warning <<<"$err")" = 1 ] || complain "warned more than once: $err"
ok "path add nbd: qemu-nbd"

qemu-nbd -t -f raw -x disk --shared=8 -k "$tmp/said.sock" -D "disk of vm1, iovm-id=wwn:naa.6000000000000001 " -r --cache=none \
	"$tmp/image" >"$tmp/said.log" 2>&1 &
bg+=($!)
listens "$tmp/said.sock"
uri="nbd+unix:///disk?socket=$tmp/said.sock"
want 0 "^wwn:naa.6000000000000001$" "" identify "$uri"
json 'd["identity"] == "wwn:naa.6000000000000001"' identify "$uri"
want 3 "" "shows no identity of its data" identify "nbd+unix:///disk?socket=$tmp/multi.sock"
want 3 "" "hint: .*iovm-id=" identify "nbd+unix:///disk?socket=$tmp/multi.sock"
fresh_log
want 0 "is live" "" path add vm1 n "$uri"
[ -z "$err" ] || complain "it was warned of: $err"
logged "^path-add vm1 n .* flags=0 "
logged "^path-add identity=wwn:naa.6000000000000001$"
logged "^connect identity=wwn:naa.6000000000000001$"
json 'd["identity"] == "wwn:naa.6000000000000001" and d["same_data"] == "shown"' path add vm1 n "$uri"
# what the server says is not overruled
fresh_log
want 4 "" "shows the identity wwn:naa.6000000000000001, not id:x" path add vm1 n "$uri" --identity id:x
not_logged "^path-add"
# the other server, with less to say
IOVM_FAKE_ADDR="nbd+unix:///disk?socket=$tmp/multi.sock" want 0 "path 'a' .* is live" "" path reconnect vm-2.data a
not_logged "^connect identity"
ok "path add nbd: the identity that the server says"

fresh_log
want 0 "is live" "" path add vm1 n "nbd+unix:///disk?socket=$tmp/multi.sock" --identity id:vm1-data
logged "^path-add vm1 n .* flags=8 "
logged "^path-add identity=id:vm1-data$"
logged "^connect identity=id:vm1-data$"
json 'd["same_data"] == "stated"' path add vm1 n "nbd+unix:///disk?socket=$tmp/multi.sock" --identity id:vm1-data
fresh_log
IOVM_FAKE_ADDR="nbd+unix:///disk?socket=$tmp/multi.sock" IOVM_FAKE_IDENTITY=id:vm1-data want 0 "is live" "" path connect vm-2.data a
logged "^connect identity=id:vm1-data$"
fresh_log
want 0 "is live" "" path add vm1 n "nbd+unix:///disk?socket=$tmp/multi.sock" --assume-same-data
logged "^path-add vm1 n .* flags=4 "
json 'd["same_data"] == "assumed" and d["identity"] is None' path add vm1 n "nbd+unix:///disk?socket=$tmp/multi.sock" --assume-same-data
fresh_log
want 0 created "" create x --size 1G --identity wwn:naa.6000000000000001 --no-space-timeout 1min
logged "^create identity=wwn:naa.6000000000000001 no_space=60000$"
IOVM_FAKE_FAIL=0x10:124:"path n shows no identity of its data, device vm1 has id:x" \
	want 4 "" "hint: .*--assume-same-data" path add vm1 n "nbd+unix:///disk?socket=$tmp/multi.sock"
ok "path add: identities that the operator gives, and what he assumes"


command -v nbd-server >/dev/null || complain "nbd-server is not installed"
cat >"$tmp/nbd-server.conf" <<END
[generic]
unixsock = $tmp/nbd-server.sock
[disk]
exportname = $tmp/image
flush = true
fua = true
END
nbd-server -C "$tmp/nbd-server.conf" -p "$tmp/nbd-server.pid" >"$tmp/nbd-server.log" 2>&1 ||
	complain "nbd-server does not start: $(cat "$tmp/nbd-server.log")"
for ((i = 0; i < 100; i++)); do [ -s "$tmp/nbd-server.pid" ] && [ -S "$tmp/nbd-server.sock" ] && break; sleep 0.1; done
bg+=("$(cat "$tmp/nbd-server.pid")")
fresh_log
want 0 "is live" "" path add vm1 n "nbd+unix:///disk?socket=$tmp/nbd-server.sock"
logged "^connect vm1 n fds=[0-9]+ bytes=536870912 flags=0x[0-9a-f]+ (simple|structured)"
logged "^socket 0: read ok$"
[ -n "$bad" ] && complain "nbd-server: $(cat "$tmp/nbd-server.log")"
ok "path add nbd: nbd-server"

fresh_log
want 3 "" "does not give out this export" path add vm1 n "nbd+unix:///other?socket=$tmp/qemu.sock"
want 3 "" "hint: the server offers 'disk'" path add vm1 n "nbd+unix:///other?socket=$tmp/qemu.sock"
serve odd --filter=exportname memory 1M exportname-list=explicit exportname-strict=true exportname=$'x\e[2J\xc2\x9b\xc3\xa9'
want 3 "" "hint: the server offers 'x\?\[2J\?é'" path add vm1 n "nbd+unix:///other?socket=$tmp/odd.sock"
want 1 "" "none.sock: cannot connect: " path add vm1 n "nbd+unix:///?socket=$tmp/none.sock"
want 1 "" "hint: is the NBD server running" path add vm1 n "nbd+unix:///?socket=$tmp/none.sock"
not_logged "^path-add"
want 0 "" "warning: the path was added all the same" path add vm1 n "nbd+unix:///?socket=$tmp/none.sock" --offline
logged "^path-add vm1 n"
not_logged "^connect"
ok "path add nbd: no such export, no server: nothing is added unless --offline"

fresh_log
IOVM_FAKE_FAIL=0x13:124:"the export has 1048576 sectors, the device 2097152" \
	want 4 "" "the export has 1048576 sectors, the device 2097152 \(Wrong medium type\)" \
	path add vm1 n "nbd+unix:///disk?socket=$tmp/multi.sock"
logged "^path-remove n flags=0$"
ok "path add nbd: refused by the kernel, and taken back"

python3 - "$tmp/mute.sock" <<-'END' &
	import socket, sys, time
	s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(8)
	time.sleep(60)
END
bg+=($!)
listens "$tmp/mute.sock"
start=$(date +%s%N)
want 1 "" "did not finish the handshake in 500ms" path add vm1 n "nbd+unix:///?socket=$tmp/mute.sock" --timeout 500ms
[ $((($(date +%s%N) - start) / 1000000)) -lt 5000 ] || complain "it took too long"
ok "path add nbd: a server that says nothing"

# Two servers with different disks behind one address, in turn: the connections must not be mixed.
serve big memory size=1G
serve small memory size=512M
python3 - "$tmp/turn.sock" "$tmp/small.sock" "$tmp/big.sock" <<-'END' &
	import socket, sys, threading
	def pump(a, b):
	    while True:
	        data = a.recv(65536)
	        if not data:
	            break
	        b.sendall(data)
	s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(8)
	turn = 0
	while True:
	    c, _ = s.accept()
	    o = socket.socket(socket.AF_UNIX); o.connect(sys.argv[2 + turn % 2]); turn += 1
	    for a, b in ((c, o), (o, c)):
	        threading.Thread(target=pump, args=(a, b), daemon=True).start()
END
bg+=($!)
listens "$tmp/turn.sock"
fresh_log
want 4 "" "two connections were told different sizes or features" path add vm1 n "nbd+unix:///?socket=$tmp/turn.sock"
not_logged "^path-add"
ok "path add nbd: connections that differ are refused"

fresh_log
want 0 "512M" "" create x --size-from "nbd+unix:///disk?socket=$tmp/multi.sock"
logged "capacity=1048576 bs=512"
serve odd memory size=1000
want 4 "" "not a multiple of the block size" create x --size-from "nbd+unix:///?socket=$tmp/odd.sock"
serve blk4k memory size=1M --filter=blocksize-policy blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=1M
want 0 "" "" create x --size-from "nbd+unix:///?socket=$tmp/blk4k.sock"
logged "capacity=2048 bs=4096"
ok "create --size-from an NBD server"

conclude
