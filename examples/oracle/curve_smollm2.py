"""Fifty steps of LoRA training on a real checkpoint in PyTorch and PEFT (f32), to lay beside
those of `fedlora train` from the same adapter, on the same records in the same order.

    python -m venv oracle && oracle/bin/pip install torch transformers peft
    oracle/bin/python examples/oracle/curve_smollm2.py --base MODEL --data text.jsonl --work target/curve
    oracle/bin/python examples/oracle/curve_smollm2.py --base MODEL --data text.jsonl --work target/curve \\
        --compare target/curve/fedlora/metrics.jsonl

The first writes the adapter to begin with (WORK/start) and the losses (WORK/losses.json), and prints
the `fedlora train` command to run; the second prints the two curves and how far they are apart.
The records are of the plain form, {"text": ...}: every next token counts.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

STEPS, BATCH, SEQ, RATE, WARMUP, CLIP, RANK = 50, 2, 128, 5e-4, 5, 1.0, 8
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=Path, required=True, help="a Hugging Face folder")
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines with a field text")
    parser.add_argument("--work", type=Path, required=True, help="where to write")
    parser.add_argument("--compare", type=Path, help="the metrics.jsonl of a fedlora training")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def factor(step):
    """Linear warm-up, then half a cosine down to zero."""
    if step < WARMUP:
        return (step + 1) / (WARMUP + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def sequences(base, data):
    """The records as `fedlora train` makes them: special tokens as the tokenizer adds them, cut at SEQ."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    made = []
    for line in data.read_text().splitlines():
        tokens = tokenizer(json.loads(line)["text"]).input_ids[:SEQ]
        if len(tokens) > 1:
            made.append(tokens)
    return made


def train(args):
    import peft
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    data = sequences(args.base, args.data)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32)
    torch.manual_seed(7)
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(args.work / "start")
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE)
    # A pass ends with a smaller batch where the records do not come out even, as fedlora's do.
    passes = [data[at : at + BATCH] for at in range(0, len(data), BATCH)]
    losses, norms, tokens, begun = [], [], 0, time.monotonic()
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * factor(step)
        chosen = passes[step % len(passes)]
        longest = max(len(ids) for ids in chosen)
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in chosen])
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in chosen])
        labels = ids.masked_fill(mask == 0, -100)
        loss = adapted(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, CLIP).item())
        optimizer.step()
        losses.append(loss.item())
        tokens += sum(len(ids) for ids in chosen)
        print(f"step {step + 1}/{STEPS}  loss {losses[-1]:.5f}  norm {norms[-1]:.4f}", file=sys.stderr)
    seconds = time.monotonic() - begun
    versions = {name: module.__version__ for name, module in [("torch", torch), ("transformers", transformers), ("peft", peft)]}
    written = {**versions, "losses": losses, "norms": norms, "tokens": tokens, "seconds": seconds}
    (args.work / "losses.json").write_text(json.dumps(written) + "\n")
    print(
        f"fedlora train --base {args.base} --data {args.data} --out {args.work}/fedlora "
        f"--init-adapter {args.work}/start --no-shuffle --steps {STEPS} --batch {BATCH} --seq {SEQ} "
        f"--lr {RATE} --warmup {WARMUP} --clip {CLIP} --threads {args.threads}"
    )


def compare(args):
    theirs = json.loads((args.work / "losses.json").read_text())
    lines = [json.loads(line) for line in args.compare.read_text().splitlines()]
    ours = [line for line in lines if "loss" in line]
    if len(ours) != len(theirs["losses"]):
        sys.exit(f"{len(ours)} steps instead of {len(theirs['losses'])}")
    print("step   PEFT loss   fedlora loss   relative   PEFT norm   fedlora norm")
    worst = 0.0
    for step, (line, loss, norm) in enumerate(zip(ours, theirs["losses"], theirs["norms"]), 1):
        off = abs(line["loss"] / loss - 1)
        worst = max(worst, off)
        print(f"{step:4}   {loss:9.5f}   {line['loss']:12.5f}   {off:8.1e}   {norm:9.4f}   {line['gradient_norm']:12.4f}")
    versions = ", ".join(f"{name} {theirs[name]}" for name in ["torch", "transformers", "peft"])
    print(f"largest relative difference of the losses {worst:.1e} ({versions})")
    if worst > 1e-3:
        sys.exit("more than 1e-3")


def main():
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.compare:
        compare(args)
    else:
        train(args)


if __name__ == "__main__":
    main()
