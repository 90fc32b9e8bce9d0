"""Trainings in PyTorch and PEFT, for client/tests/curve.rs: the losses, the gradients' norms, and
the adapter that each begins with.

Run from the top of the repository, where client/tests/golden/tiny and architectures/ are the models:

    python -m venv oracle && oracle/bin/pip install torch transformers peft
    oracle/bin/python examples/oracle/training_curve.py
    cargo test -p fedlora-client --test curve

The second command makes all curves, or those whose names follow.
"""

import json
import math
import shutil
import sys
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "client/tests/golden"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BATCH, RATE, WARMUP, CLIP, PROMPT = 4, 5e-3, 5, 1.0, 4
# Name of what is written, the model, steps, and the adapter's rank.
RUNS = [
    ("curve", "tiny", 50, 8),
    ("curve-qwen3", "architectures/qwen3", 20, 4),
    ("curve-gemma3", "architectures/gemma3", 20, 4),
]


def examples(vocab):
    """Sequences of different lengths that have something to learn: each goes up by a step of its own."""
    made = []
    for i in range(24):
        start, step = 11 * i % vocab, 1 + i % 5
        made.append([(start + step * j + (j * j) % (1 + i % 3)) % vocab for j in range(12 + 5 * i % 13)])
    return made


def factor(step, steps):
    """Linear warm-up, then half a cosine down to zero."""
    if step < WARMUP:
        return (step + 1) / (WARMUP + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP)))


def run(name, base, steps, rank):
    model = AutoModelForCausalLM.from_pretrained(GOLDEN / base, dtype=torch.float32)
    torch.manual_seed(5)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    start = GOLDEN / f"{name}-start"
    if start.exists():
        shutil.rmtree(start)
    adapted.save_pretrained(start)
    # PEFT notes where the base was on this machine: say where it is in the repository.
    file = start / "adapter_config.json"
    file.write_text(file.read_text().replace(f"{ROOT}/", ""))
    (start / "README.md").unlink(missing_ok=True)

    data = examples(model.config.vocab_size)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE)
    losses, norms = [], []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * factor(step, steps)
        chosen = [data[(step * BATCH + i) % len(data)] for i in range(BATCH)]
        longest = max(len(tokens) for tokens in chosen)
        ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in chosen])
        mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens in chosen])
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, :PROMPT] = -100
        loss = adapted(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, CLIP).item())
        optimizer.step()
        losses.append(loss.item())
    golden = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "steps": steps,
        "batch": BATCH,
        "rate": RATE,
        "warmup": WARMUP,
        "clip": CLIP,
        "prompt": PROMPT,
        "examples": data,
        "losses": losses,
        "norms": norms,
    }
    (GOLDEN / f"{name}.json").write_text(json.dumps(golden) + "\n")
    print(name, "losses:", " ".join(f"{loss:.4f}" for loss in losses))
    print(f"{sum(norm > CLIP for norm in norms)} of {steps} steps are clipped")


def main():
    for name, base, steps, rank in RUNS:
        if not sys.argv[1:] or name in sys.argv[1:]:
            run(name, base, steps, rank)


if __name__ == "__main__":
    main()
