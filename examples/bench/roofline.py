"""The most tokens a second that a shape allows on this machine, by its products alone.

    python examples/bench/roofline.py --shape 8m --threads 2
    python examples/bench/roofline.py --made target/bench/smollm2/made --measured target/bench/smollm2/result.json

A step of LoRA training has to compute certain products (`step_gemms` in shapes.py: forward, gradients by
activations and by A and B; no gradient by a frozen weight, nothing twice, the causal half of attention).
Two bounds follow, both without a nanosecond for anything else:

- by shape: each product at the rate that torch.matmul (MKL or oneDNN) reaches at just that size here;
- by peak: all products at the best rate that torch.matmul reaches at any size tried here.

A program can pass the first with a better product than torch's at some size; nothing that computes
in f32 with this machine's units passes what the second says by much. Standard output: a table, or with
--json FILE the figures as well.

Needs torch and nothing else running: a product's time is the least of several tries.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from shapes import SHAPES, TARGETS, Model, step_gemms

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--shape", choices=SHAPES, default="8m")
parser.add_argument("--made", type=Path, help="a folder of make_model.py: its model, batch and rank")
parser.add_argument("--batch", type=int)
parser.add_argument("--seq", type=int)
parser.add_argument("--rank", type=int, default=16)
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--seconds", type=float, default=0.3, help="how long each size is tried")
parser.add_argument("--measured", type=Path, action="append", default=[], help="a result of compare.py to put beside")
parser.add_argument("--json", type=Path)
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)

import torch  # noqa: E402

torch.set_num_threads(args.threads)

# Square sizes at which the best rate is looked for.
SQUARES = (512, 1024, 1536, 2048)


def best_time(function):
    """The least seconds of one call, over `--seconds` and three calls at least."""
    function()
    best, spent, calls = float("inf"), 0.0, 0
    while spent < args.seconds or calls < 3:
        begun = time.perf_counter()
        function()
        took = time.perf_counter() - begun
        best, spent, calls = min(best, took), spent + took, calls + 1
    return best


def time_of(rows, inner, columns, together):
    """Seconds of `together` products of [rows, inner] and [inner, columns], as one batch where more than one."""
    shape = (together,) if together > 1 else ()
    a, b = torch.randn(*shape, rows, inner), torch.randn(*shape, inner, columns)
    out = torch.empty(*shape, rows, columns)
    return best_time(lambda: torch.matmul(a, b, out=out))


def main():
    shape = SHAPES[args.shape]
    model, batch, seq, rank, targets = shape.model, shape.batch, shape.seq, args.rank, TARGETS
    if args.made:
        made = json.loads((args.made / "made.json").read_text())
        model, batch, seq = Model.from_config(made["folder"]), made["batch"], made["seq"]
        rank, targets = made["rank"], made["targets"]
    if model is None:
        sys.exit(f"error: --shape {args.shape} needs --made: its model is a checkpoint")
    batch, seq = args.batch or batch, args.seq or seq

    times, rates, table = {}, {}, []
    with torch.no_grad():
        for size in SQUARES:
            rates[size] = 2 * size**3 / time_of(size, size, size, 1)
        gemms = step_gemms(model, batch, seq, rank, targets)
        for gemm in gemms:
            # A block's attention products come as a batch of heads, as every program has them.
            attention = gemm.needed < 1
            together = batch * model.heads if attention else 1
            key = (gemm.rows, gemm.inner, gemm.columns, together)
            if key not in times:
                times[key] = time_of(*key)
                print(f"\r{len(times)} sizes timed", end="", file=sys.stderr, flush=True)
            seconds = times[key] * gemm.count / together * gemm.needed
            table.append((gemm, seconds))
    print(file=sys.stderr)

    tokens = batch * seq
    flops = sum(gemm.flops() for gemm, _ in table)
    by_shape = sum(seconds for _, seconds in table)
    peak = max([*rates.values(), *(gemm.flops() / seconds for gemm, seconds in table)])
    merged = {}
    for gemm, seconds in table:
        one = merged.setdefault(gemm.name, [0.0, 0.0])
        one[0] += gemm.flops()
        one[1] += seconds
    print(f"{'product':<22}{'GFLOP a step':>14}{'GFLOP/s':>10}{'ms a step':>12}")
    for name, (work, seconds) in merged.items():
        print(f"{name:<22}{work / 1e9:14.3f}{work / seconds / 1e9:10.1f}{seconds * 1e3:12.2f}")
    print(f"{'all':<22}{flops / 1e9:14.3f}{flops / by_shape / 1e9:10.1f}{by_shape * 1e3:12.2f}")
    print("best rate of square products: " + ", ".join(f"{n}: {rate / 1e9:.1f} GFLOP/s" for n, rate in rates.items()))
    print(f"{flops / tokens / 1e6:.1f} MFLOP a token; {tokens} tokens a step; {args.threads} threads")
    print(f"bound by shape: {tokens / by_shape:10.1f} tokens/s")
    print(f"bound by peak:  {tokens * peak / flops:10.1f} tokens/s  ({peak / 1e9:.1f} GFLOP/s)")
    measured = {}
    for path in args.measured:
        for side, one in json.loads(path.read_text())["summary"].items():
            if side != "ratios":
                measured[side] = one["tokens_per_second"]
                share = one["tokens_per_second"] * flops / tokens / peak
                print(
                    f"measured, {side + ':':<10}{one['tokens_per_second']:8.1f} tokens/s, "
                    f"{100 * one['tokens_per_second'] * by_shape / tokens:.0f} % of the bound by shape, "
                    f"{100 * share:.0f} % of that by peak"
                )
    if args.json:
        document = {
            "schema_version": 1,
            "threads": args.threads,
            "torch": torch.__version__,
            "batch": batch,
            "seq": seq,
            "rank": rank,
            "flops_per_token": flops / tokens,
            "peak_flops_per_second": peak,
            "square_flops_per_second": rates,
            "bound_by_shape_tokens_per_second": tokens / by_shape,
            "bound_by_peak_tokens_per_second": tokens * peak / flops,
            "measured_tokens_per_second": measured,
            "products": {
                name: {"flops_per_step": work, "seconds_per_step": seconds}
                for name, (work, seconds) in merged.items()
            },
        }
        args.json.write_text(json.dumps(document, indent=1) + "\n")


main()
