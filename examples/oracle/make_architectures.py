"""Small random checkpoints of every supported architecture with Transformers' logits, and the
rotary frequencies of well-known models, for client/tests/architectures.rs and
client/model/src/rope.rs.

Run from the top of the repository:

    python -m venv oracle && oracle/bin/pip install torch transformers
    oracle/bin/python examples/oracle/make_architectures.py
    FEDLORA_WRITE_GOLDEN=1 cargo test -p fedlora-client --test architectures
    oracle/bin/python examples/oracle/make_architectures.py
    cargo test -p fedlora-client --test architectures

The second and the fourth command make all of them, or those whose names follow. The third command writes each configuration as fedlora does (`config.ours.json`); the fourth has
Transformers read it, and asserts that the model is the same. Weights do not change between runs.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers import Gemma3TextConfig, GraniteConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, SmolLM3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "client/tests/golden/architectures"

SHAPE = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    bos_token_id=0,
    eos_token_id=1,
    tie_word_embeddings=False,
)
# Wavelengths below 16 tokens stay, those above 64 are stretched eightfold; with heads of 16
# features and this base, one lies between.
LLAMA3_ROPE = dict(
    rope_type="llama3",
    rope_theta=500000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
YARN_ROPE = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32)


def plain(theta):
    return dict(rope_type="default", rope_theta=theta)


def linear(theta, factor):
    return dict(rope_type="linear", rope_theta=theta, factor=factor)


def gemma3(full, local, **settings):
    """With one rotation for blocks that see all, and one for those with a window."""
    return Gemma3TextConfig(**SHAPE | settings, rope_parameters=dict(full_attention=full, sliding_attention=local))


def models():
    """Name, configuration, type on disk, and the most that a shard may hold."""
    return [
        ("llama2", LlamaConfig(**SHAPE, num_key_value_heads=4, rope_parameters=plain(10000.0)), torch.float16, None),
        ("llama3", LlamaConfig(**SHAPE, num_key_value_heads=2, rope_parameters=plain(500000.0)), torch.bfloat16, "12KB"),
        (
            "llama32",
            LlamaConfig(
                **SHAPE | dict(tie_word_embeddings=True),
                num_key_value_heads=2,
                head_dim=16,
                rope_parameters=LLAMA3_ROPE,
            ),
            torch.bfloat16,
            None,
        ),
        (
            "llama-bias",
            LlamaConfig(**SHAPE, num_key_value_heads=2, attention_bias=True, rope_parameters=plain(10000.0)),
            torch.float32,
            None,
        ),
        (
            "mistral-window",
            MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=6, rope_parameters=plain(10000.0)),
            torch.float32,
            None,
        ),
        (
            "mistral",
            MistralConfig(
                **SHAPE, num_key_value_heads=1, head_dim=16, sliding_window=None, rope_parameters=plain(1000000.0)
            ),
            torch.bfloat16,
            None,
        ),
        (
            "qwen2",
            Qwen2Config(
                **SHAPE, num_key_value_heads=2, sliding_window=6, max_window_layers=1, rope_parameters=plain(1000000.0)
            ),
            torch.float32,
            None,
        ),
        (
            "qwen2-tied",
            Qwen2Config(
                **SHAPE | dict(tie_word_embeddings=True), num_key_value_heads=1, rope_parameters=plain(1000000.0)
            ),
            torch.bfloat16,
            None,
        ),
        (
            "qwen2-window",
            Qwen2Config(
                **SHAPE,
                num_key_value_heads=4,
                use_sliding_window=True,
                sliding_window=6,
                max_window_layers=0,
                rope_parameters=plain(10000.0),
            ),
            torch.float16,
            None,
        ),
        (
            "llama-linear",
            LlamaConfig(
                **SHAPE,
                num_key_value_heads=2,
                rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.5),
            ),
            torch.bfloat16,
            None,
        ),
        (
            "llama-dynamic",
            LlamaConfig(
                **SHAPE,
                num_key_value_heads=2,
                rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=3.7),
            ),
            torch.bfloat16,
            None,
        ),
        (
            "llama-yarn",
            LlamaConfig(**SHAPE, num_key_value_heads=1, head_dim=16, rope_parameters=YARN_ROPE),
            torch.bfloat16,
            None,
        ),
        # Groups that no number of threads divides, heads wider than the model, and blocks of two kinds.
        (
            "qwen3",
            Qwen3Config(
                **SHAPE | dict(hidden_size=24, intermediate_size=20, num_attention_heads=3),
                num_key_value_heads=1,
                head_dim=80,
                rope_parameters=plain(1000000.0),
            ),
            torch.bfloat16,
            None,
        ),
        (
            "qwen3-window",
            Qwen3Config(
                **SHAPE
                | dict(
                    hidden_size=16,
                    intermediate_size=20,
                    num_hidden_layers=3,
                    num_attention_heads=2,
                    tie_word_embeddings=True,
                ),
                num_key_value_heads=1,
                head_dim=96,
                use_sliding_window=True,
                sliding_window=6,
                max_window_layers=1,
                rope_parameters=YARN_ROPE,
            ),
            torch.bfloat16,
            None,
        ),
        (
            "smollm3",
            SmolLM3Config(
                **SHAPE
                | dict(
                    hidden_size=30,
                    intermediate_size=28,
                    num_hidden_layers=5,
                    num_attention_heads=3,
                    tie_word_embeddings=True,
                ),
                num_key_value_heads=1,
                pad_token_id=None,
                rope_parameters=plain(2000000.0),
            ),
            torch.bfloat16,
            None,
        ),
        (
            "smollm3-window",
            SmolLM3Config(
                **SHAPE | dict(num_hidden_layers=3),
                num_key_value_heads=4,
                pad_token_id=None,
                no_rope_layers=[0, 1, 0],
                use_sliding_window=True,
                sliding_window=6,
                rope_parameters=plain(10000.0),
            ),
            torch.bfloat16,
            None,
        ),
        (
            "granite",
            GraniteConfig(
                **SHAPE | dict(hidden_size=40, num_attention_heads=5),
                num_key_value_heads=1,
                embedding_multiplier=12.0,
                attention_multiplier=0.5,
                residual_multiplier=0.22,
                logits_scaling=6.0,
                rope_parameters=plain(10000.0),
            ),
            torch.bfloat16,
            None,
        ),
        (
            "granite-tied",
            GraniteConfig(
                **SHAPE | dict(tie_word_embeddings=True),
                num_key_value_heads=4,
                embedding_multiplier=3.0,
                attention_multiplier=0.0625,
                residual_multiplier=1.5,
                logits_scaling=0.5,
                rope_parameters=plain(10000.0),
            ),
            torch.float32,
            None,
        ),
        # Seven blocks, of which the sixth sees all; scores by the size of a head, as in released models.
        (
            "gemma3",
            gemma3(
                linear(1000.0, 8.0),
                plain(10000.0),
                hidden_size=12,
                intermediate_size=20,
                num_hidden_layers=7,
                num_attention_heads=3,
                num_key_value_heads=1,
                head_dim=16,
                query_pre_attn_scalar=16,
                sliding_window=6,
                tie_word_embeddings=True,
            ),
            torch.bfloat16,
            None,
        ),
        (
            "gemma3-80",
            gemma3(
                linear(300.0, 2.5),
                plain(40.0),
                hidden_size=18,
                intermediate_size=20,
                num_attention_heads=3,
                num_key_value_heads=1,
                head_dim=80,
                query_pre_attn_scalar=37,
                sliding_window=5,
                sliding_window_pattern=2,
            ),
            torch.bfloat16,
            None,
        ),
        (
            "gemma3-96",
            gemma3(
                plain(30000.0),
                plain(500.0),
                hidden_size=10,
                intermediate_size=28,
                num_hidden_layers=3,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=96,
                query_pre_attn_scalar=100,
                sliding_window=7,
                layer_types=["full_attention", "sliding_attention", "sliding_attention"],
                tie_word_embeddings=True,
            ),
            torch.float16,
            None,
        ),
    ]


def without(config):
    """What each part of the configuration is replaced with, so that it has no effect."""
    kind = getattr(config, "model_type")
    rope = config.rope_parameters
    if kind == "gemma3_text":
        full, local = rope["full_attention"], rope["sliding_attention"]
        if full["rope_type"] != "default":
            yield "scaling", dict(rope_parameters=rope | dict(full_attention=plain(full["rope_theta"])))
        yield "local_rotation", dict(rope_parameters=rope | dict(sliding_attention=full))
        yield "attention_scalar", dict(query_pre_attn_scalar=config.query_pre_attn_scalar * 9)
        yield "gelu", dict(hidden_activation="silu")
    elif rope["rope_type"] not in ("default", "dynamic"):
        yield "scaling", dict(rope_parameters=plain(rope["rope_theta"]))
    if getattr(config, "sliding_window", None) is not None:
        yield "window", dict(sliding_window=1000)
    if kind == "smollm3":
        yield "unrotated_blocks", dict(no_rope_layers=[1] * config.num_hidden_layers)
    if kind == "granite":
        for name in ("embedding_multiplier", "residual_multiplier", "logits_scaling"):
            yield name, {name: 1.0}
        yield "attention_multiplier", dict(attention_multiplier=(config.hidden_size // config.num_attention_heads) ** -0.5)


def greedy(model):
    """A greedy continuation without a close call, by Transformers' own cache."""
    new = 20
    for seed in range(50):
        prompt = [(7 * seed + 3 + 11 * i * (i + 1)) % 64 for i in range(9)]
        ids = torch.tensor([prompt])
        with torch.no_grad():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=new,
                eos_token_id=None,
                pad_token_id=0,
            )[0].tolist()
            found = model(input_ids=torch.tensor([out])).logits[0, len(prompt) - 1 : -1].double()
        best = found.topk(2, dim=1).values
        if len(out) == len(prompt) + new and (best[:, 0] - best[:, 1]).min().item() > 1e-3:
            return {"prompt": prompt, "tokens": out[len(prompt) :]}
    raise SystemExit("no prompt has a clear continuation")


