"""The shapes of models that memory and time follow from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finr1.models import EMBEDDED_MODEL
from finr1.paths import resolve


@dataclass(frozen=True)
class Shape:
    """A decoder with grouped-query attention and a gated MLP (Llama, Qwen2), as its config.json states it."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool  # the head is the embedding
    attention_bias: bool  # of queries, keys and values

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def kv_size(self) -> int:
        """Width of the keys, and of the values."""
        return self.kv_heads * self.head_size

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of each linear layer of one block: q, k, v, o, gate, up, down."""
        attention = [(self.hidden, self.hidden), *[(self.hidden, self.kv_size)] * 2, (self.hidden, self.hidden)]
        return [*attention, *[(self.hidden, self.intermediate)] * 2, (self.intermediate, self.hidden)]

    @property
    def linear_parameters(self) -> int:
        """Parameters of all blocks' linear layers: what QLoRA stores in 4 bits."""
        return self.layers * sum(rows * columns for rows, columns in self.linears)

    @property
    def parameters(self) -> int:
        bias = (self.hidden + 2 * self.kv_size) if self.attention_bias else 0
        norms = self.layers * (2 * self.hidden + bias) + self.hidden
        return self.linear_parameters + norms + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def adapter_parameters(self, rank: int) -> int:
        """Parameters of LoRA with this rank on every linear layer of the blocks (Hu et al. 2021, arXiv 2106.09685)."""
        return self.layers * sum(rank * (rows + columns) for rows, columns in self.linears)


# config.json on each model's hub page; Qwen2.5 also in table 1 of its report (arXiv 2412.15115).
_KNOWN = {
    EMBEDDED_MODEL: Shape(30, 576, 1536, 9, 3, 49152, True, False),
    "Qwen2.5-0.5B": Shape(24, 896, 4864, 14, 2, 151936, True, True),
    "Qwen2.5-1.5B": Shape(28, 1536, 8960, 12, 2, 151936, True, True),
    "Qwen2.5-3B": Shape(36, 2048, 11008, 16, 2, 151936, True, True),
    "Qwen2.5-7B": Shape(28, 3584, 18944, 28, 4, 152064, False, True),
    "Qwen2.5-14B": Shape(48, 5120, 13824, 40, 8, 152064, False, True),
    "Qwen2.5-32B": Shape(64, 5120, 27648, 40, 8, 152064, False, True),
    "Qwen2.5-72B": Shape(80, 8192, 29568, 64, 8, 152064, False, True),
}


def shape_of(model: str) -> Shape:
    """The shape of a local model folder or of a known model; ValueError for any other."""
    folder = resolve(model)
    if (folder / "config.json").exists():
        return _from_config(folder)
    known = _KNOWN.get(model) or _KNOWN.get(model.rpartition("/")[2].removesuffix("-Instruct"))
    if known is None:
        raise ValueError(f"the shape of {model!r} is not known: name a local folder, or one of {', '.join(_KNOWN)}")
    return known


def _from_config(folder: Path) -> Shape:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    return Shape(
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.vocab_size,
        config.tie_word_embeddings,
        getattr(config, "attention_bias", config.model_type == "qwen2"),
    )
