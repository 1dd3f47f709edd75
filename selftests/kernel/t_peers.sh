#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Paths to NBD servers that others wrote, set up by iovmctl, under a load that verifies itself (guestload).
#
#	                    ┌─ loop ── dm "peers" ─────────────────── path local ─┐
#	a file in memory ───┤                                                     ├─ device one ─ guestload
#	                    └─ nbdkit, nbd-server; qemu-nbd on loop ─ path peer ──┘
#
# One page cache, the file's, is behind both paths. qemu-nbd has the block device and bypasses that one's cache.
#
#	t_peers.sh [NUMBER...]		these tests alone

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
ctl=$(command -v iovmctl || echo "$top/build/userland/iovmctl/iovmctl")
load=$top/build/selftests/guestload
tmp=$(mktemp -d -p /dev/shm)
mb=32
servers=()
loop=
export DM_DISABLE_UDEV=1
loading=
number=0
fails=0
bad=

echo "KTAP version 1"
for need in nbdinfo nbdkit nbd-server qemu-nbd qemu-img qemu-storage-daemon dmsetup jq "$load"; do
	command -v "$need" >/dev/null || { echo "1..0 # SKIP no $need"; exit 4; }
done
modprobe -a loop dm-mod || { echo "1..0 # SKIP no loop or dm-mod"; exit 4; }
[ -e /dev/iovm-mux ] || modprobe vhost_iovm_blk
ip link set lo up
echo "1..5"

# Everything between two tests; what it has to do depends on how far one came.
clean() {
	local pid
	[ -z "$loading" ] || unload
	[ ! -e /dev/vhost-iovm/one ] || "$ctl" destroy one --force >/dev/null
	for pid in "${servers[@]}"; do
		kill "$pid" 2>/dev/null
		while [ -e "/proc/$pid" ]; do
			wait "$pid" 2>/dev/null || sleep 0.1
		done
	done
	servers=()
	! dmsetup info peers >/dev/null 2>&1 || dmsetup remove --retry peers
	[ -z "$loop" ] || losetup -d "$loop"
	loop=
}
finish() {
	clean
	rm -rf "$tmp"
}
trap finish EXIT

asked=" $* "
run() { # NAME COMMAND...
	local name=$1
	shift
	number=$((number + 1))
	if [ "$asked" != "  " ] && [[ $asked != *" $number "* ]]; then
		echo "ok $number $name # SKIP not asked for"
		return
	fi
	bad=
	SECONDS=0
	"$@"
	clean
	note "$SECONDS s"
	if [ -z "$bad" ]; then
		echo "ok $number $name"
	else
		fails=$((fails + 1))
		while read -r; do echo "# $REPLY"; done <<<"$bad"
		echo "not ok $number $name"
	fi
}
note() { echo "# $*"; }
complain() { bad+="$*"$'\n'; }

# want PATTERN COMMAND...: it succeeds and says so
want() {
	local pattern=$1 out rc
	shift
	out=$("$@" 2>&1)
	rc=$?
	[ $rc = 0 ] && grep -Eq -- "$pattern" <<<"$out" || { complain "$*: exit $rc, no /$pattern/ in: $out"; return 1; }
}
ctl() { local pattern=$1; shift; want "$pattern" "$ctl" "$@"; }

# soon COMMAND...: it succeeds within 30 s
soon() {
	local end=$((SECONDS + 30))
	until "$@" 2>/dev/null; do
		[ $SECONDS -lt $end ] || { complain "not within 30 s: $*"; return 1; }
		sleep 0.2
	done
}

# state FILTER: jq's view of the device holds
state() { "$ctl" show one --json | jq -e "$1" >/dev/null; }

mark() { seq=$("$ctl" events --no-follow --json | tail -n 1 | jq .seq); }
event() { # FILTER: such an event since mark
	"$ctl" events --since $((seq + 1)) --no-follow --json --device one | jq -es "any(.[]; $1)" >/dev/null
}
happened() { soon event "$1"; }

