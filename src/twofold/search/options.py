"""A plan on a pool in the figures that people decide by, and how much better than another it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from twofold.fleet import Pool
from twofold.outcome import Estimate
from twofold.perf.fleet import Problem
from twofold.perf.speeds import peak_flop_per_s
from twofold.plan import Plan
from twofold.search.binding import Binding, binding_of, unmeasured_fractions
from twofold.search.given import plan_words
from twofold.search.host_memory import fits_host
from twofold.search.ratio_interval import Interval as Interval
from twofold.search.ratio_interval import (
    common_fraction,
    half_width,
    interval_about,
    ratio_half_width,
)

Objective = Literal["time", "cost", "energy", "carbon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One plan on one pool, in the figures that people decide by; None where one is unknown.

    `broken_limits` are those that were set and that it does not keep, the memory's aside;
    `fits_host`: the machine's own memory holds what the plan keeps there.
    """

    role: str
    pool: Pool
    plan: Plan
    estimate: Estimate
    time_s: Interval
    mfu_fraction: float
    binding: Binding
    unmeasured: dict[str, float]
    fits_host: bool = True
    memory_limit_bytes: float | None = None
    broken_limits: tuple[str, ...] = ()

    @property
    def usable_bytes(self) -> float:
        """What a plan may use: the limit that was set, else all that the device has."""
        own = self.pool.node.accelerator.memory.usable_bytes.value
        return min(own, self.memory_limit_bytes or own)

    @property
    def fits(self) -> bool:
        peak = self.estimate.outcome.peak_memory_bytes
        return self.fits_host and (peak is None or peak <= self.usable_bytes)

    def as_mapping(self) -> dict[str, Any]:
        """For JSON: SI units, None where a figure is unknown."""
        outcome = self.estimate.outcome
        return {
            "role": self.role,
            "plan": plan_words(self.plan),
            "levers": asdict(self.plan),
            "devices": num_devices(self.plan),
            "time_s": self.time_s.as_mapping(),
            "step_time_s": outcome.step_time_s,
            "step_time_low_s": self.estimate.step_time_low_s,
            "step_time_high_s": self.estimate.step_time_high_s,
            "cost_usd": outcome.cost_usd,
            "energy_j": outcome.energy_j,
            "carbon_kgco2e": outcome.carbon_kgco2e,
            "peak_memory_bytes": outcome.peak_memory_bytes,
            "usable_memory_bytes": self.usable_bytes,
            "fits": self.fits,
            "fits_host_memory": self.fits_host,
            "mfu_fraction": self.mfu_fraction,
            "goodput_fraction": outcome.goodput_fraction,
            "bound_by": self.binding.cause,
            "broken_limits": list(self.broken_limits),
            "time_fractions": self.binding.fractions,
            "basis": self.estimate.basis,
            "unmeasured_fractions": self.unmeasured,
        }

    def amount(self, objective: Objective) -> float | None:
        """What the objective counts: seconds, dollars, joules or kilograms."""
        outcome = self.estimate.outcome
        return {
            "time": outcome.time_s,
            "cost": outcome.cost_usd,
            "energy": outcome.energy_j,
            "carbon": outcome.carbon_kgco2e,
        }[objective]


def make_option(
    role: str,
    problem: Problem,
    plan: Plan,
    estimate: Estimate,
    *,
    memory_limit_bytes: float | None = None,
    broken_limits: tuple[str, ...] = (),
) -> Option:
    """A plan and its estimate as figures to decide by."""
    outcome = estimate.outcome
    peak = peak_flop_per_s(problem.pool.node.accelerator, plan.precision)
    peak *= num_devices(plan)
    steps_s = outcome.time_s - outcome.startup_s / outcome.goodput_fraction
    binding = binding_of(problem.pool, plan, outcome)
    return Option(
        role=role,
        pool=problem.pool,
        plan=plan,
        estimate=estimate,
        time_s=Interval(
            value=outcome.time_s,
            low=outcome.time_s + steps_s * (estimate.step_time_low_s / outcome.step_time_s - 1.0),
            high=outcome.time_s + steps_s * (estimate.step_time_high_s / outcome.step_time_s - 1.0),
        ),
        mfu_fraction=problem.flop_per_step / (outcome.step_time_s * peak),
        binding=binding,
        unmeasured=unmeasured_fractions(problem.pool, binding, problem.fit),
        fits_host=fits_host(problem, plan),
        memory_limit_bytes=memory_limit_bytes,
        broken_limits=broken_limits,
    )


def gain(
    option: Option, over: Option, objective: Objective, *, same_model: bool = True
) -> Interval | None:
    """How many times better `option` is than `over`; None where either figure is unknown.

    The interval is narrower than of two unlike runs by what the two have in common.
    """
    own, other = option.amount(objective), over.amount(objective)
    if own is None or other is None or not own > 0:
        return None
    a, b = half_width(option.estimate), half_width(over.estimate)
    dies = (option.pool.node.accelerator.die, over.pool.node.accelerator.die)
    half = ratio_half_width(a, b, common_fraction(*dies, same_model=same_model))
    return interval_about(other / own, half)


def num_devices(plan: Plan) -> int:
    return plan.data_degree * plan.tensor_degree * plan.context_degree * plan.pipeline_degree


def is_same_plan(option: Option, other: Option) -> bool:
    """Whether both say the same of the same machines."""
    return option.pool == other.pool and plan_words(option.plan) == plan_words(other.plan)
