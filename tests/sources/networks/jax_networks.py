"""Networks in JAX that tests import by name: (apply, params, inputs), shapes alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

LAYERS, HIDDEN, HEADS, FFN, VOCAB, SEQ = 4, 256, 8, 1024, 8192, 128


def _shape(*sides: int) -> Any:
    return jax.ShapeDtypeStruct(sides, jnp.float32)


def _linear(inputs: int, outputs: int) -> dict[str, Any]:
    return {"weight": _shape(inputs, outputs), "bias": _shape(outputs)}


def _norm() -> dict[str, Any]:
    return {"scale": _shape(HIDDEN), "shift": _shape(HIDDEN)}


def _layer() -> dict[str, Any]:
    square = {name: _linear(HIDDEN, HIDDEN) for name in ("query", "key", "value", "output")}
    wide = {"up": _linear(HIDDEN, FFN), "down": _linear(FFN, HIDDEN)}
    return square | wide | {"norm1": _norm(), "norm2": _norm()}


def _apply_linear(p: Any, x: Any) -> Any:
    return x @ p["weight"] + p["bias"]


def _apply_norm(p: Any, x: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    spread = jnp.var(x, -1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(spread + 1e-5) * p["scale"] + p["shift"]


def _apply_layer(p: Any, x: Any) -> Any:
    batch, length, _ = x.shape
    y = _apply_norm(p["norm1"], x)
    query, key, value = (
        _apply_linear(p[name], y).reshape(batch, length, HEADS, -1)
        for name in ("query", "key", "value")
    )
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / (HIDDEN // HEADS) ** 0.5
    mask = jnp.tril(jnp.ones((length, length), bool))
    scores = jax.nn.softmax(jnp.where(mask, scores, -1e30))
    y = jnp.einsum("bhqk,bkhd->bqhd", scores, value).reshape(batch, length, HIDDEN)
    x = x + _apply_linear(p["output"], y)
    y = jax.nn.gelu(_apply_linear(p["up"], _apply_norm(p["norm2"], x)))
    return x + _apply_linear(p["down"], y)


def _decoder(params: Any, tokens: Any) -> Any:
    x = jnp.take(params["table"], tokens, axis=0)
    for layer in params["layers"]:
        x = _apply_layer(layer, x)
    return _apply_norm(params["norm"], x) @ params["head"]


def _scanned(params: Any, tokens: Any) -> Any:
    x = jnp.take(params["table"], tokens, axis=0)
    x, _ = jax.lax.scan(lambda x, p: (_apply_layer(p, x), None), x, params["layers"])
    return _apply_norm(params["norm"], x) @ params["head"]


def _ends() -> dict[str, Any]:
    return {"table": _shape(VOCAB, HIDDEN), "norm": _norm(), "head": _shape(HIDDEN, VOCAB)}


def decoder() -> Any:
    """The decoder that is written in three frameworks."""
    params = _ends() | {"layers": [_layer() for _ in range(LAYERS)]}
    return _decoder, params, jax.ShapeDtypeStruct((1, SEQ), jnp.int32)


def scanned_decoder() -> Any:
    """The same with its layers' weights stacked and scanned, as MaxText does."""
    stacked = jax.tree_util.tree_map(lambda leaf: _shape(LAYERS, *leaf.shape), _layer())
    params = _ends() | {"layers": stacked}
    return _scanned, params, jax.ShapeDtypeStruct((1, SEQ), jnp.int32)


def chooses() -> Any:
    """What it does depends on values: it cannot be traced."""

    def apply(weight: Any, x: Any) -> Any:
        y = x @ weight
        return y if y.sum() > 0 else x

    return apply, _shape(8, 8), _shape(1, 8)
