#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# iovmctl save and restore, and iovm-upgrade, on the real modules: devices and paths are the same again, who uses them is stopped
# and started, and at every step that can fail it goes back, or goes on when it is run again. That a guest notices nothing is
# tested in selftests/e2e/test_upgrade.

top=$(cd "$(dirname "$0")/../.." && pwd)
ctl=$(command -v iovmctl || echo "$top/build/userland/iovmctl/iovmctl")
vu=$(command -v iovm-vhost-user || echo "$top/build/userland/iovm-vhost-user/iovm-vhost-user")
upgrade=$top/userland/iovm-upgrade/iovm-upgrade
# shellcheck source=selftests/unit/iovmctl.sh
. "$top/selftests/unit/iovmctl.sh" || exit 1
export IOVMCTL=$ctl

echo "KTAP version 1"
for need in nbdkit python3 setpriv flock; do
	command -v $need >/dev/null || { echo "1..0 # SKIP no $need"; exit 4; }
done
modprobe brd rd_nr=2 rd_size=65536 || { echo "1..0 # SKIP no brd"; exit 4; }
[ -e /dev/iovm-mux ] || modprobe vhost_iovm_blk
echo "1..11"

# The processes that iovm-upgrade looks for, by what they are
fronts() { pgrep -x iovm-vhost-user; }
watchers() { pgrep -x -f '.*iovmctl path watch.*'; }

# shellcheck disable=SC2317 # called when the shell exits
finish() {
	local p n
	for p in $(fronts) $(watchers); do kill "$p"; done 2>/dev/null
	for p in $(fronts); do timeout 10 tail --pid="$p" -f /dev/null; done
	for n in one two three; do "$ctl" destroy "$n" --force; done >/dev/null 2>&1
	rm -rf "$state" "$state".*
	tidy
	rmmod brd
}
trap finish EXIT
state=$tmp/state

# upgrade RC PATTERN ARGS...: the same of iovm-upgrade
upgrade() {
	local code=$1 pattern=$2
	shift 2
	"$upgrade" --state "$state" --timeout 20 "$@" >"$tmp/up" 2>&1 </dev/null
	local rc=$?
	[ $rc = "$code" ] || complain "iovm-upgrade $*: exit $rc, not $code: $(cat "$tmp/up")"
	grep -Eq -- "$pattern" "$tmp/up" || complain "iovm-upgrade $*: no /$pattern/ in: $(cat "$tmp/up")"
}

same() { # FILE: everything is as it says, in whatever order the devices came to be
	"$ctl" save one two three >"$tmp/now" 2>&1
	diff "$1" "$tmp/now" >"$tmp/diff" || complain "not as it was: $(cat "$tmp/diff")"
}

# A number far above those of a fresh module
age() { for _ in {1..30}; do "$ctl" suspend three; "$ctl" resume three; done >/dev/null; }
newest() { "$ctl" events --no-follow --json | tail -1 | sed 's/^{"seq":\([0-9]*\),.*/\1/'; }

serving() { # the two fronts and the watcher, once each
	local i
	for ((i = 0; i < 100; i++)); do
		[ -S "$tmp/one.vu" ] && [ -S "$tmp/two.vu" ] && [ "$(watchers | wc -l)" = 1 ] && break
		sleep 0.1
	done
	[ "$(watchers | wc -l)" = 1 ] || complain "watchers: $(watchers)"
	python3 -c 'import socket,sys
for p in sys.argv[1:]: socket.socket(socket.AF_UNIX).connect(p)' "$tmp/one.vu" "$tmp/two.vu" 2>"$tmp/why" ||
		complain "a front end does not listen: $(tail -1 "$tmp/why")"
	# until the sessions of these connections have ended
	for ((i = 0; i < 100; i++)); do
		[ "$(fronts | wc -l)" = 2 ] && return
		sleep 0.1
	done
	complain "sessions that do not end: $(fronts)"
}

