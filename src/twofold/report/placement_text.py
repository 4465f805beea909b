"""Plans over unlike pools as text: what each pool does, two baselines, the claim last."""

from __future__ import annotations

from collections.abc import Sequence

from twofold.fleet import Pool
from twofold.perf.local_updates import MEASURED_WORKERS
from twofold.report.fleet_cells import UNKNOWN, dollars, megawatt_hours, times
from twofold.report.fleet_text import pool_line, price_notes, question_line
from twofold.report.table import aligned
from twofold.search.options import Interval
from twofold.search.placement.answer import PlacementAnswer
from twofold.search.placement.found import Placement, PoolPart
from twofold.search.placement.question import Question
from twofold.units import format_bytes, format_quantity, format_seconds
from twofold.workload.train import UNSPECIFIED

_HEAD = (
    "plan", "kind", "devices", "step", "90 % interval", "tokens/s", "time", "dollars", "MWh",
    "bound by",
)  # fmt: skip
_LEFT = (0, 1, 9)
_KNOWABLE = {7: "dollars", 8: "energy"}
_PARTS_HEAD = ("plan", "pool", "devices", "takes", "done after", "waits", "memory of usable")


def placement_text(
    question: Question,
    answer: PlacementAnswer,
    chosen: Placement,
    *,
    path: str,
    notes: Sequence[str] = (),
) -> str:
    """The whole answer of `twofold plan` on a fleet of several pools."""
    rows = _labelled(answer)
    lines = [question_line(question.model, question.workload, question.date)]
    lines += [pool_words(pool) for pool in question.pools]
    lines += [*_joint_lines(question), ""]
    lines += _table(rows)
    lines += [""]
    parts = [_part_row(label, one, part) for label, one in rows for part in one.parts]
    lines += aligned([_PARTS_HEAD, *_told_once(parts)], left=(0, 1, 3))
    lines += ["", f"{answer.num_considered:,} combinations of pools, layouts and stages considered"]
    lines += [f"basis: {chosen.estimate.basis}"]
    lines += list(dict.fromkeys(note for pool in question.pools for note in price_notes(pool)))
    lines += [f"note: {note}" for note in (*notes, *_notes(question, answer, chosen))]
    lines += ["", f"written: {path} ({placement_words(chosen)})"]
    lines += claims(answer, chosen)
    return "\n".join([*lines, _next(question, path)])


def _next(question: Question, path: str) -> str:
    """A plan that was made without a text is refused by `run`: then what makes one it takes."""
    if question.workload.text == UNSPECIFIED:
        return "next: plan again with --text FILE, FOLDER or SHARDS, to run it on these machines"
    where = "" if question.local else "   (where these machines are)"
    return f"next: twofold run {path}{where}"


def pool_words(pool: Pool) -> str:
    """`fast: 2 devices (2 machines of 1 x AMD EPYC), 0.75 of a core each`."""
    quota = "" if pool.cpu_cores is None else f", {pool.cpu_cores.value:g} of a core each"
    return pool_line(pool.name, pool) + quota


def placement_words(placement: Placement) -> str:
    """The plan in a line: its kind, degrees and what each pool takes."""
    plan = placement.plan
    words = [placement.kind, plan.precision, f"dp={plan.data_degree}"]
    if plan.tensor_degree > 1:
        words.append(f"tp={plan.tensor_degree}")
    if plan.pipeline_degree > 1:
        words.append(f"pp={plan.pipeline_degree}")
    words.append(f"mb={plan.micro_batch}")
    if plan.zero_stage:
        words.append(f"zero={plan.zero_stage}")
    if plan.recompute != "none":
        words.append(f"recompute={plan.recompute}")
    if plan.local_steps:
        words.append(f"local_steps={plan.local_steps} {plan.exchange_precision}")
    if plan.exchange_fragments > 1:
        words.append(f"in {plan.exchange_fragments} fragments")
    return " ".join(words) + ": " + "; ".join(f"{p.pool} {takes(p)}" for p in placement.parts)


def takes(part: PoolPart) -> str:
    """`2 x 21 sequences`, `layers 1 + 2`."""
    if part.layers:
        return "layers " + _counted(part.layers)
    return " + ".join(f"{n} x {share}" for n, share in part.sequences) + " sequences"


def claims(answer: PlacementAnswer, chosen: Placement) -> list[str]:
    """The ideal by speed, then what is predicted, against both baselines."""
    lines = []
    if answer.ideal_over_even is not None and answer.ideal_over_subset is not None:
        lines.append(
            f"by speed alone, without links and memory: {answer.ideal_over_even:.2f}x over the "
            f"even split (mean/min), {answer.ideal_over_subset:.2f}x over the best equal shares "
            "of a subset (sum s / max k s_k)"
        )
    told = [
        _against(answer, answer.even, "the even split over all devices", answer.no_even),
        _against(answer, answer.subset, "the best subset with equal shares", answer.no_subset),
    ]
    kind = "best synchronous plan" if answer.offered else "best plan"
    lines.append(f"{kind} {', '.join(told)} (tokens/s, predicted; 90 % interval)")
    if chosen in answer.offered:
        gain = answer.best[0].step_s / chosen.step_s
        lines.append(
            f"LOSSY: {chosen.kind} {gain:.2f}x the tokens/s of the best synchronous plan "
            "(predicted), on another trajectory: its loss is for a run to show"
        )
    return lines


