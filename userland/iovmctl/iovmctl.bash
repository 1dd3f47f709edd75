# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for iovmctl(8). Commands and options come from iovmctl's own help, names from the kernel
# (as far as the user may ask it) or from the nodes.

_iovmctl_devices() {
	iovmctl list --json 2>/dev/null | sed -n 's/^    "name": "\(.*\)",$/\1/p'
	command ls /dev/vhost-iovm 2>/dev/null
}

_iovmctl_paths() {
	iovmctl path list "$1" --json 2>/dev/null | sed -n 's/^    "name": "\(.*\)",$/\1/p'
}

_iovmctl_guests() {
	iovmctl status --json 2>/dev/null | sed 's/"peers_say".*//' | grep -o '"guests":.*' | grep -o '{"name":"[^"]*"' | sed 's/.*:"//;s/"//'
}

_iovmctl_options() {
	iovmctl "$@" --help 2>/dev/null | sed -n 's/^  \(-., \|    \)\(--[a-z-]*\).*/\2/p'
}

_iovmctl() {
	local cur prev words=() i cmd=() args=()
	COMPREPLY=()
	cur=${COMP_WORDS[COMP_CWORD]}
	prev=${COMP_WORDS[COMP_CWORD-1]}

	# The words so far: the command's name, then its arguments without options
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-*) ;;
		*) words+=("${COMP_WORDS[i]}") ;;
		esac
	done
	if [[ ${words[0]} == @(path|session|reserve|config|epoch) || ${words[*]:0:2} == "peers "@(enrol|renew|forget) ]]; then
		cmd=("${words[@]:0:2}")
		args=("${words[@]:2}")
	else
		cmd=("${words[@]:0:1}")
		args=("${words[@]:1}")
	fi

	case $prev in
	--size-from|-S)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	--block-size)
		mapfile -t COMPREPLY < <(compgen -W "512 4096" -- "$cur")
		return ;;
	--slow-factor)
		mapfile -t COMPREPLY < <(compgen -W "off" -- "$cur")
		return ;;
	--tls)
		[[ ${cmd[*]} != serve ]] || mapfile -t COMPREPLY < <(compgen -W "required offered" -- "$cur")
		[[ ${cmd[*]} != serve ]] || return ;;
	--tls-dir)
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		return ;;
	--cache)
		mapfile -t COMPREPLY < <(compgen -W "survives dies" -- "$cur")
		return ;;
	--fence)
		mapfile -t COMPREPLY < <(compgen -W "local-error none epoch" -- "$cur")
		return ;;
	--fence-by)
		mapfile -t COMPREPLY < <(compgen -W "hand command offline reservation" -- "$cur")
		return ;;
	--fence-command)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	--config|-c)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	--at|-a|--code)
		return ;;
	--dir)
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		return ;;
	--device|-d)
		if [[ ${cmd[0]} == @(config|peers) ]]; then
			mapfile -t COMPREPLY < <(compgen -d -- "$cur")
			return
		fi
		mapfile -t COMPREPLY < <(compgen -W "$(_iovmctl_devices)" -- "$cur")
		return ;;
	--wait|-w)
		mapfile -t COMPREPLY < <(compgen -W "$(iovmctl events --help |
			sed -n '/^Types:/,/^$/{s/^Types://;p}')" -- "$cur")
		return ;;
	--output|-o)
		if [[ ${cmd[*]} == save || $prev == --output ]]; then
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -u -- "$cur")
		fi
		return ;;
	--owner)
		mapfile -t COMPREPLY < <(compgen -u -- "$cur")
		return ;;
	esac

	if [[ ${#cmd[@]} == 0 ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(iovmctl --help 2>/dev/null |
			sed -n 's/^  \([a-z-]*\).*/\1/p' | sort -u) --json --help --version" -- "$cur")
		return
	fi
	if [[ ${cmd[*]} == @(path|session|reserve|config|epoch) ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(iovmctl --help 2>/dev/null |
			sed -n "s/^  ${cmd[0]} \([a-z-]*\).*/\1/p")" -- "$cur")
		return
	fi
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_iovmctl_options "${cmd[@]}")" -- "$cur")
		return
	fi
	case "${cmd[*]}:${#args[@]}" in
	peers:0)
		mapfile -t COMPREPLY < <(compgen -W "enrol renew forget" -- "$cur") ;;
	"peers renew:"*) ;;
	"peers "*:0)
		mapfile -t COMPREPLY < <(compgen -W "$(iovmctl peers 2>/dev/null | sed -n 's/^  \([A-Za-z0-9_][^ ]*\)  *[^ ].*/\1/p' |
			grep -v '^certificate$')" -- "$cur") ;;
	peers*) ;;
	"reserve remove:0")
		mapfile -t COMPREPLY < <(compgen -W "$(iovmctl reserve list 2>/dev/null | sed -n '1d;s/ .*//p')" -- "$cur") ;;
	"reserve "*) ;;
	create:*|list:*|version:*|events:*) ;;
	identify:*|"path add:2")
		mapfile -t COMPREPLY < <(compgen -W "nbd:// nbds:// nbd+unix:///" -- "$cur"; compgen -f -- "${cur#bdev:}") ;;
	"path add:1") ;;
	"config reload:"*) ;;
	restore:0|"config "*:0)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	restore:*|"config "*) ;;
	migrate:0|check:0)
		mapfile -t COMPREPLY < <(compgen -W "$(_iovmctl_guests)" -- "$cur") ;;
	rehearse:0)
		mapfile -t COMPREPLY < <(compgen -W "$(_iovmctl_devices) $(_iovmctl_guests)" -- "$cur") ;;
	migrate:*|check:*|rehearse:*|drain-host:*|export:*) ;;
	save:*)
		mapfile -t COMPREPLY < <(compgen -W "$(_iovmctl_devices)" -- "$cur") ;;
	*:0)
		mapfile -t COMPREPLY < <(compgen -W "$(_iovmctl_devices)" -- "$cur") ;;
	"session end:1")
		mapfile -t COMPREPLY < <(compgen -W "all $(iovmctl session list "${args[0]}" 2>/dev/null |
			sed -n 's/^\([0-9][0-9]*\) .*/\1/p')" -- "$cur") ;;
	"session "*:1) ;;
	"epoch give:1")
		mapfile -t COMPREPLY < <(compgen -W "$(iovmctl show "${args[0]}" --json 2>/dev/null |
			sed -n 's/^  "epoch": \([0-9]*\),$/\1/p')" -- "$cur") ;;
	"path "*:1|failover:1)
		mapfile -t COMPREPLY < <(compgen -W "$(_iovmctl_paths "${args[0]}")" -- "$cur") ;;
	esac
}

complete -F _iovmctl iovmctl
