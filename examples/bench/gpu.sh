#!/usr/bin/env bash
# Parity and speed on a GPU, in one command: everything lands in one folder.
#
#   cargo build --release -p fedlora-client --features cuda      # needs no GPU and no CUDA toolkit
#   examples/bench/gpu.sh --out gpu-h100                         # on the machine with the card
#
# Needs: the NVIDIA driver and NVRTC, Python with torch, transformers and peft (--python), 20 GB of disk, 80 GB
# of GPU memory for the default shape. Steps whose result is in the folder already are skipped: after an
# interruption the same command goes on. A step that fails is told of at the end; the others still run.
#
#   --fedlora FILE    the program            [target/release/fedlora]
#   --python FILE     the Python             [python3]
#   --device NAME     cuda:N; or cpu, to try the script itself
#   --shape NAME      llama3-8b              [llama3-8b]
#   --pairs N         pairs of each comparison [5]
#   --out DIR         where results go       [target/bench/gpu]
#   --dry-run         print the commands, run none
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

fedlora=$root/target/release/fedlora python=python3 device=cuda:0 shape=llama3-8b pairs=5
out=$root/target/bench/gpu dry_run=
while [ $# -gt 0 ]; do
    case $1 in
        --fedlora | --python | --device | --shape | --pairs | --out)
            [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
            printf -v "${1#--}" %s "$2"
            shift 2
            ;;
        --dry-run) dry_run=yes; shift ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        *) echo "error: unknown option $1: see --help" >&2; exit 2 ;;
    esac
done

failed=()
# step NAME RESULT COMMAND...: runs COMMAND unless RESULT is there; what it prints goes to NAME.txt as well.
step() {
    local name=$1 result=$2
    shift 2
    if [ -n "$dry_run" ]; then
        printf '%q ' "$@"; echo
        return
    fi
    if [ -s "$result" ]; then
        echo "=== $name: $result is there, skipped"
        return
    fi
    printf '=== [%4d s] %s\n' "$SECONDS" "$name"
    if ! "$@" 2>&1 | tee "$out/$name.txt"; then
        failed+=("$name")
        # What a failing step wrote stays, under another name, so that it is tried again.
        [ ! -e "$result" ] || mv "$result" "$result.failed"
    fi
}

card() {
    nvidia-smi --query-gpu=name,memory.total,driver_version,power.limit,clocks.max.sm,clocks.max.mem,ecc.mode.current \
        --format=csv -i "${device#cuda:}"
}

if [ -z "$dry_run" ]; then
    mkdir -p "$out"
    [ -x "$fedlora" ] || { echo "error: $fedlora is missing: build it with --features cuda, or give --fedlora" >&2; exit 2; }
    "$python" -c 'import torch, transformers, peft' || { echo "error: $python lacks torch, transformers or peft" >&2; exit 2; }
    if [ "$device" != cpu ]; then
        card | tee "$out/card.txt"
        "$python" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "error: torch sees no GPU")'
    fi
fi

step parity "$out/parity.json" \
    "$python" "$here/parity.py" --fedlora "$fedlora" --device "$device" --json "$out/parity.json"

# Both sides keep their activations; then both compute each block twice, with more tokens a step.
common=("$python" "$here/compare.py" --fedlora "$fedlora" --device "$device" --shape "$shape" --pairs "$pairs")
step compare "$out/compare.json" \
    "${common[@]}" --work "$out/work" --json "$out/compare.json"
step compare-checkpointing "$out/compare-checkpointing.json" \
    "${common[@]}" --work "$out/work-checkpointing" --json "$out/compare-checkpointing.json" --checkpointing --batch 4

[ -z "$dry_run" ] || exit 0
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}; what was printed lies in $out" >&2
    exit 1
fi
echo "all done: $out/{parity,compare,compare-checkpointing}.json"