def tokens():
    return [(17 + 7 * i * i + 5 * i) % 64 for i in range(40)]


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([tokens()])).logits[0].float()


def fill(model, seed):
    generator = torch.Generator().manual_seed(seed)
    # Gemma's norms multiply with one more than their weights.
    norm = 0.0 if model.config.model_type == "gemma3_text" else 1.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("o_proj.bias"):
                parameter.zero_()
                continue
            # Norms away from one, and layers and biases large enough for the logits to differ.
            noise = torch.randn(parameter.shape, generator=generator) * 0.2
            parameter.copy_(noise + (norm if "norm" in name else 0.0))


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def difference(one, other):
    return ((one - other).abs().max() / one.abs().max()).item()


def make(seed, name, config, dtype, shard, written):
    folder = GOLDEN / name
    ours = folder / "config.ours.json"
    kept = ours.read_text() if ours.exists() else None
    if folder.exists():
        shutil.rmtree(folder)
    model = AutoModelForCausalLM.from_config(config)
    fill(model, seed)
    sizes = {} if shard is None else {"max_shard_size": shard}
    model.to(dtype).save_pretrained(folder, **sizes)
    (folder / "generation_config.json").unlink(missing_ok=True)
    model = load(folder)
    found = logits(model)
    written[name] = found
    facts = {"class": type(model).__name__, "dtype": str(dtype).removeprefix("torch.")}

    # The goldens are to show each part of the configuration at work.
    for part, settings in without(config):
        facts[f"without_{part}"] = difference(found, logits(load_with(folder, **settings)))
    if any(name.endswith("q_norm.weight") for name, _ in model.named_parameters()):
        other = load(folder)
        for layer in other.model.layers:
            layer.self_attn.q_norm = layer.self_attn.k_norm = torch.nn.Identity()
        facts["without_norms"] = difference(found, logits(other))
    if any(name.endswith("q_proj.bias") for name, _ in model.named_parameters()):
        other = load(folder)
        with torch.no_grad():
            for parameter_name, parameter in other.named_parameters():
                if parameter_name.endswith("bias"):
                    parameter.zero_()
        facts["without_biases"] = difference(found, logits(other))
    if model.config.model_type == "gemma3_text":
        for first in ("attention", "feedforward"):
            other = load(folder)
            for layer in other.model.layers:
                setattr(layer, f"post_{first}_layernorm", torch.nn.Identity())
            facts[f"without_{first}_output_norm"] = difference(found, logits(other))
        other = load(folder)
        other.model.embed_tokens.embed_scale.fill_(1.0)
        facts["without_embedding_scale"] = difference(found, logits(other))
    for key, value in facts.items():
        assert not key.startswith("without") or value > 0.01, (name, key, value)
    model.generation_config.eos_token_id = None
    facts["greedy"] = greedy(model)

    if kept is not None:
        with tempfile.TemporaryDirectory() as other:
            for file in folder.glob("model*"):
                shutil.copy(file, other)
            (Path(other) / "config.json").write_text(kept)
            read = load(other)
            assert type(read) is type(model), name
            assert torch.equal(logits(read), found), name
            facts["reads_ours"] = True
        ours.write_text(kept)
    print(name, facts)
    return facts