serve n memory size=64M
uri="nbd+unix:///?socket=$tmp/n.sock"
{
	"$ctl" create one --size-from /dev/ram0 --queues 4 --queue-size 256 --seg-max 60 --owner 1234:5678 --mode 0604 --serial "a b" \
		--iops 10k --bps 1G --no-path-timeout never --no-space-timeout 1min --failback-after 1h --identity id:one \
		--bounce-reads --max-discard 1M --no-write-zeroes
	"$ctl" path add one local /dev/ram0 --identity id:one --io-timeout never --fence none
	"$ctl" path add one n "$uri" --identity id:one --cache survives --heartbeat 500 --dead 3s -c 2
	"$ctl" path add one spare "$uri" --assume-same-data -c 1
	"$ctl" failover one n
	"$ctl" path fail one spare
	"$ctl" create two --size 32M --block-size 4096 --readonly
	"$ctl" suspend two
	"$ctl" create three --size-from /dev/ram1
	"$ctl" path add three local /dev/ram1
	chmod 0666 /dev/vhost-iovm/three
} >"$tmp/out" 2>&1 || complain "set-up: $(cat "$tmp/out")"

"$ctl" save one two three >"$tmp/first"
want 0 'one: is there already' restore "$tmp/first"
for n in one two three; do want 0 destroyed destroy $n; done
want 0 'three: would be created' restore --dry-run "$tmp/first"
json 'd == []' list
want 0 '^one: created, 3 of 3 paths added$' restore "$tmp/first"
says 'three: nothing shows that /dev/ram1 leads to the same data' "$err" restore
same "$tmp/first"
json 'd["route"] == "n" and d["route_by_hand"] and [(p["name"], p["state"], p["failed_by_hand"], p["sockets"]) for p in d["paths"]] ==
	[("local", "live", False, 0), ("n", "live", False, 2), ("spare", "failed", True, 0)]' show one
json 'd["state"] == "suspended" and d["read_only"]' show two
[ "$(stat -c %u:%g:%a /dev/vhost-iovm/one /dev/vhost-iovm/three | paste -sd' ')" = "1234:5678:604 0:$(stat -c %g /dev/vhost-iovm/three):666" ] ||
	complain "the nodes: $(ls -l /dev/vhost-iovm)"
ok "save, destroy, restore: all is as it was"

want 0 removed path remove one spare
want 0 removed path remove one local
want 0 changed set one --iops 5
want 0 destroyed destroy three
exits 4 restore "$tmp/first"
says "^iovmctl: one: iops is 5, in the file it is 10000$" "$err" restore
says "^three: created, 1 of 1 paths added$" "$out" restore
says "^one: 2 paths added; not as it was$" "$out" restore
says "^two: is there already$" "$out" restore
want 0 changed set one --iops 10k
want 0 "is not in the file's order" restore "$tmp/first"
want 0 destroyed destroy one
# the identity that it had is not shown any more, its disk is another one
sed 's,id:one,id:other,;s,/dev/ram0,/dev/no-such-disk,' "$tmp/first" >"$tmp/bad"
exits 3 restore "$tmp/bad"
says "cannot open '/dev/no-such-disk'" "$err" restore
says "one: created, 2 of 3 paths added; not as it was" "$out" restore
want 0 destroyed destroy one
want 0 'one: created' restore "$tmp/first"
same "$tmp/first"
ok "restore: differences, paths that were gone, a disk that is gone"

