"""Converts a GGUF file to a Hugging Face folder in f32, with Transformers: the same model in two forms.

    python -m venv oracle && oracle/bin/pip install torch transformers gguf
    oracle/bin/python examples/oracle/convert_gguf.py MODEL.gguf FOLDER
    FEDLORA_SMOLLM2=MODEL.gguf FEDLORA_SMOLLM2_FOLDER=FOLDER cargo test -p fedlora-client smollm2
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

file, folder = Path(sys.argv[1]), Path(sys.argv[2])
loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
config = loaded.config
# What was loaded counts as quantised, which Transformers does not save.
if hasattr(config, "quantization_config"):
    del config.quantization_config
plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
plain.load_state_dict(loaded.state_dict())
plain.save_pretrained(folder)
AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
