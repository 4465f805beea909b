"""The closed form against the simulation, within the band that the search relies on."""

from __future__ import annotations

import numpy as np
import pytest

from twofold.perf.queueing import demand_of, most_rates, steady_states
from twofold.perf.serving import Steps
from twofold.policy.batching import Limits
from twofold.simulate.deployment import Deployment, Phase
from twofold.simulate.outcome import judged
from twofold.simulate.serving import simulate
from twofold.workload.requests import draw_requests
from twofold.workload.serve import Arrivals, Lengths, Serve, Targets


def _price(steps: Steps) -> dict[str, np.ndarray]:
    """A step reads weights for 20 ms, or computes for 0.1 ms a token and reads 0.2 us a key."""
    return {
        "weights": np.maximum(0.020, 1e-4 * steps.tokens),
        "cache": 2e-7 * steps.keys,
        "attention": 1e-9 * steps.pairs,
    }


def _workload(rate_per_s: float) -> Serve:
    return Serve(
        arrivals=Arrivals(rate_per_s=rate_per_s),
        input=Lengths(mean=800, spread=0.8, most=6000),
        output=Lengths(mean=150, spread=0.7, most=1000),
        num_requests=1500,
        warmup_requests=200,
    )


def _steady(quantile: float = 0.9):
    return steady_states(
        _price,
        demand_of(draw_requests(_workload(1.0), 0), cached=False, quantile=quantile),
        max_num_seqs=np.array([256.0]),
        max_batched_tokens=np.array([4096.0]),
        cache_tokens=1e6,
        quantile=quantile,
    )


@pytest.mark.slow
@pytest.mark.parametrize("rate_per_s", [1.0, 3.0, 5.0])
def test_moderate_loads_agree_within_a_third(rate_per_s: float) -> None:
    steady, workload = _steady(), _workload(rate_per_s)
    limits = Limits(max_num_seqs=256, max_batched_tokens=4096, num_blocks=65_536)
    entry = Phase(replicas=1, limits=limits, price=_price)
    served = simulate(workload.arrivals, draw_requests(workload, 0), Deployment(entry=entry))
    requests = judged(workload, served)

    def at(column: np.ndarray) -> float:
        return float(np.interp(rate_per_s, steady.rate_per_s[0], column[0]))

    assert at(steady.tpot_s) == pytest.approx(requests.tpot_s.mean(), rel=0.25)
    assert at(steady.ttft_s) == pytest.approx(requests.ttft_s.mean(), rel=0.33)
    assert at(steady.e2e_s) == pytest.approx(requests.e2e_s.mean(), rel=0.2)


def test_times_rise_with_the_load() -> None:
    steady = _steady()
    assert (np.diff(steady.rate_per_s[0]) > 0).all()
    for column in (steady.tpot_s, steady.e2e_s, steady.ttft_s):
        assert (np.diff(column[0]) > -1e-9).all()


def test_tighter_targets_carry_less() -> None:
    rates = [
        float(most_rates(_steady(), Targets(ttft_s=2.0, tpot_s=tpot_s))[0][0])
        for tpot_s in (0.010, 0.030, 0.060, 1.0)
    ]
    assert rates[0] == 0.0
    assert rates == sorted(rates)
    assert rates[1] > 0.0


def test_the_place_limit_caps_the_load() -> None:
    demand = demand_of(draw_requests(_workload(1.0), 0), cached=False, quantile=0.9)
    steady = steady_states(
        _price,
        demand,
        max_num_seqs=np.array([4.0, 64.0]),
        max_batched_tokens=np.array([4096.0, 4096.0]),
        cache_tokens=1e6,
        quantile=0.9,
    )
    few, many = most_rates(steady, Targets())[0]
    assert few < 0.2 * many
    assert steady.places[:, 0].tolist() == [4.0, 64.0]
