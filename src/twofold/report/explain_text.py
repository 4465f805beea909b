"""Why a plan takes what it takes, and why two plans differ, as text: the claim last."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from twofold.search.attribution import Attribution
from twofold.search.breakdown import Explanation, group_causes
from twofold.search.comparison import Comparison
from twofold.units import format_bytes, format_quantity, format_seconds

HOST_TOO_SMALL = "DOES NOT FIT the host memory: the optimizer state that is offloaded to it"
_BAR = 24
_SMALL = 0.005
"""Parts below half a per cent stand together."""
_TOLD = 6
"""Rows of a list that may be long; the rest is counted."""


def explanation_text(x: Explanation) -> str:
    """Step time, memory, money, energy and carbon of one plan by cause."""
    outcome = x.estimate.outcome
    lines = [x.title, x.estimate.basis]
    lines += _parts("step time", outcome.step_parts_s, outcome.step_time_s, format_seconds)
    if outcome.peak_memory_bytes is not None:
        lines += _parts(
            "memory of the fullest device",
            outcome.memory_parts_bytes,
            outcome.peak_memory_bytes,
            format_bytes,
        )
        too_big = outcome.peak_memory_bytes > x.usable_memory_bytes
        verdict = "DOES NOT FIT" if too_big else "fits"
        lines.append(f"  {verdict}: usable are {format_bytes(x.usable_memory_bytes)}")
    if not x.fits_host:
        lines.append(f"  {HOST_TOO_SMALL}")
    lines += _parts("whole run", x.run_parts_s, outcome.time_s, format_seconds)
    if outcome.cost_usd is None:
        lines += ["", "money: unknown, no price is given for the pool"]
    else:
        lines += _parts("money", x.cost_parts_usd, outcome.cost_usd, _usd)
    if outcome.energy_j is None:
        lines += ["", "energy: unknown, the power of the device is not known"]
    else:
        title = f"energy ({outcome.energy_grade})"
        lines += _parts(title, outcome.energy_parts_j, outcome.energy_j, _energy)
    if outcome.carbon_kgco2e is not None:
        lines += _parts("carbon", x.carbon_parts_kgco2e, outcome.carbon_kgco2e, _carbon)
    lines.append("")
    if x.bound_step_s is not None and x.mfu is not None:
        lines.append(
            f"bound: {format_seconds(x.bound_step_s)} a step at the dense peak in the plan's "
            f"precision; reached {x.mfu:.1%} of it (MFU)"
        )
    if x.remark:
        lines.append(x.remark)
    lines.append(
        f"{format_seconds(outcome.step_time_s)} a step "
        f"({format_seconds(x.estimate.step_time_low_s)} to "
        f"{format_seconds(x.estimate.step_time_high_s)}, 90 %), bound by {x.binds}"
    )
    return "\n".join(lines)


def comparison_text(x: Comparison) -> str:
    """The ratio of two plans by cause, what could not be separated, and the claim."""
    lines = [f"a: {x.a.title}", f"b: {x.b.title}", ""]
    lines += _side_by_side(x)
    lines += _causes("time", x.time)
    told = {"time": x.time}
    for title, one, lack in (
        ("cost", x.cost, "a price is not known"),
        ("energy", x.energy, "a device's power is not known"),
        ("carbon", x.carbon, "the power of a device or the carbon of its electricity is not known"),
    ):
        lines += _other(title, one, told, lack)
        told |= {} if one is None else {title: one}
    strong = [one for one in x.interactions if one.factor is not None and _matters(one.factor)]
    if strong:
        lines += ["", "interactions (both together, over the product of each alone)"]
        lines += [f"  {i.first} x {i.second}: {i.factor:.3f}" for i in strong[:_TOLD]]
    blind = [one for one in x.interactions if one.factor is None]
    if blind:
        pairs = ", ".join(f"{i.first} x {i.second}" for i in blind[:_TOLD])
        lines += ["", f"no interaction, one of the two cannot change first: {pairs}{_more(blind)}"]
    lines += _left_out(x)
    lines += ["", *_claim(x)]
    return "\n".join(lines)


def _parts(
    title: str, parts: Mapping[str, float], total: float, form: Callable[[float], str]
) -> list[str]:
    """A table of shares that add up, largest first."""
    ranked = sorted(parts.items(), key=lambda part: -part[1])
    shown = [(name, value) for name, value in ranked if value >= _SMALL * total]
    rest = math.fsum(value for _, value in ranked) - math.fsum(value for _, value in shown)
    if rest > 0:
        shown.append(("smaller parts", rest))
    width = max((len(name) for name, _ in shown), default=0)
    lines = ["", f"{title}  {form(total)}"]
    for name, value in shown:
        share = value / total
        bar = "#" * round(_BAR * share)
        lines.append(f"  {name:{width}s}  {form(value):>10s}  {share:6.1%}  {bar}".rstrip())
    return lines


def _side_by_side(x: Comparison) -> list[str]:
    a, b = x.a.estimate.outcome, x.b.estimate.outcome
    parts_a, parts_b = group_causes(a.step_parts_s), group_causes(b.step_parts_s)
    names = list(dict.fromkeys([*parts_a, *parts_b]))
    width = max(len(name) for name in [*names, "step time", "memory"])

    def row(name: str, one: str, other: str) -> str:
        return f"  {name:{width}s}  {one:>12s}  {other:>12s}"

    lines = [row("", "a", "b")]
    lines += [
        row(n, format_seconds(parts_a.get(n, 0.0)), format_seconds(parts_b.get(n, 0.0)))
        for n in names
    ]
    lines.append(row("step time", format_seconds(a.step_time_s), format_seconds(b.step_time_s)))
    if a.peak_memory_bytes is not None and b.peak_memory_bytes is not None:
        lines.append(
            row("memory", format_bytes(a.peak_memory_bytes), format_bytes(b.peak_memory_bytes))
        )
    return lines


def _causes(title: str, x: Attribution) -> list[str]:
    lines = ["", f"{title} per token, b over a: {x.ratio:.3f} ="]
    if not x.causes:
        return [*lines[:-1], f"{title} per token, b over a: {x.ratio:.3f}: nothing differs"]
    width = max(len(cause.name) for cause in x.causes)
    largest = max(abs(cause.log_share) for cause in x.causes) or 1.0
    for cause in x.causes:
        alone = "cannot alone" if cause.alone is None else f"alone {cause.alone:.3f}"
        mark = "+" if cause.log_share > 0 else "-"
        bar = mark * round(_BAR / 2 * abs(cause.log_share) / largest)
        lines.append(
            f"  x {cause.factor:6.3f}  {cause.name:{width}s}  {alone:>12s}  {bar}".rstrip()
        )
    lines.append(
        f"  residual {_zero(x.residual):.1g} in ln; mean over {x.num_orders} of "
        f"{x.num_possible} orders"
    )
    return lines


def _other(
    title: str, x: Attribution | None, told: Mapping[str, Attribution], lack: str
) -> list[str]:
    """Its causes; in one line where they are those of a ratio that was told already."""
    if x is None:
        return ["", f"{title}: no ratio, {lack}"]
    for known, other in told.items():
        shares = {cause.name: cause.log_share for cause in other.causes}
        alike = len(x.causes) == len(other.causes) and all(
            abs(cause.log_share - shares.get(cause.name, math.inf)) < _SMALL for cause in x.causes
        )
        if alike and x.causes:
            line = f"{title} per token, b over a: {x.ratio:.3f}, with the causes of the {known}"
            return ["", line]
    return _causes(title, x)


def _left_out(x: Comparison) -> list[str]:
    lines: list[str] = []
    if x.left_out:
        lines += [
            "",
            f"left out of {x.num_coalitions} coalitions, for they cannot run: {len(x.left_out)}",
        ]
        reasons: dict[str, list[tuple[str, ...]]] = {}
        for one in x.left_out:
            reasons.setdefault(one.reason, []).append(one.changed)
        for reason, sets in list(reasons.items())[:_TOLD]:
            lines.append(f"  {reason}: {len(sets)}, the smallest {_listed(sets[0])}")
        lines += [f"  {_more(list(reasons)).strip()}"] if len(reasons) > _TOLD else []
    if x.overfull:
        lines += [
            "",
            f"priced although they do not fit the memory: {len(x.overfull)}, the smallest "
            f"{_listed(x.overfull[0])}",
        ]
    if x.merged:
        lines += ["", f"no order changes them singly, so one cause: {', '.join(x.merged)}"]
    return lines


def _claim(x: Comparison) -> list[str]:
    lines = []
    if x.published is not None:
        low, high = min(x.published), max(x.published)
        told = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
        held = "lies in the interval" if x.published_holds else "DOES NOT lie in the interval"
        lines.append(f"published: {told}, {held}")
    for name, side in (("a", x.a), ("b", x.b)):
        if not side.fits_host:
            lines.append(f"{name}: {HOST_TOO_SMALL}")
        elif not side.fits:
            usable = format_bytes(side.usable_memory_bytes)
            lines.append(f"{name} DOES NOT FIT its memory: usable are {usable}")
    lines.append(x.interval_basis)
    lead = ""
    if x.time.causes:
        first = x.time.causes[0]
        lead = f"; most from {first.name}, x {first.factor:.2f}"
    lines.append(
        f"b takes {x.time.ratio:.2f} times the time of a per token ({x.low:.2f} to {x.high:.2f}, "
        f"90 %){lead}"
    )
    return lines


def _listed(changed: Sequence[str]) -> str:
    """A coalition in words."""
    return "a with b's " + " + ".join(changed) if changed else "a itself"


def _more(rows: Sequence[object]) -> str:
    return f" and {len(rows) - _TOLD} more" if len(rows) > _TOLD else ""


def _matters(factor: float) -> bool:
    return abs(math.log(factor)) >= _SMALL


def _zero(value: float) -> float:
    """Rounding is zero."""
    return 0.0 if abs(value) < 1e-9 else value


def _usd(value: float) -> str:
    return f"${format_quantity(value)}"


def _energy(value: float) -> str:
    """Wh, as electricity is billed."""
    return format_quantity(value / 3600.0, "Wh")


def _carbon(value: float) -> str:
    return f"{value:.3g} kgCO2e" if value < 1e3 else f"{format_quantity(value / 1e3)} tCO2e"
