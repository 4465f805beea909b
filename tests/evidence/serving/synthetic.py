"""Evidence of serving made from a queue that is known: the share that waits grows as load^2."""

from __future__ import annotations

from dataclasses import replace

from twofold.evidence.records import LedgerEntry
from twofold.evidence.serving.answers import Answer, Stretch, StretchKind
from twofold.evidence.serving.derive import derive_serving, targets_of
from twofold.evidence.serving.files import serving_predictions_hash
from twofold.evidence.serving.records import (
    ServingArm,
    ServingEvidence,
    Transcript,
)
from twofold.workload.serve import Arrivals, Lengths, Serve

TIMES = {"tight": 2.0, "middle": 3.0, "loose": 6.0}
RATES = {"naive": (0.5, 1.0, 2.0), "planned": (4.0, 8.0, 16.0)}
CAPACITY = {"naive": 1.0, "planned": 8.0}
"""Requests/s at which a tenth of the requests waits too long for the middle target."""


def stretch(
    arm: str, kind: StretchKind, rate: float | None, block: int, *, seed: int = 1000
) -> Stretch:
    """TTFT 10 ms and TPOT 2 ms, with a wait that grows with the load."""
    load = 0.0 if rate is None else rate / CAPACITY[arm]
    share = 0.1 * load**2 * (1.0 + 0.1 * block * (arm == "naive" and kind == "rate"))
    answers = []
    for number in range(40):
        late_s = 0.05 if int((number + 1) * share + 1e-9) > int(number * share + 1e-9) else 0.0
        first_s = number + 0.010 + late_s
        chunks = tuple(round(first_s + 0.002 * i, 6) for i in range(5))
        answers.append(
            Answer(
                intended_s=float(number),
                sent_s=float(number),
                first_s=chunks[0],
                end_s=chunks[-1],
                input_tokens=20,
                output_tokens=5,
                chunks_s=chunks,
            )
        )
    return Stretch(
        arm=arm,
        kind=kind,
        block=block,
        position=0,
        seed=seed + block,
        rate_per_s=rate,
        users=1 if kind == "unloaded" else None,
        num_warmup=0,
        answers=tuple(answers),
        crowded_cores=0.1,
    )


def make(*, blocks: int = 3) -> ServingEvidence:
    """The planned arm carries eight times the load of the naive one."""
    unloaded = stretch("naive", "unloaded", None, -1)
    stretches = [unloaded]
    for block in range(blocks):
        for arm, rates in RATES.items():
            stretches += [stretch(arm, "rate", rate, block) for rate in rates]
        stretches += [stretch("naive", "aa", rate, block) for rate in RATES["naive"]]
    arms = [
        ServingArm(
            name=name,
            title=name,
            url=None,
            plan=None,
            lossy=False,
            rates_per_s=rates,
            levers=levers,
        )
        for (name, rates), levers in zip(RATES.items(), ((), ("all of it",)), strict=True)
    ]
    evidence = ServingEvidence(
        schema_version=1,
        twofold_version="0",
        name="synthetic",
        created="2026-11-24T12:00:00+00:00",
        smoke=False,
        workload=Serve(
            arrivals=Arrivals(rate_per_s=1.0), input=Lengths(mean=20.0), output=Lengths(mean=5.0)
        ),
        targets=targets_of([unloaded], TIMES, 0.9),
        claimed="middle",
        comparisons=[("planned", "naive")],
        arms=arms,
        levers=("all of it",),
        stretches=stretches,
        transcripts=[
            Transcript(arm=name, prompt=p, tokens=(1, 2, 3), gaps=(1.0, 1.0, 1.0))
            for name in RATES
            for p in range(4)
        ],
        held_out={},
        epsilon=1e-3,
        margin=0.005,
        predictions_hash=serving_predictions_hash(arms),
        energy_grade="unknown",
        environment={"host": {}},
        experiment={
            "comparisons": [{"arm": "planned", "baseline": "naive"}],
            "targets": {"times_unloaded": TIMES},
            "arms": {"naive": {}, "planned": {}},
        },
        ledger=[
            LedgerEntry(
                time="2026-11-24T12:00:00+00:00",
                event="proof",
                arm="",
                block=-1,
                seed=1000,
                detail="",
            )
        ],
        planned_blocks=blocks,
        wall_s=1.0,
    )
    return derived(evidence)


def derived(evidence: ServingEvidence) -> ServingEvidence:
    return replace(evidence, derived=derive_serving(evidence))
