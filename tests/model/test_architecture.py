"""Models that cannot be, and those the embedded runtime cannot build."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workloads import gpt2_model, modern_model
from twofold.errors import InputError
from twofold.model import Experts, LatentAttention, Tower, embedded_lack

EXPERTS = Experts(count=8, top_k=2, ffn=64)
LATENT = LatentAttention(query_rank=32, kv_rank=16, nope_dim=32, rope_dim=16, value_dim=32)
TOWER = Tower(name="vision", layers=2, hidden=32, heads=4, ffn=64, tokens=16, patch_elements=48)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"heads": 3, "kv_heads": 3}, "3 heads do not divide"),
        ({"head_dim": 0}, "head_dim is 0"),
        ({"head_dim": 33, "position": "rotary"}, "even head dimension, not 33"),
        ({"window": 0}, "window is 0"),
        ({"global_every": 2}, "all layers are global"),
        ({"qk_norm_weights": True}, "head norms are not in use"),
        ({"token_types": -1}, "token_types is -1"),
        ({"logit_softcap": float("nan")}, "it is nan"),
        ({"experts": Experts(count=8, top_k=2, ffn=64, first_layer=4)}, "none of the 4 layers"),
        ({"latent": LATENT, "qk_norm": True}, "no head norms"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        gpt2_model(**fields)
    assert said in str(caught.value)
    assert caught.value.help


@pytest.mark.parametrize(
    ("part", "fields", "said"),
    [
        (Experts, {"count": 2, "top_k": 3, "ffn": 8}, "3 of 2 experts"),
        (Experts, {"count": 0, "top_k": 1, "ffn": 8}, "count is 0"),
        (Experts, {"count": 2, "top_k": 1, "ffn": 8, "every": 0}, "every is 0"),
        (
            LatentAttention,
            {"query_rank": None, "kv_rank": 8, "nope_dim": 8, "rope_dim": 3, "value_dim": 8},
            "even dimension, not 3",
        ),
        (
            Tower,
            {"name": "t", "layers": 1, "hidden": 8, "heads": 3, "ffn": 8, "tokens": 4,
             "patch_elements": 4},
            "3 heads do not divide",
        ),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_is_refused(part: Any, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        part(**fields)
    assert said in str(caught.value)


def test_a_stated_head_dimension_frees_the_heads() -> None:
    model = gpt2_model(heads=3, kv_heads=3, head_dim=64)
    assert model.head_size == 64
    assert gpt2_model().head_size == 64


def test_experts_stand_behind_dense_layers_and_between_them() -> None:
    leading = gpt2_model(layers=7, experts=Experts(count=8, top_k=2, ffn=64, first_layer=3))
    assert leading.expert_layers == 4
    every = gpt2_model(layers=7, experts=Experts(count=8, top_k=2, ffn=64, every=2))
    assert every.expert_layers == 3


@pytest.mark.parametrize(
    "model",
    [gpt2_model(), modern_model(activation="swiglu"), modern_model(experts=EXPERTS)],
)
def test_the_embedded_runtime_builds_decoders_dense_and_of_experts(model: Any) -> None:
    assert embedded_lack(model) is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"latent": LATENT}, "latent"),
        ({"towers": (TOWER,)}, "towers"),
        ({"window": 16}, "windows"),
        ({"causal": False}, "encoder"),
        ({"norm_place": "around"}, "norms stand around"),
        ({"position": "alibi"}, "alibi"),
        ({"activation": "geglu"}, "geglu"),
        ({"head_dim": 32}, "hidden / heads"),
        ({"qkv_bias": False}, "biases differ"),
        ({"attention_sinks": True}, "sinks"),
        ({"pooler": True}, "pooler"),
    ],
)
def test_what_the_embedded_runtime_lacks_is_said(fields: dict[str, Any], said: str) -> None:
    lack = embedded_lack(gpt2_model(**fields))
    assert lack is not None
    assert said in lack
