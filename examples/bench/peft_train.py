"""The PyTorch + PEFT side of the benchmark: LoRA training as one writes it with these libraries.

    python examples/bench/peft_train.py --made target/bench/8m/made --steps 45 --threads 2
    python examples/bench/peft_train.py --made target/bench/8m/made --steps 12 --threads 2 --profile

Transformers' model with SDPA attention, PEFT's adapter on it, AdamW, gradients clipped at norm 1. In f32;
on a GPU with a bf16 base under autocast, adapter and optimizer in f32. Prints a line of JSON after
each step and one at the end, with the names that `fedlora train --format json` uses.

--profile prints instead where the time of the last steps went, by kind of operation.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path


def memory(field):
    """A field of this process's status in bytes, such as VmHWM, the most memory it held."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


def say(document):
    print(json.dumps(document), flush=True)


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--made", type=Path, required=True, help="the folder that make_model.py wrote")
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--device", default="cpu")
parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
parser.add_argument("--lr", type=float, default=2e-4)
parser.add_argument("--checkpointing", action="store_true", help="compute each block twice, keep its input alone")
parser.add_argument("--compile", action="store_true", help="torch.compile the model")
parser.add_argument("--profile", action="store_true")
parser.add_argument("--profiled-steps", type=int, default=5)
args = parser.parse_args()

# Before torch is imported: its OpenMP runtime reads it once.
os.environ["OMP_NUM_THREADS"] = str(args.threads)

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from peft import PeftModel  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

torch.set_num_threads(args.threads)
torch.set_num_interop_threads(1)
AFTER_IMPORTS = memory("VmHWM")


def load(made):
    """The adapted model and the parameters that are trained."""
    model = AutoModelForCausalLM.from_pretrained(
        made["folder"], dtype=getattr(torch, args.dtype), attn_implementation="sdpa", device_map=None
    )
    model.config.use_cache = False
    model.to(args.device)
    model = PeftModel.from_pretrained(model, args.made / "adapter", is_trainable=True)
    if args.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if any(parameter.dtype != torch.float32 for parameter in trained):
        sys.exit("error: an adapter's factor is not in f32")
    return model, trained


def batches(made):
    """The records' ids, batch by batch, in the order of the file, over and over."""
    with open(args.made / "ids.jsonl") as lines:
        rows = [json.loads(line) for line in lines]
    if any(len(row) != made["seq"] for row in rows):
        sys.exit(f"error: a record is not of {made['seq']} tokens")
    ids = torch.tensor(rows).split(made["batch"])
    for step in range(args.steps):
        yield ids[step % len(ids)].to(args.device)


def train():
    made = json.loads((args.made / "made.json").read_text())
    model, trained = load(made)
    after_loading = memory("VmHWM")
    forward = torch.compile(model) if args.compile else model
    optimizer = torch.optim.AdamW(trained, lr=args.lr, weight_decay=0.01)
    on_gpu = args.device != "cpu"
    autocast = torch.autocast("cuda" if on_gpu else "cpu", torch.bfloat16, enabled=args.dtype == "bfloat16")
    profiler = None
    if args.profile:
        profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
    begun, tokens, losses = time.monotonic(), 0, []
    for step, ids in enumerate(batches(made), 1):
        if profiler and step == args.steps - args.profiled_steps + 1:
            profiler.__enter__()
        with autocast:
            loss = forward(input_ids=ids, labels=ids).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        # `item` waits for the device: the line comes after the step.
        losses.append(loss.item())
        if on_gpu:
            torch.cuda.synchronize()
        tokens += ids.numel()
        say(
            {
                "event": "step",
                "step": step,
                "steps": args.steps,
                "loss": losses[-1],
                "gradient_norm": norm.item(),
                "tokens": tokens,
                "seconds": time.monotonic() - begun,
            }
        )
    seconds = time.monotonic() - begun
    if profiler:
        profiler.__exit__(None, None, None)
        report(profiler)
    say(
        {
            "event": "finished",
            "steps": args.steps,
            "train_loss": sum(losses) / len(losses),
            "tokens": tokens,
            "tokens_per_second": tokens / seconds,
            "peak_memory_bytes": memory("VmHWM"),
            "memory_after_imports_bytes": AFTER_IMPORTS,
            "memory_after_loading_bytes": after_loading,
            "device_peak_allocated_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
            "device_peak_reserved_bytes": torch.cuda.max_memory_reserved() if on_gpu else None,
            "trained_parameters": sum(parameter.numel() for parameter in trained),
            "versions": {
                "python": sys.version.split()[0],
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "peft": peft.__version__,
            },
            "torch_build": {
                "cpu_capability": torch.backends.cpu.get_cpu_capability(),
                "mkl": torch.backends.mkl.is_available(),
                "onednn": torch.backends.mkldnn.is_available(),
                "threads": torch.get_num_threads(),
            },
        }
    )


# Kinds of operation by what the profiler calls them; the first that fits counts.
KINDS = [
    ("attention", ("scaled_dot_product", "_flash_attention", "_efficient_attention")),
    ("cross-entropy", ("log_softmax", "nll_loss", "cross_entropy")),
    ("optimizer and clipping", ("adam", "_foreach", "addcdiv", "addcmul", "linalg", "norm_ext", "lerp")),
    ("products", ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear", "aten::matmul", "mkldnn_linear")),
    ("silu", ("silu",)),
    ("copies and layout", ("copy_", "clone", "cat", "contiguous", "_to_copy", "transpose", "expand", "view")),
    ("filling", ("fill_", "zero_", "zeros", "empty", "ones")),
    ("reductions", ("mean", "sum", "rsqrt", "pow")),
    ("other elementwise", ("mul", "add", "neg", "div", "sub")),
]


def report(profiler):
    """Self time of the profiled steps by kind, and the largest operations."""
    events = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    kinds = {}
    for event in events:
        name = event.key.lower()
        kind = next((kind for kind, parts in KINDS if any(part in name for part in parts)), "other")
        kinds[kind] = kinds.get(kind, 0) + event.self_cpu_time_total
    steps = args.profiled_steps
    print(f"\n{total / steps / 1e3:.1f} ms a step of self time, by kind:", file=sys.stderr)
    for kind, spent in sorted(kinds.items(), key=lambda item: -item[1]):
        print(f"  {kind:<24}{spent / steps / 1e3:9.2f} ms {100 * spent / total:6.1f} %", file=sys.stderr)
    print("the largest operations:", file=sys.stderr)
    for event in sorted(events, key=lambda event: -event.self_cpu_time_total)[:25]:
        spent = event.self_cpu_time_total
        print(
            f"  {event.key[:58]:<58}{event.count / steps:8.1f} x{spent / steps / 1e3:9.2f} ms"
            f" {100 * spent / total:6.1f} %",
            file=sys.stderr,
        )


train()
