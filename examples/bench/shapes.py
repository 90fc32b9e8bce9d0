"""The shapes that the benchmark knows, and the multiplications that a training step of one takes.

Standard library alone: the driver imports it, and needs no more.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class Model:
    """A Llama's shape, in features, heads, blocks and tokens."""

    vocab: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool

    def linears(self):
        """(target, in, out) of a block's projections."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [
            ("q", self.hidden, query),
            ("k", self.hidden, key),
            ("v", self.hidden, key),
            ("o", query, self.hidden),
            ("gate", self.hidden, self.inner),
            ("up", self.hidden, self.inner),
            ("down", self.inner, self.hidden),
        ]

    def parameters(self):
        block = sum(inputs * outputs for _, inputs, outputs in self.linears()) + 2 * self.hidden
        tables = self.vocab * self.hidden * (1 if self.tied else 2)
        return self.layers * block + tables + self.hidden

    @classmethod
    def from_config(cls, folder):
        """The shape of a Hugging Face folder."""
        config = json.loads((Path(folder) / "config.json").read_text())
        heads = config["num_attention_heads"]
        return cls(
            vocab=config["vocab_size"],
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            tied=config.get("tie_word_embeddings", False),
        )


@dataclass(frozen=True)
class Shape:
    """A model and what a run of it does by default."""

    # None: the model is the folder or file given as --base.
    model: Model | None
    batch: int
    seq: int
    warmup: int
    steps: int
    # Of the base and the activations; the adapter and the optimizer are f32 throughout.
    dtype: str
    device: str
    # Largest relative difference of a step's loss between the two sides that is let pass.
    tolerance: float


SHAPES = {
    # For the self-check: small enough for any machine.
    "tiny": Shape(Model(3072, 64, 160, 2, 4, 2, 16, True), 2, 64, 2, 8, "float32", "cpu", 1e-3),
    # 8.3 million parameters.
    "8m": Shape(Model(4096, 288, 768, 6, 6, 6, 48, False), 4, 256, 5, 45, "float32", "cpu", 1e-3),
    # SmolLM2-135M or another checkpoint, given as --base.
    "smollm2": Shape(None, 4, 256, 2, 10, "float32", "cpu", 1e-3),
    # Llama 3 8B's shape with random weights: 8.03 thousand million parameters.
    "llama3-8b": Shape(
        Model(128256, 4096, 14336, 32, 32, 8, 128, False), 1, 2048, 5, 25, "bfloat16", "cuda:0", 5e-2
    ),
}


@dataclass(frozen=True)
class Gemm:
    """`count` products of [rows, inner] with [inner, columns]; of each, the share `needed` counts."""

    name: str
    rows: int
    inner: int
    columns: int
    count: int
    needed: float = 1.0

    def flops(self):
        return 2 * self.rows * self.inner * self.columns * self.count * self.needed


def step_gemms(model, batch, seq, rank, targets=TARGETS):
    """All products that a step of LoRA training needs, whoever computes them.

    Forward, gradients by activations, gradients by A and B. Not counted: gradients by frozen
    weights, anything computed twice, and all that is not a product. Attention counts the causal
    half. The first block's q, k and v need no gradient by their input: the embedding is frozen.
    """
    rows = batch * seq
    gemms = []
    for target, inputs, outputs in model.linears():
        first = target in ("q", "k", "v")
        backward = model.layers - (1 if first else 0)
        gemms.append(Gemm(f"{target} forward", rows, inputs, outputs, model.layers))
        gemms.append(Gemm(f"{target} by input", rows, outputs, inputs, backward))
        if target in targets:
            gemms += [
                Gemm("x A", rows, inputs, rank, model.layers),
                Gemm("(x A) B", rows, rank, outputs, model.layers),
                Gemm("by B", outputs, rows, rank, model.layers),
                Gemm("by x A", rows, outputs, rank, model.layers),
                Gemm("by A", rank, rows, inputs, model.layers),
                Gemm("by input through A", rows, rank, inputs, backward),
            ]
    # A sequence's last token predicts nothing that is known.
    predicting = batch * (seq - 1)
    gemms.append(Gemm("head forward", predicting, model.hidden, model.vocab, 1))
    gemms.append(Gemm("head by input", predicting, model.vocab, model.hidden, 1))
    each = batch * model.heads * model.layers
    gemms += [
        Gemm("q k", seq, model.head_dim, seq, each, 0.5),
        Gemm("p v", seq, seq, model.head_dim, each, 0.5),
        Gemm("by p", seq, model.head_dim, seq, each, 0.5),
        Gemm("by v", seq, seq, model.head_dim, each, 0.5),
        Gemm("by q", seq, seq, model.head_dim, each, 0.5),
        Gemm("by k", seq, seq, model.head_dim, each, 0.5),
    ]
    return gemms


def describe(model):
    """A model's shape for a report."""
    return {**asdict(model), "parameters": model.parameters()}
