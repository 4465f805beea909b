"""A network of any kind as a chain of blocks: the operator table of its acts.

Blocks end where a single tensor is alive, so that a pipeline may cut there and send only that
tensor. Blocks of equal acts are one block repeated; a loop inside a block (a recurrent net's
steps) is one row with a batch. A token of the table is one sample.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from twofold.model import Model, Operator, Size
from twofold.model.table import NOTHING, Segment
from twofold.sources.acts import Act
from twofold.sources.trace import FORMS, Trace

_FEWEST_BLOCKS = 4
_LONGEST_PERIOD = 64
_FEWEST_TURNS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Neighbouring acts, and the elements alive behind the last of them."""

    acts: tuple[Act, ...]
    boundary: int

    @property
    def shape(self) -> Hashable:
        return tuple((act_shape(a), len(a.parameters)) for a in self.acts), self.boundary


def act_shape(act: Act) -> Hashable:
    """What makes two acts the same work, whatever weights they use."""
    return act.form, act.product, act.causal


def network_from_acts(trace: Trace, acts: Sequence[Act], *, name: str) -> Model:
    """The model whose table the acts are: the first block the input, the last the output."""
    blocks = blocks_of(trace, acts)
    ends = (blocks[:1], blocks[-1:]) if len(blocks) >= _FEWEST_BLOCKS else ([], [])
    middle = blocks[len(ends[0]) : len(blocks) - len(ends[1])]
    rows = _rows(trace, ends[0], "input", 0)
    layer = 1
    for period, turns in runs([block.shape for block in middle], longest=8, fewest=2):
        rows += _repeated(trace, middle[layer - 1 : layer - 1 + period * turns], period, layer)
        layer += period * turns
    rows += _rows(trace, ends[1], "output", layer)
    return Model(
        name=name,
        layers=max(1, layer - 1),
        hidden=1,
        heads=1,
        kv_heads=1,
        ffn=1,
        vocab=1,
        max_seq_len=1,
        position="none",
        operators=tuple(rows),
    )


def blocks_of(trace: Trace, acts: Sequence[Act]) -> list[Block]:
    """Cut where one tensor is alive; where such places are few (a U-Net), behind each product,
    all that is alive being sent. What has no product joins the block before it."""
    alive = _alive(trace, acts)
    blocks = _cut(acts, alive, [len(values) <= 1 for values in alive])
    if len(blocks) < _FEWEST_BLOCKS:
        loops = _loops(acts)
        legal = [a.kind == "gemm" and not inside for a, inside in zip(acts, loops, strict=True)]
        blocks = _cut(acts, alive, legal)
    return blocks


def _loops(acts: Sequence[Act]) -> list[bool]:
    """Whether behind each act a weight that a loop uses again and again is still to be used."""
    uses: dict[int, list[int]] = {}
    for index, act in enumerate(acts):
        for weight in (*act.parameters, *act.shared):
            uses.setdefault(weight, []).append(index)
    inside = [False] * len(acts)
    for places in uses.values():
        if len(places) >= _FEWEST_TURNS:
            inside[places[0] : places[-1]] = [True] * (places[-1] - places[0])
    return inside


