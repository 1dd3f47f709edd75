#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# iovmctl reserve: classes and filters below the operator's class, what becomes of them when somebody dies, and whether they
# are good for anything: streams beside a flood, with a reservation and without one. In network namespaces of its own.

top=$(cd "$(dirname "$0")/../.." && pwd)
ctl=$(command -v iovmctl || echo "$top/build/userland/iovmctl/iovmctl")
# shellcheck source=selftests/unit/iovmctl.sh
. "$top/selftests/unit/iovmctl.sh" || exit 1

# A namespace, so that nothing of this machine's is touched.
if [ -z "${RESERVE_NETNS:-}" ]; then
	echo "KTAP version 1"
	for need in ip tc strace python3 setpriv; do
		command -v $need >/dev/null || { echo "1..0 # SKIP no $need"; exit 4; }
	done
	for module in veth sch_htb cls_flower act_gact cls_u32 sch_fq_codel; do
		modprobe $module 2>/dev/null || { grep -q "$module" /lib/modules/"$(uname -r)"/modules.builtin; } ||
			{ echo "1..0 # SKIP no module $module"; exit 4; }
	done
	RESERVE_NETNS=1 unshare -n "$0"
	exit
fi
echo "1..13"

load=$top/selftests/kernel/reserve-load
export RESERVE_LOAD_SOCKET=$tmp/counts

ip link set lo up
ip netns add reserve-peer || { echo "Bail out! no network namespaces"; exit 1; }
finish() {
	tidy
	ip netns del reserve-peer
}
trap finish EXIT

# The operator's: 12mbit in all, half of it for everybody, half for reservations. Anew, also the device.
operator() {
	ip link del va 2>/dev/null
	ip link add va type veth peer name vb netns reserve-peer || complain "no veth"
	ip addr add 10.9.0.1/24 dev va
	ip addr add fd09::1/64 dev va nodad
	ip -n reserve-peer addr add 10.9.0.2/24 dev vb
	ip -n reserve-peer addr add fd09::2/64 dev vb nodad
	ip link set va gso_max_segs 1	# a packet is a packet: the rates are low
	ip link set va up
	ip -n reserve-peer link set lo up
	ip -n reserve-peer link set vb up
	{
		tc qdisc add dev va root handle 1: htb default 10
		tc class add dev va parent 1: classid 1:1 htb rate 12mbit quantum 60000
		tc class add dev va parent 1:1 classid 1:10 htb rate 6mbit ceil 12mbit
		tc class add dev va parent 1:1 classid 1:50 htb rate 6mbit ceil 12mbit
		tc class add dev va parent 1:1 classid 1:e550 htb rate 8kbit ceil 12mbit quantum 1514
		tc qdisc add dev va parent 1:10 handle 10: pfifo limit 100
		tc filter add dev va parent 1: protocol ip pref 20 u32 match ip dport 22 0xffff flowid 1:10
		tc filter add dev va parent 1: protocol ip pref 30 flower ip_proto tcp dst_port 23 classid 1:10 action gact pass
		tc filter add dev va parent 1:50 protocol ip pref 7 u32 match ip dport 24 0xffff flowid 1:10
	} >"$tmp/operator" 2>&1 || complain "tc: $(cat "$tmp/operator")"
}

# Everything that tc shows, without counters; classes come in any order.
shown() {
	local c
	tc -d class show dev va | sort >"$tmp/classes"
	cat "$tmp/classes"
	{
		echo "qdisc show dev va"
		echo "filter show dev va"
		while read -r _ _ c _; do
			echo "filter show dev va parent $c"
		done <"$tmp/classes"
		echo "actions list action gact"
	} | tc -d -batch - | sed 's/index [0-9]* //; s/direct_packets_stat [0-9]* //'
}
remember() { shown >"$tmp/before"; }
as_before() { # WHAT: the kernel takes filters apart a moment later
	for _ in 1 2 3 4 5; do
		shown >"$tmp/after"
		diff "$tmp/before" "$tmp/after" >"$tmp/diff" && return
		sleep 0.5
	done
	complain "$1: not as it was: $(cat "$tmp/diff")"
}

classes() { tc class show dev va | grep -c 'htb 1:e.*parent 1:50 '; }

operator
remember

# --- nothing to reserve with ---

