#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Do the documents say what there is? Every command and option is in its man page, every ioctl, operation and event in
# docs/; limits are stated as they are; every file, function and make target that is named exists; links lead
# somewhere. Then each check is tried on documents with a mistake in them, which it must find.
#
# Writes KTAP.

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
cd "$top" || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

# Where the documents are that are looked at: the tree's, or copies with a mistake.
docs=$top

markdown() { find "$docs/README.md" "$docs/docs" -name '*.md' | sort; }

# A man page's text: no font changes, plain dashes, no quotes.
man_text() { sed -e 's/\\f[A-Z]//g' -e 's/\\-/-/g' -e 's/\\~/ /g' -e 's/\\c$//' -e 's/"//g' "$docs/docs/man/$1"; }

has_word() { # WORD FILE...: as a word of its own
	local word=$1
	shift
	grep -qE "(^|[^A-Za-z0-9_-])$word([^A-Za-z0-9_-]|\$)" "$@"
}

# Each check writes what is missing, and fails if there is something.

commands() {
	local c bad=0 list
	list=$(sed -n 's/^[[:space:]]*\.name = "\([^"]*\)".*/\1/p' userland/iovmctl/cmd_*.c)
	[ "$(wc -l <<<"$list")" -gt 15 ] || { echo "the list of commands is not where it was"; return 1; }
	while read -r c; do
		man_text iovmctl.8 | grep -qE "^\.(B|BI|BR) $c( |\$)" || { echo "iovmctl.8 has no $c"; bad=1; }
	done <<<"$list"
	return $bad
}

options() {
	local o bad=0 list
	list=$(sed -nE 's/^\t\{ "([a-z-]+)", [^,]+, OPT_.*/\1/p' userland/iovmctl/cmd_*.c | sort -u)
	[ "$(wc -l <<<"$list")" -gt 20 ] || { echo "the list of iovmctl's options is not where it was"; return 1; }
	while read -r o; do
		man_text iovmctl.8 >"$tmp/page"
		has_word "--$o" "$tmp/page" || { echo "iovmctl.8 has no --$o"; bad=1; }
	done <<<"$list"
	list=$(sed -nE 's/^\t\t\{ "([a-z-]+)", (no|required)_argument.*/\1/p' userland/iovm-vhost-user/main.c)
	[ "$(wc -l <<<"$list")" -gt 5 ] || { echo "the list of iovm-vhost-user's options is not where it was"; return 1; }
	while read -r o; do
		man_text iovm-vhost-user.8 >"$tmp/page"
		has_word "--$o" "$tmp/page" || { echo "iovm-vhost-user.8 has no --$o"; bad=1; }
	done <<<"$list"
	return $bad
}

# Each key of iovmd's configuration, those of its paths without "local." and "remote.".
keys() {
	local k bad=0 list
	list=$(sed -nE 's/^\t(\{ (\.name = )?|(CREATE|LOCAL|REMOTE|PATH)(_SET)?\()"([a-z-]+)".*/\5/p' userland/iovmd/config_keys.c | sort -u)
	[ "$(wc -l <<<"$list")" -gt 50 ] || { echo "the list of iovmd's keys is not where it was"; return 1; }
	man_text iovmd.conf.5 >"$tmp/page"
	while read -r k; do
		has_word "$k" "$tmp/page" || { echo "iovmd.conf.5 has no $k"; bad=1; }
	done <<<"$list"
	return $bad
}

in_uapi_md() { # LIST: a name on each line
	local w bad=0
	while read -r w; do
		has_word "$w" "$docs/docs/uapi.md" || { echo "uapi.md has no $w"; bad=1; }
	done <<<"$1"
	return $bad
}

# A section for each ioctl of the mux; its operations and flags.
control_abi() {
	local w bad=0 list
	list=$(sed -nE 's/^#define (IOVM_[A-Z_]+)[[:space:]]+_IO\(.*/\1/p' uapi/iovm.h)
	[ "$(wc -l <<<"$list")" -gt 10 ] || { echo "the list of ioctls is not where it was"; return 1; }
	while read -r w; do
		grep -q "^## $w\$" "$docs/docs/uapi.md" || { echo "uapi.md has no section $w"; bad=1; }
	done <<<"$list"
	list=$(sed -nE 's/^#define (IOVM_(DEV|PATH_CTL|PATH|DESTROY|FENCE|OP|NBD)_[A-Z_]+)[[:space:]]+[0-9(].*/\1/p' uapi/iovm.h |
		grep -vE '_(ALL|MAX)$|^IOVM_NBD_F_')
	[ "$(wc -l <<<"$list")" -gt 20 ] || { echo "the list of operations is not where it was"; return 1; }
	in_uapi_md "$list" || bad=1
	return $bad
}

node_abi() {
	local list
	list=$(grep -ohE 'case VHOST_[A-Z_]+' vhost_iovm/ioctl.c | sort -u | sed 's/case //')
	[ "$(wc -l <<<"$list")" -gt 25 ] || { echo "the list of the node's ioctls is not where it was"; return 1; }
	in_uapi_md "$list"
}