# --- the guest ---

start_load() { # [DEPTH]
	rm -f "$tmp/to" "$tmp/from"
	mkfifo "$tmp/to" "$tmp/from"
	# The load and the servers leave the processor to who drives them
	nice "$load" one "$@" <"$tmp/to" >"$tmp/from" &
	loading=$!
	exec 5>"$tmp/to" 6<"$tmp/from"
	hear && guest progress 100 60000
}
hear() { # its next answer, which must be good
	while read -r -t 120 verdict <&6; do
		case $verdict in
		"ok "*) return 0 ;;
		"#"*) echo "$verdict" ;;
		*) break ;;
		esac
	done
	complain "guest: ${1:-start}: ${verdict:-nothing}"
	return 1
}
guest() { echo "$*" >&5; hear "$*"; }
unload() {
	echo quit >&5
	exec 5>&-
	# It drains now; what waits for a path would never end
	sleep 0.5
	[ ! -e /dev/vhost-iovm/one ] || state '.state == "routed"' || "$ctl" fail-parked one >/dev/null
	wait "$loading" || [ -n "$bad" ] || complain "guestload: exit $?"
	exec 6<&-
	loading=
}
# All that was in flight is done and more after it: the new path has answered reads of what went over the old one.
goes_on() { guest turnover 60000 && guest progress 100 60000; }

# --- servers ---

backing() { # the file, the loop device and dm on top of it
	rm -f "$tmp/disk"
	truncate -s ${mb}M "$tmp/disk"
	loop=$(losetup -f --show "$tmp/disk") || complain "losetup"
	dmsetup create peers --table "0 $((mb * 2048)) linear $loop 0" || complain "dmsetup create"
	dm=/dev/$(dmsetup info -c --noheadings -o blkdevname peers)
}
dm_now() { # TARGET
	dmsetup suspend --nolockfs peers && dmsetup reload peers --table "0 $((mb * 2048)) $1" && dmsetup resume peers ||
		complain "dmsetup: $1"
}
listens() { nbdinfo --size "$uri" >/dev/null; }
background() {
	nice "$@" >"$tmp/server.log" 2>&1 5>&- 6>&- &
	server=$!
	servers+=("$server")
}
up() {
	soon listens || complain "server: $(cat "$tmp/server.log")"
}

serve_nbdkit() {
	uri=nbd://127.0.0.1:10901
	background nbdkit -f -i 127.0.0.1 -p 10901 file "$tmp/disk"
	up
}
serve_qemu_nbd() {
	uri="nbd+unix:///vm1?socket=$tmp/qemu-nbd.sock"
	background qemu-nbd -f raw --cache=none --aio=native --persistent --shared=8 -x vm1 -k "$tmp/qemu-nbd.sock" "$loop"
	up
}
serve_nbd_server() {
	uri=nbd://127.0.0.1:10902/vm1
	cat >"$tmp/conf" <<-END
		[generic]
		listenaddr = 127.0.0.1
		port = 10902
		[vm1]
		exportname = $tmp/disk
		flush = true
		fua = true
		trim = true
	END
	rm -f "$tmp/pid"
	nice nbd-server -C "$tmp/conf" -p "$tmp/pid" >"$tmp/server.log" 2>&1 || complain "nbd-server: exit $?"
	up
	servers+=("$(cat "$tmp/pid")")
}

# --- 1 to 3: one disk, two paths ---

