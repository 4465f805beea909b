"""The rows of vision and audio towers: patches in, the model's tokens out.

Symbols: T positions of a tower for each sequence. A tower runs before the input; its rows count
layers of their own from 1.
"""

from __future__ import annotations

from twofold.model.architecture import GATED, Model, Tower
from twofold.model.rows import (
    Place,
    attention,
    kept,
    linear,
    norm,
    sequences,
    vector,
)
from twofold.model.table import Operator


def tower_rows(model: Model) -> list[Operator]:
    return [row for tower in model.towers for row in _rows(tower, model.hidden)]


def _rows(tower: Tower, hidden: int) -> list[Operator]:
    return [*_patch_rows(tower), *_layer_rows(tower), *_projector_rows(tower, hidden)]


def _patch_rows(tower: Tower) -> list[Operator]:
    """A strided convolution over patches is one product (Dosovitskiy et al. 2020)."""
    width, place, m = tower.hidden, Place("tower", 0, 1), sequences(tower.tokens)
    train = tower.trainable
    rows = [
        linear(
            f"{tower.name}.patches",
            tower.patch_elements,
            width,
            place,
            bias=tower.patch_bias,
            tensor=None,
            m=m,
            trainable=train,
        )
    ]
    learned = tower.learned_positions + tower.class_token
    if learned:
        rows.append(
            vector(
                f"{tower.name}.positions",
                "add",
                width,
                place,
                m=m,
                parameters=learned * width,
                tensors=1,
                trainable=train,
            )
        )
    if tower.input_norm:
        rows.append(_norm("input_norm", tower, place))
    return rows


def _layer_rows(tower: Tower) -> list[Operator]:
    width, ffn, place = tower.hidden, tower.ffn, Place("tower", 1, tower.layers)
    m, train, bias = sequences(tower.tokens), tower.trainable, tower.bias
    widening = 2 * ffn if tower.activation in GATED else ffn

    def product(name: str, inputs: int, outputs: int, tensor: str) -> Operator:
        name = f"{tower.name}.{name}"
        return linear(name, inputs, outputs, place, bias=bias, tensor=tensor, m=m, trainable=train)

    return [
        _norm("attention_norm", tower, place, entry=True),
        product("query_key_value", width, 3 * width, "n"),
        *_pair_rows(tower),
        product("attention_output", width, width, "k"),
        vector(f"{tower.name}.attention_residual", "add", width, place, m=m),
        _norm("mlp_norm", tower, place),
        product("mlp_up", width, widening, "n"),
        vector(
            f"{tower.name}.activation",
            tower.activation,
            ffn,
            place,
            m=m,
            split=True,
            saved_elements=kept(sequences(tower.tokens * widening)),
        ),
        product("mlp_down", ffn, width, "k"),
        vector(f"{tower.name}.mlp_residual", "add", width, place, m=m),
    ]


def _pair_rows(tower: Tower) -> list[Operator]:
    windowed = 0
    if tower.window is not None:
        windowed = tower.layers - (tower.layers // tower.global_every if tower.global_every else 0)
    kinds = [
        ("window_attention", tower.window, Place("tower", 1, windowed)),
        ("attention", None, Place("tower", windowed + 1, tower.layers - windowed)),
    ]
    width = tower.hidden
    return [
        attention(
            f"{tower.name}.{name}",
            place,
            heads=tower.heads,
            channels=width // tower.heads,
            saved=sequences(3 * width * tower.tokens),
            width=width,
            keys_and_values=sequences(2 * width * tower.tokens),
            causal=False,
            window=window,
            length=tower.tokens,
            trainable=tower.trainable,
        )
        for name, window, place in kinds
        if place.repeat
    ]


def _projector_rows(tower: Tower, hidden: int) -> list[Operator]:
    """Neighbouring positions joined, channels side by side or averaged, and projected."""
    place = Place("tower", tower.layers + 1, 1)
    joined, bias = tower.hidden * (1 if tower.pooled else tower.merge), tower.projector_bias
    m = sequences(tower.tokens / tower.merge)
    rows = []
    if tower.final_norm:
        rows.append(_norm("final_norm", tower, place))
    if tower.projector_norm is not None:
        rows.append(_norm("projector_norm", tower, place, trainable=True))
    inner = tower.projector_ffn
    if inner is None:
        rows.append(
            linear(f"{tower.name}.projector", joined, hidden, place, bias=bias, tensor=None, m=m)
        )
        return rows
    return [
        *rows,
        linear(f"{tower.name}.projector_up", joined, inner, place, bias=bias, tensor=None, m=m),
        vector(
            f"{tower.name}.projector_activation",
            "gelu",
            inner,
            place,
            m=m,
            saved_elements=kept(sequences(tower.tokens / tower.merge * inner)),
        ),
        linear(f"{tower.name}.projector_down", inner, hidden, place, bias=bias, tensor=None, m=m),
    ]


def _norm(
    name: str, tower: Tower, place: Place, *, entry: bool = False, trainable: bool | None = None
) -> Operator:
    kind = tower.norm if name != "projector_norm" else tower.projector_norm or tower.norm
    return norm(
        f"{tower.name}.{name}",
        kind,
        tower.hidden,
        place,
        bias=kind == "layernorm",
        m=sequences(tower.tokens),
        entry=entry,
        trainable=tower.trainable if trainable is None else trainable,
    )
