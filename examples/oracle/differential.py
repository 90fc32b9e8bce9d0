"""Makes client/vectors/differential.json: what Transformers makes of generated chats and texts, under
generated templates and tokenizer settings. Each case is drawn from a seed, so that a run gives the same.

Made with Python 3.11, transformers 5.24.0, tokenizers 0.22.2, jinja2 3.1.6. Run from the repository's top:

    python examples/oracle/differential.py

A case has the settings beside `tokenizer.json`, a template, a record, and of these Transformers' text,
token ids and, where the template marks them, the assistant's tokens. `null` is a refusal. The three
tokenizers are built here, from a few words: byte-level BPE, SentencePiece's BPE and Unigram.
"""

import json
import random
import tempfile
from pathlib import Path

import tokenizers
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

CASES = 200
CORPUS = [
    "The green lamp by the gate is on at dusk, and four boats are moored.",
    "Who keeps the ledger? The clerk on the second floor: at half past seven.",
    "def tide(port):\n    return {'north': 2.1}[port]  # metres\n",
    "naïve Zürich Straße 日本 é ﬁne ㍿ ① 🚤 1234567 12.5 don't WE'LL",
] * 4
WORDS = [
    "lamp", "The gate", "is on?", "  two  spaces ", "\n\nlines\n", "é", "ﬁne", "日本", "🚤🚤", "12.5 %", "don't",
    "{{ x }}", "<b>bold</b>", "a\tb", "\"quoted\"", "ßẞ", "İstanbul", "ǆ", "42", "", "end.", "Ⅷ", "x_y-z", "¼",
]

# Each prints a turn; the seed chooses how. {W} is an expression over `m`, the message.
WORDINGS = [
    "m.content", "m['content']", "m.content | trim", "m.content.strip()", "(m.content | string).lstrip()",
    "m.content.rstrip('.')", "m.content | replace('e', 'E')", "m.content.replace('a', 'A', 1)",
    "m.content.upper()", "m.content | lower", "m.content.title()", "m.content.capitalize()", "m.content | capitalize",
    "m.content.split() | join(' ')", "m.content.split(' ', 1)[-1]", "m.content.rsplit(None, 1)[0]",
    "m.content.splitlines() | join('|')", "m.content | tojson", "m | tojson", "m.content | length ~ m.content",
    "m.content[:5] ~ m.content[5:]", "m.content[::-1]", "'%s/%5d' % (m.content, 7)", "'{}:{}'.format(m.role, m.content)",
    "m.content.count('a') ~ m.content.find('e') ~ m.content", "m.content.isdigit() ~ m.content.isalpha() ~ m.content",
    "m.content.startswith(('T', '1')) ~ m.content", "m.content if m.content is string else 'none'",
    "m.get('name', 'nobody') ~ m.content", "m.content.partition('a') | join('+')", "m.content.center(12, '*')",
    "m.content.zfill(8)", "m.content.ljust(9) ~ m.content.rjust(9)", "m.content.swapcase()", "m.content.casefold()",
    "m.content.lower().islower() ~ m.content", "m.content | wordcount ~ m.content", "m.content | e",
    "m.content.expandtabs(4)", "m.content.index('') ~ m.content", "m.content.replace('a', '', 2).strip('. ')",
    "m.content | indent(2, true)", "m.content | truncate(12, true, '~', 0)", "m.content | first ~ m.content | last",
    "(m.content | list)[:3] | join('-')", "m.content.join(['(', ')'])", "m.content.strip(' .\\n') | upper",
    "m.content.isspace() ~ m.content.isalnum() ~ m.content", "m.content.removesuffix('.').removeprefix('T')",
    "namespace(x=m.content).x", "dict(a=m.content)['a']", "[m.content, m.role] | join(', ')",
    "(messages | length - 1) // 2 ~ m.content", "m.content.encode('utf-8')", "m.content.translate({})",
    "m.content | unique | join", "m.content.rfind('e') ~ m.content", "m.content | center(20)", "m.content | urlencode",
    "m.items() | list | length ~ m.content", "m.keys() | join(',')", "m.content | map('upper') | join",
    "strftime_now is defined ~ m.content", "m.content.format()", "m.content | float ~ m.content | int ~ 7 / 2",
    "m.content | default('x', true)", "(m.content | reverse | list | length) ~ m.content", "m.content | striptags",
]
FRAMES = [
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ W }}<|im_end|>\n{% endfor %}",
    "{%- for m in messages %}\n  {%- if m.role == 'assistant' %}\n{% generation %}{{ W }}<|im_end|>{% endgeneration %}\n"
    "  {%- else %}\n[{{ m.role | upper }}] {{ W }}\n  {%- endif %}\n{%- endfor %}",
    "{{- bos_token }}\n{%- for m in messages if m.role != 'system' -%}\n{{ loop.index0 }}:{{ W }}{{ eos_token }}\n{%- endfor -%}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% if loop.last %}>>{% endif %}"
    "{{ ns.n }}{{ W }}<|im_end|>{{ '\n' if not loop.last }}{% endfor %}",
    "{% macro turn(m) %}({{ W }}){% endmacro %}{% for m in messages %}{{ turn(m) }}{{ eos_token }}{% endfor %}",
    "{% for m in messages %}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{% if m.content is not none %}"
    "{{ W }}{% endif %}<|im_end|>{% endfor %}{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}",
    "{% for m in messages | rejectattr('role', 'equalto', 'system') %}<|im_start|>{{ W }}<|im_end|>{% else %}none{% endfor %}",
]


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens(["<s>", "</s>", "<|im_start|>"])
    return tokenizer


