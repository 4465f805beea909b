"""Answers as text for a terminal: the most important line last, then what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from twofold.evidence.records import Evidence, Ratio, Result
from twofold.fleet import Fleet
from twofold.measure.execution import Executed
from twofold.measure.goodput import Goodput
from twofold.measure.planning import MadePlan
from twofold.report import reading
from twofold.units import format_bytes, format_quantity, format_seconds


def claim_text(evidence: Evidence, *, report: str, evidence_path: str) -> str:
    """The two labelled results, never merged, then where to look further."""
    derived = evidence.derived
    assert derived is not None
    lines: list[str] = []
    if evidence.smoke:
        lines += ["SMOKE TEST: runs cut to an eighth; nothing below is evidence", ""]
    floor = derived.noise_floor
    if floor is not None:
        lines.append(f"noise (A/A)  {_ratio(floor.ratio)}; {len(floor.ratio.pairs)} pairs")
    lines += [line for result in derived.results for line in _result(evidence, result)]
    attempts = sum(entry.event == "proof" for entry in evidence.ledger)
    if attempts > 1:
        lines += [
            "",
            f"attempt {attempts} at this experiment; the ledger in the report has them all",
        ]
    lines += ["", f"report: {report}"]
    lines.append(f"re-check: twofold prove --check {shlex.quote(evidence_path)}")
    return "\n".join(lines)


def doctor_text(description: Mapping[str, Any]) -> str:
    """The machine in a block that can be pasted into a bug report."""
    cpu, cores, memory = description["cpu"], description["cores"], description["memory"]
    rows = [
        ("twofold", description["packages"].get("twofold", "unknown")),
        ("system", f"{description['os']}, {description['distribution'] or 'no distribution'}"),
        ("processor", f"{cpu.get('model')} ({description['architecture']})"),
        ("instructions", ", ".join(cpu.get("instruction_sets", [])) or "unknown"),
        ("cores", f"{cores['usable']:g} usable of {cores['total']}"),
        ("memory", _memory(memory)),
        ("load", _load(description["load"], cores["usable"])),
        ("accelerators", ", ".join(_accelerator(a) for a in description["accelerators"]) or "none"),
        *((f"energy {k}", f"{v['grade']}: {v['why']}") for k, v in description["energy"].items()),
        ("virtual", ", ".join(v for v in description["virtualisation"].values() if v) or "no"),
        ("python", description["python"]),
        ("packages", ", ".join(f"{k} {v}" for k, v in description["packages"].items())),
        ("calibration", description.get("calibration") or "none yet"),
    ]
    lines = [f"{name:14s} {value}" for name, value in rows]
    lines.append("")
    lines += _abilities(description)
    return "\n".join(lines)


def calibration_text(fleet: Fleet, path: str) -> str:
    """The main figures of a calibration and where they were written."""
    accelerator = fleet.pools[0].node.accelerator
    lines = [f"{accelerator.name}, {accelerator.threads} threads"]
    for precision, figure in accelerator.flop_per_s.items():
        rate = format_quantity(figure.value, "FLOP/s")
        lines.append(f"  {precision:5s} {rate:>14s}{_spread(figure.spread)}")
    bandwidth = accelerator.memory.bandwidth_bytes_per_s
    if bandwidth is not None:
        lines.append(
            f"  memory{format_quantity(bandwidth.value, 'B/s'):>14s}{_spread(bandwidth.spread)}"
        )
    curves = accelerator.curves
    if curves is not None and curves.conditions:
        told = ", ".join(f"{k} {_plain(v)}" for k, v in curves.conditions.items())
        lines.append(f"  conditions: {told}")
    lines += ["", f"written: {path}", "next: twofold prove examples/stdlib-lm.toml"]
    return "\n".join(lines)


def plan_text(made: MadePlan, path: str) -> str:
    """The finalists, predicted beside timed, and the plan that won."""
    lines = [
        f"{made.num_considered} plans considered, {made.num_fitting} fit",
        *(f"  rejected: {count} {reason}" for reason, count in made.rejections.items()),
        "",
    ]
    lines += [_finalist(row) for row in made.finals]
    chosen = next((row for row in made.finals if row["chosen"]), None)
    if chosen is not None:
        seconds = chosen["measured_run_s"] or chosen["predicted_run_s"]
        kind = "measured" if chosen["measured_run_s"] else "predicted"
        lines += ["", f"{chosen['plan']}: {format_seconds(seconds)} for the whole run ({kind})"]
    lines += [f"written: {path}", f"next: twofold run {shlex.quote(path)}"]
    return "\n".join(lines)


def run_text(done: Executed) -> str:
    """What the run took and where it lies."""
    run = done.run
    rate = run.tokens / run.train_s if run.train_s > 0 else 0.0
    lines = [
        f"{run.num_steps} steps, {format_quantity(run.tokens)} tokens in "
        f"{format_seconds(run.train_s)} ({format_quantity(rate, 'tokens/s')}), "
        f"start-up {format_seconds(run.startup_s)}",
    ]
    if done.predicted_step_time_s is not None and run.step_times_s:
        measured = sorted(run.step_times_s)[len(run.step_times_s) // 2]
        lines.append(
            f"step {format_seconds(measured)}, predicted "
            f"{format_seconds(done.predicted_step_time_s)}"
        )
    if run.peak_memory_bytes is not None:
        lines.append(f"peak memory {format_bytes(run.peak_memory_bytes)}")
    if run.diverged:
        lines.append("the loss is no longer a number: the run diverged and was ended")
    if run.tune_loss is not None:
        lines.append(f"held-out loss {run.tune_loss:.4f} nats per token (tune part)")
    if done.goodput is not None:
        lines.append(_goodput(done.goodput))
    lines.append(f"run folder: {done.folder}")
    return "\n".join(lines)


def _goodput(goodput: Goodput) -> str:
    """`goodput 81 % of 24 s (predicted 83 %): start 3 s, restart 2 s, lost work 1 s`."""
    parts = [
        f"{name} {format_seconds(seconds)}"
        for name, seconds in goodput.parts_s.items()
        if name != "compute" and seconds >= 0.005 * goodput.wall_s
    ]
    failed = f", {goodput.failures} failures" if goodput.failures else ""
    return (
        f"goodput {goodput.fraction:.0%} of {format_seconds(goodput.wall_s)} (predicted "
        f"{goodput.predicted_fraction():.0%}){failed}: {', '.join(parts) or 'all of it training'}"
    )


def _result(evidence: Evidence, result: Result) -> list[str]:
    against = f"'{result.arm}' against '{result.baseline}'"
    if result.fixed is None:
        return ["", f"{result.kind}   no figure    {against}", f"             {result.reason}"]
    unit = "faster per token" if result.kind == "same maths" else "sooner to equal held-out loss"
    lines = [
        "",
        f"{result.kind}   {_ratio(result.fixed)} {unit}; {len(result.fixed.pairs)} pairs, "
        f"measured   {against}",
    ]
    if result.kind == "same loss":
        parts = []
        if result.work_removed is not None and result.work_faster is not None:
            parts.append(
                f"= work removed {result.work_removed:.2f}x  x  work done faster "
                f"{result.work_faster:.2f}x"
            )
        if result.to_target is not None:
            parts.append(f"to the target loss, interpolated: {_ratio(result.to_target)}")
        lines += [f"             {part}" for part in parts]
    lines.append(f"             {_absolute(evidence, result)}")
    if result.fixed_with_startup is not None:
        lines.append(
            f"             with start-up on the clock: {_ratio(result.fixed_with_startup)}"
        )
    if result.predicted is not None:
        error = result.predicted / result.fixed.value - 1
        lines.append(f"             predicted {result.predicted:.2f}x, error {error:+.0%}")
    if result.quality is not None:
        lines.append(
            f"             held-out loss {result.quality.difference:+.4f} nats per token (upper "
            f"bound {_signed(result.quality.upper)}, margin {result.quality.margin:g})"
        )
    lines.append(f"             {result.verdict.upper()}: {result.reason}")
    return lines


def _absolute(evidence: Evidence, result: Result) -> str:
    clock = reading.claimed_clock(evidence, result)

    def mean_s(name: str) -> float:
        times = [clock(s) for s in evidence.samples if s.arm == name and s.fixed]
        return sum(times) / max(1, len(times))

    return (
        f"{format_seconds(mean_s(result.baseline))} against {format_seconds(mean_s(result.arm))} "
        f"{'of training' if clock is reading.training_clock else 'of wall time'} (means)"
    )


def _ratio(ratio: Ratio) -> str:
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.2f}x (no interval)"
    return f"{ratio.value:.2f}x (95 % interval {ratio.low:.2f}-{ratio.high:.2f})"


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.4f}"


def _memory(memory: Mapping[str, Any]) -> str:
    known = [
        f"{name.removesuffix('_bytes')} {format_bytes(value)}"
        for name, value in memory.items()
        if value is not None
    ]
    return ", ".join(known) or "unknown"


def _load(load: list[float] | None, cores: float) -> str:
    if load is None:
        return "unknown"
    busy = "  (busy: timings now will be poor)" if load[0] > cores else ""
    return ", ".join(f"{value:.2f}" for value in load) + busy


def _accelerator(accelerator: Mapping[str, Any]) -> str:
    return str(accelerator.get("name", "unnamed"))


def _abilities(description: Mapping[str, Any]) -> list[str]:
    """What can be used, and how to get what cannot."""
    packages = description["packages"]
    lines = []
    if "torch" in packages:
        lines.append("can: plan, calibrate, run and prove here")
    else:
        lines.append("can: plan.  missing: PyTorch, to run: pip install 'twofold[torch]'")
    if not description["accelerators"]:
        lines.append("no accelerator found: the processor is the device")
    if all(v["grade"] == "unknown" for v in description["energy"].values()):
        lines.append("no energy counter: energy will be modelled or unknown, never claimed")
    if description.get("calibration") is None:
        lines.append("next: twofold calibrate")
    return lines


def _finalist(row: Mapping[str, Any]) -> str:
    predicted, measured = row["predicted_step_time_s"], row["measured_step_time_s"]
    return (
        f"  {row['plan']:52s} predicted {_step(predicted):>9s}   "
        f"timed {_step(measured):>9s}{'   <-' if row['chosen'] else ''}"
    )


def _step(seconds: float | None) -> str:
    return "-" if seconds is None else format_seconds(seconds)


def _spread(spread: float | None) -> str:
    return "" if spread is None else f"  ±{spread:.0%}"


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
