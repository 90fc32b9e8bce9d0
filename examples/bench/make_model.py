"""Makes what one benchmark trains: model, first adapter, records, and the records as token ids.

    python examples/bench/make_model.py --shape 8m --out target/bench/8m/made
    python examples/bench/make_model.py --shape smollm2 --base SmolLM2-135M-Instruct.Q4_1.gguf --out target/bench/smollm2/made

compare.py runs it. Needs torch, safetensors, tokenizers and peft; for a GGUF file also transformers
and gguf. Everything is drawn from --seed; the weights of a bf16 shape on a GPU where there is one.

- `model/`: a Hugging Face folder. Random weights (normal, standard deviation 0.02) with the tokenizer
  of examples/assets/base; or --base: a folder is taken as it is, a GGUF file is converted to f32, so
  that both sides train the same values in the same type.
- `adapter/`: a PEFT adapter as PEFT begins: A uniform as in kaiming_uniform(a = sqrt(5)), B zero.
- `data.jsonl`: steps x batch records {"text": ...}, each longer than --seq tokens and therefore cut
  to exactly --seq by both sides. The text is that of examples/assets/data, in a drawn order.
- `ids.jsonl`: the first --seq ids of each record.
- `made.json`: what was asked for, written last.
"""

import argparse
import json
import math
import random
import shutil
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from tokenizers import Tokenizer

from shapes import SHAPES, TARGETS, Model, describe

ROOT = Path(__file__).resolve().parents[2]
SHARD_BYTES = 4 << 30


def module(target):
    block = "self_attn" if target in ("q", "k", "v", "o") else "mlp"
    return f"{block}.{target}_proj"


def tensor_shapes(model):
    """(name, shape) of all weights of a Llama checkpoint."""
    yield "model.embed_tokens.weight", (model.vocab, model.hidden)
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}"
        for target, inputs, outputs in model.linears():
            yield f"{prefix}.{module(target)}.weight", (outputs, inputs)
        yield f"{prefix}.input_layernorm.weight", (model.hidden,)
        yield f"{prefix}.post_attention_layernorm.weight", (model.hidden,)
    yield "model.norm.weight", (model.hidden,)
    if not model.tied:
        yield "lm_head.weight", (model.vocab, model.hidden)