two_paths() { # SERVE
	local unwell
	backing
	"$1"
	ctl created create one --size ${mb}M --queues 2 --iops 300 || return
	ctl "is live" path add one local "$dm" || return
	ctl "is live" path add one peer "$uri" --dead 60000 || return
	start_load || return
	state '.route == "local"' || complain "the route is not local"

	mark
	ctl "go to path 'peer'" failover one || return
	goes_on || return
	happened '.type == "first-completion" and .path == "peer"'
	ctl "go to path 'local'" failback one
	goes_on || return

	mark
	dm_now error
	happened '.type == "first-error" and .path == "local"' || return
	happened '.type == "rerouted" and .path == "peer"' || return
	goes_on || return
	state '.state == "routed" and .route == "peer"' || complain "the route is not peer"
	state '[.paths[] | [.name, .state]] == [["local", "failed"], ["peer", "live"]]' || complain "paths: $("$ctl" path list one)"
	guest stop || return
	note "$verdict"
	guest check

	# And the other path has the same
	dm_now "linear $loop 0"
	# found out by the kernel, which probes it
	soon state '.paths[0].state == "live"' || return
	ctl "go to path 'local'" failback one
	guest check
	guest manifest "$tmp/end"
	want '^ok' "$load" --image "$tmp/disk" "$tmp/end"
	unwell=$("$ctl" stats one --json | jq '.errors + .fails + .parks')
	[ "$unwell" = 0 ] || complain "$unwell errors, fails and parks"
	"$ctl" stats one --json >"$tmp/stats"
	jq -e 'all(.paths[]; ([.ops[].done] | add) > 50)' "$tmp/stats" >/dev/null || complain "$(jq -c '[.paths[].ops]' "$tmp/stats")"
}

run "nbdkit behind a local path: failover, failback, loss of the local path" two_paths serve_nbdkit
run "qemu-nbd behind a local path: failover, failback, loss of the local path" two_paths serve_qemu_nbd
run "nbd-server behind a local path: failover, failback, loss of the local path" two_paths serve_nbd_server

# --- 4: a qcow2 image on this host, by the storage daemon ---

qmp() { # COMMAND ARGUMENTS: its return value in $reply
	echo "{\"execute\": \"$1\", \"arguments\": ${2:-{\}}}" >&7
	while read -r -t 60 reply <&8; do
		[ "${reply:0:1}" = "{" ] || continue	# "Formatting ..."
		jq -e 'has("return")' <<<"$reply" >/dev/null && return 0
		jq -e 'has("error")' <<<"$reply" >/dev/null && break
	done
	complain "qmp $1: ${reply:-no answer}"
	return 1
}

serve_storage_daemon() { # IMAGE; its monitor is 7 and 8
	mkfifo "$tmp/qmp.in" "$tmp/qmp.out"
	uri="nbd+unix:///vm1?socket=$tmp/qsd.sock"
	nice qemu-storage-daemon --chardev stdio,id=monitor --monitor chardev=monitor \
		--blockdev driver=file,node-name=file0,filename="$1" --blockdev driver=qcow2,node-name=disk0,file=file0 \
		--nbd-server addr.type=unix,addr.path="$tmp/qsd.sock",max-connections=8 \
		--export type=nbd,id=vm1,node-name=disk0,name=vm1,writable=on \
		<"$tmp/qmp.in" >"$tmp/qmp.out" 2>"$tmp/server.log" &
	servers+=($!)
	exec 7>"$tmp/qmp.in" 8<"$tmp/qmp.out"
	qmp qmp_capabilities
	up
}