events() {
	local w name bad=0 list
	list=$(sed -nE 's/^\t(IOVM_EV_[A-Z_]+) = .*/\1/p' uapi/iovm.h)
	[ "$(wc -l <<<"$list")" -gt 15 ] || { echo "the list of events is not where it was"; return 1; }
	man_text iovmctl.8 >"$tmp/page"
	while read -r w; do
		name=$(tr 'A-Z_' 'a-z-' <<<"${w#IOVM_EV_}")
		grep -q "^| \`$w\` | \`$name\` |" "$docs/docs/uapi.md" || { echo "uapi.md has no line for $w, $name"; bad=1; }
		has_word "$name" "$docs/docs/operations.md" || { echo "operations.md has no $name"; bad=1; }
		has_word "$name" "$tmp/page" || { echo "iovmctl.8 has no $name"; bad=1; }
	done <<<"$list"
	return $bad
}

# The numbers that the documents repeat.
limits() {
	local pair bad=0
	value() { sed -nE "s/^#define $1[[:space:]]+([0-9]+).*/\1/p" "$2"; }
	for pair in IOVM_MAX_DEVS:uapi/iovm.h IOVM_MAX_PATHS:uapi/iovm.h IOVM_MAX_QUEUES:uapi/iovm.h \
		IOVM_MAX_SOCKETS:uapi/iovm.h VHOST_IOVM_MAX_REGIONS:uapi/vhost_iovm.h \
		VHOST_IOVM_MAX_RING:uapi/vhost_iovm.h VIOVM_BLK_MAX_BIG:vhost_iovm_blk/blk.h \
		VNBD_SLOTS:vhost_iovm_blk/nbd.h IOVM_EVENTS:iovm_mux/event.c; do
		local word=${pair%%:*} n
		n=$(value "$word" "${pair#*:}")
		[ -n "$n" ] || { echo "$word is not in ${pair#*:}"; bad=1; continue; }
		grep -E "\`$word\`" "$docs/docs/architecture.md" | grep -qE "\| $n( |\$)" ||
			{ echo "architecture.md does not say that $word is $n"; bad=1; }
	done
	return $bad
}

# `iovmctl COMMAND` in the documents is a command, UNIT.service a unit.
used() {
	local c u bad=0 list
	list=$(sed -n 's/^[[:space:]]*\.name = "\([^"]*\)".*/\1/p' userland/iovmctl/cmd_*.c)
	while read -r c; do
		grep -qxF -- "$c" <<<"$list" || { echo "iovmctl has no command $c"; bad=1; }
	done < <({ markdown | xargs cat; man_text vhost-iovm.7; } | grep -oE '(`|^ +|^\.BR? )iovmctl ((path|session|config|epoch|reserve) )?[a-z-]+' |
		sed 's/.*iovmctl //' | sort -u)
	while read -r u; do
		compgen -G "userland/*/$u*" >/dev/null || { echo "there is no unit $u"; bad=1; }
	done < <(markdown | xargs cat | grep -oE 'iovm-[a-z-]+@?\.service' | sort -u)
	return $bad
}

# Words that name a file of the tree, in code or not.
files() {
	local f bad=0
	while read -r f; do
		f=${f%.}
		f=${f%/}
		compgen -G "$f" >/dev/null || { echo "there is no $f"; bad=1; }
	done < <({ markdown | tr '\n' '\0' | xargs -0 cat; man_text vhost-iovm.7; } |
		grep -oE '(^|[^A-Za-z0-9_./@-])(selftests|bench|vhost_iovm|vhost_iovm_blk|vhost_iovm_net|iovm_mux|userland|uapi|compat|\.ci)/[A-Za-z0-9_.*@/-]*' |
		sed -E 's/^[^A-Za-z.]//' | grep -v 'NAME' | sort -u)
	return $bad
}

# `name()` in the documents is a function or macro in the sources, `struct name` a struct.
names() {
	local f bad=0
	while read -r f; do
		grep -rqE "(^|[^A-Za-z0-9_])$f\(" --include='*.[ch]' vhost_iovm vhost_iovm_blk vhost_iovm_net iovm_mux userland selftests ||
			{ echo "there is no function $f"; bad=1; }
	done < <(markdown | xargs cat | grep -oE '`[a-z_]+\(\)`' | tr -d '`()' | grep -vxE 'open|close|read|poll|sizeof|complete|requeue|route_changed' | sort -u)
	while read -r f; do
		grep -rqE "struct $f \{" --include='*.[ch]' vhost_iovm vhost_iovm_blk vhost_iovm_net iovm_mux uapi userland ||
			{ echo "there is no struct $f"; bad=1; }
	done < <(markdown | xargs cat | grep -oE '`struct [a-z_]+' | sed 's/`struct //' | grep -vxE 'device|virtio_blk_config' | sort -u)
	return $bad
}