def load_with(folder, **settings):
    config = AutoConfig.from_pretrained(folder, **settings)
    return AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32)


def frequencies():
    """Inverse frequencies that Transformers computes for the shapes of well-known models."""
    llama31 = dict(LLAMA3_ROPE, original_max_position_embeddings=8192)
    yarn = dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=32768)
    cases = {
        "llama-2-7b": (4096, 32, 128, 4096, plain(10000.0)),
        "llama-3-8b": (4096, 32, 128, 8192, plain(500000.0)),
        "llama-3.1-8b": (4096, 32, 128, 131072, llama31),
        "llama-3.2-1b": (2048, 32, 64, 131072, dict(llama31, factor=32.0)),
        "llama-3.2-odd": (96, 4, 24, 4096, dict(llama31, factor=7.3, low_freq_factor=1.3, high_freq_factor=3.7,
                                                original_max_position_embeddings=1000)),
        "qwen2.5-0.5b": (896, 14, 64, 32768, plain(1000000.0)),
        "smollm2-135m": (576, 9, 64, 8192, plain(100000.0)),
        "linear": (4096, 32, 128, 16384, dict(rope_type="linear", rope_theta=10000.0, factor=2.5)),
        "dynamic": (4096, 32, 128, 16384, dict(rope_type="dynamic", rope_theta=10000.0, factor=7.3)),
        "qwen3-8b-yarn": (4096, 32, 128, 131072, yarn),
        "yarn-odd": (96, 4, 24, 4096, dict(yarn, factor=7.3, beta_fast=5.0, beta_slow=0.5, truncate=False,
                                           original_max_position_embeddings=1000)),
        "yarn-mscale": (2048, 32, 64, 163840, dict(yarn, factor=40.0, mscale=0.7, mscale_all_dim=1.1,
                                                   original_max_position_embeddings=4096)),
        "yarn-stated": (2048, 32, 64, 163840, dict(yarn, attention_factor=1.25)),
        "yarn-short": (64, 4, 16, 128, dict(YARN_ROPE)),
    }
    result = {}
    for name, (hidden, heads, dim, positions, rope) in cases.items():
        config = LlamaConfig(
            hidden_size=hidden,
            num_attention_heads=heads,
            head_dim=dim,
            max_position_embeddings=positions,
            rope_parameters=dict(rope),
        )
        rotary = LlamaRotaryEmbedding(config)
        result[name] = {
            "head_dim": dim,
            "rope": rope,
            "attention_factor": rotary.attention_scaling,
            "inv_freq": rotary.inv_freq.tolist(),
        }
    return result


def main():
    torch.set_num_threads(1)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    asked = set(sys.argv[1:])
    written, facts = {}, {}
    if asked:
        written = load_file(GOLDEN / "logits.safetensors")
        facts = json.loads((GOLDEN / "golden.json").read_text())["models"]
    for seed, (name, config, dtype, shard) in enumerate(models(), start=1):
        if not asked or name in asked:
            facts[name] = make(seed, name, config, dtype, shard, written)
    save_file({name: found.contiguous() for name, found in written.items()}, GOLDEN / "logits.safetensors")
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    golden = {**versions, "tokens": tokens(), "models": facts}
    (GOLDEN / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
    if asked:
        return
    rope = {**versions, "models": frequencies()}
    (GOLDEN / "rope.json").write_text(json.dumps(rope, indent=1) + "\n")


if __name__ == "__main__":
    main()
