#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# TLS on data connections, from the handshake on: our path and our target, each with the other and with stock ones; clients that are
# refused. How certificates are checked is test_tls's, what the kernel makes of records t_tls's.

top=$(cd "$(dirname "$0")/../.." && pwd)
ctl=$(command -v iovmctl || echo "$top/build/userland/iovmctl/iovmctl")
# shellcheck source=selftests/unit/iovmctl.sh
. "$top/selftests/unit/iovmctl.sh" || exit 1

echo "KTAP version 1"
for need in nbdinfo nbdcopy qemu-img qemu-nbd nbdkit openssl socat python3; do
	command -v $need >/dev/null || { echo "1..0 # SKIP no $need"; exit 4; }
done
modprobe brd rd_nr=2 rd_size=65536 || { echo "1..0 # SKIP no brd"; exit 4; }
modprobe tls || { echo "1..0 # SKIP no tls"; exit 4; }
[ -e /dev/iovm-mux ] || modprobe vhost_iovm_blk
ip link set lo up
echo "1..6"

limit=/sys/module/vhost_iovm_blk/parameters/tls_records_max
limit_was=$(cat "$limit")

finish() {
	echo "$limit_was" >"$limit"
	"$ctl" destroy guest --force >/dev/null 2>&1
	"$ctl" destroy disk --force >/dev/null 2>&1
	tidy
	rmmod brd
}
trap finish EXIT

offer() { # ARGS...: iovmctl serve disk, until it listens; sets $server
	"$ctl" serve disk --timeout 2min "$@" >"$tmp/serve" 2>&1 &
	server=$!
	bg+=("$server")
	until_true 20 grep -q "serving at" "$tmp/serve" || complain "it does not listen: $(cat "$tmp/serve")"
}

field() { # PYTHON ARGS...: of what iovmctl ARGS --json says, as d
	local what=$1
	shift
	"$ctl" "$@" --json | python3 -c "import json,sys; d = json.load(sys.stdin); print($what)"
}

state_is() { [ "$(field 'd[0]["state"]' path list guest)" = "$1" ]; }
sessions_are() { [ "$(field 'len(d)' session list disk)" = "$1" ]; }

certificate() { # NAME [CA]: $tmp/NAME.crt and .key
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj "/CN=$1" -keyout "$tmp/$1.key" \
		-out "$tmp/$1.pem" 2>/dev/null
	[ -z "${2:-}" ] || openssl x509 -in "$tmp/$1.pem" -signkey "$tmp/$1.key" -x509toreq 2>/dev/null |
		openssl x509 -req -days 9 -CA "$tmp/$2.pem" -CAkey "$tmp/$2.key" -CAcreateserial \
			-extfile <(echo "subjectAltName=DNS:$1,IP:127.0.0.1") -out "$tmp/$1.pem" 2>/dev/null
	chmod 600 "$tmp/$1.key"
}

identity() { # DIR NAME: DIR shows the certificate of NAME
	mkdir -p "$1/peers"
	cp "$tmp/$2.pem" "$1/host.crt"
	cp "$tmp/$2.key" "$1/host.key"
}

certificate ca
certificate hosta
certificate hostb
certificate stock ca
certificate stranger
a=$tmp/a b=$tmp/b
identity "$a" hosta
identity "$b" hostb
cp "$tmp/hostb.pem" "$a/peers/hostb.crt"
cp "$tmp/hosta.pem" "$b/peers/hosta.crt"
cp "$tmp/ca.pem" "$b/peers/stock.crt"
# as libnbd and QEMU want them
mkdir "$tmp/x509"
cp "$tmp/stock.pem" "$tmp/x509/client-cert.pem"
cp "$tmp/stock.key" "$tmp/x509/client-key.pem"
cp "$tmp/stock.pem" "$tmp/x509/server-cert.pem"
cp "$tmp/stock.key" "$tmp/x509/server-key.pem"
cp "$tmp/ca.pem" "$tmp/x509/ca-cert.pem"
head -c 4M /dev/urandom >"$tmp/data"
uri=nbds://127.0.0.1:10809/disk

want 0 created create disk --target --size-from /dev/ram0 --identity local:ram0
want 0 'is live' path add disk local /dev/ram0 --assume-same-data
want 0 created create guest --size 64M
offer --listen 127.0.0.1 --tls required --tls-dir "$b"
want 0 'is live' path add guest remote nbd://127.0.0.1:10809/disk --tls --tls-dir "$a" --tls-peer hostb --connections 3 --dead 30s --timeout 2min
json '[(p["state"], p["sockets"], p["encrypted"], p["identity"]) for p in d] == [("live", 3, True, "local:ram0")]' path list guest
json 'all(s["encrypted"] and s["peer"].startswith("hosta, 127.0.0.1:") for s in d) and len(d) == 3' session list disk
kill "$server"
wait "$server"
sessions_are 3 || complain "sessions end with the server"
ok "iovmctl path add --tls and serve --tls"

want 0 'takes nothing more' session end disk all
until_true 30 state_is failed || complain "the path does not fail"
offer --listen 127.0.0.1 --tls required --tls-dir "$b"
"$ctl" path watch --timeout 2min >"$tmp/watch" 2>&1 &
bg+=($!)
until_true 120 state_is live || complain "path watch does not connect: $(cat "$tmp/watch")"
json '[p["encrypted"] for p in d] == [True]' path list guest
ok "path watch connects again, with TLS"

