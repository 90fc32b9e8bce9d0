"""Variants of LoRA in PEFT, for client/tests/variants.rs: adapters with rsLoRA and with ranks and alphas
that differ by module, the logits with them, and a training with LoRA+ and rsLoRA.

Run from the top of the repository, where client/tests/golden/tiny is the model:

    python -m venv oracle && oracle/bin/pip install torch transformers peft
    FEDLORA_WRITE_GOLDEN=1 cargo test -p fedlora-client --test variants
    oracle/bin/python examples/oracle/variants.py
    cargo test -p fedlora-client --test variants

The second command writes the adapter that PEFT is to read here.
"""

import json
import shutil
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "client/tests/golden"
FOLDER = GOLDEN / "variants"
STEPS, BATCH, RATE, RATIO, DECAY = 20, 4, 1e-3, 4.0, 0.1
TOKENS = [(17 + 3 * i * i + 5 * i) % 64 for i in range(24)]
VARIANTS = {
    "rslora": LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "down_proj"]),
    "patterns": LoraConfig(
        r=2,
        lora_alpha=5,
        target_modules=["q_proj", "v_proj", "up_proj"],
        rank_pattern={"up_proj": 5, "model.layers.1.self_attn.q_proj": 3},
        alpha_pattern={"v_proj": 7, "layers.0.mlp.up_proj": 2},
    ),
    "patterns-rslora": LoraConfig(
        r=4,
        lora_alpha=2,
        use_rslora=True,
        target_modules=["k_proj", "o_proj"],
        rank_pattern={"o_proj": 2},
        alpha_pattern={"layers.1.self_attn.k_proj": 3},
    ),
}


def tiny():
    return LlamaForCausalLM.from_pretrained(GOLDEN / "tiny", dtype=torch.float32).eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([TOKENS])).logits[0, -4:].flatten().tolist()


def save(model, path):
    shutil.rmtree(path, ignore_errors=True)
    model.save_pretrained(path)
    # PEFT notes where the base was on this machine: say where it is in the repository.
    file = path / "adapter_config.json"
    file.write_text(file.read_text().replace(f"{ROOT}/", ""))
    (path / "README.md").unlink(missing_ok=True)


def examples():
    made = []
    for i in range(12):
        made.append([(11 * i + (1 + i % 5) * j + (j * j) % (1 + i % 3)) % 64 for j in range(14)])
    return made


def training():
    """Twenty steps of LoRA+ on an adapter with rsLoRA."""
    torch.manual_seed(5)
    config = LoraConfig(r=4, lora_alpha=4, use_rslora=True, target_modules=["q_proj", "v_proj", "gate_proj"])
    model = get_peft_model(tiny(), config)
    save(model, FOLDER / "start")
    optimizer = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=RATIO, loraplus_weight_decay=DECAY
    )
    # PEFT gives embeddings a decay of their own, and factors the default of the optimizer's call.
    for group in optimizer.param_groups:
        group["weight_decay"] = DECAY
    data, losses = examples(), []
    for step in range(STEPS):
        ids = torch.tensor([data[(step * BATCH + i) % len(data)] for i in range(BATCH)])
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"steps": STEPS, "batch": BATCH, "rate": RATE, "ratio": RATIO, "decay": DECAY, "examples": data, "losses": losses}


def main():
    found = {}
    for number, (name, config) in enumerate(VARIANTS.items()):
        model = get_peft_model(tiny(), config)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if "lora_" in parameter_name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        model.eval()
        save(model, FOLDER / name)
        found[name] = logits(model)
    ours = PeftModel.from_pretrained(tiny(), FOLDER / "ours").eval()
    golden = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "tokens": TOKENS,
        "plain": logits(tiny()),
        "ours": logits(ours),
        "logits": found,
        "training": training(),
    }
    (FOLDER / "golden.json").write_text(json.dumps(golden) + "\n")
    print("losses:", " ".join(f"{loss:.4f}" for loss in golden["training"]["losses"]))


if __name__ == "__main__":
    main()
