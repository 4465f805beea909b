from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.workloads import gpt2_model, modern_model, train
from twofold.perf.learning import muon_gain, tokens_ratio_to_loss

ADAMW = train().recipe
MUON = train(optimizer="muon").recipe


def test_muon_gain_passes_through_the_published_ends() -> None:
    """Wen et al. 2025 (arXiv 2509.02046): 1.4x at 0.13 billion, 1.1x at 1.2 billion."""
    assert muon_gain(1.3e8) == pytest.approx(1.4)
    assert muon_gain(1.2e9) == pytest.approx(1.1)
    assert muon_gain(1e12) == 1.0
    assert muon_gain(1e6) > muon_gain(1e7) > muon_gain(1e8)


def test_nothing_changed_is_no_gain_and_certain() -> None:
    model = gpt2_model()
    assert tokens_ratio_to_loss(ADAMW, model, ADAMW, model) == (1.0, 1.0, 1.0)


def test_the_gain_decays_with_model_size_and_its_interval_holds_it() -> None:
    small, large = gpt2_model(), gpt2_model(layers=24, hidden=2048, heads=32, kv_heads=32, ffn=8192)
    gains = [tokens_ratio_to_loss(ADAMW, m, MUON, m) for m in (small, large)]
    for value, low, high in gains:
        assert 1.0 <= low <= value <= high
    assert gains[0][0] > 1.5 * gains[1][0]


def test_at_moonshots_size_the_interval_reaches_their_factor_of_two() -> None:
    """arXiv 2502.16982 claims about 2x where Wen et al. have 1.1x: both lie within."""
    model = gpt2_model(layers=24, hidden=2048, heads=32, kv_heads=32, ffn=8192)
    value, low, high = tokens_ratio_to_loss(ADAMW, model, MUON, model)
    assert low <= 1.1 <= high
    assert high >= 2.0
    assert value < 1.2


def test_swapping_the_sides_inverts_the_ratio() -> None:
    a, b = gpt2_model(), modern_model()
    value, low, high = tokens_ratio_to_loss(ADAMW, a, MUON, b)
    back, back_low, back_high = tokens_ratio_to_loss(MUON, b, ADAMW, a)
    assert back == pytest.approx(1 / value)
    assert back_low == pytest.approx(1 / high)
    assert back_high == pytest.approx(1 / low)


def test_each_modern_feature_is_credited_and_their_bundle_is_the_product() -> None:
    plain, modern = gpt2_model(), modern_model()
    features = [
        {"position": "rotary"},
        {"qk_norm": True, "activation": "relu2"},
        {"tied_embeddings": False},
        {"value_embeddings": 2},
        {"logit_softcap": 15.0},
    ]
    gains = [
        tokens_ratio_to_loss(ADAMW, plain, ADAMW, gpt2_model(**change))[0] for change in features
    ]
    assert min(gains) > 1.0
    bundle = tokens_ratio_to_loss(ADAMW, plain, ADAMW, modern)[0]
    assert bundle == pytest.approx(math.prod(gains))


def test_another_batch_or_size_widens_the_interval_without_moving_it() -> None:
    model = gpt2_model()
    plain = tokens_ratio_to_loss(ADAMW, model, MUON, model)
    batch = tokens_ratio_to_loss(ADAMW, model, replace(MUON, global_batch=64), model)
    assert batch[0] == plain[0]
    assert batch[1] < plain[1]
    assert batch[2] > plain[2]
    bigger = gpt2_model(layers=8)
    size = tokens_ratio_to_loss(ADAMW, model, ADAMW, bigger)
    assert size[0] == 1.0
    assert size[1] < 0.8
