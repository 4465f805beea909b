"""A plan of thousands of ranks checked without them: what each kind of rank holds and sends in one
step of the real runtime, on fake process groups and without memory, beside what `perf` says.

Ranks are of one kind where the runtime treats them alike: it looks at nothing but the stage (how
many blocks, the embedding, the head) and the share of the data rank. One rank of every kind is
rehearsed, and some at random, which must be as their kind.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from twofold.document import PlanDocument
from twofold.errors import EnvironmentLack, InputError, JobFailed
from twofold.measure.progress import Progress
from twofold.model import operator_table
from twofold.perf import schedule
from twofold.perf.layout import GRADIENT_BYTES
from twofold.perf.parameters import model_columns
from twofold.perf.plans import layer_keys, table_of
from twofold.perf.work import BACKWARD, FORWARD, RECOMPUTED, layer_work
from twofold.policy import blocks_of_stages, num_micro_steps, place_of, shares_of, stage_of_chunk

TOLERANCE = 0.005
"""`perf` splits every parameter over tensor ranks, the runtime all but the norms' (below 0.1 %),
and leaves out the two numbers a token that split cross-entropy sends."""
_RINGS = {"all_reduce": 2.0, "receive": 0.0}
"""Bytes through a rank's link per byte of the buffer, in large groups: 1 for every other kind."""


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """What tells ranks apart."""

    blocks: int
    is_first: bool
    is_last: bool
    share: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Of one kind of rank: elements held and bytes sent a step by axis, (rehearsed, by `perf`)."""

    kind: Kind
    num_ranks: int
    rank: int
    elements: tuple[float, float]
    sent_bytes: dict[str, tuple[float, float]]

    @property
    def largest_error(self) -> float:
        pairs = [self.elements, *self.sent_bytes.values()]
        return max(abs(seen - said) / max(seen, said) for seen, said in pairs if max(seen, said))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """`unlike` are ranks drawn at random that were not as their kind."""

    num_ranks: int
    kinds: tuple[Compared, ...]
    drawn: tuple[int, ...]
    unlike: tuple[int, ...]

    @property
    def agrees(self) -> bool:
        return not self.unlike and all(one.largest_error <= TOLERANCE for one in self.kinds)

    def as_mapping(self) -> dict[str, Any]:
        return {**asdict(self), "agrees": self.agrees}


def rehearse_plan(
    path: Path, document: PlanDocument, *, progress: Progress, draws: int = 32, seed: int = 0
) -> Rehearsal:
    """Rehearse one rank of every kind and `draws` others."""
    _refuse(document)
    kinds = kinds_of_ranks(document)
    first = {kind: ranks[0] for kind, ranks in kinds.items()}
    num_ranks = document.plan.num_ranks
    drawn = sorted(random.Random(seed).sample(range(num_ranks), min(draws, num_ranks)))
    told = _rehearsed(path, sorted({*first.values(), *drawn}), progress)
    kind_of = {rank: kind for kind, ranks in kinds.items() for rank in ranks}
    compared = [
        Compared(
            kind=kind,
            num_ranks=len(kinds[kind]),
            rank=rank,
            elements=(_elements(told[rank]), elements),
            sent_bytes=_beside(_sent_bytes(told[rank]), sent),
        )
        for kind, rank in first.items()
        for elements, sent in [account_of(document, kind)]
    ]
    unlike = [
        rank for rank in drawn if _account(told[rank]) != _account(told[first[kind_of[rank]]])
    ]
    return Rehearsal(
        num_ranks=num_ranks, kinds=tuple(compared), drawn=tuple(drawn), unlike=tuple(unlike)
    )


def kinds_of_ranks(document: PlanDocument) -> dict[Kind, list[int]]:
    """All ranks by their kind."""
    plan = document.plan
    stages = blocks_of_stages(plan, document.model.layers)
    shares = shares_of(plan, document.workload.recipe.global_batch)
    kinds: dict[Kind, list[int]] = {}
    for rank in range(plan.num_ranks):
        place = place_of(rank, plan)
        held = [stage_of_chunk(place.pipeline, c, plan) for c in range(plan.virtual_stages)]
        kind = Kind(
            blocks=sum(len(stages[index]) for index in held),
            is_first=0 in held,
            is_last=len(stages) - 1 in held,
            share=shares[place.data],
        )
        kinds.setdefault(kind, []).append(rank)
    return dict(sorted(kinds.items()))


def account_of(document: PlanDocument, kind: Kind) -> tuple[float, dict[str, float]]:
    """What `perf` says such a rank holds (elements) and sends a step (bytes by axis), in fp32."""
    plan = replace(document.plan, precision="fp32")
    model, workload = document.model, document.workload
    rows, table = operator_table(model), table_of([plan])
    columns = model_columns(rows, 1)
    work = layer_work(rows, layer_keys(table, workload.seq_len), float(workload.seq_len))
    of_blocks = kind.blocks / model.layers
    shares = shares_of(plan, workload.recipe.global_batch)
    micros = num_micro_steps(plan, shares)
    fill = kind.share / (micros * plan.micro_batch)

    def of_stage(by_segment: Any) -> float:
        first, block, last = (float(by_segment[segment, 0]) for segment in range(3))
        return kind.is_first * first + of_blocks * block + kind.is_last * last

    def once(volume: Any) -> Any:
        again = volume[:, RECOMPUTED] if plan.recompute == "full" else 0.0
        return volume[:, FORWARD] + volume[:, BACKWARD] + again

    ends = kind.is_first * columns.input[0] + kind.is_last * columns.output[0]
    elements = float(columns.dense[0] * of_blocks + ends) / plan.tensor_degree
    degree, chunks = float(plan.pipeline_degree), float(plan.virtual_stages)
    ways = float(np.max(schedule.messages(table.schedule, degree, float(micros), chunks)))
    ways *= 1.0 - (kind.is_first + kind.is_last) / (2.0 * chunks)
    sent = {
        "tensor": 2.0 * micros * fill * of_stage(once(work.tensor_bytes)),
        "data": 2.0 * GRADIENT_BYTES * elements if plan.data_degree > 1 else 0.0,
        "pipeline": ways * fill * float(work.boundary_bytes[0]) * (degree > 1.0),
    }
    return elements, {axis: volume for axis, volume in sent.items() if volume}


def _rehearsed(path: Path, ranks: Sequence[int], progress: Progress) -> dict[int, dict[str, Any]]:
    told: dict[int, dict[str, Any]] = {}
    argv = [sys.executable, "-m", "twofold.runtime.rehearse", str(path), *map(str, ranks)]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            row = json.loads(line)
            told[row["rank"]] = row
            progress.advance("ranks", len(told), len(ranks))
        said = process.stderr.read()
    if process.returncode != 0:
        if "No module named 'torch'" in said:
            raise EnvironmentLack("PyTorch is not installed", help="pip install 'twofold[torch]'")
        raise JobFailed(f"the rehearsal failed:\n{said[-2000:]}", at=str(path))
    return told


def _refuse(document: PlanDocument) -> None:
    plan = document.plan
    for lever, is_beyond in (
        ("zero_stage", plan.zero_stage > 0),
        ("context_degree", plan.context_degree > 1),
        ("expert_degree", plan.expert_degree > 1),
        ("local_steps", plan.local_steps > 0),
        ("recompute", plan.recompute != "none"),
    ):
        if is_beyond:
            raise InputError(
                f"{lever} {getattr(plan, lever)} cannot be rehearsed",
                at=f"plan, {lever}",
                help="data, tensor, sequence and pipeline ranks without recomputation (of which "
                "torch leaves the last sum out) can; run the rest small instead",
            )


def _elements(row: dict[str, Any]) -> float:
    return float(sum(math.prod(shape) for shape in row["held"].values()))


def _sent_bytes(row: dict[str, Any]) -> dict[str, float]:
    sent: dict[str, float] = {}
    for seen in row["traffic"]:
        ring = _RINGS.get(seen["kind"], 1.0)
        sent[seen["axis"]] = sent.get(seen["axis"], 0.0) + ring * seen["bytes"]
    return {axis: volume for axis, volume in sent.items() if volume}


def _beside(seen: dict[str, float], said: dict[str, float]) -> dict[str, tuple[float, float]]:
    axes = sorted({*seen, *said})
    return {axis: (seen.get(axis, 0.0), said.get(axis, 0.0)) for axis in axes}


def _account(row: dict[str, Any]) -> tuple[Any, ...]:
    """Shapes held, and traffic: what must be equal within a kind. Block names differ."""
    return sorted(map(tuple, row["held"].values())), row["traffic"]
