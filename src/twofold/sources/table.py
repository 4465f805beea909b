"""A network that is no transformer, as its operator table in TOML.

    [network]
    sample = "image"         # what a token of the table is; sequences are one long

    [[operators]]
    name = "conv1"
    kind = "gemm"            # gemm: [m, k] x [k, n]; vector: m rows of n elements
    m = 12544                # for each sample
    n = 64
    k = 147
    layer = 0                # 0 the input, 1 to L the blocks, L + 1 the output
    repeat = 1
    saved = 150528           # elements kept for backward for each sample: m x k unless given
    boundary = 802816        # elements that a cut after the row sends: m x n unless given
    op = "linear"            # what prices it: linear for a gemm, or a vector operation's name
    bias = false
    parameters = 9408        # n x k (+ n) for a gemm, 0 for a vector operation, unless given
    tensors = 1

The rows stand in order of execution. Data parallelism in all its forms divides them; no tensor,
context or expert axis does.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from twofold.errors import InputError
from twofold.model import Model, Operator, Size
from twofold.model.table import NOTHING, Segment

_MOST = 1e15

_KEYS = {
    "name": str, "kind": str, "op": str, "m": float, "n": float, "k": float, "layer": int,
    "repeat": int, "saved": float, "boundary": float, "bias": bool, "parameters": int,
    "tensors": int,
}  # fmt: skip


def network_from_table(mapping: Mapping[str, Any], *, name: str, at: str) -> Model:
    """The model whose operator table a decoded TOML gives."""
    items = mapping["operators"]
    if not isinstance(items, list) or not items:
        raise InputError("`operators` is not a list of rows", at=at, help="write [[operators]]")
    rows = [_checked(item, f"{at}, operators {index}") for index, item in enumerate(items, 1)]
    last = max(_last_layer(row) for row in rows)
    if last < 2:
        raise InputError(
            "the table has no blocks between input and output",
            at=at,
            help="layer 0 is the input, 1 to L are the blocks, L + 1 the output",
        )
    return Model(
        name=name,
        layers=last - 1,
        hidden=1,
        heads=1,
        kv_heads=1,
        ffn=1,
        vocab=1,
        max_seq_len=1,
        position="none",
        operators=tuple(_operator(row, last) for row in rows),
    )


def _for_each(coefficient: float) -> Size:
    """So many for each sample. Floats, as JSON gives them back: hashes of a plan depend on it."""
    return Size(coefficient=float(coefficient), tokens_power=1.0)


def _last_layer(row: Mapping[str, Any]) -> int:
    return int(row["layer"]) + int(row.get("repeat", 1)) - 1


def _operator(row: Mapping[str, Any], last: int) -> Operator:
    gemm = row["kind"] == "gemm"
    m, n, k = row["m"], row["n"], row.get("k", 1)
    bias, block = bool(row.get("bias", False)), 0 < row["layer"] < last
    segment: Segment = "block" if block else ("input" if row["layer"] == 0 else "output")
    saved = _for_each(row.get("saved", m * k if gemm else 0))
    return Operator(
        name=row["name"],
        kind="gemm" if gemm else "vector",
        op=row.get("op", "linear_bias" if bias else "linear"),
        segment=segment,
        m=_for_each(m),
        n=Size(coefficient=float(n)),
        k=Size(coefficient=float(k)),
        first_layer=row["layer"],
        repeat=row.get("repeat", 1),
        parameters=int(row.get("parameters", n * k + (n if bias else 0) if gemm else 0)),
        tensors=row.get("tensors", 1 + bias if gemm else 0),
        saved_elements={"none": saved, "full": NOTHING if block else saved},
        boundary=_for_each(row.get("boundary", m * n)),
        divided_by={"data": "m"},
    )


def _checked(item: Any, at: str) -> Mapping[str, Any]:
    """A row whose keys exist, with numbers that are finite and not negative."""
    if not isinstance(item, Mapping):
        raise InputError("it is not a table of keys", at=at, help="write [[operators]]")
    for key, value in item.items():
        form = _KEYS.get(key)
        if form is None:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            raise InputError(
                f"there is no key '{key}'",
                at=at,
                help=f"perhaps '{near[0]}' is meant" if near else "use " + ", ".join(_KEYS),
            )
        if form is float:
            right = isinstance(value, int | float) and not isinstance(value, bool)
            least = 0 if key in ("saved", "boundary") else 1
            right = right and math.isfinite(value) and least <= value <= _MOST
        elif form is int:
            right = type(value) is int and 0 <= value <= _MOST
        else:
            right = isinstance(value, form)
        if not right:
            raise InputError(f"{key} is {value!r}", at=f"{at}, {key}", help="correct it")
    needed = ["name", "kind", "m", "n", "layer"]
    kind = item.get("kind")
    if kind == "gemm":
        needed.append("k")
    elif kind == "vector":
        needed.append("op")
    else:
        raise InputError(f"kind is {kind!r}", at=f"{at}, kind", help="use gemm or vector")
    for key in needed:
        if key not in item:
            raise InputError(f"the key '{key}' is missing", at=at, help="every row has one")
    if item.get("repeat", 1) < 1:
        raise InputError("repeat is 0", at=f"{at}, repeat", help="use at least 1")
    return item
