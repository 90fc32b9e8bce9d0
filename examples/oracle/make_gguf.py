"""Small GGUF files with random weights and tokenizers of a few hundred tokens, and what the gguf package and
Transformers make of them, for client/tests/gguf.rs.

Run from the top of the repository:

    python -m venv oracle && oracle/bin/pip install torch transformers gguf sentencepiece
    oracle/bin/python examples/oracle/make_gguf.py [SMOLLM2.gguf]

With the path of SmolLM2-135M-Instruct (examples/fetch-smollm2.sh) its tokens are written, too.
"""

import io
import json
import re
import sys
from importlib import metadata
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFWriter, TokenType, dequantize, quantize
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

OUT = Path(__file__).resolve().parents[2] / "client/tests/golden/gguf"
QUANTS = [
    Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.Q6_K,
]
random = np.random.default_rng(20)

# What the small vocabularies are learned from.
CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "A federation trains one adapter on the data of many members; nobody sees the data of another.",
    "In 2024 there were 12345 members, 678 rounds and 90 failures; 100% of them were found in 24 hours.",
    "def mean(values):\n    total = 0.0\n    for value in values:\n        total += value\n    return total / len(values)\n",
    "They'll say we've done what they're doing, and it's what I'd do; don't you think?",
    "Straße, naïve, café, Zürich, déjà vu; Привет, мир; 日本語の文章です。 مرحبا",
    "1. First\n\n2. Second\n\n   indented text\tand tabs\r\nnew lines",
] * 4
TEXTS = [
    "",
    " ",
    "The quick brown fox",
    " leading space, two  spaces and trailing   ",
    "\n\n1. First\n\n2.  Second\n   3rd",
    "12345 members in 2024: 678 + 90 = 768; 3.14159e-10",
    "  42   7",
    "It's they'LL We'VE don't I'd",
    "def f(x):\n\treturn x ** 2  # square\n\n\n\nprint(f(10))\r\n",
    "Straße naïve e\u0301 café ﬁ Ⅻ ½ ²",
    "Привет, мир! 日本語の文章です。 مرحبا हिन्दी 한국어",
    "🙂 👩‍👩‍👧 🇩🇪 \U0001f512\ufe0f",
    "<|im_start|>user\nHello<|im_end|>\n<|endoftext|>",
    "a <|im_end|>b<think> hm </think>c <s>d</s> <unk>",
    "camelCaseWORDS snake_case HTTPServer2x http://a.b/c?d=e&f=%20",
    "\u00a0non-breaking\u2003em\u200bzero\x00nul\x7f",
    "{\"key\": [1, 2.5, null], \"q\": \"\\\"\"}",
    "…—–‘’“”!!!???...",
    "x" * 60,
    "   \n  \n\t\n",
    "\u2581already\u2581marked \u0120G",
]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How many rounds were there in 2024?"},
    {"role": "assistant", "content": "678 rounds."},
]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(split):
    """A byte-level BPE vocabulary: tokens, merges and the kind of each token."""
    tokenizer = Tokenizer(models.BPE())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    steps = [plain] if split is None else [pre_tokenizers.Split(Regex(split), "isolated"), plain]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    kinds = [TokenType.NORMAL] * len(tokens)
    kinds[:4] = [TokenType.CONTROL] * 3 + [TokenType.USER_DEFINED]
    merges = [" ".join(merge) for merge in model["merges"]]
    return tokens, merges, kinds


def write_byte_level(writer, pre, split, add_bos):
    tokens, merges, kinds = byte_level(split)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
    writer.add_chat_template(TEMPLATE)
    return len(tokens)


def write_sentencepiece(writer):
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in CORPUS for line in text.splitlines()),
        model_writer=trained,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        user_defined_symbols=["<think>"],
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    tokens, scores, kinds = [], [], []
    for index in range(model.vocab_size()):
        tokens.append(model.id_to_piece(index))
        scores.append(model.get_score(index))
        kind = TokenType.NORMAL
        if model.is_unknown(index):
            kind = TokenType.UNKNOWN
        elif model.is_control(index):
            kind = TokenType.CONTROL
        elif model.is_byte(index):
            kind = TokenType.BYTE
        elif tokens[-1] == "<think>":
            kind = TokenType.USER_DEFINED
        kinds.append(kind)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(model.bos_id())
    writer.add_eos_token_id(model.eos_id())
    writer.add_unk_token_id(model.unk_id())
    return len(tokens)


