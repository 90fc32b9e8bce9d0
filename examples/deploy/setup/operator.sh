#!/bin/sh
# Makes a federation where there is none, and a token for each member named that has not joined:
#
#     FEDERATION=consortium ADVERTISE=fedlora.example.org operator.sh [MEMBER...]
#
# Tokens are written to $INVITATIONS/MEMBER/token, readable by their owner alone. Safe to repeat.
set -eu
umask 077
dir=${FEDLORA_DIR:-/var/lib/fedlora-aggregator}
invitations=${INVITATIONS:-/invitations}

if [ ! -e "$dir/aggregator.toml" ]; then
    fedlora-aggregator init --dir "$dir" --name "${FEDERATION:-consortium}" \
        --listen "${LISTEN:-0.0.0.0:4433}" --advertise "${ADVERTISE:-aggregator}"
fi
for member in "$@"; do
    token=$invitations/$member/token
    if [ -e "$dir/members/$member.json" ]; then
        # It was used, or is not needed.
        rm -f "$token"
        continue
    fi
    fedlora-aggregator invite --dir "$dir" "$member" >"$token.new"
    mv "$token.new" "$token"
done
