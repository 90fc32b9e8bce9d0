"""Trains one adapter on a base held as f32, q8 and q4: what fewer bits cost in loss.

    python examples/bench/quantised.py --base SmolLM2-135M-Instruct.Q4_1.gguf \\
        --data hospital-privacy.train.jsonl --eval-data hospital-privacy.heldout.jsonl

The same seed, records and order each time, `fedlora train` as anyone runs it; nothing but
--base-dtype differs. Prints each kind's losses after --steps steps beside those of f32, and the
bytes a weight. Ends with 1 where a loss is further off than --within says.

Python 3.11 or later, nothing else.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def document(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", required=True, action="append")
    parser.add_argument("--eval-data", required=True, action="append")
    parser.add_argument("--fedlora", default=ROOT / "target/release/fedlora", help="the program")
    parser.add_argument("--kinds", default="f32,q8,q4")
    parser.add_argument("--steps", default="200")
    parser.add_argument("--within", type=float, default=0.02, help="relative, on both losses")
    parser.add_argument("--fedlora-arg", action="append", default=[], help="one more argument of fedlora train")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    files = [part for file in args.data for part in ("--data", file)]
    common = [str(args.fedlora), "{}", "--format", "json", "--base", args.base]
    check = document([*common[:1], "check", *common[2:], *files, "--show", "0"])
    memory, parameters = check["memory"], check["base"]["parameters"]
    held_out = [part for file in args.eval_data for part in ("--eval-data", file)]

    results = {}
    for kind in args.kinds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            command = [*common[:1], "train", *common[2:], *files, *held_out, "--out", f"{folder}/adapter"]
            command += ["--steps", args.steps, "--base-dtype", kind, "--log-every", "1000", "--keep", "last"]
            last = document([*command, *args.fedlora_arg])
        results[kind] = {
            "train_loss": last["train_loss"],
            "eval_loss": last["eval_loss"],
            "bytes_a_weight": memory["weights"][kind] / parameters,
            "peak_memory_bytes": last["peak_memory_bytes"],
            "tokens_per_second": last["tokens_per_second"],
        }
        print(kind, json.dumps(results[kind]), flush=True)

    first, *others = results
    far = False
    for kind in others:
        for loss in ("train_loss", "eval_loss"):
            off = results[kind][loss] / results[first][loss] - 1
            far |= abs(off) > args.within
            print(f"{kind} {loss}: {100 * off:+.2f} % of {first}'s")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(1 if far else 0)


if __name__ == "__main__":
    main()
