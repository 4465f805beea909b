"""Serving under the simulated clock, where the answer is known by hand or must hold anyhow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.fleets import plain_fleet
from twofold.errors import InputError
from twofold.perf.serving import Steps
from twofold.policy.batching import Limits
from twofold.simulate.deployment import Deployment, Phase
from twofold.simulate.outcome import judged, outcome_of, overload_fraction
from twofold.simulate.serving import Patience, Served, simulate, simulate_while
from twofold.workload.requests import Request, draw_requests
from twofold.workload.serve import Arrivals, Lengths, Serve, SharedPrefix, Targets

STEP_S, TOKEN_S = 0.010, 0.001


def _price(steps: Steps) -> dict[str, np.ndarray]:
    """10 ms a step and 1 ms a token."""
    return {"overhead": STEP_S + 0.0 * steps.tokens, "products": TOKEN_S * steps.tokens}


def _phase(replicas: int = 1, **limits: int | bool | str) -> Phase:
    usual = {"max_num_seqs": 16, "max_batched_tokens": 512, "num_blocks": 4096}
    return Phase(replicas=replicas, limits=Limits(**(usual | limits)), price=_price)  # type: ignore[arg-type]


def _serve(
    deployment: Deployment, *requests: Request, kind: str = "poisson", **more: int
) -> Served:
    rate = {"rate_per_s": 1.0} if kind == "poisson" else {}
    return simulate(Arrivals(kind=kind, **rate, **more), list(requests), deployment)  # type: ignore[arg-type]


def _request(at_s: float, prompt: int, new_tokens: int) -> Request:
    return Request(arrival_s=at_s, input_tokens=prompt, output_tokens=new_tokens)


def test_one_request_takes_its_prompt_and_its_steps() -> None:
    served = _serve(Deployment(entry=_phase()), _request(1.0, 100, 6))
    assert served.first_s[0] == pytest.approx(1.0 + 0.010 + 0.100)
    assert served.last_s[0] == pytest.approx(1.11 + 5 * 0.011)


def test_an_arrival_joins_at_the_next_step() -> None:
    served = _serve(Deployment(entry=_phase()), _request(0.0, 10, 100), _request(0.0255, 20, 2))
    # The first: prompt until 20 ms, then steps of 11 ms; the second joins at 31 ms.
    assert served.first_s[1] == pytest.approx(0.031 + 0.010 + 0.021)
    assert served.last_s[1] == pytest.approx(0.062 + 0.012)
    assert served.last_s[0] == pytest.approx(0.020 + 97 * 0.011 + 0.031 + 0.012)


def test_static_batches_wait_for_the_one_before() -> None:
    entry = _phase(batching="static")
    served = _serve(Deployment(entry=entry), _request(0.0, 10, 11), _request(0.001, 10, 1))
    assert served.first_s[1] == pytest.approx(served.last_s[0] + 0.020)


def test_a_prompt_computed_elsewhere_is_sent_before_its_first_token() -> None:
    split = Deployment(entry=_phase(), decode=_phase(), transfer_s=lambda tokens: tokens / 1000)
    served = _serve(split, _request(0.0, 100, 3), _request(0.0, 50, 1))
    # Both prompts in one step of 160 ms; the first then travels for 100 ms.
    assert served.first_s.tolist() == pytest.approx([0.260, 0.160])
    assert served.last_s.tolist() == pytest.approx([0.260 + 2 * 0.011, 0.160])


def test_a_closed_loop_asks_again_when_it_was_answered() -> None:
    served = _serve(Deployment(entry=_phase()), *[_request(0.0, 10, 2)] * 3, kind="closed", users=1)
    assert served.arrival_s[1:].tolist() == pytest.approx(served.last_s[:-1].tolist())


def test_all_at_once_are_all_answered_within_the_limits() -> None:
    entry = _phase(replicas=2, max_num_seqs=3)
    served = _serve(Deployment(entry=entry), *[_request(0.0, 30, 5)] * 20, kind="offline")
    assert np.isfinite(served.last_s).all()
    assert sum(sum(log.tokens) for log in served.logs[0]) == 100


def test_a_full_cache_preempts_and_loses_no_token() -> None:
    entry = _phase(num_blocks=12)
    served = _serve(Deployment(entry=entry), *[_request(0.0, 60, 40)] * 6, kind="offline")
    assert served.num_preemptions > 0
    assert sum(sum(log.tokens) for log in served.logs[0]) == 240


def test_what_never_fits_is_refused() -> None:
    with pytest.raises(InputError, match="does not fit"):
        _serve(Deployment(entry=_phase(num_blocks=2)), _request(0.0, 100, 6))


def _workload(rate_per_s: float, **changed: object) -> Serve:
    usual: dict[str, object] = {
        "arrivals": Arrivals(rate_per_s=rate_per_s),
        "input": Lengths(mean=60, spread=0.5, most=200),
        "output": Lengths(mean=20, spread=0.5, most=100),
        "targets": Targets(ttft_s=0.5, tpot_s=0.1),
        "num_requests": 400,
        "warmup_requests": 50,
    }
    return Serve(**(usual | changed))  # type: ignore[arg-type]


def _run(workload: Serve, entry: Phase | None = None) -> Served:
    requests = draw_requests(workload, 0)
    return simulate(workload.arrivals, requests, Deployment(entry=entry or _phase()))


def test_equal_seeds_give_equal_times() -> None:
    one, other = (_run(_workload(5.0)) for _ in range(2))
    assert one.last_s.tolist() == other.last_s.tolist()


def test_more_load_is_never_sooner_on_the_mean() -> None:
    waits = [judged(w, _run(w)).ttft_s.mean() for w in map(_workload, (1.0, 5.0, 9.0))]
    assert waits == sorted(waits)


def test_littles_law_holds() -> None:
    """Users in the system = throughput x their time in it."""
    workload = _workload(1.0, arrivals=Arrivals(kind="closed", users=6), warmup_requests=20)
    requests = judged(workload, _run(workload))
    span_s = np.max(requests.arrival_s + requests.e2e_s) - requests.arrival_s[0]
    assert len(requests.e2e_s) / span_s * requests.e2e_s.mean() == pytest.approx(6, rel=0.05)


def test_the_outcome_adds_up_and_warm_up_does_not_count() -> None:
    workload = _workload(5.0)
    served, fleet = _run(workload), plain_fleet()
    outcome = outcome_of(workload, served, [(fleet.pools[0], 1)], {"weights": 1e9, "cache": 2e9})
    assert outcome.num_requests == 400
    assert outcome.peak_memory_bytes == 3e9
    assert outcome.attained_fraction is not None
    assert overload_fraction(workload, served) == 0.0


def test_goodput_is_the_share_met_of_the_rate_sent() -> None:
    """However long the last answers take: here 2 of 3 meet their target, one a second."""
    workload = _workload(1.0, targets=Targets(ttft_s=0.5), warmup_requests=0)
    served = _serve(
        Deployment(entry=_phase()),
        _request(0.0, 10, 2), _request(1.0, 10, 500), _request(2.0, 490, 2000),
    )  # fmt: skip
    outcome = outcome_of(workload, served, [(plain_fleet().pools[0], 1)], {"weights": 1e9})
    assert outcome.attained_fraction == pytest.approx(2 / 3)
    assert outcome.goodput_per_s == pytest.approx(2 / 3)
    users = replace(workload, arrivals=Arrivals(kind="closed", users=3))
    waited = outcome_of(users, served, [(plain_fleet().pools[0], 1)], {"weights": 1e9})
    assert waited.goodput_per_s == pytest.approx(2 / waited.duration_s)


def test_an_overloaded_run_says_so() -> None:
    """A request takes at least 60 ms of prompt and 20 ms of decoding, so 12.5 a second at most."""
    workload = _workload(25.0)
    overload = overload_fraction(workload, _run(workload))
    assert 0.9 < overload < 1.5


def test_shared_texts_are_found_in_the_cache() -> None:
    workload = _workload(5.0, shared_prefix=SharedPrefix(tokens=32))
    found = judged(workload, _run(workload))
    assert set(found.cached_tokens.tolist()) <= {0, 16, 32}
    assert found.cached_tokens.mean() > 25
    without = _run(workload, _phase(prefix_caching=False))
    assert judged(workload, without).cached_tokens.sum() == 0


def test_replicas_share_the_load() -> None:
    workload = _workload(12.0)
    alone, four = _run(workload), _run(workload, _phase(replicas=4))
    assert judged(workload, four).e2e_s.mean() < 0.5 * judged(workload, alone).e2e_s.mean()
    told = [sum(log.tokens) for log in four.logs[0]]
    assert max(told) < 1.5 * min(told)


def test_met_needs_all_targets() -> None:
    workload = _workload(5.0)
    requests = judged(workload, _run(workload))
    tight = replace(workload.targets, ttft_s=1e-6)
    assert not requests.met(tight).any()
    by_hand = [
        workload.targets.met(*times)
        for times in zip(requests.ttft_s, requests.tpot_s, requests.e2e_s, strict=True)
    ]
    assert requests.met(workload.targets).tolist() == by_hand


@pytest.mark.parametrize("rate_per_s", [2.0, 5.0, 6.5, 8.0, 20.0])
@pytest.mark.parametrize("targets", [Targets(ttft_s=0.4), Targets(tpot_s=0.03), Targets(e2e_s=1.0)])
def test_patience_ends_where_too_many_have_missed(rate_per_s: float, targets: Targets) -> None:
    workload = Serve(
        arrivals=Arrivals(rate_per_s=rate_per_s),
        input=Lengths(mean=60, spread=0.5),
        output=Lengths(mean=20, spread=0.5),
        targets=targets,
        num_requests=200,
        warmup_requests=20,
    )
    requests, deployment = draw_requests(workload, 0), Deployment(entry=_phase())
    whole = simulate(workload.arrivals, requests, deployment)
    missed = int((~judged(workload, whole).met(targets)).sum())
    for most_missed in (0, 20, missed - 1, missed, missed + 1):
        patience = Patience(targets=targets, first=20, most_missed=most_missed)
        got = simulate_while(workload.arrivals, requests, deployment, patience)
        assert (got is None) == (missed > most_missed)
        assert got is None or (got.last_s == whole.last_s).all()