age
old=$(newest)
cd "$tmp" || exit 1
setsid -f "$vu" --device one --socket "$tmp/one.vu" 2>"$tmp/one.log"
setsid -f "$vu" --device two --socket two.vu 2>"$tmp/two.log"
setsid -f "$ctl" path watch -c 1 --timeout 1min >/dev/null 2>&1
serving
"$ctl" events >/dev/null 2>&1 &
reader=$!
bg+=("$reader")
for ((i = 0; i < 100; i++)); do find "/proc/$reader/fd" -lname /dev/iovm-mux | grep -q . && break; sleep 0.1; done
upgrade 1 "pid $reader .*has /dev/iovm-mux open"
grep -q "nothing was touched" "$tmp/up" || complain "$(cat "$tmp/up")"
kill $reader
wait $reader
exec 8<>/dev/vhost-iovm/three
upgrade 1 "three: pid .* has its node open, and is no iovm-vhost-user"
exec 8>&-
modprobe vhost_iovm_net
exec 8<>/dev/vhost-iovm-net
upgrade 1 "pid $$ .*has /dev/vhost-iovm-net open"
exec 8>&-
cat >"$tmp/held" <<-END
	#!/bin/bash
	"$ctl" "\$@" | sed 's/"held": 0/"held": 7/'
END
cat >"$tmp/modinfo" <<-'END'
	#!/bin/bash
	[ "$2" = iovm_abi ] && echo 99 || exec modinfo "$@"
END
chmod +x "$tmp/held" "$tmp/modinfo"
IOVMCTL=$tmp/held upgrade 1 "one: 7 writes wait for a fence"
MODINFO=$tmp/modinfo upgrade 1 "speak ABI 99"
before=$(fronts)
upgrade 0 "would be stopped and started again: pid .*--device one" --check
[ "$(fronts)" = "$before" ] || complain "--check stopped something: $before, $(fronts)"
[ ! -e "$state" ] || complain "something is left: $(ls -R "$state")"
[ "$(newest)" -ge "$old" ] || complain "the modules were loaded anew"
same "$tmp/first"
ok "iovm-upgrade: refuses by name what it cannot do, and touches nothing"

upgrade 0 "^iovm-upgrade: done: 3 devices"
serving
[ "$(newest)" -lt "$old" ] || complain "the modules were not loaded anew: event $(newest) after $old"
[ -c /dev/vhost-iovm-net ] || complain "vhost_iovm_net was loaded before, and is not now"
for p in $before; do ! [ -d "/proc/$p" ] || complain "pid $p still runs"; done
same "$tmp/first"
[ ! -e "$state" ] || complain "something is left: $(ls -R "$state")"
ok "iovm-upgrade: the modules are loaded anew, all is as it was"

# modprobe -r fails, as when somebody opened the control node at the last moment
cat >"$tmp/modprobe" <<-'END'
	#!/bin/bash
	case $1 in
	-r) [ "$FAKE" != unload ] || exit 1 ;;
	*) [ "$FAKE" != load ] || exit 1
	   [ "$FAKE" != kill ] || kill -9 $PPID
	   [ "$FAKE" != server ] || { kill "$SERVER"; timeout 10 tail --pid="$SERVER" -f /dev/null; }
	   [ "$FAKE" != thaw ] || kill -CONT "$SERVER" ;;
	esac
	exec modprobe "$@"
END
chmod +x "$tmp/modprobe"
export MODPROBE=$tmp/modprobe
before=$(fronts)
FAKE=unload upgrade 1 "nothing was upgraded: going back"
grep -q "the guests go on, on the modules that were loaded before" "$tmp/up" || complain "$(cat "$tmp/up")"
serving
for p in $before; do ! [ -d "/proc/$p" ] || complain "pid $p still runs"; done
same "$tmp/first"
exec 7</dev/iovm-mux	# this one is there from the beginning
upgrade 1 "pid $$ .*has /dev/iovm-mux open"
exec 7<&-
[ ! -e "$state" ] || complain "something is left: $(ls -R "$state")"
ok "iovm-upgrade: modules that do not unload: back to how it was"

FAKE=load upgrade 1 "the new modules cannot be loaded"
grep -q "Step reached: unloaded" "$tmp/up" || complain "$(cat "$tmp/up")"
[ ! -e /dev/iovm-mux ] || complain "the modules are loaded"
[ -z "$(fronts)" ] || complain "front ends run: $(fronts)"
FAKE='' upgrade 0 "going on after: unloaded"
serving
same "$tmp/first"
ok "iovm-upgrade: modules that do not load: goes on when it is run again"

