#!/usr/bin/env bash
# Secure aggregation beside Flower's SecAgg+: both sides measure one round in memory, turn by turn.
#
#   cargo build --release -p fedlora-examples
#   python3 -m venv bench && bench/bin/pip install flwr==1.42.0 numpy==2.4.6
#   examples/bench/secagg_compare.sh --python bench/bin/python --out target/bench/secagg-10
#   examples/bench/secagg_compare.sh --python bench/bin/python --members 100 --drop 5 --shares 13 --threshold 7 \
#       --out target/bench/secagg-100
#
# Each side computes with one thread, on one core (taskset). Runs whose result is in the folder already are
# skipped: after an interruption the same command goes on.
#
#   --fedlora-sim FILE  the program                         [target/release/fedlora-sim]
#   --python FILE       a Python with flwr                  [python3]
#   --members N         clients                             [10]
#   --elements N        coordinates of an update            [1000000]
#   --drop N            clients that vanish before they upload [1]
#   --shares N          Flower's shares of a secret, neighbours and oneself [all clients]
#   --threshold N       Flower's threshold                  [fedlora's for as many members]
#   --pairs N           [5]
#   --repeats N         rounds of each run; its figures are their medians [5]
#   --out DIR           [target/bench/secagg]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

sim=$root/target/release/fedlora-sim python=python3 out=$root/target/bench/secagg
members=10 elements=1000000 drop=1 shares= threshold= pairs=5 repeats=5
while [ $# -gt 0 ]; do
    case $1 in
        --fedlora-sim | --python | --members | --elements | --drop | --shares | --threshold | --pairs | --repeats | --out)
            [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
            name=${1#--}
            printf -v "${name#fedlora-}" %s "$2"
            shift 2
            ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        *) echo "error: unknown option $1: see --help" >&2; exit 2 ;;
    esac
done
[ -x "$sim" ] || { echo "error: $sim is missing: build it, or give --fedlora-sim" >&2; exit 2; }
"$python" -c 'import flwr' || { echo "error: $python lacks flwr" >&2; exit 2; }

# run RESULT COMMAND...: one side's document, unless it is there.
run() {
    local result=$1
    shift
    [ -s "$result" ] && return
    printf '[%4d s] %s\n' "$SECONDS" "$(basename "$result" .json)"
    taskset -c 0 "$@" >"$result.part"
    mv "$result.part" "$result"
}

mkdir -p "$out"
common=(--members "$members" --elements "$elements" --drop "$drop" --repeats "$repeats")
flower=("${common[@]}" ${shares:+--shares "$shares"} ${threshold:+--threshold "$threshold"})
for pair in $(seq "$pairs"); do
    run "$out/$pair-fedlora.json" "$sim" secagg "${common[@]}" --bits 24 --threads 1 --format json
    run "$out/$pair-flower.json" "$python" "$here/secagg_flwr.py" "${flower[@]}"
done
"$python" "$here/secagg_summary.py" "$out" --pairs "$pairs"
