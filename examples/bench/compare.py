"""Compares `fedlora train` with PyTorch + PEFT: tokens a second and peak memory, pair by pair.

    cargo build --release -p fedlora-client
    python examples/bench/compare.py --shape 8m --threads 2
    python examples/bench/compare.py --shape smollm2 --base SmolLM2-135M-Instruct.Q4_1.gguf --threads 2
    python examples/bench/compare.py --shape llama3-8b --fedlora BINARY_WITH_CUDA --device cuda:0
    python examples/bench/compare.py --self-check

Python 3.11 or later. The one that runs the other side (--python; by default the same) needs torch,
transformers and peft.

Both sides train the same: the same base values and type, the same first adapter, the same records in
the same order, each cut to --seq tokens, AdamW, gradients clipped, the same rate. Each run is a
process of its own, and the two take turns: fedlora, PEFT, fedlora, PEFT, ... Losses are compared step
by step, so that a side that computes less than the other would be seen.

How it is measured, the same for both sides and by this program alone:

- Time: each side prints a line after each step, and this program notes when it arrives. The first
  steps (--warmup) do not count: tokens a second are the tokens of the remaining steps by the time from
  the last warm-up step's end to the last step's.
- Memory: the largest resident set of the process, as the kernel shows it (VmHWM) when the last step is
  done and when the process writes its last line. What a Python process takes by importing its libraries
  is noted as well; what it takes to shut down (ru_maxrss has it: some 120 MB with torch) is not counted.
  On a GPU: the most that nvidia-smi shows in use on the device, less what was in use before.
- Noise: how much of the machine other processes took during a run is noted and shown. Above a few
  per cent the figures say little.

A run's result is kept in --work as soon as it is there: after an interruption the same command goes on
with the runs that are missing; --fresh begins anew.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from shapes import SHAPES, TARGETS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SIDES = ("fedlora", "peft")
MIB = 1 << 20
# Of the machine's time, by others during a run: beyond it a warning is printed.
NOISE = 0.03


class Failed(Exception):
    """A side that did not do what it should."""


def say(text=""):
    print(text, flush=True)


# --- What ran where -----------------------------------------------------------------------------


def output_of(command):
    """What a command prints, or None where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def field_of(path, name):
    """The first value of `name: value` in a file such as /proc/cpuinfo."""
    try:
        for line in Path(path).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    except OSError:
        pass
    return None


def machine(device):
    flags = (field_of("/proc/cpuinfo", "flags") or "").split()
    total = field_of("/proc/meminfo", "MemTotal")
    found = {
        "cpu": field_of("/proc/cpuinfo", "model name") or platform.processor(),
        "cpu_family_model": [field_of("/proc/cpuinfo", "cpu family"), field_of("/proc/cpuinfo", "model")],
        "cores": os.cpu_count(),
        "vector_extensions": [flag for flag in flags if flag.startswith(("avx", "fma", "amx"))],
        "memory_bytes": int(total.split()[0]) * 1024 if total else None,
        "kernel": platform.release(),
        "system": platform.system(),
    }
    if device != "cpu":
        query = "name,memory.total,driver_version,power.limit,clocks.max.sm"
        found["gpu"] = output_of(["nvidia-smi", f"--query-gpu={query}", "--format=csv", "-i", index_of(device)])
    return found


def digest_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fedlora_version(binary):
    return {
        "version": output_of([binary, "--version"]),
        "commit": output_of(["git", "describe", "--always", "--dirty", "--tags"]),
        "binary_sha256": digest_of(binary),
    }


# --- One run ------------------------------------------------------------------------------------


def index_of(device):
    return device.partition(":")[2] or "0"


def cpu_ticks():
    """(busy, all) clock ticks of all processors since the start of the machine."""
    fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    # user nice system idle iowait irq softirq steal
    return sum(fields) - fields[3] - fields[4], sum(fields)


def high_water(pid):
    """The most memory a process held so far, in bytes; 0 where it is gone."""
    value = field_of(f"/proc/{pid}/status", "VmHWM")
    return int(value.split()[0]) * 1024 if value else 0


class DeviceMemory:
    """Watches how much of a GPU's memory is in use while a run goes on."""

    def __init__(self, device):
        self.before = self.most = None
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", index_of(device)]
        self.before = int(output_of(query) or 0) * MIB
        self.most = self.before
        self.process = subprocess.Popen([*query, "-lms", "100"], stdout=subprocess.PIPE, text=True)
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        for line in self.process.stdout:
            if line.strip().isdigit():
                self.most = max(self.most, int(line) * MIB)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.thread.join()
        return self.most - self.before