def pieces():
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False)
    trained.train_from_iterator(CORPUS[:2], trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", tokenizer.token_to_id("<s>"))])
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=160, unk_token="<unk>", special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", tokenizer.token_to_id("</s>"))])
    return tokenizer


CLASSES = {
    "byte_level": ["PreTrainedTokenizerFast", "TokenizersBackend", "GPT2Tokenizer", "Qwen2Tokenizer", None],
    "pieces": ["LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast"],
    "unigram": ["PreTrainedTokenizerFast"],
}


def settings(draw, kind, tokenizer):
    config, beside = {}, None
    name = draw.choice(CLASSES[kind])
    if name:
        config["tokenizer_class"] = name
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    where = draw.choice(["config", "map", "both", "dict"])
    if where in ("config", "both"):
        config |= tokens
    if where == "dict":
        config |= {key: {"__type": "AddedToken", "content": token, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True} for key, token in tokens.items()}
    if where in ("map", "both"):
        beside = {**tokens, "eos_token": draw.choice(["</s>", {"content": "</s>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}])}
    # These classes build the tokenizer anew, of the tokens that the settings list by number.
    anew = name in ("GPT2Tokenizer", "Qwen2Tokenizer")
    if anew or draw.random() < 0.5:
        size = tokenizer.get_vocab_size()
        new = ["<|im_end|>", "<tool>"] if kind == "byte_level" else ["<|im_start|>", "<|im_end|>"]
        config["added_tokens_decoder"] = {
            str(size + at): {
                "content": token, "lstrip": draw.random() < 0.2, "rstrip": draw.random() < 0.2, "normalized": False,
                "single_word": False, "special": draw.random() < 0.8,
            }
            for at, token in enumerate(new)
        }
        if anew:
            flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
            own = {str(tokenizer.token_to_id(token)): {"content": token, **flags} for token in ["<s>", "</s>", "<|im_start|>"]}
            config["added_tokens_decoder"] |= own
    elif draw.random() < 0.4:
        config["additional_special_tokens"] = ["<|im_end|>"]
    for key, chance in [("add_bos_token", 0.3), ("add_eos_token", 0.3), ("add_prefix_space", 0.3), ("legacy", 0.4)]:
        if draw.random() < chance and (key != "legacy" or kind == "pieces"):
            config[key] = draw.random() < 0.5
    return config, beside


def said(draw):
    return "".join(draw.choice([" ", "", "a "]) + draw.choice(WORDS) for _ in range(draw.randint(1, 5))).strip() or "x"


def record(draw):
    messages = [{"role": "system", "content": said(draw)}] if draw.random() < 0.3 else []
    for _ in range(draw.randint(1, 2)):
        messages += [{"role": "user", "content": said(draw)}, {"role": "assistant", "content": said(draw)}]
    made = {"messages": messages}
    if draw.random() < 0.2:
        messages[-1]["name"] = "ann"
    if draw.random() < 0.2:
        call = {"type": "function", "function": {"name": "tide", "arguments": {"port": "north", "at": [1, 2.5, None, True], "é": "ü"}}}
        messages[-1]["tool_calls"] = [call]
        made["tools"] = [{"type": "function", "function": {"name": "tide", "parameters": {"z": 1, "a": {}}}}]
    return made


def main():
    built = {"byte_level": byte_level(), "pieces": pieces(), "unigram": unigram()}
    cases = []
    for seed in range(CASES):
        draw = random.Random(seed)
        kind = draw.choice(list(built))
        config, beside = settings(draw, kind, built[kind])
        # Every wording is drawn; the frames by chance.
        template = draw.choice(FRAMES).replace("{{ W }}", "{{ " + WORDINGS[seed % len(WORDINGS)] + " }}")
        case = {"tokenizer": kind, "config": config, "map": beside, "template": template, "record": record(draw), "text": said(draw)}
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            built[kind].save(str(folder / "tokenizer.json"))
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            (folder / "chat_template.jinja").write_text(template)
            (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
            if beside:
                (folder / "special_tokens_map.json").write_text(json.dumps(beside))
            tokenizer = AutoTokenizer.from_pretrained(folder)
            case["text_ids"] = tokenizer(case["text"])["input_ids"]
            try:
                tools = case["record"].get("tools")
                rendered = tokenizer.apply_chat_template(case["record"]["messages"], tools=tools, tokenize=False)
                case["rendered"] = rendered
                case["ids"] = tokenizer(rendered, add_special_tokens=False)["input_ids"]
                if "generation" in template:
                    marked = tokenizer.apply_chat_template(
                        case["record"]["messages"], tools=tools, return_dict=True, return_assistant_tokens_mask=True
                    )
                    case["assistant"] = marked["assistant_masks"]
            except Exception:  # What Jinja2 or its sandbox refuses.
                case["rendered"] = None
        # As text: the order of its keys counts.
        case["record"] = json.dumps(case["record"], ensure_ascii=False)
        cases.append(case)
    found = {
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "tokenizers": {kind: json.loads(tokenizer.to_str()) for kind, tokenizer in built.items()},
        "cases": cases,
    }
    path = Path("client/vectors/differential.json")
    path.write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")).replace('{"tokenizer":', '\n{"tokenizer":') + "\n")
    refused = sum(case["rendered"] is None for case in cases)
    print(f"{path}: {len(cases)} cases, {refused} of them refused by Transformers, {path.stat().st_size} bytes")


main()