snapshot() {
	local sum
	qemu-img create -q -f qcow2 "$tmp/base.qcow2" ${mb}M
	serve_storage_daemon "$tmp/base.qcow2" || return
	ctl created create one --size ${mb}M --queues 2 --iops 300 || return
	ctl "is live" path add one local "$uri" --dead 60000 || return
	start_load 4 || return
	guest progress 300 60000 || return
	guest mark
	qmp blockdev-snapshot-sync "{\"node-name\": \"disk0\", \"snapshot-file\": \"$tmp/overlay.qcow2\",
		\"snapshot-node-name\": \"overlay0\", \"format\": \"qcow2\"}" || return
	guest manifest "$tmp/then"
	note "not touched around the snapshot: ${verdict#ok }"
	sum=$(sha256sum <"$tmp/base.qcow2")
	goes_on || return
	guest stop || return
	note "$verdict"
	guest check
	guest manifest "$tmp/end"
	[ "$sum" = "$(sha256sum <"$tmp/base.qcow2")" ] || complain "the base changed after the snapshot"
	state '.state == "routed" and (.paths | length) == 1 and .paths[0].generation == 1' ||
		complain "the path was not kept: $("$ctl" path list one)"
	[ "$("$ctl" stats one --json | jq '.errors + .requeues + .parks')" = 0 ] || complain "errors, requeues or parks"
	unload
	"$ctl" destroy one >/dev/null
	qmp quit
	exec 7>&- 8<&-
	wait "${servers[0]}"

	# The chain, and its images: the base as it was then, the overlay as it is now
	qemu-img info --backing-chain --output=json "$tmp/overlay.qcow2" | jq -r '.[].filename' >"$tmp/chain"
	printf '%s\n' "$tmp/overlay.qcow2" "$tmp/base.qcow2" | diff - "$tmp/chain" >/dev/null ||
		complain "chain: $(cat "$tmp/chain")"
	for image in base overlay; do
		want 'No errors were found' qemu-img check "$tmp/$image.qcow2"
		want '^$' qemu-img convert -O raw "$tmp/$image.qcow2" "$tmp/$image.raw"
	done
	want '^ok' "$load" --image "$tmp/base.raw" "$tmp/then"
	want '^ok' "$load" --image "$tmp/overlay.raw" "$tmp/end"
	"$load" --image "$tmp/base.raw" "$tmp/end" >"$tmp/out"
	grep -Eq '^bad .* [1-9][0-9]* wrong, 0 no block' "$tmp/out" || complain "the base is not older: $(cat "$tmp/out")"
	note "the base against the end: $(cat "$tmp/out")"
}

run "qemu-storage-daemon as a local path: a snapshot of a qcow2 image" snapshot
exec 7>&- 8<&-

# --- 5: the only server dies; only what it acknowledged as FUA is in its image ---

serve_qcow2() {
	uri="nbd+unix:///vm1?socket=$tmp/qcow2.sock"
	rm -f "$tmp/qcow2.sock"
	background qemu-nbd -f qcow2 --cache=writeback --persistent --shared=8 -x vm1 -k "$tmp/qcow2.sock" "$tmp/disk.qcow2"
	up
}

killed() {
	local round
	qemu-img create -q -f qcow2 "$tmp/disk.qcow2" ${mb}M
	serve_qcow2
	ctl created create one --size ${mb}M --queues 2 --iops 300 || return
	ctl "is live" path add one only "$uri" --dead 60000 || return
	start_load || return
	for round in 1 2; do
		mark
		kill -9 "$server"
		wait "$server" 2>/dev/null
		happened '.type == "parked"' || return
		guest idle 1500 || return
		state '.state == "parked" and .paths[0].state == "failed"' || complain "round $round: $("$ctl" show one)"
		serve_qcow2
		mark
		ctl "is live" path connect one only || return
		happened '.type == "first-completion" and .path == "only"'
		goes_on || return
	done
	state '.paths[0].generation == 3 and .held == 0' || complain "$("$ctl" show one)"
	guest stop || return
	note "$verdict"
	guest check
	guest manifest "$tmp/end"
	[ "$("$ctl" stats one --json | jq '.errors + .fails')" = 0 ] || complain "errors or fails"
	unload
	"$ctl" destroy one >/dev/null
	kill "$server"
	wait "$server"
	want '^$' qemu-img convert -O raw "$tmp/disk.qcow2" "$tmp/disk.raw"
	want '^ok' "$load" --image "$tmp/disk.raw" "$tmp/end"
}

run "the only server is killed, twice: the guest waits, and goes on without an error" killed

exit $((fails > 0))