def run(command, environment, log, device):
    """Runs a side to its end: its lines with the time at which each arrived, and what it took."""
    watch = DeviceMemory(device) if device != "cpu" else None
    busy, total = cpu_ticks()
    begun = time.monotonic()
    lines, final, most = [], None, 0
    with open(log, "w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **environment}
        )
        try:
            for line in process.stdout:
                now = time.monotonic()
                try:
                    document = json.loads(line)
                except json.JSONDecodeError:
                    continue
                if document.get("event") == "step":
                    lines.append({**document, "arrived": now - begun})
                    most = max(most, high_water(process.pid))
                elif document.get("event") == "finished":
                    final = document
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            device_memory = watch.stop() if watch else None
    wall = time.monotonic() - begun
    if process.returncode != 0:
        tail = "\n".join(Path(log).read_text(errors="replace").splitlines()[-15:])
        raise Failed(f"exit code {process.returncode}; {log} ends with:\n{tail}")
    busy_after, total_after = cpu_ticks()
    tick = os.sysconf("SC_CLK_TCK")
    reported = (final or {}).get("peak_memory_bytes") or 0
    own = usage.ru_utime + usage.ru_stime
    others = (busy_after - busy) / tick - own
    return {
        "lines": lines,
        "final": final,
        "wall_seconds": wall,
        "cpu_seconds": own,
        "others_share": max(0.0, others / max((total_after - total) / tick, 1e-9)),
        "peak_resident_bytes": max(most, reported),
        "peak_resident_bytes_with_exit": usage.ru_maxrss * 1024,
        "peak_device_bytes": device_memory,
    }


def figures(result, plan):
    """Tokens a second and memory of a run; refuses one that did something else than asked."""
    lines, final = result["lines"], result["final"]
    if final is None:
        raise Failed("it printed no last document")
    steps = [line["step"] for line in lines]
    if steps != list(range(1, plan["steps"] + 1)):
        raise Failed(f"{plan['steps']} steps were asked for, it told of steps {steps}")
    each = plan["batch"] * plan["seq"]
    counts = [line["tokens"] for line in lines]
    if counts != [each * step for step in steps]:
        raise Failed(f"a step is {each} tokens, it counted {counts}")
    first, last = lines[plan["warmup"] - 1], lines[-1]
    seconds = last["arrived"] - first["arrived"]
    tokens = last["tokens"] - first["tokens"]
    # Its own clock is no part of the figure, but has to agree with ours.
    own = last["seconds"] - first["seconds"]
    if abs(own - seconds) > 0.02 * seconds + 0.05:
        say(f"    warning: {seconds:.3f} s by our clock are {own:.3f} s by its own")
    between = [b["arrived"] - a["arrived"] for a, b in zip(lines[plan["warmup"] - 1 :], lines[plan["warmup"] :])]
    return {
        "tokens_per_second": tokens / seconds,
        "timed_tokens": tokens,
        "timed_seconds": seconds,
        "step_seconds_median": statistics.median(between),
        "step_seconds_least": min(between),
        "first_step_after_seconds": lines[0]["arrived"],
        "losses": [line["loss"] for line in lines],
        "peak_resident_bytes": result["peak_resident_bytes"],
        "peak_resident_bytes_with_exit": result["peak_resident_bytes_with_exit"],
        "peak_device_bytes": result["peak_device_bytes"],
        "wall_seconds": result["wall_seconds"],
        "cpu_seconds": result["cpu_seconds"],
        "others_share": result["others_share"],
        "reported": {key: value for key, value in final.items() if key not in ("event", "adapter_dir")},
    }


def fedlora_command(plan, out):
    command = [
        plan["fedlora"], "train", "--format", "json", "--log-every", "1",
        "--base", plan["folder"], "--data", str(plan["made"] / "data.jsonl"), "--out", str(out), "--restart",
        "--init-adapter", str(plan["made"] / "adapter"), "--no-shuffle",
        "--steps", str(plan["steps"]), "--batch", str(plan["batch"]), "--seq", str(plan["seq"]),
        "--lr", str(plan["lr"]), "--schedule", "constant", "--warmup", "0", "--clip", "1.0", "--weight-decay", "0.01",
        "--device", plan["device"], "--threads", str(plan["threads"]),
        # No checkpoint while the time is taken: the other side writes none.
        "--checkpoint-every", "1000000",
    ]  # fmt: skip
    if plan["checkpointing"]:
        command += ["--memory", "low"]
    return command + plan["fedlora_args"]


