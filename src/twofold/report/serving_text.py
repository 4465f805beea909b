"""Serving plans as text: one table of plans against baselines, what a gain can be spent on, what
it all rests on, the claim last."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from twofold.catalog import remarks
from twofold.model import Model, num_parameters
from twofold.perf.plans import NARROW
from twofold.report.fleet_cells import UNKNOWN
from twofold.report.fleet_text import left_out, pool_line, price_notes
from twofold.report.table import aligned, fitted
from twofold.search.objective import Objective
from twofold.search.serving.answer import ServingAnswer
from twofold.search.serving.carried import CLOSE
from twofold.search.serving.options import ServingOption
from twofold.search.serving.question import ServingQuestion, is_throughput
from twofold.serving_outcome import Percentiles
from twofold.serving_plan import ServingPlan
from twofold.units import format_quantity, format_seconds
from twofold.workload.serve import Arrivals, Serve, Targets

_HEAD = (
    "plan", "devices", "carries", "TTFT p50/p90/p99", "TPOT p50/p90/p99", "cache", "$/M output",
    "J/output", "bound by",
)  # fmt: skip
_MANY, _LARGE = 1000.0, 100.0
"""From here on numbers are whole, and factors multiples of ten."""
_LEFT = (0, 8)
_LEAST_NEEDED = ("cache", "J/output", "$/M output", "bound by", "devices")
_WORDS: dict[Objective, str] = {
    "time": "more load within the targets",
    "cost": "cheaper by the token",
    "energy": "less energy by the token",
    "carbon": "less carbon by the token",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The plan that was written to `path`. `refused` is why it is not the best one, or why that
    cannot be handed over all the same; `lacks` is what is to be done before it can be served."""

    path: str
    option: ServingOption
    refused: str | None = None
    lacks: str | None = None


