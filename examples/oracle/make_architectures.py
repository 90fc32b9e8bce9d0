"""Small random checkpoints of every supported architecture with Transformers' logits, and the
rotary frequencies of well-known models, for client/tests/architectures.rs and
client/src/model/rope.rs.

Run from the top of the repository:

    python -m venv oracle && oracle/bin/pip install torch transformers
    oracle/bin/python examples/oracle/make_architectures.py
    FEDLORA_WRITE_GOLDEN=1 cargo test -p fedlora-client --test architectures
    oracle/bin/python examples/oracle/make_architectures.py
    cargo test -p fedlora-client --test architectures

The third command writes each configuration as fedlora does (`config.ours.json`); the fourth has
Transformers read it, and asserts that the model is the same. Weights do not change between runs.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers import LlamaConfig, MistralConfig, Qwen2Config
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


def plain(theta):
    return dict(rope_type="default", rope_theta=theta)


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
    ]


def tokens():
    return [(17 + 7 * i * i + 5 * i) % 64 for i in range(40)]


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([tokens()])).logits[0].float()


def fill(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("o_proj.bias"):
                parameter.zero_()
                continue
            # Norms away from one, and layers and biases large enough for the logits to differ.
            noise = torch.randn(parameter.shape, generator=generator) * 0.2
            parameter.copy_(noise + (1.0 if "norm" in name else 0.0))


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
    if config.model_type == "llama" and config.rope_parameters["rope_type"] == "llama3":
        other = load_with(folder, rope_parameters=plain(config.rope_parameters["rope_theta"]))
        facts["without_scaling"] = difference(found, logits(other))
    if getattr(config, "sliding_window", None) is not None:
        other = load_with(folder, sliding_window=1000)
        facts["without_window"] = difference(found, logits(other))
    if any(name.endswith("q_proj.bias") for name, _ in model.named_parameters()):
        other = load(folder)
        with torch.no_grad():
            for parameter_name, parameter in other.named_parameters():
                if parameter_name.endswith("bias"):
                    parameter.zero_()
        facts["without_biases"] = difference(found, logits(other))
    for key, value in facts.items():
        assert not key.startswith("without") or value > 0.01, (name, key, value)

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
    cases = {
        "llama-2-7b": (4096, 32, 128, 4096, plain(10000.0)),
        "llama-3-8b": (4096, 32, 128, 8192, plain(500000.0)),
        "llama-3.1-8b": (4096, 32, 128, 131072, llama31),
        "llama-3.2-1b": (2048, 32, 64, 131072, dict(llama31, factor=32.0)),
        "llama-3.2-odd": (96, 4, 24, 4096, dict(llama31, factor=7.3, low_freq_factor=1.3, high_freq_factor=3.7,
                                                original_max_position_embeddings=1000)),
        "qwen2.5-0.5b": (896, 14, 64, 32768, plain(1000000.0)),
        "smollm2-135m": (576, 9, 64, 8192, plain(100000.0)),
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
        found = LlamaRotaryEmbedding(config).inv_freq
        result[name] = {"head_dim": dim, "rope": rope, "inv_freq": found.tolist()}
    return result


def main():
    torch.set_num_threads(1)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    written = {}
    facts = {}
    for seed, (name, config, dtype, shard) in enumerate(models(), start=1):
        facts[name] = make(seed, name, config, dtype, shard, written)
    save_file({name: found.contiguous() for name, found in written.items()}, GOLDEN / "logits.safetensors")
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    golden = {**versions, "tokens": tokens(), "models": facts}
    (GOLDEN / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
    rope = {**versions, "models": frequencies()}
    (GOLDEN / "rope.json").write_text(json.dumps(rope, indent=1) + "\n")


if __name__ == "__main__":
    main()