def peft_command(plan):
    command = [
        plan["python"], str(HERE / "peft_train.py"), "--made", str(plan["made"]), "--steps", str(plan["steps"]),
        "--threads", str(plan["threads"]), "--lr", str(plan["lr"]), "--device", plan["device"], "--dtype", plan["dtype"],
    ]  # fmt: skip
    if plan["checkpointing"]:
        command.append("--checkpointing")
    if plan["compile"]:
        command.append("--compile")
    return command


def run_side(side, pair, plan):
    logs = plan["work"] / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    out = plan["work"] / "trained"
    threads = {name: str(plan["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    command = fedlora_command(plan, out) if side == "fedlora" else peft_command(plan)
    environment = threads | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    try:
        result = run(command, environment, logs / f"{pair}-{side}.txt", plan["device"])
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return figures(result, plan)


# --- The comparison -----------------------------------------------------------------------------


def prepare(args, shape, plan):
    """Makes model, adapter and records where they are not there yet. Returns made.json."""
    wanted = {key: plan[key] for key in ("batch", "seq", "steps", "rank", "seed")}
    wanted |= {"shape": args.shape, "base": args.base.name if args.base else None, "targets": args.targets.split(",")}
    path = plan["made"] / "made.json"
    if path.exists():
        made = json.loads(path.read_text())
        if all(made.get(key) == value for key, value in wanted.items()):
            return made
    say(f"making model and records in {plan['made']}")
    command = [plan["python"], str(HERE / "make_model.py"), "--shape", args.shape, "--out", str(plan["made"])]
    for key in ("batch", "seq", "steps", "rank", "seed"):
        command += [f"--{key}", str(plan[key])]
    command += ["--targets", args.targets]
    if args.base:
        command += ["--base", str(args.base)]
    subprocess.run(command, check=True)
    return json.loads(path.read_text())


def fingerprint(plan, sides):
    """What a stored result must have been made with to count for this call."""
    kept = {key: value for key, value in plan.items() if key not in ("work", "made")}
    if "fedlora" in sides:
        kept["binary"] = digest_of(plan["fedlora"])
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


class Store:
    """Results as they come, in a file that is replaced whole."""

    def __init__(self, path, key, fresh):
        self.path = path
        self.content = {"key": key, "runs": {}}
        if path.exists() and not fresh:
            old = json.loads(path.read_text())
            if old.get("key") == key:
                self.content = old
            else:
                say("earlier results are of other parameters or another binary: beginning anew")

    def get(self, pair, side):
        return self.content["runs"].get(f"{pair}-{side}")

    def put(self, pair, side, result):
        self.content["runs"][f"{pair}-{side}"] = result
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(self.content))
        partial.replace(self.path)


def memory_of(result, device):
    return result["peak_resident_bytes" if device == "cpu" else "peak_device_bytes"]


def loss_difference(pair):
    """The largest relative difference of a step's losses between the sides."""
    return max(abs(a - b) / abs(b) for a, b in zip(pair["fedlora"]["losses"], pair["peft"]["losses"]))


def line_of(pair, side, result, device, stored):
    return (
        f"  pair {pair}  {side:<8} {result['tokens_per_second']:10.1f} tokens/s"
        f"  {memory_of(result, device) / MIB:8.0f} MiB"
        f"  others {100 * result['others_share']:4.1f} %" + ("  (kept)" if stored else "")
    )


def summarise(results, plan, tolerance):
    """Medians and ratios over the pairs."""
    device = plan["device"]
    summary = {}
    for side in SIDES:
        runs = [pair[side] for pair in results if side in pair]
        if not runs:
            continue
        summary[side] = {
            "tokens_per_second": statistics.median(run["tokens_per_second"] for run in runs),
            "tokens_per_second_all": [run["tokens_per_second"] for run in runs],
            "peak_memory_bytes": statistics.median(memory_of(run, device) for run in runs),
            "most_others_share": max(run["others_share"] for run in runs),
        }
    whole = [pair for pair in results if set(pair) == set(SIDES)]
    if whole:
        speed = [p["fedlora"]["tokens_per_second"] / p["peft"]["tokens_per_second"] for p in whole]
        memory = [memory_of(p["fedlora"], device) / memory_of(p["peft"], device) for p in whole]
        difference = max(map(loss_difference, whole))
        summary["ratios"] = {
            "speed_median": statistics.median(speed),
            "speed_all": speed,
            "memory_median": statistics.median(memory),
            "memory_all": memory,
            "largest_loss_difference": difference,
            "losses_agree": difference <= tolerance,
        }
        if device == "cpu":
            # Stricter: as if torch, transformers and peft took no memory by being imported.
            beyond = [
                memory_of(p["fedlora"], device)
                / max(memory_of(p["peft"], device) - p["peft"]["reported"]["memory_after_imports_bytes"], 1)
                for p in whole
            ]
            summary["ratios"]["memory_median_without_imports"] = statistics.median(beyond)
    return summary


def show(summary, plan):
    say()
    say(f"{'':<10}{'tokens/s (median)':>20}{'least':>10}{'most':>10}{'peak memory':>16}")
    for side in SIDES:
        if side in summary:
            one = summary[side]
            every = one["tokens_per_second_all"]
            say(
                f"{side:<10}{one['tokens_per_second']:20.1f}{min(every):10.1f}{max(every):10.1f}"
                f"{one['peak_memory_bytes'] / MIB:12.0f} MiB"
            )
    if "ratios" in summary:
        ratios = summary["ratios"]
        say(f"speed, fedlora / PEFT, median of pairs:   {ratios['speed_median']:.3f}")
        say("  each pair:                              " + " ".join(f"{x:.3f}" for x in ratios["speed_all"]))
        say(f"memory, fedlora / PEFT, median of pairs:  {ratios['memory_median']:.3f}")
        if "memory_median_without_imports" in ratios:
            say(f"  PEFT without what its imports take:     {ratios['memory_median_without_imports']:.3f}")
        say(f"largest difference of a step's loss:      {ratios['largest_loss_difference']:.1e}")
        if not ratios["losses_agree"]:
            say("warning: the losses differ by more than rounding explains: the sides did not do the same")
    most = max(summary[side]["most_others_share"] for side in SIDES if side in summary)
    if most > NOISE:
        say(f"warning: others took up to {100 * most:.0f} % of the machine: measure on a quiet one")


def compare(args):
    shape = SHAPES[args.shape]
    chosen = lambda name: getattr(args, name) if getattr(args, name) is not None else getattr(shape, name)  # noqa: E731
    work = (args.work or ROOT / "target/bench" / args.shape).resolve()
    plan = {
        "shape": args.shape,
        "batch": chosen("batch"),
        "seq": chosen("seq"),
        "steps": chosen("steps"),
        "warmup": chosen("warmup"),
        "dtype": chosen("dtype"),
        "device": chosen("device"),
        "rank": args.rank,
        "targets": args.targets,
        "seed": args.seed,
        "lr": args.lr,
        "threads": args.threads,
        "checkpointing": args.checkpointing,
        "compile": args.compile,
        "fedlora": str(args.fedlora.resolve()),
        "fedlora_args": args.fedlora_arg,
        "python": args.python,
        "work": work,
        "made": work / "made",
    }
    if not 1 <= plan["warmup"] < plan["steps"]:
        sys.exit(f"error: {plan['warmup']} warm-up steps of {plan['steps']}: expected at least 1, and one to be timed")
    sides = [side for side in SIDES if args.only in (None, side)]
    if "fedlora" in sides and not args.fedlora.exists():
        sys.exit(f"error: {args.fedlora} is missing: run `cargo build --release -p fedlora-client`, or give --fedlora")
    if args.base and not args.base.exists():
        sys.exit(f"error: {args.base} is missing")
    work.mkdir(parents=True, exist_ok=True)
    made = prepare(args, shape, plan)
    plan["folder"] = args.fedlora_base or made["folder"]
    store = Store(work / "runs.json", fingerprint(plan, sides), args.fresh)

    say(
        f"{args.shape}: {made['model']['parameters']:,} parameters, batch {plan['batch']} x {plan['seq']} tokens, "
        f"rank {plan['rank']}, {plan['dtype']}, {plan['device']}, {plan['threads']} threads, "
        f"{plan['steps'] - plan['warmup']} steps after {plan['warmup']}, {args.pairs} pairs"
    )
    results, failures = [], []
    for pair in range(1, args.pairs + 1):
        results.append({})
        for side in sides:
            stored = store.get(pair, side)
            try:
                result = stored or run_side(side, pair, plan)
            except Failed as error:
                # The other side is still worth its figure.
                say(f"  pair {pair}  {side:<8} failed: {error}")
                failures.append({"pair": pair, "side": side, "error": str(error)})
                continue
            if not stored:
                store.put(pair, side, result)
            results[-1][side] = result
            say(line_of(pair, side, result, plan["device"], stored))
    if not any(results):
        sys.exit("error: no run came to its end")

    summary = summarise(results, plan, shape.tolerance)
    show(summary, plan)
    peft = next((pair["peft"]["reported"] for pair in results if "peft" in pair), {})
    document = {
        "schema_version": 1,
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(plan["device"]),
        "versions": {
            "fedlora": fedlora_version(args.fedlora) if "fedlora" in sides else None,
            **peft.get("versions", {}),
            "torch_build": peft.get("torch_build"),
        },
        "parameters": {
            key: value for key, value in plan.items() if key not in ("work", "made", "folder", "fedlora", "python")
        },
        "model": made["model"],
        "summary": summary,
        "failures": failures,
        "pairs": results,
    }
    path = args.json or work / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    say(f"\nwritten: {path}")
    return document


def self_check(args):
    """Two pairs of the tiny shape, and what has to hold of their figures."""
    args.shape, args.pairs, args.fresh = "tiny", 2, True
    args.base = args.batch = args.seq = args.steps = args.warmup = args.dtype = args.device = None
    args.work = args.work or ROOT / "target/bench/self-check"
    document = compare(args)
    parameters, ratios = document["parameters"], document["summary"].get("ratios")
    problems = []
    if document["failures"] or ratios is None:
        problems.append("a run failed")
    else:
        if not ratios["losses_agree"]:
            problems.append(f"losses differ by {ratios['largest_loss_difference']:.1e}")
        timed = parameters["batch"] * parameters["seq"] * (parameters["steps"] - parameters["warmup"])
        for number, pair in enumerate(document["pairs"], 1):
            for side, one in pair.items():
                if one["timed_tokens"] != timed:
                    problems.append(f"pair {number}: {side} was timed over {one['timed_tokens']} tokens, not {timed}")
                reported = one["reported"]["peak_memory_bytes"]
                if abs(reported - one["peak_resident_bytes"]) > 0.1 * one["peak_resident_bytes"] + 8 * MIB:
                    problems.append(f"pair {number}: {side} says {reported} bytes, the kernel says otherwise")
    # Runs that are not what was asked for have to be refused.
    good = document["pairs"][0].get("peft")
    if good:
        lines = [
            {"step": step, "tokens": 128 * step, "loss": 1.0, "seconds": float(step), "arrived": float(step)}
            for step in range(1, parameters["steps"] + 1)
        ]
        rest = {**good, "final": {"event": "finished"}}
        figures({**rest, "lines": lines}, parameters)
        for what, bad in (
            ("a missing step", {**rest, "lines": lines[:-1]}),
            ("fewer tokens", {**rest, "lines": [{**line, "tokens": line["tokens"] // 2} for line in lines]}),
            ("no last document", {**rest, "lines": lines, "final": None}),
        ):
            try:
                figures(bad, parameters)
            except Failed:
                continue
            problems.append(f"{what} was let pass")
    for problem in problems:
        say(f"self-check: {problem}")
    say("self-check: " + ("failed" if problems else "ok"))
    return 1 if problems else 0


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="The head of this file says how it is measured."
    )
    parser.add_argument("--shape", choices=SHAPES, default="8m")
    parser.add_argument("--base", type=Path, help="folder or GGUF file of the shape smollm2")
    parser.add_argument("--fedlora", type=Path, default=ROOT / "target/release/fedlora", help="the program")
    parser.add_argument("--fedlora-base", help="give fedlora this base instead of what PEFT loads (a GGUF file, say)")
    parser.add_argument("--fedlora-arg", action="append", default=[], help="one more argument of fedlora train")
    parser.add_argument("--python", default=sys.executable, help="the Python with torch, transformers and peft")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", choices=SIDES, help="run one side alone")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", help="cpu or cuda:N")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of PEFT's base and activations")
    parser.add_argument("--batch", type=int, help="records a step")
    parser.add_argument("--seq", type=int, help="tokens a record")
    parser.add_argument("--steps", type=int, help="steps of a run, warm-up included")
    parser.add_argument("--warmup", type=int, help="first steps that are not timed")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpointing", action="store_true", help="both sides compute each block twice")
    parser.add_argument("--compile", action="store_true", help="PEFT's model through torch.compile")
    parser.add_argument("--work", type=Path, help="folder of models and results [default: target/bench/SHAPE]")
    parser.add_argument("--json", type=Path, help="where to write the result [default: result.json in --work]")
    parser.add_argument("--fresh", action="store_true", help="do not go on with an earlier call's runs")
    parser.add_argument("--self-check", action="store_true", help="two pairs of a tiny shape, and check the figures")
    args = parser.parse_args()
    if args.pairs < 1 or args.threads < 1:
        parser.error("--pairs and --threads are at least 1")
    if args.self_check:
        sys.exit(self_check(args))
    document = compare(args)
    ratios = document["summary"].get("ratios", {})
    sys.exit(1 if document["failures"] or not ratios.get("losses_agree", True) else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
