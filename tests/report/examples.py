"""Evidence in all the forms the page has to bear, from a whole proof to next to nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.evidence.synthetic import build
from twofold.evidence import derive
from twofold.evidence.records import Evidence, LedgerEntry

HOSTILE = "<script>alert(1)</script>\"'&\x00\ud800 ]]> --> " + "x" * 80
"""Markup, quotes, what XML and UTF-8 forbid, and a word that no line holds."""

_CLASSES = (("matrix products", 60.0, 0.6), ("attention", 12.0, 0.2), ("elementwise", 0.4, 0.12),
            ("optimizer", 0.33, 0.06), ("norm", 0.7, 0.02))  # fmt: skip


def whole(**changes: Any) -> Evidence:
    """A proof with nothing missing; the free-form parts as `twofold prove` writes them."""
    evidence = build(**changes)
    arms = [arm.name for arm in evidence.arms]
    return replace(
        evidence,
        predicted_order=_predicted_order(evidence),
        finals=[
            {
                "arm": arm,
                "plan": plan,
                "predicted_step_time_s": predicted_s,
                "predicted_run_s": 800 * predicted_s,
                "measured_step_time_s": predicted_s * 1.04,
                "measured_startup_s": 2.1,
                "measured_run_s": 800 * predicted_s * 1.04 + 2.1,
                "chosen": place == 0,
            }
            for arm in arms[1:3]
            for place, (plan, predicted_s) in enumerate(
                (("bf16 explicit fused", 0.0303), ("bf16 sdpa fused", 0.0398))
            )
        ],
        arm_roofline={arm.name: _classes("fp32" in arm.maths) for arm in evidence.arms},
        ledger=[
            _entry("started"),
            _entry("failed", detail="out of memory: 3 GiB asked for, 2 GiB left"),
            _entry("aborted", block=2, detail="interrupted"),
            _entry("not proven", block=-1, detail="2026-11-23-synthetic: same loss, twofold"),
            *evidence.ledger,
        ],
    )


def sparse() -> Evidence:
    """Two commands that report a time and nothing else."""
    bare = without_everything()
    return replace(bare, derived=derive(bare))


def without_everything() -> Evidence:
    """As `sparse`, and nothing derived."""
    evidence = build()
    arms = [
        replace(
            arm,
            plan=None,
            command=f"python train.py --arm {arm.name}",
            prediction=None,
            num_parameters=None,
            inference_flop_per_token=None,
            model_hash=None,
            workload_hash=None,
        )
        for arm in evidence.arms[:2]
    ]
    samples = [
        replace(
            sample,
            test_loss=None,
            tune_loss=None,
            train_loss=None,
            peak_memory_bytes=None,
            energy_j=None,
            load_before=None,
            load_after=None,
            steal_fraction=None,
            curve=[],
        )
        for sample in evidence.samples
        if sample.arm in ("naive", "sensible")
    ]
    return replace(
        evidence,
        arms=arms,
        samples=samples,
        comparisons=[("same loss", "sensible", "naive")],
        target_loss=None,
        target_origin="",
        tuning=None,
        predictions_hash=None,
        predicted_order=[],
        finals=[],
        roof_flop_per_s={},
        roof_bytes_per_s=None,
        arm_flop_per_token={},
        arm_roofline={},
        energy_grade="unknown",
        environment={},
        experiment={},
        ledger=[],
        threats=[],
        derived=None,
    )


def empty() -> Evidence:
    """No arm, no sample, no claim."""
    nothing = replace(without_everything(), arms=[], samples=[], comparisons=[])
    return replace(nothing, derived=derive(nothing))


def smoke() -> Evidence:
    cut = replace(whole(), smoke=True)
    return replace(cut, derived=derive(cut))


def not_proven() -> Evidence:
    """A noisy machine, an arm that learnt worse, and one that is slower."""
    return whole(worse={"twofold": 0.2}, slower={"same-maths": 1.8}, noise=0.1, seed=3)


def hostile() -> Evidence:
    """Every text that a user, a host or an engine chooses is an attack."""
    evidence = whole()
    names = {arm.name: f"{HOSTILE}{i}" for i, arm in enumerate(evidence.arms)}
    renamed = replace(
        evidence,
        name=HOSTILE,
        created=HOSTILE,
        target_origin=HOSTILE,
        energy_grade=HOSTILE,
        comparisons=[(kind, names[arm], names[base]) for kind, arm, base in evidence.comparisons],
        arms=[
            replace(arm, name=names[arm.name], title=HOSTILE, maths=arm.maths + HOSTILE)
            for arm in evidence.arms
        ],
        samples=[replace(sample, arm=names[sample.arm]) for sample in evidence.samples],
        predicted_order=[{**row, "arm": names[row["arm"]]} for row in evidence.predicted_order],
        finals=[{**row, "plan": HOSTILE} for row in evidence.finals],
        tuning={"machine": HOSTILE, "arms": dict.fromkeys(names.values(), _any_grid(evidence))},
        arm_roofline={
            names[arm]: [{**row, "name": HOSTILE} for row in rows]
            for arm, rows in evidence.arm_roofline.items()
        },
        roof_flop_per_s={**evidence.roof_flop_per_s, HOSTILE: 1e12},
        environment={HOSTILE: HOSTILE, "long": "y" * 3000, "many": [{"x": HOSTILE}]},
        experiment={HOSTILE: HOSTILE},
        ledger=[replace(entry, arm=HOSTILE, detail=HOSTILE) for entry in evidence.ledger],
        threats=[HOSTILE],
        derived=None,
    )
    return replace(renamed, derived=derive(renamed))


def many_runs() -> Evidence:
    """Far more blocks than a proof ever runs, and a ledger full of failures."""
    evidence = whole(blocks=60)
    failures = [_entry("failed", block=i, detail="out of memory " * 40) for i in range(600)]
    return replace(evidence, ledger=[*evidence.ledger, *failures])


def _entry(event: str, *, block: int = 0, detail: str = "") -> LedgerEntry:
    return LedgerEntry(
        time="2026-11-24T06:31:00+00:00", event=event, arm="twofold", block=block, seed=block,
        detail=detail,
    )  # fmt: skip


def _any_grid(evidence: Evidence) -> Any:
    assert evidence.tuning is not None
    return next(iter(evidence.tuning["arms"].values()))


def _predicted_order(evidence: Evidence) -> list[dict[str, Any]]:
    rows = [
        {
            "arm": arm.name,
            "predicted_s_per_token": arm.prediction.step_time_s
            / (arm.plan["workload"]["recipe"]["global_batch"] * arm.plan["workload"]["seq_len"]),
        }
        for arm in evidence.arms
        if arm.prediction is not None and arm.plan is not None
    ]
    return sorted(rows, key=lambda row: row["predicted_s_per_token"])


def _classes(in_fp32: bool) -> list[dict[str, Any]]:
    flop_per_s, step_s = (95e9, 0.046) if in_fp32 else (200e9, 0.023)
    return [
        {
            "name": name,
            "flop": min(intensity * 12e9, flop_per_s) * fraction * step_s,
            "bytes": min(intensity * 12e9, flop_per_s) * fraction * step_s / intensity,
            "time_s": fraction * step_s,
        }
        for name, intensity, fraction in _CLASSES
    ]


BY_NAME = {
    "whole": whole,
    "smoke": smoke,
    "not_proven": not_proven,
    "sparse": sparse,
    "without_everything": without_everything,
    "empty": empty,
    "hostile": hostile,
    "many_runs": many_runs,
}
