#!/usr/bin/env python3
"""Golden greedy continuations, from Transformers' `generate` with its own cache, with and without
a PEFT adapter, and the likelihoods of the continuations' tokens.

    python3 -m venv venv && venv/bin/pip install torch transformers peft
    venv/bin/python examples/oracle/generation.py

Run from the repository's top, after make_golden.py. Writes client/tests/golden/generation.json.
"""

import json
from pathlib import Path

import peft
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM

GOLDEN = Path("client/tests/golden")
NEW = 30
# Nearer candidates than this could come out either way in another order of additions.
MARGIN = 1e-3

torch.set_num_threads(1)


def continuation(model, prompt):
    ids = torch.tensor([prompt])
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NEW,
            eos_token_id=None,
            pad_token_id=0,
        )[0].tolist()
        logits = model(input_ids=torch.tensor([out])).logits[0, len(prompt) - 1 : -1].double()
    new = out[len(prompt) :]
    assert len(new) == NEW
    best = logits.topk(2, dim=1).values
    margin = (best[:, 0] - best[:, 1]).min().item()
    assert margin > MARGIN, f"too close to call: {margin}"
    likelihoods = torch.log_softmax(logits, dim=1).gather(1, torch.tensor(new)[:, None])[:, 0]
    return {"prompt": prompt, "tokens": new, "log_likelihoods": likelihoods.tolist(), "margin": margin}


def load(path):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    return model


def first_that_is_clear(model, vocab, length):
    """The first of some prompts of the same rule whose continuation has no close call."""
    for seed in range(50):
        prompt = [(7 * seed + 3 + 11 * i * (i + 1)) % vocab for i in range(length)]
        try:
            return continuation(model, prompt)
        except AssertionError:
            continue
    raise SystemExit("no prompt has a clear continuation")


def main():
    tiny = load(GOLDEN / "tiny")
    base = load("examples/assets/base")
    golden = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "tiny": first_that_is_clear(tiny, 64, 8),
        "base": first_that_is_clear(base, base.config.vocab_size, 40),
    }
    adapted = PeftModel.from_pretrained(base, GOLDEN / "theirs").eval()
    golden["theirs"] = first_that_is_clear(adapted, base.config.vocab_size, 40)
    path = GOLDEN / "generation.json"
    path.write_text(json.dumps(golden) + "\n")
    print(path, {name: golden[name]["margin"] for name in ("tiny", "base", "theirs")})


if __name__ == "__main__":
    main()