def serving_text(
    question: ServingQuestion,
    found: ServingAnswer,
    *,
    written: Written,
    notes: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """The whole answer of `twofold plan --serve`."""
    best = found.best[0]
    options = [*found.best, *found.baselines]
    lines = [question_line(question.model, question.workload, asked=question.rate_is_given)]
    lines += [pool_line(pool.name, pool) for pool in question.fleet.pools]
    lines += ["", *_table(options, question.workload, width), "", *_counts(found)]
    lines += [f"basis: {best.estimate.basis}; times {_spread(best.estimate.spread)} (90 %)"]
    for pool in question.fleet.pools:
        lines += price_notes(pool)
    lines += [f"note: {note}" for note in (*remarks(question.fleet), *notes)]
    lines += [f"note: {note}" for note in (*_lossy(options), *_missed(found, question))]
    lines += ["", *dividend_lines(found, question.workload), "", *_written(written, question)]
    lines += claims(found, question)
    serve = f"twofold serve {shlex.quote(written.path)}"
    lines.append(f"next: {serve if written.lacks is None else written.lacks}")
    return "\n".join(lines)


def _written(written: Written, question: ServingQuestion) -> list[str]:
    one = written.option
    lines = [f"written: {written.path} ({one.role}: {plan_words(one.plan)})"]
    if written.refused is not None:
        lines.insert(0, f"the best plan cannot be handed over: {written.refused}")
    if one.role != "best":
        carries = _load(question.workload, one.carried)
        lines[-1] += f", the nearest that can: it carries {carries}"
    return lines


def question_line(model: Model, workload: Serve, *, asked: bool) -> str:
    """What is served: model, load, lengths, targets."""
    size = f"{model.name} ({format_quantity(num_parameters(model))} parameters)"
    if workload.arrivals.kind == "trace":
        return (
            f"{size}: {workload.name}, {workload.arrivals.trace}{targets_words(workload.targets)}"
        )
    load = _asked(workload.arrivals) if asked else "as much as it carries"
    lengths = f"{workload.input.mean:,.0f} tokens in, {workload.output.mean:,.0f} out"
    return f"{size}: {workload.name}, {load}, {lengths}{targets_words(workload.targets)}"


def _asked(arrivals: Arrivals) -> str:
    if arrivals.kind == "closed":
        return "1 user who waits" if arrivals.users == 1 else f"{arrivals.users:,} users who wait"
    if arrivals.kind == "offline":
        return "all at once"
    bursts = "" if arrivals.kind == "poisson" else f" in bursts (shape {arrivals.burstiness:g})"
    return f"{arrivals.rate_per_s:.3g} requests/s{bursts}"


def targets_words(targets: Targets) -> str:
    limits = [
        f"{name} {format_seconds(value)}"
        for name, value in (
            ("TTFT", targets.ttft_s), ("TPOT", targets.tpot_s), ("whole", targets.e2e_s),
        )
        if value is not None
    ]  # fmt: skip
    if not limits:
        return "; no targets"
    return f"; {targets.attainment:.0%} of requests within {' and '.join(limits)}"


def plan_words(plan: ServingPlan) -> str:
    """A plan in words, nothing of what is one or none."""
    first = plan.prefill
    words = []
    if first is not None:
        words.append(
            f"prompts: {_replicas(first.replicas, first.tensor_degree, first.pipeline_degree)}"
            + (f" EP{first.expert_degree}" if first.expert_degree > 1 else "")
            + f" on {first.pool}; decoding"
        )
    whole = _replicas(plan.replicas, plan.tensor_degree, plan.pipeline_degree)
    if plan.expert_degree > 1:
        whole += f" EP{plan.expert_degree}"
    if plan.attention_data_degree > 1:
        whole += f" DP-attention{plan.attention_data_degree}"
    words.append(f"{whole} on {plan.pool}")
    formats: list[str] = [plan.precision]
    if plan.weight_precision != "same":
        formats.append(f"{plan.weight_precision} weights")
    if plan.kv_precision != "same":
        formats.append(f"{plan.kv_precision} cache")
    limits = f"{plan.max_num_seqs:,} sequences, {plan.max_batched_tokens:,} tokens a step"
    static = "static batches, " if plan.batching == "static" else ""
    threads = f", {plan.threads} threads" if plan.threads > 1 else ""
    return f"{': '.join(words)}, {' + '.join(formats)}, {static}{limits}{threads}"


def dividend_lines(found: ServingAnswer, workload: Serve) -> list[str]:
    """Three ways to spend the gain over the sensible plan, at the same load."""
    gain, other = found.dividend, found.baseline("sensible")
    if gain is None:
        why = "the sensible plan gives no wait to compare"
        if other is not None and other.plan == found.best[0].plan:
            why = "the best plan is the sensible one"
        elif other is not None and other.overload_fraction:
            why = "the sensible plan cannot keep up with this load"
        return [f"thinking dividend: none is told: {why}"]
    money = UNKNOWN
    if gain.usd is not None and gain.less_usd is not None:
        money = _spent(
            _number(gain.less_usd, "$"),
            _number(gain.usd, "$"),
            "a million output tokens, each at the load it carries",
            gains=gain.less_usd < gain.usd,
        )
    tokens, wait = f"{gain.tokens:,.0f} tokens", format_seconds(gain.wait_s)
    faster = gain.sooner_s < gain.wait_s
    load = "" if gain.load is None else f" at {_load(workload, gain.load)}"
    sooner = _spent(format_seconds(gain.sooner_s), wait, f"for the same {tokens}", gains=faster)
    longer = _spent(
        f"{gain.more_tokens:,.0f}",
        tokens,
        f"in the same {wait} (what they are worth in right answers is not assumed)",
        gains=faster,
    )
    return [
        f"thinking dividend, against the {gain.against} plan{load}, one of:",
        f"  sooner:  {sooner}",
        f"  longer:  {longer}",
        f"  cheaper: {money}",
    ]


def _spent(mine: str, theirs: str, what: str, *, gains: bool) -> str:
    """What is no gain is said to be none."""
    return f"{'' if gains else 'no: '}{mine} instead of {theirs} {what}"


def claims(found: ServingAnswer, question: ServingQuestion) -> list[str]:
    """The best plan against both baselines. Predicted, and said so."""
    best, lines = found.best[0], []
    told = []
    for role, whose in (("newcomer", "the newcomer's"), ("sensible", "the sensible one")):
        base = found.baseline(role)
        told.append(_against(best, base, whose, question.objective) + _on_fewer(best, base))
    if found.is_no and best.misses is not None:
        miss = best.misses
        lines.append(
            f"no: the best plan misses {miss.target} {format_seconds(miss.limit_s)} however little "
            f"comes: {question.workload.targets.attainment:.0%} of its requests have "
            f"{format_seconds(miss.reached_s)} at most"
        )
    elif found.is_no:
        lines.append(
            f"no: {_load(question.workload, found.asked or 0.0)} is more than the fleet carries "
            f"within the targets; the best plan carries {_load(question.workload, best.carried)}"
        )
    lines.append(f"best plan {', '.join(told)} (predicted)")
    return lines


def _on_fewer(best: ServingOption, base: ServingOption | None) -> str:
    """Where the two do not stand on as many devices."""
    if base is None or base.plan.num_devices == best.plan.num_devices:
        return ""
    return f" ({best.plan.num_devices:,} devices against {base.plan.num_devices:,})"


def _against(
    best: ServingOption, base: ServingOption | None, whose: str, objective: Objective
) -> str:
    if base is None:
        return f"has no factor against {whose}, which does not fit"
    if base.plan == best.plan:
        return f"the same plan as {whose}"
    mine, theirs = best.value(objective), base.value(objective)
    if not base.carried or theirs is None:
        return f"keeps the targets where {whose} never does"
    if mine is None:
        return f"against {whose}: {UNKNOWN}"
    late = "" if base.meets else ", which misses the targets at this load"
    if objective == "time" and theirs / mine < CLOSE:
        return f"as much load as {whose}, to within {CLOSE - 1:.1%}{late}"
    factor = theirs / mine
    told = f"{factor:.3g}" if factor < _LARGE else f"{10 * round(factor / 10):,}"
    return f"{told}x {_WORDS[objective]} than {whose}{late}"


def _table(options: Sequence[ServingOption], workload: Serve, width: int | None) -> list[str]:
    rows = [_HEAD, *(_row(option, workload) for option in options)]
    steps = [(_HEAD.index(name), None) for name in _LEAST_NEEDED]
    lines, gone = fitted(rows, left=_LEFT, width=width, steps=steps)
    words = [(option.role, plan_words(option.plan)) for option in options]
    return [*lines, *left_out(gone), "", *aligned(words, left=(0, 1))]


def _row(option: ServingOption, workload: Serve) -> tuple[str, ...]:
    outcome = option.outcome
    used = outcome.kv_used_fraction_mean
    return (
        option.role,
        f"{option.plan.num_devices:,}",
        _load(workload, option.carried) if option.carried else "none within",
        _three(outcome.ttft_s) + ("" if option.meets else " MISSED"),
        UNKNOWN if outcome.tpot_s is None else _three(outcome.tpot_s),
        UNKNOWN if used is None else f"{used:.0%}",
        _number(outcome.usd_per_million_output_tokens(), "$"),
        _number(outcome.j_per_output_token(), ""),
        option.binds,
    )


def _counts(found: ServingAnswer) -> list[str]:
    reasons = "; ".join(f"{number:,} divisions {why}" for why, number in found.rejected.items())
    told = f" (rejected: {reasons})" if reasons else ""
    return [
        f"{found.num_considered:,} plans considered, {found.num_fitting:,} fit{told}; "
        f"{found.num_simulated} simulated"
    ]


def _lossy(options: Sequence[ServingOption]) -> list[str]:
    plan = options[0].plan
    narrow = [
        what
        for what in (
            plan.precision if plan.precision in NARROW else "",
            "" if plan.weight_precision == "same" else f"{plan.weight_precision} weights",
            "" if plan.kv_precision == "same" else f"a {plan.kv_precision} cache",
        )
        if what
    ]
    if not narrow:
        return []
    return [
        f"the best plan computes another function, with {' and '.join(narrow)}: whether answers "
        "are as good is for a run to show"
    ]


def _missed(found: ServingAnswer, question: ServingQuestion) -> list[str]:
    """Where the figures are those of a plan that cannot keep up."""
    return [
        f"{option.role}: overloaded: {option.overload_fraction:.0%} more requests come than are "
        "answered: its times grow with the length of the run"
        for option in (*found.best, *found.baselines)
        if option.overload_fraction
    ]


def _load(workload: Serve, load: float) -> str:
    if workload.arrivals.kind == "closed" and not is_throughput(workload):
        return f"{load:,.0f} user{'' if round(load) == 1 else 's'}"
    return f"{load:.3g} requests/s"


def _replicas(replicas: int, tensor: int, pipeline: int) -> str:
    stages = f" PP{pipeline}" if pipeline > 1 else ""
    return f"{replicas:,} x TP{tensor}{stages}"


def _three(of: Percentiles) -> str:
    return " / ".join(format_seconds(value) for value in (of.p50, of.p90, of.p99))


def _number(value: float | None, sign: str) -> str:
    if value is None:
        return UNKNOWN
    return f"{sign}{value:,.0f}" if value >= _MANY else f"{sign}{value:.3g}"


def _spread(spread: float) -> str:
    return f"within {1 - math.exp(-spread):.0%} below and {math.exp(spread) - 1:.0%} above"
