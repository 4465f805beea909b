"""Questions that are answered in a second or two: short answers of a small model."""

from __future__ import annotations

from dataclasses import replace

from twofold.catalog import read_fleet
from twofold.perf.serving_rates import fitted_serving
from twofold.search.serving.question import ServingQuestion
from twofold.sources.models import find_model
from twofold.workload.serve import Arrivals, Lengths, Serve, SharedPrefix, Targets

SHORT = Serve(
    arrivals=Arrivals(rate_per_s=4.0),
    input=Lengths(mean=400, spread=0.5, most=2000),
    output=Lengths(mean=12, spread=0.4, most=40),
    shared_prefix=SharedPrefix(tokens=64),
    targets=Targets(ttft_s=0.3, tpot_s=0.03),
)


def question(
    targets: Targets = SHORT.targets,
    arrivals: Arrivals = SHORT.arrivals,
    fleet: str = "h100-sxm:2",
    **more: object,
) -> ServingQuestion:
    return ServingQuestion(
        model=find_model("llama-3.1-8b"),
        workload=replace(SHORT, targets=targets, arrivals=arrivals),
        fleet=read_fleet([fleet]),
        fit=fitted_serving(),
        **more,  # type: ignore[arg-type]
    )
