#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Which nbd paths the watcher of iovmctl connects, and what becomes of it when others do something meanwhile. The kernel is played by a
# preloaded library (iovmctl_fake.c), in which path a of vm-2.data has failed with an error. (How it fences: test_iovmctl_fence.sh.)
#
# Writes KTAP. OUT= is where the programs are built.

export LC_ALL=C TZ=UTC
# shellcheck source=selftests/unit/iovmctl.sh
. "$(dirname "$0")/iovmctl.sh" || exit 1
on_stand_in

export IOVM_FAKE_LOG=$tmp/log IOVM_FAKE_BY_HAND=$tmp/by-hand IOVM_FAKE_ONLY=vm-2.data
export IOVM_FAKE_ADDR="nbd+unix:///?socket=$tmp/n.sock"
: >"$IOVM_FAKE_LOG"

logs() { grep -Eq -- "$1" "$IOVM_FAKE_LOG"; }
until_true() { # COMMAND...: it succeeds, or does soon
	local deadline=$((SECONDS + 40))
	until "$@"; do
		[ $SECONDS -lt $deadline ] || { complain "not in time: $*: $(cat "$tmp"/watch* "$IOVM_FAKE_LOG")"; return 1; }
		sleep 0.1
	done
}
watch() { # FILE: the watcher, with its output there; $watcher is its pid
	: >"$IOVM_FAKE_LOG"
	LD_PRELOAD=$preload "$ctl" path watch >"$tmp/$1" 2>&1 </dev/null &
	watcher=$!
	bg+=("$watcher")
}
end_watch() {
	kill "$watcher" 2>/dev/null
	wait "$watcher" 2>/dev/null
}

echo "KTAP version 1"
echo "1..4"

serve n memory 512M
watch watch1
until_true grep -q "^vm-2.data: path 'a' is connected$" "$tmp/watch1"
end_watch
logs "^socket 0: read ok$" || complain "not connected: $(cat "$IOVM_FAKE_LOG")"
ok "path watch: connects what has failed with an error"

# It never saw the event.
touch "$tmp/by-hand"
watch watch2
sleep 3
! logs "^connect " || complain "connected: $(cat "$IOVM_FAKE_LOG")"
rm "$tmp/by-hand"
until_true logs "^connect "
end_watch
ok "path watch: leaves alone what was failed by hand before it was started"

kill "$server"
wait "$server" 2>/dev/null
cat >"$tmp/slow" <<-END
	#!/bin/sh
	case "\$1" in
	open) touch $tmp/asked; while [ ! -e $tmp/answer ]; do sleep 0.1; done ;;
	get_size) echo 512M ;;
	pread) head -c \$3 /dev/zero ;;
	*) exit 2 ;;
	esac
END
chmod +x "$tmp/slow"
serve n sh "$tmp/slow"
watch watch3
until_true [ -e "$tmp/asked" ]
touch "$tmp/by-hand" "$tmp/answer"
sleep 3
! logs "^connect " || complain "connected: $(cat "$IOVM_FAKE_LOG")"
[ ! -s "$tmp/watch3" ] || complain "it says: $(cat "$tmp/watch3")"
rm "$tmp/by-hand"
until_true grep -q "^vm-2.data: path 'a' is connected$" "$tmp/watch3"
end_watch
ok "path watch: not if it is failed by hand while the server takes its time"

: >"$IOVM_FAKE_LOG"
IOVM_FAKE_QUICKER=1 exits 0 path add vm-2.data b "$IOVM_FAKE_ADDR"
logs "^connect vm-2.data b " || complain "not connected: $(cat "$IOVM_FAKE_LOG")"
! logs "^path-remove" || complain "removed again: $(cat "$IOVM_FAKE_LOG")"
says "path 'b'" "$out" path add
ok "path add: a watcher that is quicker"

conclude
