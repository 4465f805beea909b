"""Fleet plans as text: one table of plans against baselines, what it rests on, the claim last."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence

from twofold.catalog import remarks
from twofold.fleet import Fleet, Pool
from twofold.model import Model, num_parameters
from twofold.perf.fleet import Problem
from twofold.perf.plans import NARROW
from twofold.report.fleet_cells import (
    UNKNOWN,
    better,
    dollars,
    megawatt_hours,
    memory_cell,
    share_cell,
    span,
    times,
    tonnes,
)
from twofold.report.table import Step, aligned, fitted
from twofold.search.answers import PoolAnswer
from twofold.search.given import plan_words
from twofold.search.options import Objective, Option, gain, is_same_plan, num_devices
from twofold.search.ratio_interval import Interval
from twofold.units import format_bytes, format_quantity, format_seconds
from twofold.workload import Train

_HEAD = (
    "plan", "devices", "time", "90 % interval", "dollars", "MWh", "tCO2e", "memory of usable",
    "step", "MFU", "bound by",
)  # fmt: skip
_LEFT = (0, 10)
_LEAST_NEEDED = ("step", "tCO2e", "MWh", "devices", "memory of usable", "bound by")
"""Columns that a narrow terminal goes without, in this order."""
_OWNERS = {"newcomer": "a newcomer", "well-known": "the well-known kind"}
_FULL_FRACTION = 0.92
_WHOSE = {"newcomer": "the newcomer's", "well-known": "the well-known one"}


def question_line(model: Model, work: Train, date: str) -> str:
    """What is trained: model, tokens, batch, steps and date."""
    size = f"{model.name} ({format_quantity(num_parameters(model))} parameters)"
    tokens, batch = format_quantity(work.tokens), f"{work.recipe.global_batch:,}"
    steps = f"in {work.num_steps:,} steps of {batch}"
    if model.operators:
        return f"{size}: {tokens} samples {steps}, in {date}"
    return f"{size}: {tokens} tokens {steps} x {work.seq_len:,}, in {date}"


def pool_line(title: str, pool: Pool) -> str:
    """What is planned on, always in devices."""
    node = pool.node
    devices = f"{pool.num_devices:,} device" + ("s" if pool.num_devices > 1 else "")
    machines = f"{pool.num_nodes:,} machine" + ("s" if pool.num_nodes > 1 else "")
    where = f", in {pool.region}" if pool.region else ""
    return (
        f"{title}: {devices} ({machines} of {node.num_accelerators} x "
        f"{node.accelerator.name}){where}"
    )


def answers_text(
    question: str,
    answers: Sequence[PoolAnswer],
    objective: Objective,
    *,
    chosen: Option,
    path: str,
    notes: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """The whole answer of `twofold plan` on fleets."""
    lines = [question, *(pool_line(answer.title, answer.pool) for answer in answers), ""]
    lines += _table(answers, objective, width)
    lines += ["", *_counts(answers), ""]
    lines += [*coverage_lines(answers), *(f"note: {note}" for note in notes)]
    lines += [
        f"note: {answer.title}: {line}"
        for answer in answers
        if answer.best
        for line in (*_idle(answer), *_full(answer.best[0]), *_lossy(answer))
    ]
    lines += ["", f"written: {path} ({plan_words(chosen.plan)}, on {chosen.pool.name})"]
    lines += [*claims(answers, objective), f"next: twofold explain {shlex.quote(path)}"]
    return "\n".join(lines)


def estimate_text(
    problem: Problem,
    fleet: Fleet,
    option: Option,
    *,
    notes: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """One given plan: its figures, its step and memory in parts, and whether it fits."""
    outcome = option.estimate.outcome
    lines = [
        question_line(problem.model, problem.workload, problem.date),
        pool_line(fleet.name, option.pool),
        "",
    ]
    lines += [*options_table([option], [option.role], width=width), ""]
    lines += _parts("step", outcome.step_parts_s, format_seconds)
    lines += _parts("memory", outcome.memory_parts_bytes, format_bytes)
    lines += ["", *coverage_of(option)]
    lines += price_notes(option.pool)
    lines += [
        f"note: {note}"
        for note in (*remarks(fleet), *notes, *(_full(option) if option.fits else []))
    ]
    if not option.fits_host:
        lines.append("does not fit: the host memory is too small for the optimizer's state")
    elif not option.fits:
        assert outcome.peak_memory_bytes is not None
        lines.append(
            f"does not fit: {format_bytes(outcome.peak_memory_bytes)} needed, "
            f"{format_bytes(option.usable_bytes)} usable per device"
        )
    lines.append(
        f"{format_seconds(option.time_s.value)} ({span(option.time_s)}), "
        f"{format_seconds(outcome.step_time_s)} a step (predicted; 90 % interval)"
    )
    return "\n".join(lines)


def _parts(what: str, parts: Mapping[str, float], form: Callable[[float], str]) -> list[str]:
    """Parts that add up, the largest first, nothing of what is zero."""
    told = sorted(((v, k) for k, v in parts.items() if v > 0), reverse=True)
    return [f"{what}: " + " + ".join(f"{name} {form(value)}" for value, name in told)]


def claims(answers: Sequence[PoolAnswer], objective: Objective) -> list[str]:
    """Best against the baselines of each pool, then pool against pool. Predicted, and said so."""
    found = [answer for answer in answers if answer.best]
    lines = []
    for answer in found:
        where = f"{answer.title}: " if len(answers) > 1 else ""
        told = [_against(answer.best[0], base, objective) for base in answer.baselines]
        there = {base.role for base in answer.baselines}
        none = [f"no plan of {whose} fits" for role, whose in _OWNERS.items() if role not in there]
        if none:
            lines.append(f"{where}{' and '.join(none)}, so it has no factor")
        if told:
            same = all(is_same_plan(answer.best[0], base) for base in answer.baselines)
            how = "predicted" if same else "predicted; 90 % interval"
            lines.append(f"{where}best plan {', '.join(told)} ({how})")
    for other in found[1:]:
        ratio = gain(other.best[0], found[0].best[0], objective)
        lines.append(_between(found[0], other, ratio, objective))
    return lines


def options_table(
    options: Sequence[Option],
    labels: Sequence[str],
    *,
    objective: Objective = "time",
    width: int | None = None,
) -> list[str]:
    """Plans in rows, the words of each below. Where the table is wider than `width`, what is least
    needed for the objective is said in short or left out, and which columns those are."""
    rows = [_HEAD, *(_row(label, option) for label, option in zip(labels, options, strict=True))]
    words = [
        (label, plan_words(option.plan)) for label, option in zip(labels, options, strict=True)
    ]
    lines, gone = fitted(rows, left=_LEFT, width=width, steps=_narrower(rows, options, objective))
    return [*lines, *left_out(gone), "", *aligned(words, left=(0, 1))]


def left_out(gone: Sequence[str]) -> list[str]:
    """Nothing is dropped in silence."""
    return [f"(no room for: {', '.join(gone)}; --json has all)"] if gone else []


def unknown_columns(rows: Sequence[Sequence[str]]) -> list[Step]:
    """Those that say nothing, to go first."""
    return [
        (place, None)
        for place, column in enumerate(zip(*rows[1:], strict=True))
        if set(column) == {UNKNOWN}
    ]


def _narrower(
    rows: Sequence[Sequence[str]], options: Sequence[Option], objective: Objective
) -> list[Step]:
    """From a wide table to a narrow one, what is least needed first."""
    unknown = unknown_columns(rows)
    cause = [f"{one.binding.cause} {one.binding.fraction:.0%}" for one in options]
    memory = [share_cell(one) for one in options]
    kept = {"energy": "MWh", "carbon": "tCO2e"}.get(objective)
    dropped = [(_HEAD.index(name), None) for name in _LEAST_NEEDED if name != kept]
    return [
        *unknown,
        (_HEAD.index("bound by"), ("bound by", *cause)),
        (_HEAD.index("memory of usable"), ("memory", *memory)),
        *(step for step in dropped if step not in unknown),
    ]


def coverage_of(option: Option) -> list[str]:
    """How much of the time rests on published runs of this very hardware."""
    rest = sum(option.unmeasured.values())
    told = sorted(option.unmeasured.items(), key=lambda pair: -pair[1])
    others = ", ".join(f"{cause} {share:.0%}" for cause, share in told if share >= 0.005)
    covered = max(0.0, 1.0 - rest)
    line = f"coverage: {covered:.0%} of the time rests on published runs of this die and fabric"
    return [
        f"basis: {option.pool.name}: {option.estimate.basis}",
        f"{line}; not {others}" if others else line,
    ]


def coverage_lines(answers: Sequence[PoolAnswer]) -> list[str]:
    """What the figures rest on, and which of them are assumed, old or unknown."""
    lines = []
    for answer in answers:
        if answer.best:
            lines += coverage_of(answer.best[0])
        lines += price_notes(answer.pool)
        lines += [f"note: {remark}" for remark in remarks(answer.fleet)]
    return list(dict.fromkeys(lines))


def _table(answers: Sequence[PoolAnswer], objective: Objective, width: int | None) -> list[str]:
    options, labels = [], []
    several = len(answers) > 1
    refused = []
    for answer in answers:
        if answer.refusal is not None:
            refused.append(f"{answer.title}: {answer.refusal.what}; {answer.refusal.help}")
        best = answer.best[:1] if several else answer.best
        for option in (*best, *answer.baselines):
            options.append(option)
            labels.append(f"{answer.title} {option.role}" if several else option.role)
    table = options_table(options, labels, objective=objective, width=width)
    return [*table, *refused]


def _row(label: str, option: Option) -> tuple[str, ...]:
    outcome = option.estimate.outcome
    return (
        label,
        f"{num_devices(option.plan):,}",
        format_seconds(option.time_s.value),
        span(option.time_s),
        dollars(outcome.cost_usd),
        megawatt_hours(outcome.energy_j),
        tonnes(outcome.carbon_kgco2e),
        memory_cell(option),
        format_seconds(outcome.step_time_s),
        f"{option.mfu_fraction:.1%}",
        option.binding.words,
    )


def _counts(answers: Sequence[PoolAnswer]) -> list[str]:
    lines = []
    for answer in answers:
        if answer.refusal is not None:
            continue
        where = f"{answer.title}: " if len(answers) > 1 else ""
        rejected = sorted(
            ((reason, count) for reason, count in answer.rejected.items() if count),
            key=lambda pair: -pair[1],
        )
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in rejected[:4])
        lines.append(
            f"{where}{answer.num_considered:,} plans considered, {answer.num_fitting:,} fit"
            + (f" (rejected: {reasons})" if reasons else "")
        )
    return lines


def price_notes(pool: Pool) -> list[str]:
    """What a device-hour costs, and who says so."""
    price = pool.usd_per_node_hour
    if price is None:
        return []
    each = price.value / pool.node.num_accelerators
    return [f"note: {pool.name}: ${each:,.2f} a device-hour ({price.source}, {price.date})"]


def _idle(answer: PoolAnswer) -> list[str]:
    """That machines are left over, where the best plan is better without them."""
    used, pool = num_devices(answer.best[0].plan), answer.pool
    machines = -(-used // pool.node.num_accelerators)
    if machines < pool.num_nodes:
        idle = pool.num_nodes - machines
        return [
            f"the best plan uses {machines:,} of {pool.num_nodes:,} machines: {idle:,} stay idle "
            "and are not in its dollars"
        ]
    if used < pool.num_devices:
        return [f"the best plan uses {used:,} of {pool.num_devices:,} devices: the rest stay idle"]
    return []


def _full(option: Option) -> list[str]:
    """That so little memory is left that the plan may not fit."""
    peak = option.estimate.outcome.peak_memory_bytes
    usable = option.pool.node.accelerator.memory.usable_bytes.value
    if peak is None or peak <= _FULL_FRACTION * usable:
        return []
    return [
        f"the {option.role} plan uses {peak / usable:.0%} of the usable memory, and the memory "
        "error is 8 % in the median: leave room, or try --memory-limit"
    ]


def _lossy(answer: PoolAnswer) -> list[str]:
    """Where the gain is had with a narrower number format than the baselines have."""
    if answer.best[0].plan.precision not in NARROW:
        return []
    narrow = answer.best[0].plan.precision
    if all(base.plan.precision == narrow for base in answer.baselines):
        return []
    return [
        f"the best plan multiplies in {narrow}, a baseline in a wider format: "
        "whether the loss is equal is for a run to show"
    ]


def _against(best: Option, base: Option, objective: Objective) -> str:
    whose = _WHOSE.get(base.role, f"'{base.role}'")
    if is_same_plan(best, base):
        return f"the same plan as {whose}"
    breaks = "".join(f", which {limit}" for limit in base.broken_limits[:1])
    if not base.fits:
        return f"keeps the memory limit where {whose} does not"
    ratio = gain(best, base, objective)
    if ratio is None:
        return f"against {whose}: {UNKNOWN}, a figure is missing{breaks}"
    return f"{better(ratio, objective)} than {whose}{breaks}"


def _between(first: PoolAnswer, other: PoolAnswer, ratio: Interval | None, by: Objective) -> str:
    if ratio is None:
        return f"{other.title} against {first.title}: {UNKNOWN} by {by}, a figure is missing"
    return (
        f"{other.title} is {times(ratio)} {first.title} for this work (by {by}, each with its "
        "best plan; predicted; 90 % interval)"
    )