def _against(answer: PlacementAnswer, base: Placement | None, whose: str, why_none: str) -> str:
    if base is None:
        return f"runs where {whose} {why_none}"
    if base.plan == answer.best[0].plan or base is answer.best[0]:
        return f"the same as {whose}"
    gain = answer.gain_over(base)
    if gain.value < 1.0:
        return f"{times(_inverse(gain))} slower than {whose}"
    return f"{times(gain)} of {whose}"


def _inverse(gain: Interval) -> Interval:
    return Interval(value=1 / gain.value, low=1 / gain.high, high=1 / gain.low)


def _labelled(answer: PlacementAnswer) -> list[tuple[str, Placement]]:
    rows = [
        ("best" if place == 0 else f"no. {place + 1}", one) for place, one in enumerate(answer.best)
    ]
    rows += [(f"lossy {place + 1}", one) for place, one in enumerate(answer.offered)]
    rows += [
        (label, one)
        for label, one in (("even split", answer.even), ("best subset", answer.subset))
        if one is not None
    ]
    return rows


def _table(rows: Sequence[tuple[str, Placement]]) -> list[str]:
    """Plans in rows; what is unknown of all of them is said once, below."""
    cells = [_HEAD, *(_row(label, one) for label, one in rows)]
    unknown = [column for column in _KNOWABLE if all(row[column] == UNKNOWN for row in cells[1:])]
    kept = [column for column in range(len(_HEAD)) if column not in unknown]
    lines = aligned(
        [[row[column] for column in kept] for row in cells],
        left=[place for place, column in enumerate(kept) if column in _LEFT],
    )
    if unknown:
        lines += [f"{' and '.join(_KNOWABLE[column] for column in unknown)}: {UNKNOWN}"]
    return lines


def _row(label: str, placement: Placement) -> tuple[str, ...]:
    estimate, outcome = placement.estimate, placement.estimate.outcome
    low, high = format_seconds(estimate.step_time_low_s), format_seconds(estimate.step_time_high_s)
    return (
        label,
        _kind_words(placement),
        f"{placement.devices:,}",
        format_seconds(outcome.step_time_s),
        f"{low} - {high}",
        format_quantity(outcome.tokens_per_s),
        format_seconds(outcome.time_s),
        dollars(outcome.cost_usd),
        megawatt_hours(outcome.energy_j),
        placement.binds,
    )


def _kind_words(placement: Placement) -> str:
    """`local updates, every 50 steps in fp32`."""
    plan = placement.plan
    if not plan.local_steps:
        return placement.kind
    pieces = "" if plan.exchange_fragments == 1 else f"{plan.exchange_fragments} pieces of "
    every = f"every {plan.local_steps} steps in {pieces}{plan.exchange_precision}"
    return f"{placement.kind}, {every}"


def _part_row(label: str, placement: Placement, part: PoolPart) -> tuple[str, ...]:
    last = max(other.busy_s for other in placement.parts)
    peak = format_bytes(part.peak_bytes) if part.peak_bytes else UNKNOWN
    return (
        label,
        part.pool,
        f"{part.devices:,}",
        takes(part),
        format_seconds(part.busy_s),
        f"{1.0 - part.busy_s / last:.0%}",
        f"{peak} of {format_bytes(part.usable_bytes)}",
    )


def _told_once(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The plan's label on its first row only."""
    labels = ["", *(row[0] for row in rows)]
    return [
        ("", *row[1:]) if row[0] == before else row
        for row, before in zip(rows, labels, strict=False)
    ]


def _joint_lines(question: Question) -> list[str]:
    lines = []
    for (a, b), joint in question.joints.items():
        if a < b:
            rate = format_quantity(joint.bytes_per_s, "B/s")
            lines.append(f"{a} - {b}: {rate} one way, {joint.latency_s * 1e3:.3g} ms ({joint.how})")
    return lines


def _notes(question: Question, answer: PlacementAnswer, chosen: Placement) -> list[str]:
    notes = []
    if answer.why_not:
        notes.append(f"no local updates: {answer.why_not}")
    if answer.offered and chosen not in answer.offered:
        notes.append(
            "local updates (DiLoCo) are faster on this link and train another trajectory: "
            "--local-updates writes that plan"
        )
    workers = max((one.plan.data_degree for one in answer.offered), default=0)
    if workers > MEASURED_WORKERS:
        notes.append(
            f"{workers} workers: at equal tokens quality falls with workers, and scaling laws were "
            f"measured up to {MEASURED_WORKERS}"
        )
    if chosen.plan.zero_stage:
        notes.append("sharded states are equal on all ranks: unlike shards cannot be run")
    cores = [
        p.num_devices * (p.cpu_cores.value if p.cpu_cores else p.node.accelerator.threads)
        for p in question.pools
    ]
    threads = question.pools[0].node.accelerator.threads
    if question.local and sum(cores) > threads:
        notes.append(
            f"the pools have {sum(cores):g} cores together and this machine has {threads}: "
            "on it alone they would wait for each other"
        )
    return notes


def _counted(layers: Sequence[int]) -> str:
    """`1 + 2`; of many alike, `8 x 4`."""
    if len(layers) > 2 and len(set(layers)) == 1:
        return f"{len(layers)} x {layers[0]}"
    return " + ".join(map(str, layers))
