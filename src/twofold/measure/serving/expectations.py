"""What the physics expects of a plan here: goodput at each target, latency at each rate.

Simulated on requests like those that are sent, and written down before the first judged one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from twofold.evidence.serving.goodput import Point, goodput
from twofold.evidence.serving.records import NamedTargets, RatePrediction, ServingPrediction
from twofold.fleet import Fleet
from twofold.measure.serving.experiment import LoadSpec
from twofold.model import Model
from twofold.serving_plan import ServingPlan
from twofold.simulate import simulate_plan
from twofold.workload.serve import Serve

_REQUESTS = 150
_SEED = 1
_FINEST = 1.12
_COARSE = 2.0
_SLOWEST_PER_S, _FASTEST_PER_S = 0.02, 5000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expecting:
    """A model on this machine under a load; what simulations of it share."""

    model: Model
    fleet: Fleet
    load: LoadSpec
    targets: tuple[NamedTargets, ...]
    num_offline: int

    def attained(self, plan: ServingPlan, rate_per_s: float) -> dict[str, float]:
        """Share of simulated requests that meet each target at a rate."""
        workload = replace(self.load.at_rate(rate_per_s, "expected"), num_requests=_REQUESTS)
        requests = simulate_plan(self.model, self.fleet, plan, workload, seed=_SEED).requests
        return {t.name: float(np.mean(requests.met(t.targets))) for t in self.targets}

    def goodputs(self, plan: ServingPlan, names: Sequence[str]) -> dict[str, float | None]:
        """The crossing of each named target; None where no rate meets it."""
        wanted = {t.name: t.targets.attainment for t in self.targets if t.name in names}
        seen: dict[float, dict[str, float]] = {}

        def met(rate: float, name: str) -> bool:
            if rate not in seen:
                seen[rate] = self.attained(plan, rate)
            return seen[rate][name] >= wanted[name]

        found: dict[str, float | None] = {}
        for name in wanted:
            rate = 1.0
            while met(rate, name) and rate < _FASTEST_PER_S:
                rate *= _COARSE
            while not met(rate, name) and rate > _SLOWEST_PER_S:
                rate /= _COARSE
            if not met(rate, name):
                found[name] = None
                continue
            low, high = rate, rate * _COARSE
            while high / low > _FINEST:
                middle = (low * high) ** 0.5
                low, high = (middle, high) if met(middle, name) else (low, middle)
            points = [
                Point(rate_per_s=r, attained=seen[r][name], num=_REQUESTS)
                for r in (low, high)
                if r in seen
            ]
            found[name] = goodput(points, wanted[name]).value
        return found

    def prediction(self, plan: ServingPlan, rates_per_s: Sequence[float]) -> ServingPrediction:
        """Of an arm that is run at these rates, and once with all requests at once."""
        loads = [(rate, self.load.at_rate(rate, "expected")) for rate in rates_per_s]
        rows = [self._at(plan, rate, replace(load, num_requests=_REQUESTS)) for rate, load in loads]
        rows.append(self._at(plan, None, self.load.offline("expected", self.num_offline)))
        return ServingPrediction(
            goodput_per_s=self.goodputs(plan, [t.name for t in self.targets]),
            rates=tuple(row for row, _ in rows),
            basis=rows[0][1],
        )

    def _at(
        self, plan: ServingPlan, rate: float | None, workload: Serve
    ) -> tuple[RatePrediction, str]:
        estimate = simulate_plan(self.model, self.fleet, plan, workload, seed=_SEED).estimate
        outcome = estimate.outcome
        row = RatePrediction(
            rate_per_s=rate,
            ttft_p50_s=outcome.ttft_s.p50,
            tpot_p50_s=None if outcome.tpot_s is None else outcome.tpot_s.p50,
            output_tokens_per_s=outcome.output_tokens_per_s,
        )
        return row, estimate.basis
