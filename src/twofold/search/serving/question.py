"""What is asked of a serving plan, understood."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from twofold.errors import InputError
from twofold.fleet import Fleet, Pool
from twofold.model import Model
from twofold.perf.serving_rates import ServingEfficiencies
from twofold.perf.speeds import NARROW_KEYS
from twofold.plan import Precision
from twofold.search.objective import Objective
from twofold.serving_plan import KvPrecision, WeightPrecision
from twofold.workload.requests import Request, draw_requests
from twofold.workload.serve import Arrivals, Lengths, Serve

_SAMPLE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """Number formats to choose from. All but the first of each are lossy, and tried where asked
    for alone."""

    products: tuple[Precision, ...] = ()
    weights: tuple[WeightPrecision, ...] = ("same",)
    caches: tuple[KvPrecision, ...] = ("same",)


@dataclass(frozen=True, kw_only=True)
class ServingQuestion:
    """Which plan answers `workload` best on `fleet`. Without `rate_is_given`, the rate of the
    arrivals is part of the answer. `threads` are the CPU threads to choose from."""

    model: Model
    workload: Serve
    fleet: Fleet
    fit: ServingEfficiencies
    objective: Objective = "time"
    formats: Formats = field(default_factory=Formats)
    threads: tuple[int, ...] = (1,)
    rate_is_given: bool = True
    seed: int = 0

    @cached_property
    def sample(self) -> list[Request]:
        """Requests that stand for all: their lengths do not depend on the rate."""
        return draw_requests(replace(self.workload, num_requests=_SAMPLE), self.seed)

    @cached_property
    def longest_tokens(self) -> int:
        """Of one request, its answer included: what a cache must hold."""
        lengths = (self.workload.input.most, self.workload.output.most)
        if self.workload.arrivals.kind != "trace" and None not in lengths:
            return sum(length for length in lengths if length is not None)
        return max(one.input_tokens + one.output_tokens for one in self.sample)

    def products_on(self, pool: Pool) -> list[Precision]:
        """The formats that a device of the pool multiplies in, of those asked for; unless asked
        the 16-bit one it has, bf16 before fp16, else fp32."""
        known = pool.node.accelerator.flop_per_s
        asked = self.formats.products
        here: list[Precision] = [
            precision
            for precision in asked or ("bf16", "fp16", "fp32")
            if any(key in known for key in NARROW_KEYS.get(precision, (precision,)))
        ]
        return here if asked else here[:1] or ["bf16"]


def fitted_to(model: Model, workload: Serve) -> tuple[Serve, list[str]]:
    """The workload with no request longer than the model can read, and what a reader must know of
    it. InputError where the mean request already is."""
    if workload.arrivals.kind == "trace":
        return workload, []
    room = model.max_seq_len
    most_output = min(workload.output.most or room, room // 2)
    most_input = min(workload.input.most or room, room - most_output)
    if workload.input.mean > most_input or workload.output.mean > most_output:
        raise InputError(
            f"requests of {workload.input.mean:g} tokens and {workload.output.mean:g} new ones do "
            f"not fit the {room:,} tokens that '{model.name}' reads",
            at="--serve",
            help="choose a workload of shorter requests, or a model that reads more",
        )
    cut = [
        f"{what} are cut at {most:,} tokens: '{model.name}' reads {room:,}"
        for what, lengths, most in (
            ("prompts", workload.input, most_input),
            ("answers", workload.output, most_output),
        )
        if lengths.most is not None and most < lengths.most
    ]
    return (
        replace(
            workload,
            input=_at_most(workload.input, most_input),
            output=_at_most(workload.output, most_output),
        ),
        cut,
    )


def _at_most(lengths: Lengths, most: int) -> Lengths:
    return replace(lengths, most=most, least=min(lengths.least, most))


def is_throughput(workload: Serve) -> bool:
    """Whether there is no highest load to find, but how much is answered: all requests come at
    once, or from so many users who wait, without a target."""
    targets, kind = workload.targets, workload.arrivals.kind
    free = targets.ttft_s is None and targets.tpot_s is None and targets.e2e_s is None
    return kind == "offline" or (kind == "closed" and free)


def at_load(workload: Serve, load: float) -> Arrivals:
    """The workload's arrivals at so many requests a second, or users."""
    arrivals = workload.arrivals
    if arrivals.kind == "closed":
        return replace(arrivals, users=max(1, round(load)))
    return replace(arrivals, rate_per_s=load)
