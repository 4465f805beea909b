"""Named serving workloads: typical uses, and MLPerf Inference's scenarios with their limits.

Lengths of the uses are assumed round figures of the order that public traces show (Azure's
conversation trace: 1,155 in, 211 out; its code trace: 2,048 in, 28 out). MLPerf's limits are
those of mlcommons/inference, loadgen/mlperf.conf; lengths are the data sets' means.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Literal

from twofold.errors import InputError
from twofold.workload.serve import Arrivals, Lengths, Serve, SharedPrefix, Targets

Scenario = Literal["single-stream", "offline", "server", "interactive"]


@dataclass(frozen=True, slots=True)
class _Use:
    input: Lengths
    output: Lengths
    shared: SharedPrefix | None
    targets: Targets


_USES = {
    "chat": _Use(
        Lengths(mean=1155, spread=1.0, most=32_000),
        Lengths(mean=211, spread=0.8, most=4_000),
        SharedPrefix(tokens=200),
        Targets(ttft_s=2.0, tpot_s=0.1),
    ),
    "code": _Use(
        Lengths(mean=2048, spread=0.8, most=32_000),
        Lengths(mean=28, spread=0.8, most=1_000),
        None,
        Targets(ttft_s=1.0, tpot_s=0.05),
    ),
    "summarise": _Use(
        Lengths(mean=6000, spread=0.5, most=64_000),
        Lengths(mean=300, spread=0.4, most=2_000),
        None,
        Targets(ttft_s=5.0, tpot_s=0.1),
    ),
    "reasoning": _Use(
        Lengths(mean=600, spread=0.8, most=16_000),
        Lengths(mean=6000, spread=0.8, most=32_000),
        SharedPrefix(tokens=200),
        Targets(ttft_s=2.0, tpot_s=0.05),
    ),
    "tiny": _Use(
        Lengths(mean=48, spread=0.5, least=8, most=160),
        Lengths(mean=24, spread=0.5, least=4, most=64),
        SharedPrefix(tokens=16),
        Targets(ttft_s=1.0, tpot_s=0.1),
    ),
}

_MLPERF: dict[str, tuple[float, float, dict[str, tuple[float, float]]]] = {
    "llama2-70b": (294, 295, {"server": (2.0, 0.2), "interactive": (0.45, 0.04)}),
    "mixtral-8x7b": (344, 145, {"server": (2.0, 0.2)}),
    "llama3.1-405b": (9400, 680, {"server": (6.0, 0.175), "interactive": (4.5, 0.08)}),
    "llama3.1-8b": (778, 73, {"server": (2.0, 0.1), "interactive": (0.5, 0.03)}),
    "deepseek-r1": (800, 3880, {"server": (2.0, 0.08), "interactive": (1.5, 0.015)}),
    "gpt-oss-120b": (1000, 1000, {"server": (3.0, 0.08), "interactive": (2.0, 0.015)}),
}
"""(mean input, mean output, (TTFT, TPOT) limits in seconds at the 99th percentile)."""


def preset_names() -> list[str]:
    names = list(_USES)
    for model, (_, _, limits) in _MLPERF.items():
        names += [f"mlperf-{model}-{s}" for s in ("single-stream", "offline", *limits)]
    return names


def serve_preset(
    name: str,
    *,
    rate_per_s: float | None = None,
    users: int | None = None,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
) -> Serve:
    """The workload of that name, at a rate (open loop) or with so many users (closed loop).

    Targets given replace the preset's. InputError for a name that does not exist.
    """
    if name not in preset_names():
        near = difflib.get_close_matches(name, preset_names(), n=1)
        raise InputError(
            f"there is no serving workload '{name}'",
            at="--serve",
            help=(f"perhaps '{near[0]}' is meant; " if near else "")
            + f"there are {', '.join(preset_names())}, or a TOML of your own",
        )
    if rate_per_s is not None and users is not None:
        raise InputError(
            "requests come at a rate or from users who wait, not both",
            at="--rate, --users",
            help="leave one out",
        )
    workload = _mlperf(name) if name.startswith("mlperf-") else _use(name)
    if rate_per_s is not None:
        workload = replace(workload, arrivals=Arrivals(rate_per_s=rate_per_s))
    elif users is not None:
        workload = replace(workload, arrivals=Arrivals(kind="closed", users=users))
    targets = workload.targets
    targets = replace(
        targets,
        ttft_s=targets.ttft_s if ttft_s is None else ttft_s,
        tpot_s=targets.tpot_s if tpot_s is None else tpot_s,
    )
    return replace(workload, targets=targets)


def _use(name: str) -> Serve:
    use = _USES[name]
    return Serve(
        name=name,
        arrivals=Arrivals(rate_per_s=1.0),
        input=use.input,
        output=use.output,
        shared_prefix=use.shared,
        targets=use.targets,
    )


def _mlperf(name: str) -> Serve:
    """SingleStream: the next query when the last is answered. Offline: all at once. Server and
    Interactive: Poisson, 99 of 100 within both limits."""
    rest = name.removeprefix("mlperf-")
    model = next(m for m in _MLPERF if rest.startswith(m + "-"))
    mean_input, mean_output, limits = _MLPERF[model]
    scenario = rest.removeprefix(model + "-")
    arrivals, targets = Arrivals(rate_per_s=1.0), Targets(attainment=0.99)
    if scenario == "single-stream":
        arrivals = Arrivals(kind="closed", users=1)
    elif scenario == "offline":
        arrivals = Arrivals(kind="offline")
    else:
        ttft_s, tpot_s = limits[scenario]
        targets = Targets(ttft_s=ttft_s, tpot_s=tpot_s, attainment=0.99)
    return Serve(
        name=name,
        arrivals=arrivals,
        input=Lengths(mean=mean_input, spread=0.6),
        output=Lengths(mean=mean_output, spread=0.5),
        targets=targets,
    )