def runs(shapes: Sequence[Hashable], *, longest: int, fewest: int) -> list[tuple[int, int]]:
    """The sequence as (period, turns), from the left the run that covers most."""
    numbers: dict[Hashable, int] = {}
    shapes = [numbers.setdefault(shape, len(numbers)) for shape in shapes]
    found: list[tuple[int, int]] = []
    place = 0
    while place < len(shapes):
        best = (1, 1)
        for period in range(1, min(longest, (len(shapes) - place) // fewest) + 1):
            turns = _turns(shapes, place, period)
            if turns >= fewest and turns * period > best[0] * best[1]:
                best = (period, turns)
        found.append(best)
        place += best[0] * best[1]
    return found


def _turns(shapes: Sequence[Hashable], place: int, period: int) -> int:
    head, turns = shapes[place : place + period], 1
    while shapes[place + turns * period : place + (turns + 1) * period] == head:
        turns += 1
    return turns


def _alive(trace: Trace, acts: Sequence[Act]) -> list[dict[int, int]]:
    """Behind each act, the values that later acts still read, with their elements."""
    last = {value: index for index, act in enumerate(acts) for value in act.reads}
    alive: dict[int, int] = {}
    result = []
    for index, act in enumerate(acts):
        touched = {v: trace.values[v].elements for v in (*act.reads, *act.writes)}
        alive = {v: size for v, size in (alive | touched).items() if last.get(v, -1) > index}
        result.append(alive)
    return result


def _cut(
    acts: Sequence[Act], alive: Sequence[dict[int, int]], legal: Sequence[bool]
) -> list[Block]:
    blocks: list[Block] = []
    held: list[Act] = []
    for act, values, may in zip(acts, alive, legal, strict=True):
        held.append(act)
        if not may:
            continue
        size = sum(values.values())
        if blocks and not any(one.kind != "vector" for one in held):
            blocks[-1] = Block(acts=(*blocks[-1].acts, *held), boundary=size)
        else:
            blocks.append(Block(acts=tuple(held), boundary=size))
        held = []
    if held and blocks:
        blocks[-1] = Block(acts=(*blocks[-1].acts, *held), boundary=0)
    elif held:
        blocks.append(Block(acts=tuple(held), boundary=0))
    return blocks


def _repeated(trace: Trace, blocks: Sequence[Block], period: int, layer: int) -> list[Operator]:
    """A run of blocks as the rows of one period, each kind's layers as if together."""
    turns = len(blocks) // period
    rows: list[Operator] = []
    for offset in range(period):
        same = blocks[offset::period]
        rows += _rows(trace, same, "block", layer + offset * turns)
    return rows


def _rows(trace: Trace, blocks: Sequence[Block], segment: Segment, layer: int) -> list[Operator]:
    """Equal blocks as one block's rows."""
    if not blocks:
        return []
    acts = blocks[0].acts
    rows: list[Operator] = []
    place = 0
    for period, turns in runs(
        [act_shape(act) for act in acts], longest=_LONGEST_PERIOD, fewest=_FEWEST_TURNS
    ):
        for offset in range(period):
            same = acts[place + offset : place + period * turns : period]
            last = place + period * turns == len(acts) and offset == period - 1
            edge = blocks[0].boundary if last else None
            rows.append(_row(trace, same, segment, layer, len(blocks), edge))
        place += period * turns
    return rows


def _row(
    trace: Trace,
    acts: Sequence[Act],
    segment: Segment,
    layer: int,
    repeat: int,
    edge: int | None,
) -> Operator:
    """Acts of one shape, one after the other (`batch`), in each of `repeat` layers."""
    act, product = acts[0], acts[0].product
    turns = len(acts)
    saved = _each(sum(one.saved for one in acts))
    used = [p for one in acts for p in one.parameters]
    attends = act.kind == "attention"
    written = sum(trace.values[value].elements for value in act.writes)
    batch = Size(coefficient=float(turns * product.batch), tokens_power=float(attends))
    return Operator(
        name=act.name,
        kind=act.kind,
        op=FORMS.get(act.form, "add"),
        segment=segment,
        m=Size(coefficient=float(product.m)) if attends else _each(product.m),
        n=Size(coefficient=float(product.n)),
        k=Size(coefficient=float(product.k)),
        batch=batch,
        first_layer=layer,
        repeat=repeat,
        parameters=sum(trace.values[p].elements for p in used),
        tensors=len(used),
        saved_elements={"none": saved, "full": NOTHING if segment == "block" else saved},
        boundary=_each(written if edge is None else edge),
        divided_by={"data": "batch" if attends else "m"},
        trainable=all(trace.values[p].trainable for p in used),
        causal=act.causal,
        kv_elements=_each(2 * product.batch * product.n * product.k) if attends else NOTHING,
    )


def _each(elements: float) -> Size:
    """So many for each sample."""
    return Size(coefficient=float(elements), tokens_power=1.0)
