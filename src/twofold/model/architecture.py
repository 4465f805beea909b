"""`Model`: a decoder-only network as its hyper-parameters, spelled as in Hugging Face configs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twofold.errors import InputError

Norm = Literal["layernorm", "rmsnorm"]
Activation = Literal["gelu", "swiglu", "relu2"]
Position = Literal["learned", "rotary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A decoder-only language model.

    `entry` names a user's own network as `module:function`; the function takes this Model and
    returns a `torch.nn.Module` from tokens [batch, seq] to logits [batch, seq, vocab]. The other
    fields then only describe its interface, and no prediction is made for it.
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

    def __post_init__(self) -> None:
        for field in ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "max_seq_len"):
            if getattr(self, field) < 1:
                self._refuse(field, f"{field} is {getattr(self, field)}", "use at least 1")
        if self.hidden % self.heads:
            self._refuse(
                "heads",
                f"{self.heads} heads do not divide the hidden size {self.hidden}",
                f"use one of {_divisors(self.hidden)}",
            )
        if self.heads % self.kv_heads:
            self._refuse(
                "kv_heads",
                f"{self.kv_heads} key/value heads do not divide the {self.heads} heads",
                f"use one of {_divisors(self.heads)}",
            )
        if self.position == "rotary" and self.head_dim % 2:
            self._refuse(
                "heads",
                f"rotary positions need an even head dimension, not {self.head_dim}",
                "change heads or hidden",
            )
        if not 0 <= self.value_embeddings <= self.layers:
            self._refuse(
                "value_embeddings",
                f"{self.value_embeddings} value-embedding layers among {self.layers} layers",
                f"use 0 to {self.layers}",
            )
        if self.logit_softcap is not None and self.logit_softcap <= 0:
            self._refuse("logit_softcap", f"it is {self.logit_softcap}", "use a positive number")

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    def _refuse(self, field: str, what: str, help: str) -> None:
        raise InputError(what, at=f"model '{self.name}', {field}", help=help)


def _divisors(number: int) -> str:
    """The divisors up to 256: more heads than that nobody means."""
    return ", ".join(str(d) for d in range(1, min(number, 256) + 1) if number % d == 0)
