"""Micro-batches through a pipeline: stages on ranks one after the other, by torch's schedules.

Shapes: R rows of a micro-batch, S sequence, H hidden, V vocabulary. A stage is a view of this
rank's layers; hidden states [R, S, H] go from one to the next, and their gradients back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import (
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleLoopedBFS,
)

from twofold.document import PlanDocument
from twofold.plan import Plan
from twofold.policy import blocks_of_stages, even_shares, place_of, stage_of_chunk
from twofold.runtime.train.network import Decoder, Part
from twofold.runtime.train.parallel.context import SequencePieces, make_pieces
from twofold.runtime.train.parallel.loss import make_loss
from twofold.runtime.train.parallel.passes import autocast, inputs_and_targets
from twofold.runtime.train.shards import local_part, settle_gradient
from twofold.runtime.train.world import World

_PADDING = -1
"""In place of the targets of rows that only fill a micro-batch up."""


def stages_of_rank(plan: Plan, layers: int, rank: int) -> dict[int, Part]:
    """The stages of a rank, by their index in the model: one, or `virtual_stages` chunks."""
    blocks = blocks_of_stages(plan, layers)
    pipeline_rank = place_of(rank, plan).pipeline
    mine = [stage_of_chunk(pipeline_rank, chunk, plan) for chunk in range(plan.virtual_stages)]
    return {
        index: Part(
            blocks=tuple(blocks[index]),
            is_first=index == 0,
            is_last=index == len(blocks) - 1,
        )
        for index in mine
    }


def part_of_rank(plan: Plan, layers: int, rank: int) -> Part:
    """All that a rank holds."""
    parts = stages_of_rank(plan, layers, rank).values()
    return Part(
        blocks=tuple(block for part in parts for block in part.blocks),
        is_first=any(part.is_first for part in parts),
        is_last=any(part.is_last for part in parts),
    )


class PipelinePass:
    """Passes over the stages of a rank; every rank of a pipeline enters with the same rows.

    torch wants micro-batches of one size: rows that are missing are filled up, and count nothing.
    """

    def __init__(self, network: Decoder, document: PlanDocument, world: World) -> None:
        group = world.group("pipeline")
        assert group is not None
        self.group = group
        self.plan = document.plan
        self.device = world.device
        self.loss = make_loss(document, world)
        self.pieces = make_pieces(document, world)
        self.parts = stages_of_rank(self.plan, document.model.layers, world.rank)
        self.holds_first = any(part.is_first for part in self.parts.values())
        self.holds_last = any(part.is_last for part in self.parts.values())
        self.num_stages = self.plan.pipeline_degree * self.plan.virtual_stages
        self.stages = {
            index: _Stage(network.view(part), self.plan, self.device)
            for index, part in self.parts.items()
        }
        tied = document.model.tied_embeddings and (self.holds_first or self.holds_last)
        self.repeated: tuple[nn.Parameter, ...] = ()
        if tied and network.embedding is not None:
            self.repeated = tuple(network.embedding.parameters())
        self._sequence_weight = 1.0
        self._is_filled_up = False
        self._schedules: dict[bool, _Scheduled] = {}

    def forward_backward(
        self, micros: Sequence[Tensor], *, sequence_weight: float, before_last: Callable[[], None]
    ) -> Tensor:
        """Gradients of stages are whole at the end only, so `before_last` has no moment here."""
        del before_last
        self._sequence_weight = sequence_weight
        total = self._run(micros, training=True)
        for table in self.repeated:
            self._sum_tied(table)
        return total

    def evaluate(self, micros: Sequence[Tensor]) -> Tensor:
        self._sequence_weight = 1.0
        return self._run(micros, training=False)

    def _run(self, micros: Sequence[Tensor], *, training: bool) -> Tensor:
        rows = torch.cat(tuple(micros))
        count = fitting_count(self.plan, len(micros)) if training else len(micros)
        sizes = even_shares(rows.shape[0], count)
        tokens, targets = filled_up(rows, sizes, self.pieces)
        self._is_filled_up = min(sizes) < max(sizes)
        for stage in self.stages.values():
            stage.train(training)
        scheduled = self._scheduled(count, max(sizes), training=training)
        given: dict[str, Any] = {"tokens": tokens.to(self.device, non_blocking=True)}
        losses: list[Tensor] = []
        if self.holds_last:
            given |= {"target": targets.to(self.device, non_blocking=True), "losses": losses}
        first = (given["tokens"],) if self.holds_first else ()
        run = scheduled.schedule.step if training else scheduled.schedule.eval
        run(*first, **given, return_outputs=False)
        if not losses:
            return torch.zeros((), device=self.device)
        return torch.stack(losses).sum().detach()

    def _scheduled(self, count: int, size: int, *, training: bool) -> _Scheduled:
        """The schedule for such micro-batches: buffers are made for their number and size."""
        known = self._schedules.get(training)
        if known is None or (known.count, known.size) != (count, size):
            known = _Scheduled(count, size, self._make_schedule(count, training=training))
            self._schedules[training] = known
        return known

    def _make_schedule(self, count: int, *, training: bool) -> Any:
        stages = [
            PipelineStage(stage, index, self.num_stages, self.device, group=self.group)
            for index, stage in self.stages.items()
        ]
        kind = schedule_class(self.plan, count) if training else _forward_class(self.plan)
        several = kind not in (Schedule1F1B, ScheduleGPipe)
        return kind(
            stages if several else stages[0], count, loss_fn=self._weighted_loss, scale_grads=False
        )

    def _weighted_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits [R, S, V], targets [R, S] -> what these rows count in the loss of the step."""
        rows = targets.shape[0]
        if self._is_filled_up:
            rows = int((targets[:, 0] != _PADDING).sum())
        if rows == 0:
            return logits.sum() * 0.0
        with autocast(self.plan, self.device):
            loss = self.loss(logits[:rows], targets[:rows])
        return loss * (rows * self._sequence_weight)

    def _sum_tied(self, table: nn.Parameter) -> None:
        """The first and the last stage hold the tied table each; both go on with the sum."""
        settle_gradient(table)
        assert table.grad is not None
        mine = local_part(table.grad)
        theirs = torch.empty_like(mine)
        peer = self.plan.pipeline_degree - 1 if self.holds_first else 0
        for work in dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, mine.contiguous(), group=self.group, group_peer=peer),
                dist.P2POp(dist.irecv, theirs, group=self.group, group_peer=peer),
            ]
        ):
            work.wait()
        mine.add_(theirs)