want 3 'no network device nodev' reserve check --class nodev/1:50
want 3 'no network device nodev' reserve add vm1 --class nodev/1:50 --io 1M
want 3 'no qdisc 2:' reserve add vm1 --class va/2:50 --io 1M
want 3 'no class 1:51' reserve add vm1 --class va/1:51 --io 1M
want 3 'no qdisc 1:' reserve add vm1 --class lo/1:50 --io 1M
want 4 'qdisc 10: of va is not HTB' reserve add vm1 --class va/10:1 --io 1M
want 4 'has a qdisc of its own' reserve check --class va/1:10
tc qdisc del dev va parent 1:10
want 4 'takes what no filter does' reserve check --class va/1:10
tc class add dev va parent 1:1 classid 1:60 htb rate 8kbit
tc filter add dev va parent 1: protocol ip pref 40 u32 match ip dport 25 0xffff flowid 1:60
want 4 'filters lead to class 1:60' reserve check --class va/1:60
want 4 '7mbit do not fit in class 1:50 of va: 6mbit of its 6mbit are left' reserve add vm1 --class va/1:50 --io 3M --migration 4M
want 4 'do not fit' reserve check --class va/1:50 --io 6001kbit
want 0 'guaranteed: +6mbit' reserve check --class va/1:50 --io 2M --migration 4M
json 'd == {"class": "va/1:50", "rate_bps": 6000000, "ceil_bps": 12000000, "given_bps": 0}' reserve check --class va/1:50
want 3 "'vm1' has no reservation" reserve remove vm1
want 0 '^0 reservations removed' reserve remove --all
json 'd == []' reserve list
[ "$(classes)" = 0 ] || complain "there are classes"
ok "nothing to reserve with: each has its sentence"

if [ -x "$ctl" ]; then
	cp "$ctl" "$tmp/iovmctl"
	chmod 755 "$tmp" "$tmp/iovmctl"
	mkdir -p /run/iovm
	setpriv --reuid 65534 --regid 65534 --clear-groups "$tmp/iovmctl" reserve add vm1 --class va/1:50 --io 1M >"$tmp/out" 2>&1
	[ $? = 5 ] || complain "as nobody: not exit 5: $(cat "$tmp/out")"
	grep -q 'hint: run it as root' "$tmp/out" || complain "as nobody: $(cat "$tmp/out")"
	# the lock is had, the kernel refuses
	setpriv --bounding-set -net_admin --inh-caps -net_admin "$tmp/iovmctl" reserve add vm1 --class va/1:50 --io 1M >"$tmp/out" 2>&1
	[ $? = 5 ] || complain "without CAP_NET_ADMIN: not exit 5: $(cat "$tmp/out")"
	setpriv --reuid 65534 --regid 65534 --clear-groups "$tmp/iovmctl" reserve check --class va/1:50 >"$tmp/out" 2>&1 ||
		complain "check as nobody: $(cat "$tmp/out")"
fi
ok "no right: exit 5, nothing made; looking needs none"

# --- what is made ---

operator
remember
long=a-name-of-sixty-three-characters.0123456789.0123456789.abcdefghi
long=${long:0:63}
want 0 'state: +reserved' reserve add vm1 --class va/1:50 --io 2mbit --migration 1500k --peer 10.9.0.2 --io-port 10809 --migration-port 49152
json 'len(d) == 1 and d[0]["name"] == "vm1" and d[0]["class"] == "va/1:50" and d[0]["state"] == "reserved" and d[0]["io_bps"] == 2000000 and
	d[0]["migration_bps"] == 1500000 and d[0]["io_ceil_bps"] == 12000000 and d[0]["peer"] == "10.9.0.2" and d[0]["io_port"] == 10809 and
	d[0]["migration_port"] == 49152 and not d[0]["serving"]' reserve list
io=$("$ctl" reserve list --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["io_class"])')
mig=$("$ctl" reserve list --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["migration_class"])')
tc class show dev va | grep -q "^class htb $io parent 1:50 .*rate 2Mbit ceil 12Mbit" || complain "class $io: $(tc class show dev va)"
tc class show dev va | grep -q "^class htb $mig parent 1:50 .*rate 1500Kbit ceil 12Mbit" || complain "class $mig: $(tc class show dev va)"
tc filter show dev va | tr '\n' ' ' >"$tmp/try"
grep -Eq "pref 19 flower chain 0 handle 0x[0-9a-f]+ classid $io +eth_type ipv4 +ip_proto tcp +dst_ip 10.9.0.2 +dst_port 10809" "$tmp/try" ||
	complain "no filter for I/O before the operator's: $(cat "$tmp/try")"