# nothing but heartbeats makes records here
replaced() { [ "$(field 'd[0]["replaced"]' path list guest)" -ge "$1" ]; }
echo 4 >"$limit"
until_true 120 replaced 2 || complain "path watch does not replace: $(cat "$tmp/watch")"
echo "$limit_was" >"$limit"
json '[(p["state"], p["encrypted"], p["generation"], p["sockets"]) for p in d] == [("live", True, 2, 4)]' path list guest
grep -q "path 'remote' has new connections: its keys were old" "$tmp/watch" || complain "it does not say so: $(cat "$tmp/watch")"
kill "${bg[-1]}"
wait "${bg[-1]}" 2>/dev/null
until_true 30 sessions_are 4 || complain "old sessions stay"
before=$(field 'd[0]["replaced"]' path list guest)
want 0 'is live' path connect guest remote --replace --connections 2 --timeout 2min
replaced $((before + 1)) || complain "not replaced"
until_true 30 sessions_are 2 || complain "old sessions stay"
want 4 '--replace makes others' path connect guest remote
want 2 'drained is for a path that has failed' path connect guest remote --replace --drained
json 'not d[0]["keys_old"] and d[0]["tls_records"] < 100' path list guest
ok "path watch replaces connections whose keys are old; path connect --replace"

want 1 'the server insists on TLS' identify --timeout 2min nbd://127.0.0.1:10809/disk
want 0 'local:ram0' identify --timeout 2min "$uri?tls-hostname=hostb&tls-certificates=$a"
want 1 "no '$a/peers/127.0.0.1.crt' to know it by" identify --timeout 2min "$uri?tls-certificates=$a"
identity "$tmp/x" stranger
cp "$tmp/hostb.pem" "$tmp/x/peers/hostb.crt"
want 1 'refused the certificate of this host: it does not know it' identify --timeout 2min "$uri?tls-hostname=hostb&tls-certificates=$tmp/x"
cp "$tmp/stranger.pem" "$a/peers/other.crt"
want 1 "not the one that is known for 'other'" identify --timeout 2min "$uri?tls-hostname=other&tls-certificates=$a"
grep -q "client 127.0.0.1:[0-9]* refused: its certificate ('stranger') is of no peer that is known here" "$tmp/serve" ||
	complain "the server does not say why: $(cat "$tmp/serve")"
for _ in {1..20}; do
	head -c 3000 /dev/urandom | socat -u - TCP:127.0.0.1:10809 >/dev/null 2>&1
	(printf '\0\0\0\3IHAVEOPT\0\0\0\5\0\0\0\0'; head -c 3000 /dev/urandom) | socat -u - TCP:127.0.0.1:10809 >/dev/null 2>&1
done
want 0 'local:ram0' identify --timeout 2min "$uri?tls-hostname=hostb&tls-certificates=$a"
ok "who is not known, or does not speak TLS, gets nothing"

# a stock client finds the host's certificate by the CA that it is told of: here the target shows one of the CA's
identity "$b" stock
stock="nbds://127.0.0.1:10809/disk?tls-certificates=$tmp/x509"
try nbdinfo --json "$stock"
grep -q '"TLS": true' "$tmp/try" || complain "nbdinfo: $(cat "$tmp/try")"
try nbdcopy "$tmp/data" "$stock"
try nbdcopy "$stock" "$tmp/back"
cmp -n $((4 << 20)) "$tmp/data" "$tmp/back" || complain "nbdcopy brings other data"
dd if=/dev/ram0 iflag=direct bs=1M count=4 status=none | cmp -s - "$tmp/data" || complain "the disk does not hold it"
try qemu-img compare --object "tls-creds-x509,id=t,dir=$tmp/x509,endpoint=client" --image-opts \
	"driver=raw,file.driver=nbd,file.host=127.0.0.1,file.port=10809,file.export=disk,file.tls-creds=t" "driver=raw,file.filename=$tmp/back"
ok "nbdinfo, nbdcopy and qemu-img as clients"

kill "$server"
wait "$server"
want 0 removed path remove guest remote --force
cp "$tmp/ca.pem" "$a/peers/stock.crt"
# they check their own certificate, too
cat "$tmp/ca.pem" "$tmp/hosta.pem" >"$tmp/x509/ca-cert.pem"
# they show no identity, and that is what is said then
serves() { # URI
	"$ctl" identify "$1" >"$tmp/try" 2>&1
	grep -q "shows no identity" "$tmp/try"
}
for kind in nbdkit qemu-nbd; do
	if [ $kind = nbdkit ]; then
		nbdkit -f -p 10810 -i 127.0.0.1 --tls=require --tls-certificates="$tmp/x509" --tls-verify-peer memory 64M \
			>"$tmp/log" 2>&1 &
	else
		truncate -s 64M "$tmp/image"
		qemu-nbd -t -f raw -b 127.0.0.1 -p 10810 -x '' -e 8 \
			--object "tls-creds-x509,id=t,dir=$tmp/x509,endpoint=server,verify-peer=yes" --tls-creds t "$tmp/image" >"$tmp/log" 2>&1 &
	fi
	bg+=($!)
	until_true 100 serves "nbds://127.0.0.1:10810/?tls-hostname=stock&tls-certificates=$a" ||
		complain "$kind does not serve: $(cat "$tmp/try" "$tmp/log")"
	want 0 'is live' path add guest s "nbds://127.0.0.1:10810/" --tls-dir "$a" --tls-peer stock --assume-same-data --timeout 2min --dead 30s
	json '[(p["state"], p["encrypted"]) for p in d] == [("live", True)]' path list guest
	# heartbeats go through
	sleep 3
	state_is live || complain "$kind: the path is $(field 'd[0]["state"], d[0]["last_error"]' path list guest)"
	want 0 removed path remove guest s --force
	kill "${bg[-1]}"
	wait "${bg[-1]}" 2>/dev/null
done
ok "nbdkit and qemu-nbd as servers"

conclude
