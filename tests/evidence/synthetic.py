"""A plausible proof made up from a seed, for tests of statistics, checks and the report.

    python tests/evidence/synthetic.py OUT.json

Five arms: the naive and the sensible baseline, Twofold, and the two arms that complete the four
coalitions of (maths, recipe). Speeds and losses are of the size seen on two CPU cores.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from twofold.document import as_json
from twofold.evidence import derive, predictions_hash, write_evidence
from twofold.evidence.records import Arm, Evidence, LedgerEntry, Prediction, Sample
from twofold.model import Model
from twofold.plan import Plan
from twofold.workload import Recipe, Train

SEQ_LEN = 128
LENGTH_FRACTIONS = (0.7, 1.0, 1.4)
FIXED_LENGTH = 1
FLOP_PER_TOKEN = 6.4e6
ROOF_FLOP_PER_S = {"fp32": 180e9, "bf16": 400e9}
COMPARISONS: tuple[tuple[Literal["same maths", "same loss"], str, str], ...] = (
    ("same maths", "same-maths", "naive"),
    ("same loss", "twofold", "naive"),
    ("same loss", "twofold", "sensible"),
)
FAST = {"precision": "bf16", "attention": "explicit", "optimizer_kernel": "fused"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What an arm really does before noise: its speed, and its loss at the fixed length."""

    title: str
    maths: str
    recipe: str
    fixed_steps: int
    global_batch: int
    tokens_per_s: float
    loss: float
    loss_per_log_token: float
    num_parameters: int
    levers: dict[str, str]
    predicted_speed_error: float

    @property
    def tokens_per_step(self) -> int:
        return self.global_batch * SEQ_LEN

    @property
    def lengths_tokens(self) -> tuple[int, ...]:
        return tuple(round(self.fixed_steps * f) * self.tokens_per_step for f in LENGTH_FRACTIONS)


TRUTH: dict[str, Truth] = {
    "naive": Truth(
        title="naive baseline", maths="eager-fp32", recipe="naive", fixed_steps=800,
        global_batch=4, tokens_per_s=10_100.0, loss=2.158, loss_per_log_token=0.45,
        num_parameters=838_400, levers={}, predicted_speed_error=1.06,
    ),
    "sensible": Truth(
        title="sensible baseline", maths="chosen", recipe="sensible", fixed_steps=480,
        global_batch=4, tokens_per_s=15_200.0, loss=2.149, loss_per_log_token=0.48,
        num_parameters=871_000, levers=FAST, predicted_speed_error=0.95,
    ),
    "twofold": Truth(
        title="Twofold", maths="chosen", recipe="twofold", fixed_steps=120,
        global_batch=8, tokens_per_s=12_200.0, loss=2.079, loss_per_log_token=0.56,
        num_parameters=865_200, levers=FAST, predicted_speed_error=1.11,
    ),
    "same-maths": Truth(
        title="naive recipe, chosen maths", maths="chosen", recipe="naive", fixed_steps=800,
        global_batch=4, tokens_per_s=17_300.0, loss=2.159, loss_per_log_token=0.45,
        num_parameters=838_400, levers=FAST, predicted_speed_error=1.04,
    ),
    "recipe-only": Truth(
        title="Twofold's recipe, naive maths", maths="eager-fp32", recipe="twofold",
        fixed_steps=120, global_batch=8, tokens_per_s=7_300.0, loss=2.078,
        loss_per_log_token=0.56, num_parameters=865_200, levers={}, predicted_speed_error=0.93,
    ),
}  # fmt: skip