grep -Eq "classid $mig .*dst_ip 10.9.0.2 +dst_port 49152" "$tmp/try" || complain "no filter for the migration: $(cat "$tmp/try")"
want 4 "'vm1' has a reservation already, below class 1:50 of va" reserve add vm1 --class va/1:50 --io 1k
want 4 'port 10809 is another' reserve add vm2 --class va/1:50 --io 1k --peer 10.9.0.2 --io-port 10809
want 3 'is a reservation itself' reserve add vm2 --class "va/$io" --io 1k
json 'd["given_bps"] == 3500000' reserve check --class va/1:50
want 4 '2.5mbit of its 6mbit are left' reserve add vm2 --class va/1:50 --io 2501k
ok "a reservation, as tc shows it; its name and its traffic are taken"

want 0 'serv|ports of this host: +yes' reserve add "$long" --class va/1:50 --io 1mbit --ceil 2M --peer fd09::2 --io-port 10809 --serving
want 0 'migration: +1mbit' reserve add vm3 --class va/1:50 --migration 1mbit
json 'sorted(r["name"] for r in d) == sorted(["vm1", "vm3", "'"$long"'"]) and
	[(r["peer"], r["serving"], r["io_ceil_bps"], r["migration_class"]) for r in d if r["name"] == "'"$long"'"] == [("fd09::2", True, 2000000, None)] and
	[(r["peer"], r["io_class"]) for r in d if r["name"] == "vm3"] == [(None, None)]' reserve list
[ "$(classes)" = 4 ] || complain "$(classes) classes, not 4"
tc filter show dev va | grep -q 'src_port 10809' || complain "no filter by this host's port: $(tc filter show dev va)"
want 0 'no longer' reserve remove vm1
json 'sorted(r["name"] for r in d) == sorted(["vm3", "'"$long"'"])' reserve list
tc filter show dev va | grep -q 'dst_port 10809' && complain "filters of vm1 stay"
want 0 'no longer' reserve remove "$long"
want 0 '^1 reservation removed' reserve remove --all
as_before "three guests, removed"
ok "several guests; what the operator has is as before"

# --- somebody dies ---

# killed N ARGS...: before its Nth message to the kernel; fails when there was none
killed() {
	local n=$1
	shift
	{
		strace -f -qq -o "$tmp/strace" -e trace=sendto -e "inject=sendto:signal=KILL:when=$n" "$ctl" "$@" >"$tmp/out" 2>"$tmp/err"
	} 2>/dev/null
	grep -q 'killed by SIGKILL' "$tmp/strace"
}
add=(reserve add vm1 --class va/1:50 --io 2mbit --migration 1500k --peer 10.9.0.2 --io-port 10809 --migration-port 49152)

lefts=0
for ((n = 1; n < 100; n++)); do
	killed $n "${add[@]}" || break
	"$ctl" reserve list --json >"$tmp/out"
	grep -q '"state": "left-over"' "$tmp/out" && lefts=$((lefts + 1))
	grep -q '"state": "reserved"' "$tmp/out" && complain "message $n: it is reserved before the last message"
	want 0 '0 reservations removed' reserve remove --all
	as_before "add killed at message $n"
done
[ $n -gt 8 ] || complain "only $n messages: $(cat "$tmp/strace")"
[ $lefts -ge 3 ] || complain "something was left over $lefts times only"
json '[r["state"] for r in d] == ["reserved"]' reserve list
want 0 'no longer' reserve remove vm1
as_before "add not killed"
ok "add killed at each of its messages: what is left over goes"

for ((n--; n > 3; n--)); do
	killed $n "${add[@]}" || complain "it is not killed at message $n"
	want 0 'reserved' "${add[@]}"
	json '[(r["name"], r["state"]) for r in d] == [("vm1", "reserved")]' reserve list
	[ "$(classes)" = 2 ] || complain "message $n: $(classes) classes, not 2"
	want 0 'no longer' reserve remove vm1
done
as_before "add again after it was killed"
ok "add again after it was killed"

for ((n = 1; n < 100; n++)); do
	"$ctl" "${add[@]}" >"$tmp/out" 2>&1
	killed $n reserve remove vm1 || break
	want 0 '[01] reservations? removed' reserve remove --all
	as_before "remove killed at message $n"
done
[ $n -gt 5 ] || complain "only $n messages"
want 0 '0 reservations removed' reserve remove --all
ok "remove killed at each of its messages"

# --- the operator's ---