# `make TARGET` at the beginning of code.
targets() {
	local t bad=0
	while read -r t; do
		grep -qE "^([a-z -]+ )?$t( [a-z -]+)?:([^=]|\$)" Makefile ||
			{ echo "the Makefile has no target $t"; bad=1; }
	done < <(markdown | xargs cat | grep -oE '(^ {4,}|`|; |and )make [a-z][a-z-]*' | sed 's/.*make //' | sort -u)
	return $bad
}

# A heading's anchor, as in GitHub's pages.
anchors() { sed -nE 's/^#{1,6} +//p' "$1" | tr 'A-Z' 'a-z' | sed -E -e 's/[^a-z0-9 _-]//g' -e 's/ /-/g'; }

links() {
	local file link to anchor bad=0
	while read -r file; do
		while read -r link; do
			case $link in
			http://* | https://*) continue ;;
			esac
			to=${link%%#*}
			anchor=
			[[ $link != *#* ]] || anchor=${link#*#}
			to=${to:+$(dirname "$file")/$to}
			to=${to:-$file}
			# Copies hold the documents alone.
			[ -e "$to" ] || [ -e "$top/${to#"$docs"/}" ] || { echo "${file#"$docs"/}: $link leads nowhere"; bad=1; continue; }
			[ -z "$anchor" ] || anchors "$to" | grep -qxF -- "$anchor" ||
				{ echo "${file#"$docs"/}: $link: no such heading"; bad=1; }
		done < <(grep -oE '\]\([^)]+\)' "$file" | sed -E 's/^\]\((.*)\)$/\1/')
	done < <(markdown)
	return $bad
}

# Requests of man(7) only, blocks closed, and a line for whatis.
man_pages() {
	local f bad=0
	for f in "$docs"/docs/man/*.[578]; do
		awk -v f="${f##*/}" '
			/^\.\\"/ { next }
			/^\./ {
				m = $1
				if (m !~ /^\.(TH|SH|SS|PP|TP|IP|RS|RE|B|I|BI|IB|BR|RB|IR|RI|nf|fi|br|in|EX|EE)$/) { print f ": " m; bad = 1 }
				if (m == ".RS" || m == ".nf" || m == ".EX") depth[m]++
				if (m == ".RE") depth[".RS"]--
				if (m == ".fi") depth[".nf"]--
				if (m == ".EE") depth[".EX"]--
				if (m == ".SH" && $2 == "NAME") { getline; if ($0 !~ / \\- /) { print f ": NAME: " $0; bad = 1 } named = 1 }
			}
			END {
				for (m in depth) if (depth[m]) { print f ": " m " is not closed"; bad = 1 }
				if (!named) { print f ": no NAME"; bad = 1 }
				exit bad
			}' "$f" || bad=1
	done
	return $bad
}

number=0
fails=0
result() { # STATUS NAME OUTPUT
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number $2"
	else
		fails=$((fails + 1))
		[ -z "$3" ] || while IFS= read -r line; do echo "# $line"; done <<<"$3"
		echo "not ok $number $2"
	fi
}

# mistake CHECK FILE SED-SCRIPT: the check must fail on documents changed like this.
mistake() {
	local check=$1 file=$2 script=$3 out status=0
	rm -rf "$tmp/tree"
	mkdir -p "$tmp/tree"
	cp -r README.md docs "$tmp/tree/"
	sed -i -E "$script" "$tmp/tree/$file"
	if cmp -s "$file" "$tmp/tree/$file"; then
		result 1 "$check finds a mistake" "$script changes nothing in $file"
		return
	fi
	docs=$tmp/tree
	if out=$($check 2>&1); then
		out="not found: $script in $file"
		status=1
	fi
	docs=$top
	result $status "$check finds a mistake" "$out"
}

checks=(commands options keys control_abi node_abi events limits used files names targets links man_pages)
echo "KTAP version 1"
echo "1..$((2 * ${#checks[@]}))"
for check in "${checks[@]}"; do
	out=$($check 2>&1)
	result $? "$check" "$out"
done
mistake commands docs/man/iovmctl.8 '/^\.BI failover /d'
mistake options docs/man/iovmctl.8 's/\\-\\-heartbeat//g'
mistake keys docs/man/iovmd.conf.5 's/no\\-space\\-timeout//g'
mistake control_abi docs/uapi.md 's/IOVM_DEV_SET_BPS/IOVM_DEV_SET_BBS/'
mistake node_abi docs/uapi.md 's/VHOST_ATTACH_VRING_WORKER/VHOST_ATTACH_WORKER/g'
mistake events docs/operations.md 's/queue-broken/queue-borken/g'
mistake limits docs/architecture.md 's/^\| paths of a device \| 8 /| paths of a device | 9 /'
mistake used docs/operations.md 's/iovmctl suspend/iovmctl suspent/'
mistake files docs/architecture.md 's:iovm_mux/policy\.c:iovm_mux/police.c:'
mistake names docs/architecture.md 's/iovm_judge\(\)/iovm_juge()/'
mistake targets README.md 's/^    make demo/    make dmeo/'
mistake links README.md 's/#writes-wait-for-a-fence/#writes-wait/'
mistake man_pages docs/man/vhost-iovm.7 '0,/^\.fi/{/^\.fi/d}'
exit $((fails > 0))