def build(
    seed: int = 0,
    *,
    blocks: int = 4,
    aa_pairs: int = 4,
    noise: float = 0.02,
    loss_noise: float = 0.008,
    slower: Mapping[str, float] | None = None,
    worse: Mapping[str, float] | None = None,
    derived: bool = True,
) -> Evidence:
    """A whole Evidence. `slower` multiplies an arm's times, `worse` adds nats to its losses."""
    rng = random.Random(seed)
    truths = {
        name: replace(
            truth,
            tokens_per_s=truth.tokens_per_s / (slower or {}).get(name, 1.0),
            loss=truth.loss + (worse or {}).get(name, 0.0),
        )
        for name, truth in TRUTH.items()
    }
    arms = [_arm(name, truth) for name, truth in TRUTH.items()]
    samples = _aa_samples(rng, truths["naive"], aa_pairs, noise)
    for block in range(blocks):
        samples += _block_samples(rng, truths, block, noise, loss_noise)
    evidence = Evidence(
        schema_version=1,
        twofold_version="0.1.0",
        name="synthetic",
        created="2026-11-24T06:30:00+00:00",
        smoke=False,
        target_loss=2.17,
        target_origin="the naive baseline's tune loss at its fixed length",
        margin=0.03,
        comparisons=list(COMPARISONS),
        arms=arms,
        samples=samples,
        predictions_hash=predictions_hash(arms),
        predicted_order=[
            {"plan": plan, "predicted_step_time_s": time_s}
            for plan, time_s in (("bf16 explicit fused", 0.0303), ("bf16 sdpa fused", 0.0398))
        ],
        finals=[
            {"plan": "bf16 explicit fused", "step_time_s": 0.0296, "startup_s": 2.1},
            {"plan": "bf16 sdpa fused", "step_time_s": 0.0412, "startup_s": 2.1},
        ],
        tuning=_tuning(),
        roof_flop_per_s=dict(ROOF_FLOP_PER_S),
        roof_bytes_per_s=21e9,
        arm_flop_per_token=dict.fromkeys(TRUTH, FLOP_PER_TOKEN),
        arm_roofline={name: _roofline(truth) for name, truth in TRUTH.items()},
        energy_grade="modelled",
        environment={
            "host": {
                "os": "Linux",
                "cpu": {"model": "a two-core virtual machine", "instruction_sets": ["avx2"]},
                "cores": {"visible": 2, "quota": None, "usable": 2.0},
                "memory": {"total_bytes": 24 * 2**30, "available_bytes": 20 * 2**30},
                "python": "3.11.7",
                "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
            }
        },
        experiment={
            "name": "synthetic",
            "workload": {"text": "stdlib", "seq_len": SEQ_LEN},
            "quality": {"margin": 0.03},
            "arms": {name: {"title": truth.title} for name, truth in TRUTH.items()},
            "comparisons": [
                {"kind": kind, "arm": arm, "baseline": baseline}
                for kind, arm, baseline in COMPARISONS
            ],
        },
        ledger=_ledger(blocks),
        planned_blocks=blocks,
        wall_s=sum(s.train_s + s.startup_s for s in samples),
        threats=["One small model on one machine; the gain of the recipe falls with size."],
        derived=None,
    )  # fmt: skip
    return replace(evidence, derived=derive(evidence)) if derived else evidence


def _arm(name: str, truth: Truth) -> Arm:
    muon = truth.recipe == "twofold"
    recipe = Recipe(
        optimizer="muon" if muon else "adamw",
        learning_rate=0.02 if muon else 0.002,
        adam_learning_rate=0.005 if muon else None,
        global_batch=truth.global_batch,
    )
    workload = Train(
        text="stdlib", tokens=truth.lengths_tokens[FIXED_LENGTH], seq_len=SEQ_LEN, recipe=recipe
    )
    model = Model(
        name="modern" if truth.recipe != "naive" else "gpt2",
        layers=4, hidden=128, heads=4, kv_heads=4, ffn=512, vocab=256, max_seq_len=SEQ_LEN,
    )  # fmt: skip
    plan = as_json(Plan(micro_batch=truth.global_batch, threads=2)) | truth.levers
    step_time_s = truth.tokens_per_step / truth.tokens_per_s * truth.predicted_speed_error
    memory_bytes = 2.1e8 if truth.levers else 2.6e8
    tokens_to_target = truth.lengths_tokens[FIXED_LENGTH] * 0.97
    return Arm(
        name=name,
        title=truth.title,
        maths=truth.maths,
        recipe=truth.recipe,
        lengths_tokens=truth.lengths_tokens,
        fixed_length=FIXED_LENGTH,
        num_parameters=truth.num_parameters,
        inference_flop_per_token=2.1e6,
        model_hash=f"model-{model.name}",
        workload_hash=f"workload-{truth.recipe}",
        plan={"plan": plan, "model": as_json(model), "workload": as_json(workload)},
        command=None,
        prediction=Prediction(
            step_time_s=step_time_s,
            step_time_low_s=step_time_s * 0.85,
            step_time_high_s=step_time_s * 1.15,
            step_parts_s={
                "matrix products": step_time_s * 0.5,
                "attention": step_time_s * 0.3,
                "overhead": step_time_s * 0.2,
            },
            peak_memory_bytes=memory_bytes,
            memory_parts_bytes={"weights": memory_bytes * 0.2, "activations": memory_bytes * 0.8},
            tokens_to_target=tokens_to_target,
            tokens_to_target_low=tokens_to_target * 0.6,
            tokens_to_target_high=tokens_to_target * 1.6,
            basis="calibration of this machine",
        ),
    )


def _block_samples(
    rng: random.Random, truths: Mapping[str, Truth], block: int, noise: float, loss_noise: float
) -> list[Sample]:
    """Every arm at every length, in an order that reverses from block to block."""
    runs = [(name, length) for name in truths for length in range(len(LENGTH_FRACTIONS))]
    if block % 2:
        runs.reverse()
    seed_effect = rng.gauss(0.0, loss_noise)
    return [
        _sample(
            rng, name, truths[name], role="run", block=block, position=position,
            seed=100 + block, length=length, noise=noise,
            loss_shift=seed_effect + rng.gauss(0.0, loss_noise / 2),
        )
        for position, (name, length) in enumerate(runs)
    ]  # fmt: skip