want 0 'reserved' "${add[@]}"
tc filter add dev va parent 1: protocol ip pref 50 u32 match ip dport 26 0xffff flowid "$io"
for _ in 1 2; do
	want 4 "class $io of reservation 'vm1' on va: a filter that is not ours leads to it" reserve remove vm1
done
tc filter show dev va | grep -q 'pref 50 u32.*flowid '"$io" || complain "the operator's filter is gone"
want 0 'reserved' reserve add vm2 --class va/1:50 --io 1mbit
want 0 'no longer' reserve remove vm2
tc filter del dev va parent 1: pref 50
want 0 'removed' reserve remove --all
as_before "a filter of the operator's led to a class"
tc filter add dev va parent 1: protocol ip pref 1 u32 match ip dport 27 0xffff flowid 1:10
want 0 'a filter of pref 1 comes before' "${add[@]}"
want 0 'no longer' reserve remove vm1
tc filter del dev va parent 1: pref 1
as_before "a filter of pref 1"
# a class of the operator's with the number, but not the mark, of a reservation's
tc class add dev va parent 1:50 classid "$io" htb rate 8kbit ceil 12mbit quantum 1514
want 0 "the slot of 'vm1' is another's" "${add[@]}"
want 0 'no longer' reserve remove vm1
tc class show dev va | grep -q "^class htb $io " || complain "the operator's class $io is gone"
tc class del dev va classid "$io"
as_before "a class of the operator's"
ok "classes and filters of the operator's are left alone"

want 0 'reserved' "${add[@]}"
ip link del va
json 'd == []' reserve list
want 3 'no reservation' reserve remove vm1
operator
want 0 'reserved' "${add[@]}"
tc qdisc del dev va root
json 'd == []' reserve list
want 0 '^0 reservations' reserve remove --all
operator
as_before "device and qdisc gone"
ok "the device goes, the qdisc goes"

for ((i = 0; i < 6; i++)); do
	"$ctl" reserve add "p$i" --class va/1:50 --io 1k >"$tmp/p$i" 2>&1 &
	pids[i]=$!
done
for ((i = 0; i < 6; i++)); do
	wait "${pids[i]}" || complain "one of six at once: $(cat "$tmp/p$i")"
done
json 'sorted(r["name"] for r in d) == ["p%d" % i for i in range(6)]' reserve list
want 0 '^6 reservations removed' reserve remove --all
as_before "six at once"
ok "six at the same time"

# --- what it is good for ---

ip netns exec reserve-peer "$load" sink 10.9.0.2 10809 49152 10810 >"$tmp/sink" 2>&1 &
bg+=($!)
listens "$RESERVE_LOAD_SOCKET" || complain "no sink: $(cat "$tmp/sink")"

measure() { # ARGS...: of reserve-load; sets got[PORT]
	local port bits
	got=()
	"$load" measure 10.9.0.2 "$@" >"$tmp/measured" 2>&1 || { complain "$what: $(cat "$tmp/measured")"; return; }
	while read -r port bits; do
		got[port]=$bits
	done <"$tmp/measured"
	echo "# $what: $(tr '\n' ' ' <"$tmp/measured")"
}
at_least() { # PORT BITS
	[ "${got[$1]:-0}" -ge "$2" ] || complain "$what: port $1 has ${got[$1]:-nothing}, not $2 bits per second"
}
less_than() {
	[ "${got[$1]:-$2}" -lt "$2" ] || complain "$what: port $1 has ${got[$1]:-nothing}, not less than $2 bits per second"
}

what="no flood, nothing reserved"
measure 4 0 10809
at_least 10809 6000000
what="flood, nothing reserved"
measure 6 24 10809 49152
less_than 10809 1500000
less_than 49152 1125000
ok "control: without a reservation a flood leaves less than 75 % of the rates"

what="flood, reserved"
want 0 'reserved' "${add[@]}"
measure 12 24 10809 49152
at_least 10809 1500000
at_least 49152 1125000
json 'd[0]["io_bytes"] > 1000000 and d[0]["migration_bytes"] > 800000' reserve list
want 0 'no longer' reserve remove vm1
what="flood, released"
measure 4 24 10809
less_than 10809 1500000
ok "with one, both streams have 75 % of their rates at least; and not after its release"

what="flood, marked sockets"
want 0 'reserved' reserve add vm1 --class va/1:50 --io 2mbit --migration 1500k
measure 6 24 "10809=$io" 10810
at_least 10809 1500000
less_than 10810 1125000
want 0 'no longer' reserve remove vm1
as_before "traffic"
ok "a socket marked with the class needs no filter"

conclude
