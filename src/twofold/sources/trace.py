"""What one forward pass of a network does on one sample: steps on values, in a framework's order.

Every importer (PyTorch, JAX, Keras, TensorFlow) ends here; all that follows is the same for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Origin = Literal["input", "parameter", "constant", "step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor: for one sample, unless it is a parameter or a constant."""

    shape: tuple[int, ...]
    origin: Origin
    name: str = ""
    trainable: bool = True

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """`batch` times [m, k] x [k, n]; a convolution is that of its unfolded input."""

    batch: int = 1
    m: int
    n: int
    k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation. `form` is a word of `FORMS`, or "unknown"; `source` the framework's name of
    it, `name` where in the network it stands.

    `reads` and `writes` are places in `Trace.values`. Of a product the first two reads are its
    operands; of attention they are queries, keys and values. A view writes what it reads: it has
    no step of its own in a trace whose values are storages, else it is a step of form "view".
    """

    form: str
    name: str
    source: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    product: Product | None = None
    causal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The steps of a network on `sample`, an input described in words."""

    framework: str
    name: str
    sample: str
    max_seq_len: int | None
    steps: tuple[Step, ...]
    values: tuple[Value, ...]


FORMS: dict[str, str] = {
    "view": "",
    "constant": "",
    "iota": "",
    "triangle": "add",
    "compare": "add",
    "product": "linear",
    "attention": "attention",
    "embedding": "embedding",
    "add": "add",
    "multiply": "add",
    "select": "add",
    "copy": "permute",
    "relu": "relu",
    "gelu": "gelu",
    "silu": "gelu",
    "exp": "gelu",
    "square": "gelu",
    "unary": "gelu",
    "sine": "gelu",
    "softmax": "softcap",
    "layernorm": "layernorm",
    "rmsnorm": "rmsnorm",
    "batchnorm": "batchnorm",
    "count": "pool",
    "reduce": "pool",
    "pool": "pool",
    "dropout": "add",
    "loss": "cross_entropy",
}
"""Form -> the vector operation that prices it: the one that reads and writes as often."""


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())