def blocks(kind, shape, scale):
    """Random values as `kind` stores them. The gguf package cannot make K blocks, so that theirs are random bytes
    with scales that keep the values near `scale`."""
    values = (random.standard_normal(shape) * scale).astype(np.float32)
    if kind == Type.F32:
        return values
    if kind == Type.F16:
        return values.astype(np.float16)
    if kind not in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
        return quantize(values, kind)
    size, width = gguf.GGML_QUANT_SIZES[kind]
    count = values.size // size
    made = random.integers(0, 256, (count, width), dtype=np.uint8)

    def put(place, number):
        scales = (number * random.uniform(0.5, 1.5, count)).astype(np.float16)
        made[:, place : place + 2] = scales.view(np.uint8).reshape(count, 2)

    if kind == Type.Q6_K:
        put(width - 2, scale / 1400)
    else:
        largest = 16 if kind == Type.Q4_K else 32
        put(0, scale / (32 * largest / 3))
        put(2, scale / (32 * 2 / 3))
    return made.reshape(*shape[:-1], -1)


def write_model(path, arch, tokenizer, sizes, kinds, tied=False, biases=False, rope_factors=None, extra_vocabulary=0):
    writer = GGUFWriter(path, arch)
    writer.add_name(path.stem)
    hidden, inner, layers, heads, kv_heads, dim = sizes
    vocab = (tokenizer(writer) if tokenizer else 64) + extra_vocabulary
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(vocab)
    if arch == "llama":
        writer.add_rope_dimension_count(dim)

    def add(name, shape, kind, scale=0.15, centre=0.0):
        if centre:
            data = (centre + random.standard_normal(shape) * scale).astype(np.float32)
        else:
            data = blocks(kind, shape, scale)
        plain = kind in (Type.F32, Type.F16)
        writer.add_tensor(name, data, raw_dtype=None if plain or centre else kind)

    add("token_embd.weight", (vocab, hidden), kinds["embd"], 0.5)
    for layer in range(layers):
        add(f"blk.{layer}.attn_norm.weight", (hidden,), Type.F32, 0.1, 1.0)
        add(f"blk.{layer}.attn_q.weight", (heads * dim, hidden), kinds["q"])
        add(f"blk.{layer}.attn_k.weight", (kv_heads * dim, hidden), kinds["k"])
        add(f"blk.{layer}.attn_v.weight", (kv_heads * dim, hidden), kinds["v"])
        add(f"blk.{layer}.attn_output.weight", (hidden, heads * dim), kinds["o"])
        if biases:
            for name, rows in [("q", heads), ("k", kv_heads), ("v", kv_heads)]:
                add(f"blk.{layer}.attn_{name}.bias", (rows * dim,), Type.F32, 0.3)
        add(f"blk.{layer}.ffn_norm.weight", (hidden,), Type.F32, 0.1, 1.0)
        add(f"blk.{layer}.ffn_gate.weight", (inner, hidden), kinds["gate"])
        add(f"blk.{layer}.ffn_up.weight", (inner, hidden), kinds["up"])
        add(f"blk.{layer}.ffn_down.weight", (hidden, inner), kinds["down"])
    add("output_norm.weight", (hidden,), Type.F32, 0.1, 1.0)
    if not tied:
        add("output.weight", (vocab, hidden), kinds["output"])
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors)
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def same_kind(kind):
    return dict.fromkeys(["embd", "q", "k", "v", "o", "gate", "up", "down", "output"], kind)


