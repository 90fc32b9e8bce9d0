#!/bin/sh
# Joins with the token in $INVITATION where this member has not joined yet. Safe to repeat.
set -eu
umask 077
dir=${FEDLORA_DIR:-/var/lib/fedlora}
invitation=${INVITATION:-/invitation/token}
# What the member lets its agent do: added to its configuration once.
agent=${AGENT:-/etc/fedlora/agent.toml}

if [ ! -e "$dir/fedlora.toml" ]; then
    tries=10
    until fedlora join --token-file "$invitation" --dir "$dir"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || exit 5
        # The aggregator may not listen yet.
        sleep 3
    done
fi
if [ -r "$agent" ] && ! grep -q '^\[agent\]' "$dir/fedlora.toml"; then
    { echo && cat "$agent"; } >>"$dir/fedlora.toml"
fi
