"""Checks that a device computes what the CPU computes: training losses and held-out scores of the embedded base.

    python examples/bench/parity.py --fedlora target/release/fedlora --device cuda:0 --json parity.json

Standard library alone. On the CPU in f32 and on the device, `fedlora train` trains the same first adapter on
the same records; then `fedlora eval` scores the base alone, and the base with the adapter trained on the CPU.
Each figure's relative difference must stay within the tolerance. bf16 keeps 8 bits of a value, so a
GPU's losses differ by some thousandths; with --device cpu all must be equal.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "examples/assets/base"
DATA = ROOT / "examples/assets/data"


def fedlora(binary, *arguments):
    """The documents that a command prints, one a line or one in all."""
    command = [str(binary), *map(str, arguments), "--format", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"error: exit code {done.returncode}: {' '.join(command)}")
    try:
        return [json.loads(done.stdout)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in done.stdout.splitlines()]


def train(args, device, out):
    return fedlora(
        args.fedlora, "train", "--base", BASE, "--data", DATA / "web-soc.train.jsonl", "--out", out,
        "--steps", args.steps, "--batch", 4, "--seq", 256, "--lr", "1e-3", "--schedule", "constant", "--warmup", 0,
        "--no-shuffle", "--log-every", 1, "--device", device,
    )  # fmt: skip


def evaluate(args, device, adapter):
    chosen = ["--adapter", adapter] if adapter else []
    data = DATA / "web-soc.heldout.jsonl"
    return fedlora(args.fedlora, "eval", "--base", BASE, *chosen, "--data", data, "--device", device)[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fedlora", type=Path, default=ROOT / "target/release/fedlora")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--tolerance", type=float, help="largest relative difference [default: 0.02; 0 on the CPU]")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tolerance = args.tolerance if args.tolerance is not None else (0.0 if args.device == "cpu" else 0.02)

    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        adapter = Path(scratch) / "cpu"
        on_cpu = train(args, "cpu", adapter)
        on_device = train(args, args.device, Path(scratch) / "device")
        steps = [[line for line in run if line.get("event") == "step"] for run in (on_cpu, on_device)]
        if [len(run) for run in steps] != [args.steps] * 2:
            sys.exit(f"error: {args.steps} steps were asked for, {[len(run) for run in steps]} were told of")
        for ours, theirs in zip(*steps):
            figures.append((f"loss of step {ours['step']}", ours["loss"], theirs["loss"]))
        for name, chosen in (("base", None), ("adapter", adapter)):
            one, other = evaluate(args, "cpu", chosen), evaluate(args, args.device, chosen)
            if one["tokens"] != other["tokens"]:
                sys.exit(f"error: {name}: {one['tokens']} tokens on the CPU, {other['tokens']} on {args.device}")
            figures.append((f"held-out loss, {name}", one["loss"], other["loss"]))
            figures.append((f"token accuracy, {name}", one["token_accuracy"], other["token_accuracy"]))

    worst = 0.0
    print(f"{'':<28}{'cpu':>12}{args.device:>12}{'difference':>14}")
    rows = []
    for name, ours, theirs in figures:
        difference = abs(ours - theirs) / max(abs(ours), 1e-12)
        # NaN is no agreement.
        worst = max(worst, difference if difference == difference else float("inf"))
        rows.append({"figure": name, "cpu": ours, "device": theirs, "relative_difference": difference})
        print(f"{name:<28}{ours:12.6f}{theirs:12.6f}{difference:14.2e}")
    agree = worst <= tolerance
    print(f"parity: {'ok' if agree else 'failed'}: at most {worst:.2e}, {tolerance:.2e} allowed")
    if args.json:
        document = {
            "schema_version": 1,
            "device": args.device,
            "tolerance": tolerance,
            "worst": worst,
            "agree": agree,
            "figures": rows,
        }
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    sys.exit(0 if agree else 1)


main()
