"""GGUF files of the checkpoints that make_architectures.py makes, for client/tests/gguf.rs: the same
weights, as llama.cpp's converter stores them. Names of tensors and keys are the gguf package's.

Run from the top of the repository:

    python -m venv oracle && oracle/bin/pip install torch safetensors gguf
    oracle/bin/python examples/oracle/make_gguf_architectures.py
    cargo test -p fedlora-client --test gguf

The second command makes all files, or those whose names follow.
"""

import json
import sys
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).resolve().parents[2] / "client/tests/golden"
# The architecture, and whether the converter puts rows that turn together beside each other.
KINDS = {
    "qwen3": (gguf.MODEL_ARCH.QWEN3, False),
    "smollm3": (gguf.MODEL_ARCH.SMOLLM3, True),
    "granite": (gguf.MODEL_ARCH.GRANITE, True),
    "llama-yarn": (gguf.MODEL_ARCH.LLAMA, True),
    "gemma3": (gguf.MODEL_ARCH.GEMMA3, False),
}


def neighbours(rows, heads):
    """Feature i of a head beside feature i + width / 2, where Hugging Face has them half a head apart."""
    halves = rows.reshape(heads, 2, -1, rows.shape[1])
    return halves.transpose(1, 2).reshape(rows.shape)


def write(name, arch, interleaved):
    folder = GOLDEN / "architectures" / name
    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    writer = gguf.GGUFWriter(GOLDEN / "gguf" / f"{name}.gguf", gguf.MODEL_ARCH_NAMES[arch])
    writer.add_name(name)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config["rope_parameters"]
    if name == "gemma3":
        rope = rope["full_attention"]
        writer.add_sliding_window(config["sliding_window"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if name == "granite":
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for key, values in load_file(folder / "model.safetensors").items():
        if interleaved and key.endswith(("q_proj.weight", "k_proj.weight")):
            values = neighbours(values, heads if "q_proj" in key else kv_heads)
        if name == "gemma3" and key.endswith("norm.weight"):
            values = values.float() + 1
        stored = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if values.dim() == 1:
            writer.add_tensor(stored, values.float().numpy())
        else:
            bits = values.to(torch.bfloat16).contiguous().view(torch.uint16).numpy()
            writer.add_tensor(stored, bits.view("uint8"), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


for name, (arch, interleaved) in KINDS.items():
    if not sys.argv[1:] or name in sys.argv[1:]:
        write(name, arch, interleaved)
