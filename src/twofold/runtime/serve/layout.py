"""The tensors of one step: all its tokens in one row, and which keys each of them sees.

Symbols: T tokens of the step, B sequences of a span, Q queries of each, L keys it may see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from twofold.policy.batching import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Consecutive rows that one call of attention does: `batch` sequences of `queries` rows each.

    Decoding sequences of like length are one span; a part of a prompt is one of its own. `blocks`
    [batch x L / block_tokens] are those the keys are gathered from; None where a prompt's first
    part sees only itself. `mask` [batch, 1, queries, L] is added to the scores; None is causal
    from the first token. `window_mask` is that of layers with a window.
    """

    start: int
    stop: int
    batch: int
    queries: int
    blocks: Tensor | None
    mask: Tensor | None
    window_mask: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """`tokens`, `positions` and `slots` (where in the cache) are [T]; `rows` those whose logits are
    wanted, in order of `entries`: the last of each that yields, all of a prompt that is scored."""

    entries: list[Entry]
    tokens: Tensor
    positions: Tensor
    slots: Tensor
    rows: Tensor
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What of the model and the machine decides the tensors' form."""

    block_tokens: int
    window: int | None
    dtype: torch.dtype
    device: torch.device


def lay_out(
    entries: Iterable[Entry], texts: Mapping[int, Sequence[int]], scored: set[int], form: Form
) -> Layout:
    """`texts` are all tokens of each sequence by its id; `scored` ids want all their logits."""
    ordered = sorted(entries, key=_span_key)
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    rows: list[int] = []
    size = form.block_tokens
    for entry in ordered:
        sequence, number = entry.sequence, entry.num_tokens
        first, blocks = sequence.computed, sequence.blocks
        if number == 1:
            tokens.append(texts[sequence.id][first])
            positions.append(first)
            slots.append(blocks[first // size] * size + first % size)
        else:
            where = range(first, first + number)
            tokens += texts[sequence.id][first : first + number]
            positions += where
            slots += [blocks[position // size] * size + position % size for position in where]
        if sequence.id in scored:
            rows += range(len(tokens) - number, len(tokens))
        elif entry.yields:
            rows.append(len(tokens) - 1)
    return Layout(
        entries=ordered,
        tokens=torch.tensor(tokens, device=form.device),
        positions=torch.tensor(positions, device=form.device),
        slots=torch.tensor(slots, device=form.device),
        rows=torch.tensor(rows, dtype=torch.int64, device=form.device),
        spans=tuple(_spans(ordered, form)),
    )


def _span_key(entry: Entry) -> int:
    """Decodes first, by the power of two of blocks that holds them: padding at most doubles the
    keys that are read."""
    if entry.num_tokens > 1:
        return 1 << 30
    return (len(entry.sequence.blocks) - 1).bit_length()


def _spans(ordered: list[Entry], form: Form) -> Iterable[Span]:
    start = 0
    for _, run in groupby(ordered, key=_span_key):
        group = list(run)
        if group[0].num_tokens == 1:
            yield _decodes(group, start, form)
            start += len(group)
            continue
        for entry in group:
            yield _chunk(entry, start, form)
            start += entry.num_tokens


def _decodes(group: list[Entry], start: int, form: Form) -> Span:
    most = max(len(entry.sequence.blocks) for entry in group)
    padded = [block for e in group for block in _padded(e.sequence.blocks, most)]
    last = torch.tensor([[entry.sequence.computed] for entry in group], device=form.device)
    mask, window_mask = _masks(last, most * form.block_tokens, form)
    return Span(
        start=start,
        stop=start + len(group),
        batch=len(group),
        queries=1,
        blocks=torch.tensor(padded, device=form.device),
        mask=mask,
        window_mask=window_mask,
    )


def _chunk(entry: Entry, start: int, form: Form) -> Span:
    sequence, number = entry.sequence, entry.num_tokens
    first = sequence.computed
    windowed = form.window is not None and first + number > form.window
    blocks = mask = window_mask = None
    if first or windowed:
        used = -(-(first + number) // form.block_tokens)
        blocks = torch.tensor(sequence.blocks[:used], device=form.device)
        last = torch.arange(first, first + number, device=form.device)[None]
        mask, window_mask = _masks(last, used * form.block_tokens, form)
    return Span(
        start=start,
        stop=start + number,
        batch=1,
        queries=number,
        blocks=blocks,
        mask=mask,
        window_mask=window_mask,
    )


def _masks(last: Tensor, keys: int, form: Form) -> tuple[Tensor, Tensor]:
    """`last` [B, Q]: the key that each query sees last. Equal masks where no window cuts."""
    where = torch.arange(keys, device=form.device)
    hidden = where > last[..., None]
    mask = _added(hidden, form)
    if form.window is None or keys <= form.window:
        return mask, mask
    return mask, _added(hidden | (where <= last[..., None] - form.window), form)


def _added(hidden: Tensor, form: Form) -> Tensor:
    """[B, Q, L] -> [B, 1, Q, L]: minus infinity where it is hidden."""
    zeros = torch.zeros(hidden.shape, dtype=form.dtype, device=form.device)
    return zeros.masked_fill_(hidden, float("-inf"))[:, None]


def _padded(blocks: list[int], most: int) -> list[int]:
    """Any block will do: the mask hides it."""
    return blocks if len(blocks) == most else blocks + [0] * (most - len(blocks))
