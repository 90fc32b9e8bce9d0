#!/usr/bin/env python3
"""Compares `fedlora eval` and `fedlora generate` on a real checkpoint with Transformers and PEFT.

    python3 -m venv venv && venv/bin/pip install torch transformers peft
    venv/bin/python examples/oracle/check_smollm2.py --folder FOLDER --gguf FILE --fedlora target/release/fedlora

FOLDER is the checkpoint as Transformers loads it, FILE (if given) the GGUF file of the same
weights. Three comparisons, each in f32:

 1. the mean loss of the text records, from the folder and from the file,
 2. the same with an adapter that PEFT made and saved, both factors random,
 3. greedy continuations of several prompts, token for token.

Prints each figure. Exits with 1 where a loss differs by more than 1e-4 relative or a token differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

DATA = Path(__file__).resolve().parents[1] / "assets/data"
LIMIT = 1e-4
PROMPTS = [
    "What is a buffer overflow?",
    "Write a haiku about the sea.",
    "Explain in two sentences why the sky is blue.",
    "List three prime numbers above 100.",
    "Übersetze ins Englische: Der Hund schläft unter dem Tisch. 🐕",
]
PLAIN = ["The capital of France is", "def fibonacci(n):\n", "Once upon a time, in a village by the sea,"]


def texts(count):
    """Plain text of the embedded records: question and answer."""
    found = []
    for path in sorted(DATA.glob("*.heldout.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            parts = [record[name] for name in ("instruction", "input", "output") if record.get(name)]
            found.append("\n\n".join(parts))
    step = max(1, len(found) // count)
    return found[::step][:count]


def mean_loss(model, tokenizer, records, seq):
    total, count = 0.0, 0
    for text in records:
        ids = torch.tensor([tokenizer(text).input_ids[:seq]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0]
        total += torch.nn.functional.cross_entropy(
            logits[:-1].float(), ids[0, 1:], reduction="none"
        ).double().sum().item()
        count += ids.shape[1] - 1
    return total / count, count


def fedlora(program, *arguments):
    run = subprocess.run([program, *map(str, arguments), "--format", "json", "--quiet"], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{program} {arguments[0]} ended with {run.returncode}: {run.stderr}")
    return json.loads(run.stdout)


def random_adapter(model, folder):
    """Both factors random and large enough to change the loss."""
    torch.manual_seed(7)
    adapted = get_peft_model(
        model,
        LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.04)
    adapted.save_pretrained(folder)
    return adapted.unload()


def new_tokens(model, ids, count):
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    prompt = torch.tensor([ids])
    with torch.no_grad():
        out = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=count,
            pad_token_id=0,
        )[0].tolist()[len(ids) :]
    return out[:-1] if out and out[-1] in ends else out


def margin(model, ids):
    """By how much the likeliest token is ahead, where one differs."""
    with torch.no_grad():
        two = model(input_ids=torch.tensor([ids])).logits[0, -1].topk(2).values
    return (two[0] - two[1]).item()


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("--folder", type=Path, required=True)
    parse.add_argument("--gguf", type=Path)
    parse.add_argument("--fedlora", required=True)
    parse.add_argument("--records", type=int, default=60)
    parse.add_argument("--seq", type=int, default=256)
    parse.add_argument("--tokens", type=int, default=64)
    parse.add_argument("--threads", type=int, default=1)
    args = parse.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}")

    bases = [args.folder] + ([args.gguf] if args.gguf else [])
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval()
    records = texts(args.records)
    right = True

    def compare(what, base, adapter, expected, count, data):
        extra = ["--adapter", adapter] if adapter else []
        got = fedlora(
            args.fedlora, "eval", "--base", base, "--data", data, "--seq", args.seq, "--threads", args.threads, *extra
        )
        relative = abs(got["loss"] - expected) / expected
        same = got["tokens"] == count and relative <= LIMIT
        print(
            f"{what:<22} {base.name:<36} loss {got['loss']:.7f}, expected {expected:.7f}: {relative:.1e} relative, "
            f"{got['tokens']} of {count} tokens, accuracy {got['token_accuracy']:.4f}{'' if same else '   DIFFERS'}"
        )
        return same

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "records.jsonl"
        data.write_text("".join(json.dumps({"text": text}) + "\n" for text in records))
        expected, count = mean_loss(model, tokenizer, records, args.seq)
        for base in bases:
            right &= compare("base", base, None, expected, count, data)
        adapter = Path(folder) / "adapter"
        model = random_adapter(model, adapter)
        adapted = PeftModel.from_pretrained(model, adapter).eval()
        expected, count = mean_loss(adapted, tokenizer, records, args.seq)
        for base in bases:
            right &= compare("with PEFT's adapter", base, adapter, expected, count, data)
        cases = [(prompt, False, None) for prompt in PROMPTS] + [(prompt, True, None) for prompt in PLAIN]
        cases.append((PROMPTS[0], False, adapter))
        for prompt, raw, with_adapter in cases:
            if raw:
                ids = tokenizer(prompt).input_ids
            else:
                turns = [{"role": "user", "content": prompt}]
                text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
                ids = tokenizer(text, add_special_tokens=False).input_ids
            if with_adapter is None:
                adapted.base_model.disable_adapter_layers()
            else:
                adapted.base_model.enable_adapter_layers()
            expected = new_tokens(adapted, ids, args.tokens)
            for base in bases:
                extra = (["--raw"] if raw else []) + (["--adapter", with_adapter] if with_adapter else [])
                got = fedlora(
                    args.fedlora, "generate", "--base", base, "--prompt", prompt, "--max-tokens", args.tokens,
                    "--greedy", "--threads", args.threads, *extra,
                )
                tokens = got["token_ids"]
                same = sum(1 for _ in iter_same(tokens, expected))
                whole = tokens == expected and got["prompt_tokens"] == len(ids)
                right &= whole
                how = "raw" if raw else "chat"
                how += " with adapter" if with_adapter else ""
                note = ""
                if not whole:
                    ahead = margin(adapted, ids + expected[:same])
                    note = f"   DIFFERS; the likeliest token is {ahead:.1e} ahead there"
                print(
                    f"greedy, {how:<18} {base.name:<36} {same} of {len(expected)} tokens equal, ended by "
                    f"{got['finish_reason']}, {got['tokens_per_second'] or 0:.1f} tokens/s{note}"
                )
    print("all agree" if right else "SOMETHING DIFFERS")
    sys.exit(0 if right else 1)


def iter_same(left, right):
    for one, other in zip(left, right):
        if one != other:
            return
        yield one


if __name__ == "__main__":
    main()