FAKE='kill' upgrade 137 "loading"
FAKE='' upgrade 0 "going on after: unloaded"
serving
same "$tmp/first"
[ ! -e "$state" ] || complain "something is left: $(ls -R "$state")"
ok "iovm-upgrade: killed -9 on the way: goes on when it is run again"

# The watcher tries to connect n, in a process of its own, for longer than the modules are waited for.
kill -STOP "$server"
for ((i = 0; i < 300; i++)); do [ "$(watchers | wc -l)" = 2 ] && break; sleep 0.1; done
[ "$(watchers | wc -l)" = 2 ] || complain "nobody tries to connect n"
FAKE=thaw SERVER=$server upgrade 0 "stopping 0 units and 3 other processes"
serving
# with as many connections, and the route, as before
want 0 . path fail one n
want 0 . path connect one n -c 2
want 0 "requests go to path 'n'" failover one n
same "$tmp/first"
ok "iovm-upgrade: a watcher at work is one process, and ends with what it began"

# Modules that do not offer what the guest of one uses.
cat >"$tmp/lacking" <<-END
	#!/bin/bash
	if [ "\$1" = restore ]; then
		sed '/"name": "one",/,/"features"/s/"features": [0-9]*/"features": 36028797018963968/' "\${!#}" >"$tmp/more"
		set -- "\${@:1:\$#-1}" "$tmp/more"
	fi
	exec "$ctl" "\$@"
END
chmod +x "$tmp/lacking"
IOVMCTL=$tmp/lacking FAKE='' upgrade 1 "not everything is as it was; what is usable runs"
grep -q "one: virtio features 0x.*, which a running guest may use, are not offered any more" "$tmp/up" || complain "$(cat "$tmp/up")"
grep -q -- "--device one .* is not started: one is not what it was" "$tmp/up" || complain "$(cat "$tmp/up")"
pgrep -f -- '--device two' >/dev/null || complain "no front end for two: $(cat "$tmp/up")"
! pgrep -f -- '--device one' >/dev/null || complain "a front end for one"
FAKE='' upgrade 0 "going on after: loaded"
serving
same "$tmp/first"
ok "iovm-upgrade: a device that is not what it was gets no front end"

kill "$(watchers)"
FAKE=server SERVER=$server upgrade 1 "not everything is as it was; what is usable runs"
grep -q "iovmctl path connect one n" "$tmp/up" || complain "$(cat "$tmp/up")"
json '[(p["name"], p["state"]) for p in d] == [("local", "live"), ("n", "connecting"), ("spare", "failed")]' path list one
[ -S "$tmp/one.vu" ] || complain "no front end for one: $(cat "$tmp/up")"
[ "$(fronts | wc -l)" = 2 ] || complain "front ends: $(fronts): $(cat "$tmp/up")"
serve n memory size=64M
FAKE='' upgrade 0 "going on after: loaded"
json '[(p["name"], p["state"]) for p in d] == [("local", "live"), ("n", "live"), ("spare", "failed")]' path list one
[ "$(fronts | wc -l)" = 2 ] || complain "front ends: $(fronts)"
ok "iovm-upgrade: a server that is gone meanwhile: the guests run, and the rest comes when it is run again"

# In use: refused, whatever uses it, and nothing breaks.
for m in vhost_iovm_blk iovm_mux vhost_iovm; do
	! rmmod $m 2>/dev/null || complain "rmmod $m with devices"
done
for n in one two three; do "$ctl" destroy $n --force; done >/dev/null 2>&1
exec 7</dev/iovm-mux
! rmmod iovm_mux 2>/dev/null || complain "rmmod iovm_mux below vhost_iovm_blk"
rmmod vhost_iovm_blk || complain "rmmod vhost_iovm_blk without a device"
! rmmod iovm_mux 2>/dev/null || complain "rmmod iovm_mux with its node open"
exec 7<&-
modprobe vhost_iovm_blk
json 'd == []' list
ok "rmmod of what is in use is refused"

conclude
