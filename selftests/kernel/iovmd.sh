# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
#
# For the tests of iovmd on one host (t_iovmd*.sh), which source it after selftests/unit/iovmctl.sh: disks, an agent of its own, what it
# says. Its configuration is $tmp/iovmd.conf; $pid is the agent.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
agent=$(command -v iovmd || echo "$here/../../build/userland/iovmd/iovmd")
run_dir=$tmp/run
state_dir=$tmp/state
sock=$run_dir/iovmd.sock
pid=

iovmd_set_up() { # DEVICES: that are to be destroyed in the end
	devices=$1
	for need in nbdinfo nbdcopy python3; do
		command -v $need >/dev/null || { echo "1..0 # SKIP no $need"; exit 4; }
	done
	modprobe brd rd_nr=2 rd_size=65536 || { echo "1..0 # SKIP no brd"; exit 4; }
	[ -e /dev/iovm-mux ] || modprobe vhost_iovm_blk
	ip link set lo up
	ip addr add 127.0.0.2/8 dev lo 2>/dev/null
	mkdir -p "$run_dir"
	trap iovmd_clean_up EXIT
}

iovmd_clean_up() {
	local name
	for name in $devices; do
		"$ctl" destroy "$name" --force >/dev/null 2>&1
	done
	tidy
	for name in $devices; do
		"$ctl" destroy "$name" --force >/dev/null 2>&1
	done
	rmmod brd
}

iovmd=("$agent" -c "$tmp/iovmd.conf" -d "$tmp/none" --run-dir "$run_dir" --state-dir "$state_dir" --iovmctl "$ctl")

start() {
	"${iovmd[@]}" >>"$tmp/log" 2>&1 </dev/null &
	pid=$!
	bg+=("$pid")
	soon status_is 'd["host"] == "a"'
}

kill_agent() { # SIGKILL
	kill -9 "$pid"
	wait "$pid" 2>/dev/null
}

status_is() { # CONDITION: of the status d; dev and guest are its devices and guests by name
	"$ctl" status --socket "$sock" --json >"$tmp/status" 2>/dev/null && python3 - "$tmp/status" "$1" <<'P'
import json, sys
a = json.load(open(sys.argv[1]))
d = a["status"]
dev = {x["name"]: x for x in d["devices"]}
guest = {x["name"]: x for x in d["guests"]}
sys.exit(0 if eval("(" + sys.argv[2] + ")") else 1)
P
}

soon() { # COMMAND...: succeeds, or does within some seconds
	local deadline=$((SECONDS + 100))
	until "$@"; do
		[ $SECONDS -lt $deadline ] || { complain "not in time: $*: $(cat "$tmp/status" "$tmp/log" 2>&1 | tail -n 20)"; return 1; }
		sleep 0.2
	done
}

logged() { grep -q -- "$1" "$tmp/log"; }

guest() { # DEVICE: a guest runs on it, as soon as it may
	"$here/../../build/selftests/iovmd_guest" "$1" >"$tmp/$1.out" 2>&1 &
	guest=$!
	bg+=("$guest")
	soon grep -q running "$tmp/$1.out"
}
