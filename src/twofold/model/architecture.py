"""`Model`: a network as its hyper-parameters, spelled as in Hugging Face configs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from twofold.errors import InputError
from twofold.model.table import Operator

Norm = Literal["layernorm", "rmsnorm"]
NormPlace = Literal["before", "after", "around"]
Activation = Literal["gelu", "relu", "relu2", "swiglu", "geglu"]
Position = Literal["learned", "rotary", "alibi", "none"]

_MOST = 10**9
"""More of anything is a slip of the pen, and would overflow the arithmetic that follows."""

GATED: tuple[Activation, ...] = ("swiglu", "geglu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of experts in place of the feed-forward network (Shazeer et al. 2017).

    Of `count` networks of width `ffn` each token takes `top_k`; `shared_ffn` is the width, all
    together, of those that every token takes (Dai et al. 2024). The `first_layer` leading layers
    are dense, with the model's own `ffn`; of the others every `every`-th, its last, has experts.
    `router_bias` is one number an expert, learned or adjusted to balance the load.
    """

    count: int
    top_k: int
    ffn: int
    shared_ffn: int = 0
    first_layer: int = 0
    every: int = 1
    bias: bool = False
    router_bias: bool = False

    def __post_init__(self) -> None:
        _at_least("experts", self, 1, "count", "top_k", "ffn", "every")
        _at_least("experts", self, 0, "shared_ffn", "first_layer")
        if self.top_k > self.count:
            raise InputError(
                f"a token cannot take {self.top_k} of {self.count} experts",
                at="experts, top_k",
                help=f"use 1 to {self.count}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).

    Keys and values pass through `kv_rank` channels, queries through `query_rank` (None: not).
    A head has `nope_dim` channels without and `rope_dim` with positions, and `value_dim` of value.
    """

    query_rank: int | None = None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int

    def __post_init__(self) -> None:
        _at_least("latent", self, 1, "kv_rank", "nope_dim", "value_dim")
        _at_least("latent", self, 0, "rope_dim")
        if self.query_rank is not None:
            _at_least("latent", self, 1, "query_rank")
        if self.rope_dim % 2:
            raise InputError(
                f"rotary positions need an even dimension, not {self.rope_dim}",
                at="latent, rope_dim",
                help="change it",
            )

    @property
    def query_dim(self) -> int:
        return self.nope_dim + self.rope_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """An encoder of another modality, whose output stands among the model's tokens.

    Each sequence brings `tokens` positions, each of `patch_elements` inputs (channels x height x
    width of a patch), through `layers` of its own, all-to-all attention but for a `window`,
    which every `global_every`-th layer lacks. Its projector joins `merge` positions into one of
    the model's tokens, by their mean where `pooled`, through `projector_ffn` channels (None: in
    one product).
    """

    name: str
    layers: int
    hidden: int
    heads: int
    ffn: int
    tokens: int
    patch_elements: int
    patch_bias: bool = False
    learned_positions: int = 0
    class_token: bool = False
    norm: Norm = "layernorm"
    activation: Activation = "gelu"
    bias: bool = True
    input_norm: bool = False
    final_norm: bool = True
    window: int | None = None
    global_every: int | None = None
    merge: int = 1
    pooled: bool = False
    projector_norm: Norm | None = None
    projector_ffn: int | None = None
    projector_bias: bool = True
    trainable: bool = True

    def __post_init__(self) -> None:
        at = f"tower '{self.name}'"
        _at_least(at, self, 1, "layers", "hidden", "heads", "ffn", "tokens", "patch_elements")
        _at_least(at, self, 1, "merge")
        _at_least(at, self, 0, "learned_positions")
        for optional in ("window", "global_every", "projector_ffn"):
            if getattr(self, optional) is not None:
                _at_least(at, self, 1, optional)
        if self.hidden % self.heads:
            raise InputError(
                f"{self.heads} heads do not divide the hidden size {self.hidden}",
                at=f"{at}, heads",
                help=f"use one of {_divisors(self.hidden)}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A transformer that reads tokens: a decoder, or an encoder where not `causal`.

    `head_dim` is hidden / heads unless given. With a `window`, layers attend to so many keys at
    most, but for every `global_every`-th layer. Biases of the products are `bias` unless
    `qkv_bias`, `output_bias` (of attention) or `mlp_bias` say otherwise. Norms stand `before`
    attention and feed-forward network, `after` the residual sum (BERT), or `around` (Gemma 2).
    `qk_norm_weights`: head norms with a learned weight for each channel. `attention_sinks`: a
    learned logit for each head (gpt-oss). `masked_head` and `pooler` are BERT's, for training;
    the head is counted on all positions.

    `entry` names a user's own network as `module:function`; the function takes this Model and
    returns a `torch.nn.Module` from tokens [batch, seq] to logits [batch, seq, vocab]. The other
    fields then only describe its interface, and no prediction is made for it. `operators` are
    the table of a network that is no transformer; the other fields then mean nothing.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    max_seq_len: int
    norm: Norm = "layernorm"
    activation: Activation = "gelu"
    position: Position = "learned"
    qk_norm: bool = False
    bias: bool = True
    tied_embeddings: bool = True
    value_embeddings: int = 0
    logit_softcap: float | None = None
    entry: str | None = None
    head_dim: int | None = None
    causal: bool = True
    window: int | None = None
    global_every: int | None = None
    norm_place: NormPlace = "before"
    embedding_norm: bool = False
    qk_norm_weights: bool = False
    qkv_bias: bool | None = None
    output_bias: bool | None = None
    mlp_bias: bool | None = None
    attention_sinks: bool = False
    token_types: int = 0
    pooler: bool = False
    masked_head: bool = False
    experts: Experts | None = None
    latent: LatentAttention | None = None
    towers: tuple[Tower, ...] = ()
    operators: tuple[Operator, ...] = field(default=(), hash=False)

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "max_seq_len"):
            self._require(name, 1)
        for name in ("head_dim", "window", "global_every"):
            if getattr(self, name) is not None:
                self._require(name, 1)
        self._require("token_types", 0)
        self._check_heads()
        self._check_layers()
        if self.logit_softcap is not None and not self.logit_softcap > 0:
            self._refuse("logit_softcap", f"it is {self.logit_softcap}", "use a positive number")

    @property
    def head_size(self) -> int:
        """Channels of a head: `head_dim`, or hidden / heads."""
        return self.hidden // self.heads if self.head_dim is None else self.head_dim

    @property
    def gated(self) -> bool:
        """Whether feed-forward networks multiply by a gate, so widen twice."""
        return self.activation in GATED

    @property
    def expert_layers(self) -> int:
        if self.experts is None:
            return 0
        return (self.layers - self.experts.first_layer) // self.experts.every

    @property
    def windowed_layers(self) -> int:
        if self.window is None:
            return 0
        return self.layers - (self.layers // self.global_every if self.global_every else 0)

    def _check_heads(self) -> None:
        if self.head_dim is None and self.latent is None and self.hidden % self.heads:
            self._refuse(
                "heads",
                f"{self.heads} heads do not divide the hidden size {self.hidden}",
                f"use one of {_divisors(self.hidden)}, or state head_dim",
            )
        if self.heads % self.kv_heads:
            self._refuse(
                "kv_heads",
                f"{self.kv_heads} key/value heads do not divide the {self.heads} heads",
                f"use one of {_divisors(self.heads)}",
            )
        if self.position == "rotary" and self.latent is None and self.head_size % 2:
            self._refuse(
                "heads",
                f"rotary positions need an even head dimension, not {self.head_size}",
                "change heads or hidden",
            )
        if self.qk_norm_weights and not self.qk_norm:
            self._refuse("qk_norm_weights", "head norms are not in use", "set qk_norm too")
        if self.latent is not None and (self.qk_norm or self.value_embeddings):
            self._refuse(
                "latent",
                "latent attention has no head norms and no value embeddings",
                "leave out qk_norm and value_embeddings",
            )

    def _check_layers(self) -> None:
        if not 0 <= self.value_embeddings <= self.layers:
            self._refuse(
                "value_embeddings",
                f"{self.value_embeddings} value-embedding layers among {self.layers} layers",
                f"use 0 to {self.layers}",
            )
        if self.global_every is not None and self.window is None:
            self._refuse(
                "global_every", "without a window all layers are global", "state the window too"
            )
        if self.experts is not None and not self.expert_layers:
            self._refuse(
                "experts",
                f"none of the {self.layers} layers would have experts",
                "lower experts.first_layer or experts.every",
            )

    def _require(self, name: str, least: int) -> None:
        if not least <= getattr(self, name) <= _MOST:
            self._refuse(name, f"{name} is {getattr(self, name)}", _range(least))

    def _refuse(self, field: str, what: str, help: str) -> None:
        raise InputError(what, at=f"model '{self.name}', {field}", help=help)


def _at_least(at: str, part: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        if not least <= value <= _MOST:
            raise InputError(f"{name} is {value}", at=f"{at}, {name}", help=_range(least))


def _range(least: int) -> str:
    return f"use at least {least}, at most {_MOST:,}"


def _divisors(number: int) -> str:
    """The divisors up to 256: more heads than that nobody means."""
    return ", ".join(str(d) for d in range(1, min(number, 256) + 1) if number % d == 0)