SCALING = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def llama3_factors(dim, theta):
    """By what Llama 3.1 divides each frequency, from Transformers' own frequencies."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = AutoConfig.for_model(
        "llama", head_dim=dim, rope_parameters={"rope_type": "llama3", "rope_theta": theta, **SCALING}
    )
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    return (plain / scaled).numpy().astype(np.float32)


def logits(path, tokens, scaling=None):
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    if scaling:
        # Transformers leaves the factors of a GGUF file out: the same weights with the same scaling by name.
        config = model.config
        config.rope_parameters = {"rope_type": "llama3", "rope_theta": 10000.0, **scaling}
        scaled = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        scaled.load_state_dict(model.state_dict())
        model = scaled
    model.eval()
    with torch.no_grad():
        rows = model(input_ids=torch.tensor([tokens])).logits[0]
    return model, [[round(value, 6) for value in row] for row in rows.tolist()]


def tokens_golden(path, texts):
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    golden = {"text": [{"text": text, "ids": tokenizer(text).input_ids} for text in texts]}
    golden["decoded"] = [tokenizer.decode(entry["ids"], skip_special_tokens=True) for entry in golden["text"]]
    if tokenizer.chat_template:
        prompt = tokenizer.apply_chat_template(CHAT[:-1], tokenize=False, add_generation_prompt=True)
        golden["prompt_ids"] = tokenizer(prompt, add_special_tokens=False).input_ids
    # Ids beyond the file's tokens: Transformers adds default tokens that a vocabulary lacks. None of them may be seen here.
    known = len(GGUFReader(path).fields["tokenizer.ggml.tokens"].data)
    for entry in golden["text"]:
        assert all(token < known for token in entry["ids"]), (path.name, entry)
    return golden


def fingerprint(values):
    """Every bit of every value counts, and its place."""
    bits = np.ascontiguousarray(values, dtype="<f4").reshape(-1).view("<u4").astype(np.uint64)
    places = np.arange(1, bits.size + 1, dtype=np.uint64)
    return str(int(np.sum(bits * places, dtype=np.uint64)))


def compact(golden):
    """JSON with each list of numbers on a line."""
    text = json.dumps(golden, indent=1)
    return re.sub(r"\[\s+([-+.e\d,\s]+?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text) + "\n"


def main():
    OUT.mkdir(exist_ok=True)
    writer = GGUFWriter(OUT / "quants.gguf", "llama")
    for kind in QUANTS:
        data = blocks(kind, (3, 512), 0.7)
        writer.add_tensor(kind.name, data, raw_dtype=None if kind in (Type.F32, Type.F16) else kind)
    finish(writer)
    golden = {
        "made_with": {
            "gguf": metadata.version("gguf"),
            "numpy": np.__version__,
            "sentencepiece": sentencepiece.__version__,
            "tokenizers": tokenizers.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "quants": {},
        "models": {},
        "tokens": {},
    }
    for tensor in GGUFReader(OUT / "quants.gguf").tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        golden["quants"][tensor.name] = {
            "fingerprint": fingerprint(values),
            "first_row": [float(value) for value in values[0][::7]],
        }

    mixed = {
        "embd": Type.Q8_0, "q": Type.Q4_1, "k": Type.Q4_0, "v": Type.BF16, "o": Type.F16,
        "gate": Type.Q5_0, "up": Type.Q5_1, "down": Type.F32, "output": Type.Q8_0,
    }
    k_types = {
        "embd": Type.Q6_K, "q": Type.Q4_K, "k": Type.Q5_K, "v": Type.Q6_K, "o": Type.Q8_0,
        "gate": Type.Q4_K, "up": Type.Q5_K, "down": Type.Q8_0, "output": Type.Q4_K,
    }
    files = {
        "llama-mixed": lambda path: write_model(
            path, "llama", lambda w: write_byte_level(w, "smollm", None, False), (32, 64, 2, 4, 2, 8), mixed
        ),
        "llama-k": lambda path: write_model(path, "llama", None, (256, 32, 1, 2, 1, 16), k_types),
        "llama3-rope": lambda path: write_model(
            path,
            "llama",
            lambda w: write_byte_level(w, "llama-bpe", LLAMA3_SPLIT, True),
            (32, 32, 1, 2, 1, 16),
            same_kind(Type.BF16),
            tied=True,
            rope_factors=llama3_factors(16, 10000.0),
        ),
        "qwen2": lambda path: write_model(
            path,
            "qwen2",
            lambda w: write_byte_level(w, "qwen2", LLAMA3_SPLIT.replace("{1,3}", ""), False),
            (32, 32, 2, 4, 2, 8),
            same_kind(Type.F16),
            biases=True,
            tied=True,
            extra_vocabulary=6,
        ),
        "tekken": lambda path: write_model(
            path, "llama", lambda w: write_byte_level(w, "tekken", None, None), (32, 32, 1, 2, 1, 16), same_kind(Type.Q4_0)
        ),
        "sentencepiece": lambda path: write_model(
            path, "llama", write_sentencepiece, (32, 32, 1, 2, 1, 16), same_kind(Type.Q4_0)
        ),
    }
    for name, make in files.items():
        path = OUT / f"{name}.gguf"
        make(path)
        scaling = SCALING if name == "llama3-rope" else None
        tokens = [(3 + 11 * i * i + 5 * i) % 60 for i in range(20)]
        model, rows = logits(path, tokens, scaling)
        weights = {key: fingerprint(value.numpy()) for key, value in model.state_dict().items()}
        golden["models"][name] = {"tokens": tokens, "last_logits": rows[-1], "weights": weights}
        if name != "llama-k":
            golden["tokens"][name] = tokens_golden(path, TEXTS)
    if len(sys.argv) > 1:
        golden["tokens"]["SmolLM2-135M-Instruct"] = tokens_golden(Path(sys.argv[1]), TEXTS)
    else:
        kept = json.loads((OUT / "golden.json").read_text())["tokens"]
        golden["tokens"]["SmolLM2-135M-Instruct"] = kept["SmolLM2-135M-Instruct"]
    (OUT / "golden.json").write_text(compact(golden))


main()
