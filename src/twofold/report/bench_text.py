"""The answer of `twofold bench` for a terminal: the most important line last."""

from __future__ import annotations

from twofold.measure.bench import Bench, EarlyStopping
from twofold.report.table import aligned
from twofold.serving_outcome import Percentiles
from twofold.units import format_quantity, format_seconds
from twofold.workload.serve import Targets


def bench_text(found: Bench, written: str | None) -> str:
    outcome = found.outcome
    lines = aligned(
        [
            ["", "mean", "p50", "p90", "p99"],
            *(
                _row(name, values)
                for name, values in (
                    ("time to first token (TTFT)", outcome.ttft_s),
                    ("time per output token (TPOT)", outcome.tpot_s),
                    ("between tokens (ITL)", found.itl_s),
                    ("whole answer (E2E)", outcome.e2e_s),
                )
                if values is not None
            ),
        ]
    )
    lines += ["", *_counts(found), *_warnings(found)]
    lines += [f"written: {written}"] if written else []
    lines += ["", *_goodput(found)]
    return "\n".join(lines)


def _row(name: str, values: Percentiles) -> list[str]:
    return [name, *(format_seconds(v) for v in (values.mean, values.p50, values.p90, values.p99))]


def _counts(found: Bench) -> list[str]:
    outcome = found.outcome
    energy = outcome.j_per_output_token()
    lines = [
        f"{outcome.num_requests} of {len(found.stretch.judged)} judged requests were answered in "
        f"{format_seconds(outcome.duration_s)}: "
        f"{outcome.requests_per_s:.3g} requests/s, "
        f"{format_quantity(outcome.output_tokens_per_s, 'output tokens/s')}, "
        f"{outcome.input_tokens / outcome.num_requests:.0f} tokens in and "
        f"{outcome.output_tokens / outcome.num_requests:.0f} out on the mean",
    ]
    if outcome.cached_fraction > 0:
        lines.append(f"{outcome.cached_fraction:.0%} of the input came from the prefix cache")
    lines.append(
        f"energy {outcome.energy_grade}: {found.energy_why}"
        if energy is None
        else f"energy {energy:.3g} J per output token ({outcome.energy_grade}: {found.energy_why})"
    )
    lines.append(
        f"sender: late by {format_seconds(found.lag_p99_s)} at the 99th percentile, "
        f"{format_seconds(found.lag_max_s)} at most"
    )
    return lines


def _warnings(found: Bench) -> list[str]:
    lines = []
    if found.interrupted:
        lines.append("interrupted: what had been answered until then is judged")
    if found.sender is not None:
        lines.append(f"WARNING: {found.sender}")
    if found.short_answers:
        lines.append(
            f"{found.short_answers} answers are shorter than asked: the server does not know "
            "`ignore_eos` and `min_tokens`"
        )
    crowded = found.stretch.crowded_cores
    if crowded is not None and crowded > 0.3:
        lines.append(
            f"other processes took {crowded:.1f} cores of this machine meanwhile (the server's, "
            "if it runs here and was not started by this command)"
        )
    for error, number in sorted(found.errors.items(), key=lambda pair: -pair[1])[:3]:
        lines.append(f"FAILED: {number} of {found.num_sent} requests: {error}")
    return lines


def _goodput(found: Bench) -> list[str]:
    outcome, rule = found.outcome, found.early_stopping
    if rule is None or outcome.goodput_per_s is None or outcome.attained_fraction is None:
        return ["no target is set, so there is no goodput: set --ttft and --tpot"]
    return [
        _stopping(rule),
        f"goodput {outcome.goodput_per_s:.3g} requests/s: {outcome.attained_fraction:.1%} of "
        f"requests met {_targets(found.workload.targets)}"
        f" ({'reached' if outcome.attained_fraction >= rule.wanted else 'NOT reached'}: "
        f"{rule.wanted:.0%} were to)",
    ]


def _stopping(rule: EarlyStopping) -> str:
    if rule.shown:
        return f"LoadGen's rule: {rule.wanted:.0%} shown at 99 % confidence"
    return (
        f"LoadGen's rule: {rule.num_over} of {rule.num_requests} over a limit would need "
        f"{rule.needed} requests to show {rule.wanted:.0%} at 99 % confidence"
    )


def _targets(targets: Targets) -> str:
    limits = [("TTFT", targets.ttft_s), ("TPOT", targets.tpot_s), ("E2E", targets.e2e_s)]
    return " and ".join(f"{name} {format_seconds(t)}" for name, t in limits if t is not None)