def _aa_samples(rng: random.Random, truth: Truth, pairs: int, noise: float) -> list[Sample]:
    return [
        _sample(
            rng, "naive", truth, role="aa", block=pair, position=position, seed=90 + pair,
            length=0, noise=noise, loss_shift=0.0,
        )
        for pair in range(pairs)
        for position in (0, 1)
    ]  # fmt: skip


def _sample(
    rng: random.Random, name: str, truth: Truth, *, role: Any, block: int, position: int,
    seed: int, length: int, noise: float, loss_shift: float,
) -> Sample:  # fmt: skip
    tokens = truth.lengths_tokens[length]
    num_steps = tokens // truth.tokens_per_step
    train_s = tokens / truth.tokens_per_s * math.exp(rng.gauss(0.0, noise))
    startup_s = 2.1 * math.exp(rng.gauss(0.0, noise))
    log_tokens = math.log(tokens / truth.lengths_tokens[FIXED_LENGTH])
    loss = truth.loss - truth.loss_per_log_token * log_tokens + loss_shift
    curve = [
        (
            tokens * part // 20,
            train_s * part / 20,
            loss + truth.loss_per_log_token * math.log(20 / part) + rng.gauss(0.0, 0.01),
        )
        for part in range(1, 21)
    ]
    return Sample(
        arm=name, role=role, block=block, position=position, seed=seed, length=length,
        fixed=length == FIXED_LENGTH and role == "run", tokens=tokens, num_steps=num_steps,
        startup_s=startup_s, train_s=train_s, cpu_s=2 * 0.96 * (train_s + startup_s),
        step_time_median_s=train_s / num_steps * 0.99, tune_loss=loss + 0.01, test_loss=loss,
        train_loss=loss - 0.03, peak_memory_bytes=2.0e8 if truth.levers else 2.5e8,
        energy_j=8.0 * train_s, load_before=1.6, load_after=2.1, steal_fraction=0.004,
        curve=curve, run=f"{role}-{block}-{name}-{length}",
    )  # fmt: skip


def _ledger(blocks: int) -> list[LedgerEntry]:
    """As `twofold prove` leaves it: the proof is begun, then created, then every run is told."""
    begun = LedgerEntry(
        time="2026-11-24T06:29:30+00:00", event="proof", arm="", block=-1, seed=100,
        detail="2026-11-24-062930-synthetic",
    )  # fmt: skip
    return [
        begun,
        *(
            LedgerEntry(
                time="2026-11-24T06:31:00+00:00", event=event, arm=name, block=block,
                seed=100 + block, detail="",
            )
            for block in range(blocks)
            for name in TRUTH
            for event in ("started", "finished")
        ),
    ]  # fmt: skip


def _tuning() -> dict[str, Any]:
    """A 3 x 3 grid an arm, with the best in the middle."""
    arms: dict[str, Any] = {}
    for name, truth in TRUTH.items():
        best_rate = 0.02 if truth.recipe == "twofold" else 0.002
        rates = [best_rate / 2, best_rate, best_rate * 2]
        batches = [truth.global_batch // 2, truth.global_batch, truth.global_batch * 2]
        runs = []
        for rate in rates:
            for batch in batches:
                away = abs(math.log2(rate / best_rate)) + abs(math.log2(batch / batches[1]))
                loss = truth.loss + 0.06 * away
                runs.append(
                    {
                        "learning_rate": rate, "global_batch": batch, "tune_loss": loss,
                        "tokens": truth.lengths_tokens[0],
                        "train_s": truth.lengths_tokens[0] / truth.tokens_per_s, "score": loss,
                    }
                )  # fmt: skip
        arms[name] = {
            "grid": {"learning_rate": rates, "global_batch": batches},
            "runs": runs,
            "winner": {"learning_rate": best_rate, "global_batch": truth.global_batch},
        }
    return {"seeds": [1, 2], "arms": arms}


def _roofline(truth: Truth) -> list[dict[str, Any]]:
    flop_per_s = truth.tokens_per_s * FLOP_PER_TOKEN
    return [
        {
            "name": name, "flop_per_byte": intensity, "flop_per_s": flop_per_s * speed,
            "time_fraction": fraction,
        }
        for name, intensity, speed, fraction in (
            ("matrix products", 60.0, 1.5, 0.5), ("attention", 12.0, 0.9, 0.3),
            ("elementwise", 0.4, 0.05, 0.2),
        )
    ]  # fmt: skip


if __name__ == "__main__":
    write_evidence(build(), Path(sys.argv[1]))
