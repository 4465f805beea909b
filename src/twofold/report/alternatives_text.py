"""Fleet plans beside their alternatives: other models, the Pareto front, how far by a date."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from twofold.catalog import remarks
from twofold.fleet import Fleet
from twofold.model import active_parameters, num_parameters
from twofold.report.fleet_cells import UNKNOWN, better, dollars, megawatt_hours, span, tonnes
from twofold.report.fleet_text import (
    coverage_lines,
    coverage_of,
    left_out,
    options_table,
    pool_line,
    price_notes,
    unknown_columns,
)
from twofold.report.table import Step, aligned, fitted
from twofold.search.given import plan_words
from twofold.search.options import Objective, Option, gain, num_devices
from twofold.search.ratio_interval import Interval, interval_about
from twofold.search.reach import Reach, Wanted
from twofold.search.variants import Variant
from twofold.units import format_quantity, format_seconds

_FRONT_ROWS = 12
_VARIANTS = (
    "model", "parameters", "active", "tokens", "90 % interval", "time", "90 % interval",
    "dollars", "MWh", "tCO2e", "MFU", "plan",
)  # fmt: skip
_REACHES = (
    "model", "parameters", "fleet", "devices", "tokens", "for a parameter", "90 % interval",
    "dollars", "MWh", "tCO2e", "plan",
)  # fmt: skip


def variants_text(
    question: str,
    fleet: Fleet,
    variants: Sequence[Variant],
    objective: Objective,
    *,
    path: str,
    notes: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """Models at equal predicted loss: tokens, time and money of each, the first the reference."""
    rows = [_VARIANTS, *(_variant_row(variant) for variant in variants)]
    lines = [question, pool_line(fleet.name, fleet.pools[0]), ""]
    lines += [*_with_plans_below(rows, (0, 11), width, ("tCO2e", "MWh", "MFU", "active")), ""]
    answers = [variant.answer for variant in variants if variant.answer is not None]
    lines += coverage_lines(answers)
    lines.append(
        "basis: tokens by the joint scaling law of arXiv 2502.05172, up to 32 experts, 2.7 billion "
        "active parameters and 500 billion tokens"
    )
    lines += [
        f"note: {one.model.name} is {one.decades_outside:.1f} powers of ten outside that"
        for one in variants
        if 0 < one.decades_outside < math.inf
    ]
    lines += [f"note: {note}" for note in notes]
    lines += ["", f"written: {path}"]
    lines += [_variant_claim(variants[0], one, objective) for one in variants[1:]]
    lines.append(f"next: twofold explain {shlex.quote(path)}")
    return "\n".join(lines)


def front_text(
    question: str,
    fleets: Sequence[Fleet],
    front: Sequence[Option],
    against: Objective,
    *,
    path: str,
    notes: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """The plans that none beats in both time and `against`, fastest first."""
    lines = [question]
    lines += [pool_line(fleet.name, pool) for fleet in fleets for pool in fleet.pools] + [""]
    shown = _thinned(front, _FRONT_ROWS)
    several = len({one.role for one in front}) > 1
    labels = [f"{one.role} {n}" if several else f"{n}" for n, one in enumerate(shown, 1)]
    lines += options_table(shown, labels, objective=against, width=width)
    lines += ["", *dict.fromkeys(line for one in front for line in coverage_of(one))]
    lines += [note for fleet in fleets for pool in fleet.pools for note in price_notes(pool)]
    lines += [f"note: {remark}" for fleet in fleets for remark in remarks(fleet)]
    lines += [f"note: {note}" for note in notes]
    rest = f", {len(shown)} of them shown" if len(shown) < len(front) else ""
    lines += [
        "",
        f"written: {path} (the fastest)",
        f"{len(front)} plans that none beats in both time and {against}{rest}: from "
        f"{_point(front[0], against)} to {_point(front[-1], against)} (predicted)",
        f"next: twofold explain {shlex.quote(path)}",
    ]
    return "\n".join(lines)


def reach_text(
    reaches: Sequence[Reach],
    winner: Reach,
    wanted: Wanted,
    by: str,
    *,
    path: str,
    notes: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """The most tokens of each model on each fleet by a date, the largest model first."""
    rows = [_REACHES, *(_reach_row(reach) for reach in reaches)]
    told = []
    for reach in reaches:
        if reach.option is not None:
            told += coverage_of(reach.option)
            told += price_notes(reach.option.pool)
            told += [f"note: {remark}" for remark in remarks(reach.fleet)]
    told += [f"note: {note}" for note in notes]
    what = f"{winner.model.name} on {winner.title}"
    if wanted.tokens is None and len({reach.model.name for reach in reaches}) == 1:
        claim = f"{what} gets through {format_quantity(winner.tokens)} tokens by {by} (predicted)"
    elif wanted.met_by(winner):
        claim = f"the largest with {wanted.words} by {by}: {what} (predicted)"
    else:
        claim = f"none gets {wanted.words} by {by} (predicted); the nearest is {what}"
    table = _with_plans_below(rows, (0, 2, 10), width, ("tCO2e", "MWh", "devices", "parameters"))
    lines = [*table, "", *dict.fromkeys(told), "", f"written: {path}"]
    return "\n".join([*lines, claim, f"next: twofold explain {shlex.quote(path)}"])


def _with_plans_below(
    rows: Sequence[tuple[str, ...]],
    left: Sequence[int],
    width: int | None,
    least_needed: Sequence[str],
) -> list[str]:
    """A table whose last column are plans. In a narrow terminal they stand below it, and the least
    needed columns go."""
    head, last = rows[0], len(rows[0]) - 1
    steps: list[Step] = [(last, None), *unknown_columns(rows)]
    dropped: list[Step] = [(head.index(name), None) for name in least_needed]
    steps += [step for step in dropped if step not in steps]
    lines, gone = fitted(rows, left=left, width=width, steps=steps)
    lines += left_out([name for name in gone if name != head[last]])
    if head[last] in gone:
        lines += ["", *aligned([(row[0], row[last]) for row in rows[1:]], left=(0, 1))]
    return lines


def _variant_row(variant: Variant) -> tuple[str, ...]:
    model, tokens, best, time_s = variant.model, variant.tokens, variant.best, variant.time_s
    finite = math.isfinite(tokens.value)
    told = (
        model.name,
        format_quantity(num_parameters(model)),
        format_quantity(active_parameters(model)),
        format_quantity(tokens.value) if finite else "unreachable",
        _token_span(tokens) if finite else "",
    )
    if best is None or time_s is None:
        return (*told, "", "", "", "", "", "", variant.refusal or "")
    outcome = best.estimate.outcome
    return (
        *told,
        format_seconds(time_s.value),
        span(time_s),
        dollars(outcome.cost_usd),
        megawatt_hours(outcome.energy_j),
        tonnes(outcome.carbon_kgco2e),
        f"{best.mfu_fraction:.1%}",
        plan_words(best.plan),
    )


def _token_span(tokens: Interval) -> str:
    if not math.isfinite(tokens.high):
        return f"over {format_quantity(tokens.low)}"
    return f"{format_quantity(tokens.low)} - {format_quantity(tokens.high)}"


def _variant_claim(reference: Variant, other: Variant, objective: Objective) -> str:
    against = f"{other.model.name} against {reference.model.name} at equal predicted loss: "
    if other.best is None or reference.best is None:
        return against + f"no figure, {other.refusal or reference.refusal}"
    ratio = gain(other.best, reference.best, objective, same_model=False)
    if ratio is None:
        return against + f"{UNKNOWN} by {objective}, a figure is missing"
    tokens = math.log(other.tokens.high / other.tokens.low) / 2.0
    half = math.hypot(math.log(ratio.high / ratio.value), tokens)
    return (
        against
        + f"{better(interval_about(ratio.value, half), objective)} (predicted; 90 % interval)"
    )


def _reach_row(reach: Reach) -> tuple[str, ...]:
    told = (reach.model.name, format_quantity(num_parameters(reach.model)), reach.title)
    if reach.option is None:
        return (*told, *[""] * 7, reach.refusal or "")
    outcome = reach.option.estimate.outcome
    # In a given time the tokens vary as one over the time of a step.
    low = reach.tokens * outcome.step_time_s / reach.option.estimate.step_time_high_s
    high = reach.tokens * outcome.step_time_s / reach.option.estimate.step_time_low_s
    return (
        *told,
        f"{num_devices(reach.option.plan):,}",
        format_quantity(reach.tokens),
        f"{reach.tokens / num_parameters(reach.model):.3g}",
        f"{format_quantity(low)} - {format_quantity(high)}",
        dollars(outcome.cost_usd),
        megawatt_hours(outcome.energy_j),
        tonnes(outcome.carbon_kgco2e),
        plan_words(reach.option.plan),
    )


def _thinned(options: Sequence[Option], most: int) -> list[Option]:
    """So many at equal steps, both ends among them."""
    if len(options) <= most:
        return list(options)
    return [options[round(n * (len(options) - 1) / (most - 1))] for n in range(most)]


def _point(option: Option, against: Objective) -> str:
    outcome = option.estimate.outcome
    told = {
        "time": "",
        "cost": dollars(outcome.cost_usd),
        "energy": megawatt_hours(outcome.energy_j) + " MWh",
        "carbon": tonnes(outcome.carbon_kgco2e) + " tCO2e",
    }[against]
    return f"{format_seconds(option.time_s.value)} and {told}"
