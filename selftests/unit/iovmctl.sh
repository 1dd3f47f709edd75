#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# For the tests that run iovmctl, which source it: results as KTAP, iovmctl's output and exit status, NBD servers. $ctl is the
# program and $preload what it runs on, when that is a stand-in of the kernel: on_stand_in() makes and sets both.

tmp=$(mktemp -d)
trap tidy EXIT
bg=()		# what tidy() kills
number=0
fails=0
bad=

tidy() {
	[ ${#bg[@]} = 0 ] || kill "${bg[@]}" 2>/dev/null
	rm -rf "$tmp"
}

# Sets $ctl, built with ASan, and $preload, the stand-in (iovmctl_fake.c).
on_stand_in() {
	local here
	here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
	top=$here/../..
	OUT=${OUT:-$top/build/unit}
	mkdir -p "$OUT"
	OUT=$(cd "$OUT" && pwd)
	make -s -C "$top/userland/iovmctl" SAN=1 O="$OUT/iovmctl" >"$tmp/build" 2>&1 ||
		{ sed 's/^/# /' "$tmp/build"; echo "Bail out! iovmctl does not build"; exit 1; }
	"${CC:-gcc}" -std=gnu11 -O1 -g -Wall -Wextra -Werror -fPIC -shared -I"$top/uapi" -o "$OUT/iovmctl_fake.so" \
		"$here/iovmctl_fake.c" -ldl || { echo "Bail out! the stand-in does not build"; exit 1; }
	ctl=$OUT/iovmctl/iovmctl-san
	preload="$("${CC:-gcc}" -print-file-name=libasan.so) $OUT/iovmctl_fake.so"
}

ok() { # NAME: a test that went well unless something complained since the last one
	number=$((number + 1))
	if [ -z "$bad" ]; then
		echo "ok $number $1"
	else
		fails=$((fails + 1))
		sed 's/^/# /' <<<"$bad"
		echo "not ok $number $1"
	fi
	bad=
}

skip() { # NAME WHY
	number=$((number + 1))
	echo "ok $number $1 # SKIP $2"
}

complain() { bad+="$*"$'\n'; }

conclude() { exit $((fails > 0)); }

# run ARGS...: iovmctl; sets $out, $err and $rc
run() {
	LD_PRELOAD=${preload:-} "${ctl:?}" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
	rc=$?
	out=$(cat "$tmp/out")
	err=$(cat "$tmp/err")
	! grep -q 'Sanitizer\|runtime error' "$tmp/err" || complain "sanitizer: $err"
}

# exits RC ARGS...: likewise, with this exit status
exits() {
	local code=$1
	shift
	run "$@"
	[ "$rc" = "$code" ] || complain "iovmctl $*: exit $rc, not $code: $out$err"
}

# says PATTERN TEXT ARGS...: this output of iovmctl ARGS holds the pattern
says() {
	local pattern=$1 text=$2
	shift 2
	grep -Eq -- "$pattern" <<<"$text" || complain "iovmctl $*: no /$pattern/ in: $text"
}

# want RC PATTERN ARGS...: exit status, and what either output must hold
want() {
	local code=$1 pattern=$2
	shift 2
	exits "$code" "$@"
	says "$pattern" "$out"$'\n'"$err" "$@"
}

try() { # COMMAND...: must succeed
	"$@" >"$tmp/try" 2>&1 || complain "$*: $(cat "$tmp/try")"
}

until_true() { # SECONDS COMMAND...: succeeds by then
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $deadline ] || return 1
		sleep 0.1
	done
}

# json EXPRESSION ARGS...: the output is JSON, and the Python expression on it (d) holds
json() {
	local expr=$1
	shift
	run "$@" --json
	[ "$rc" = 0 ] || complain "iovmctl $* --json: exit $rc: $err"
	python3 -c 'import json,sys
try:
    d = json.load(open(sys.argv[1]))
except ValueError as e:
    sys.exit(f"not JSON: {e}")
sys.exit(0 if eval("(" + sys.argv[2] + ")") else "not so")' "$tmp/out" "$expr" 2>"$tmp/why" ||
		complain "iovmctl $* --json: $(tail -1 "$tmp/why"): $expr: $(tr -d ' \n' <"$tmp/out" | head -c 3000)"
}

listens() { # SOCKET: it is there, or comes soon
	local i
	for ((i = 0; i < 200; i++)); do
		[ -S "$1" ] && return
		sleep 0.1
	done
	return 1
}

serve() { # NAME OPTIONS...: nbdkit on $tmp/NAME.sock; $server is its pid
	local name=$1
	shift
	rm -f "$tmp/$name.sock"
	nbdkit -f -U "$tmp/$name.sock" "$@" >"$tmp/$name.log" 2>&1 &
	server=$!
	bg+=("$server")
	listens "$tmp/$name.sock" || complain "nbdkit $* does not start: $(cat "$tmp/$name.log")"
}
