"""Golden numbers from PyTorch, Transformers and PEFT, for client/tests/oracle.rs.

Run from the top of the repository, with the embedded base in place:

    python -m venv oracle && oracle/bin/pip install torch transformers peft
    FEDLORA_WRITE_GOLDEN=1 cargo test --release -p fedlora-client --test oracle
    oracle/bin/python examples/oracle/make_golden.py
    cargo test --release -p fedlora-client --test oracle

The second command writes the adapter that PEFT is to read here.
"""

import json
import shutil
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "client/tests/golden"
BASE = ROOT / "examples/assets/base"


def tokens_for(vocab, count, factor):
    """The same ids as `tokens_for` in oracle.rs."""
    return [(17 + factor * i * i + 5 * i) % vocab for i in range(count)]


def mean_loss(model, tokens, counted_from=1):
    """Mean cross-entropy of the tokens from `counted_from` on, in nats."""
    ids = torch.tensor([tokens])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].double()
    rows = logits[counted_from - 1 : -1]
    return torch.nn.functional.cross_entropy(rows, ids[0, counted_from:]).item()


def randomise(model, seed):
    """Random A and B: PEFT's own initial B is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def save_adapter(model, path):
    if path.exists():
        shutil.rmtree(path)
    model.save_pretrained(path)
    # PEFT notes where the base was on this machine: say where it is in the repository.
    config = path / "adapter_config.json"
    config.write_text(config.read_text().replace(f"{ROOT}/", ""))
    (path / "README.md").unlink(missing_ok=True)


def tiny():
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(11)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Norms away from one and layers large enough for the logits to differ.
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    model.eval()
    return model


def base():
    load = lambda: AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    model = load()
    vocab = model.config.vocab_size
    tokens = tokens_for(vocab, 48, 7)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits[0]
    plain = mean_loss(model, tokens)
    ours = PeftModel.from_pretrained(model, GOLDEN / "ours").eval()
    ours_loss = mean_loss(ours, tokens)
    theirs = get_peft_model(
        load(),
        LoraConfig(
            r=3,
            lora_alpha=5,
            lora_dropout=0.05,
            target_modules=["k_proj", "up_proj"],
            task_type="CAUSAL_LM",
        ),
    )
    randomise(theirs, 3)
    theirs.eval()
    save_adapter(theirs, GOLDEN / "theirs")
    theirs_loss = mean_loss(theirs, tokens)
    last = logits[-1].tolist()
    print(f"base loss {plain:.6f}, with our adapter {ours_loss:.6f}, with PEFT's {theirs_loss:.6f}")
    return {
        "tokens": tokens,
        "loss": plain,
        "ours": ours_loss,
        "theirs": theirs_loss,
        # The last row whole, the others by their norm: a whole table would be large.
        "last_logits": last,
        "row_norms": logits.double().norm(dim=1).tolist(),
    }


def main():
    GOLDEN.mkdir(parents=True, exist_ok=True)
    model = tiny()
    if (GOLDEN / "tiny").exists():
        shutil.rmtree(GOLDEN / "tiny")
    model.save_pretrained(GOLDEN / "tiny")
    tokens = tokens_for(64, 24, 3)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits[0]
    golden = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "tiny": {"tokens": tokens, "logits": logits.flatten().tolist()},
        "base": base(),
    }
    (GOLDEN / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