@dataclass(frozen=True, slots=True)
class _Scheduled:
    count: int
    size: int
    schedule: Any


class _Stage(nn.Module):
    """Some layers at the plan's precision. Tokens come beside the hidden states."""

    def __init__(self, part: Decoder, plan: Plan, device: torch.device) -> None:
        super().__init__()
        self.part = part
        self.plan = plan
        self.device = device

    def forward(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        with autocast(self.plan, self.device):
            out: Tensor = self.part(hidden, tokens)
        return out


def schedule_class(plan: Plan, count: int) -> type[Any]:
    """torch's schedule for the plan's.

    With fewer micro-batches than stages, 1F1B never gets past its warm-up and is GPipe. torch's
    interleaved zero-bubble with one stage a rank is ZB-H1 (Qi et al. 2023, arXiv 2401.10241): as
    many forwards ahead as 1F1B, and weight gradients put off into the cool-down.
    """
    if plan.schedule == "zb-h1":
        return ScheduleInterleavedZeroBubble
    if plan.virtual_stages > 1:
        return ScheduleInterleaved1F1B
    if plan.schedule == "gpipe" or count < plan.pipeline_degree:
        return ScheduleGPipe
    return Schedule1F1B


def _forward_class(plan: Plan) -> type[Any]:
    return ScheduleLoopedBFS if plan.virtual_stages > 1 else ScheduleGPipe


def fitting_count(plan: Plan, count: int) -> int:
    """The next number of micro-batches that fills whole rounds, as torch's looped schedules ask:
    `count // pipeline_degree` rounds of equally many."""
    if plan.schedule not in ("interleaved", "zb-h1"):
        return count
    while count % max(1, count // plan.pipeline_degree):
        count += 1
    return count


def filled_up(
    rows: Tensor, sizes: Sequence[int], pieces: SequencePieces | None = None
) -> tuple[Tensor, Tensor]:
    """Rows [n, S + 1] in micro-batches of `sizes` -> tokens and targets [micros x largest, S]."""
    largest = max(sizes)
    filled = rows.new_full((len(sizes), largest, rows.shape[1]), _PADDING)
    for index, micro in enumerate(rows.split(list(sizes))):
        filled[index, : micro.shape[0]] = micro
    tokens, targets = inputs_and_targets(filled.flatten(0, 1), pieces)
    return tokens.clamp(min=0), targets
