"""Makes client/vectors/gemma.json: what Transformers makes of texts and chats with a small tokenizer built as
Gemma's is, and with the chat template of Gemma 3.

Made with Python 3.11, transformers 5.24.0, tokenizers 0.22.2. Run from the repository's top:

    python examples/oracle/gemma_tokenizer.py

The form is that of differential.json, which examples/oracle/differential.py makes.
"""

import json
import tempfile
from pathlib import Path

import tokenizers
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

CORPUS = [
    "The green lamp by the gate is on at dusk, and four boats are moored.",
    "Who keeps the ledger? The clerk on the second floor: at half past seven.",
] * 4
NAMED = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\n' }}
{%- endif -%}
"""
TEXTS = ["The lamp is on", " two  spaces\n\nand lines", "naïve 日本 🚤 <bos>", ""]
CHATS = [
    [("user", "Who keeps the ledger?"), ("assistant", " The clerk. ")],
    [("system", "Be brief."), ("user", "At dusk?"), ("assistant", "On."), ("user", "And by day?"), ("assistant", "Off.")],
    [("assistant", "Out of turn.")],
    [("user", "One."), ("user", "Two."), ("assistant", "Three.")],
]


def build():
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=380, special_tokens=NAMED + bytes_, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    # Bytes are pieces of the model alone.
    text = json.loads(made.to_str())
    text["added_tokens"] = [token for token in text["added_tokens"] if token["content"] in NAMED]
    made = Tokenizer.from_str(json.dumps(text))
    made.add_tokens([AddedToken("\n\n", normalized=False)])
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", made.token_to_id("<bos>"))]
    )
    return made


def main():
    built = build()
    config = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    }
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        built.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "chat_template.jinja").write_text(TEMPLATE)
        (folder / "config.json").write_text(json.dumps({"model_type": "gemma3_text"}))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        print(type(tokenizer).__name__)
        for text, chat in zip(TEXTS, CHATS, strict=True):
            messages = [{"role": role, "content": content} for role, content in chat]
            case = {"tokenizer": "gemma", "config": config, "map": None, "template": TEMPLATE, "text": text}
            case["record"] = json.dumps({"messages": messages})
            case["text_ids"] = tokenizer(text)["input_ids"]
            try:
                case["rendered"] = tokenizer.apply_chat_template(messages, tokenize=False)
                case["ids"] = tokenizer(case["rendered"], add_special_tokens=False)["input_ids"]
            except Exception:
                case["rendered"] = None
            cases.append(case)
    found = {
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "tokenizers": {"gemma": json.loads(built.to_str())},
        "cases": cases,
    }
    path = Path("client/vectors/gemma.json")
    path.write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")).replace('{"tokenizer":', '\n{"tokenizer":') + "\n")
    print(f"{path}: {len(cases)} cases, {path.stat().st_size} bytes")


main()