def write_weights(model, dtype, seed, folder):
    """Random weights, shard by shard, so that a large model needs one shard's memory."""
    # A GPU draws thousands of millions of values in seconds, a processor in minutes.
    device = "cuda" if dtype == torch.bfloat16 and torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    names, shard, held, shards, total = {}, {}, 0, [], 0

    def flush():
        nonlocal shard, held
        path = folder / f"part-{len(shards)}"
        save_file(shard, path, metadata={"format": "pt"})
        shards.append((path, list(shard)))
        shard, held = {}, 0

    for name, shape in tensor_shapes(model):
        if len(shape) == 1:
            values = torch.ones(shape, dtype=dtype)
        else:
            values = torch.empty(shape, device=device).normal_(0, 0.02, generator=generator).to(dtype).cpu()
        size = values.numel() * values.element_size()
        if held and held + size > SHARD_BYTES:
            flush()
        shard[name] = values
        held += size
        total += size
    flush()
    if len(shards) == 1:
        shards[0][0].rename(folder / "model.safetensors")
        return
    for number, (path, tensors) in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        path.rename(folder / file)
        names.update(dict.fromkeys(tensors, file))
    index = {"metadata": {"total_size": total}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def write_model(model, dtype, seq, seed, folder):
    folder.mkdir(parents=True)
    base = ROOT / "examples/assets/base"
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(base / file, folder / file)
    tokenizer = json.loads((base / "config.json").read_text())
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer["bos_token_id"],
        "eos_token_id": tokenizer["eos_token_id"],
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "hidden_size": model.hidden,
        "initializer_range": 0.02,
        "intermediate_size": model.inner,
        "max_position_embeddings": max(seq, 2048),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": model.heads,
        "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "rope_theta": 500000.0,
        "tie_word_embeddings": model.tied,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
        "vocab_size": model.vocab,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write_weights(model, dtype, seed, folder)


def convert_gguf(file, folder):
    """A GGUF file as a folder of f32 weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # `save_pretrained` refuses what came out of a GGUF file, though nothing of it is quantised any more.
    tied = model.config.tie_word_embeddings
    weights = {
        name: values.contiguous() for name, values in model.state_dict().items() if not (tied and name == "lm_head.weight")
    }
    if any(values.dtype != torch.float32 for values in weights.values()):
        raise SystemExit(f"error: {file.name} did not become f32")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(key, None)
    config["architectures"] = [type(model).__name__]
    # Where Transformers 5 keeps the base of the rotary frequencies, and where everyone else does.
    rotary = config.get("rope_parameters") or {}
    config.setdefault("rope_theta", rotary.get("rope_theta"))
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def write_adapter(model, rank, targets, seed, base, folder):
    generator = torch.Generator().manual_seed(seed + 1)
    tensors = {}
    for layer in range(model.layers):
        for target, inputs, outputs in model.linears():
            if target not in targets:
                continue
            prefix = f"base_model.model.model.layers.{layer}.{module(target)}"
            # kaiming_uniform with a = sqrt(5) comes to this bound.
            bound = 1 / math.sqrt(inputs)
            drawn = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
            tensors[f"{prefix}.lora_A.weight"] = drawn
            tensors[f"{prefix}.lora_B.weight"] = torch.zeros(outputs, rank)
    LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=[f"{target}_proj" for target in targets],
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    ).save_pretrained(folder)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def passages(seed):
    """The text of the committed records, again and again, each time in another order."""
    texts = []
    for file in sorted((ROOT / "examples/assets/data").glob("*.train.jsonl")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            texts.append(" ".join(record[key] for key in ("input", "output") if record.get(key)))
    order = random.Random(seed)
    while True:
        order.shuffle(texts)
        yield from texts


def write_data(tokenizer, count, seq, seed, folder):
    """`count` records of more than `seq` tokens, and the ids that they are cut to."""
    source = passages(seed)
    with open(folder / "data.jsonl", "w") as data, open(folder / "ids.jsonl", "w") as cut:
        for _ in range(count):
            text = next(source)
            ids = tokenizer.encode(text).ids
            # More than one token beyond the cut: an end-of-text token must not be what is cut.
            while len(ids) < seq + 8:
                text = f"{text}\n{next(source)}"
                ids = tokenizer.encode(text).ids
            data.write(json.dumps({"text": text}) + "\n")
            cut.write(json.dumps(ids[:seq]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="a folder or a GGUF file, for a shape without weights of its own")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seq", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    batch, seq = args.batch or shape.batch, args.seq or shape.seq
    steps = args.steps or shape.steps
    targets = args.targets.split(",")
    if not set(targets) <= set(TARGETS):
        parser.error(f"--targets: known are {','.join(TARGETS)}")
    if (shape.model is None) != (args.base is not None):
        parser.error(f"--shape {args.shape} {'needs' if shape.model is None else 'takes no'} --base")

    if args.out.exists():
        shutil.rmtree(args.out)
    args.out.mkdir(parents=True)
    folder = args.out / "model"
    if shape.model is not None:
        write_model(shape.model, getattr(torch, shape.dtype), seq, args.seed, folder)
    elif args.base.is_dir():
        folder = args.base.resolve()
    else:
        convert_gguf(args.base, folder)
    model = Model.from_config(folder)
    write_adapter(model, args.rank, targets, args.seed, folder.name, args.out / "adapter")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    write_data(tokenizer, steps * batch, seq, args.seed, args.out)
    made = {
        "shape": args.shape,
        "base": args.base.name if args.base else None,
        "batch": batch,
        "seq": seq,
        "steps": steps,
        "rank": args.rank,
        "targets": targets,
        "seed": args.seed,
        "folder": str(folder.resolve()),
        "model": describe(model),
    }
    (args.out / "made.json").write_text(json.dumps(made, indent=2))
    print(f"{args.out}: {model.parameters():,} parameters, {steps * batch} records of {seq} tokens")


if __name__ == "__main__":
    main()
