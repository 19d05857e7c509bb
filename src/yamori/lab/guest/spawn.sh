#!/bin/sh
# spawn N: N sleeping processes, some of other users, some with odd names. Returns when all of them are there.
set -eu
left=${1:?usage: spawn N}
share=$((left / 12))
mkdir -p /run/crowd
if [ ! -e /run/crowd/setuid ]; then
    cp /lab/sleeper /run/crowd/setuid
    chmod 4755 /run/crowd/setuid        # real user alice, effective user root
fi

crowd() { # crowd NAME [USER]: one share of them
    [ -e "/run/crowd/$1" ] || ln -s /lab/sleeper "/run/crowd/$1"
    [ "$share" -eq 0 ] || su -s "/run/crowd/$1" "${2:-root}" "$share"
    left=$((left - share))
}

crowd daemon alice
crowd daemon bob
crowd daemon nobody
crowd setuid alice
crowd 'two words'
crowd 'a) R (b'
crowd 'back\slash'
crowd "$(printf 'new\nline')" bob
crowd "$(printf '\033[31mred')"
crowd "$(printf '\377\376bytes')" alice
crowd 'longer-than-fifteen-bytes'
share=$left
crowd sleeper
