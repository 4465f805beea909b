"""Which token comes next.

A draw inverts the cumulative distribution at one uniform number of the request's own generator, so
that with a seed its tokens do not depend on its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from twofold.runtime.serve.messages import Logprobs, Request


class Draw(NamedTuple):
    """How a row of logits is drawn from: at `uniform`, from 0 to 1; `barred` tokens cannot come."""

    request: Request
    uniform: float
    barred: frozenset[int] = frozenset()


class Choice(NamedTuple):
    """A token, and its logprobs where they were asked for."""

    token: int
    logprobs: Logprobs | None


def choose(logits: Tensor, draws: Sequence[Draw]) -> list[Choice | Exception]:
    """As `choose_tokens`, with logprobs. What goes wrong for one row stands in that row's place,
    and the others are as without it; a device that fails is no row's fault."""
    try:
        return list(_choices(logits, draws))
    except _DEVICE_ERRORS:
        raise
    except Exception:
        return [_choice(logits[row : row + 1], draw) for row, draw in enumerate(draws)]


_DEVICE_ERRORS = (torch.OutOfMemoryError, torch.AcceleratorError)


def _choice(logits: Tensor, draw: Draw) -> Choice | Exception:
    try:
        return _choices(logits, [draw])[0]
    except _DEVICE_ERRORS:
        raise
    except Exception as error:
        return error


def _choices(logits: Tensor, draws: Sequence[Draw]) -> list[Choice]:
    tokens = choose_tokens(logits, draws)
    asked = [draw.request.num_logprobs for draw in draws]
    wanted = [number for number in asked if number is not None]
    if not wanted:
        return [Choice(token, None) for token in tokens]
    scores = logprobs_of(logits, tokens, max(wanted))
    return [
        Choice(token, None if number is None else Logprobs(score.chosen, score.top[:number]))
        for token, number, score in zip(tokens, asked, scores, strict=True)
    ]


def choose_tokens(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Logits [R, V] in fp32, one draw a row -> R tokens. Rows with barred tokens are changed.
    ValueError where no token of a row can come, or the network has put out what is no number."""
    for row, draw in enumerate(draws):
        if draw.barred:
            logits[row, list(draw.barred)] = float("-inf")
    likeliest = logits.argmax(-1, keepdim=True)  # what is no number counts as the largest
    if not logits.gather(1, likeliest).isfinite().all():
        raise ValueError("the network gives no finite logit to a token that may come")
    chosen: list[int] = likeliest[:, 0].tolist()
    drawn = [row for row, draw in enumerate(draws) if draw.request.temperature > 0]
    if drawn:
        tokens = _draw(logits[drawn], [draws[row] for row in drawn])
        for row, token in zip(drawn, tokens, strict=True):
            chosen[row] = token
    return chosen


def _draw(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Temperature, then top-k, then top-p, as vLLM and Hugging Face do."""
    device, vocab = logits.device, logits.shape[-1]
    requests = [draw.request for draw in draws]
    uniform = torch.tensor([[draw.uniform] for draw in draws], dtype=torch.float64).to(device)
    temperature = torch.tensor([[request.temperature] for request in requests], device=device)
    logits = logits / temperature
    if all(request.top_k in (0, vocab) and request.top_p == 1 for request in requests):
        return _invert(logits.softmax(-1), uniform)
    logits, order = logits.sort(descending=True, stable=True)
    kept = torch.tensor([[request.top_k or vocab] for request in requests], device=device)
    logits = logits.masked_fill(torch.arange(vocab, device=device) >= kept, float("-inf"))
    probabilities = logits.softmax(-1)
    top_p = torch.tensor([[request.top_p] for request in requests], device=device)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill((before >= top_p) & (before > 0), 0.0)
    ranks = torch.tensor(_invert(probabilities, uniform), device=device)[:, None]
    tokens: list[int] = order.gather(1, ranks)[:, 0].tolist()
    return tokens


def _invert(probabilities: Tensor, uniform: Tensor) -> list[int]:
    """The first index whose cumulative probability exceeds uniform x the sum."""
    cumulative = probabilities.double().cumsum(-1)
    found = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    last = probabilities.shape[-1] - 1 - probabilities.flip(-1).gt(0).int().argmax(-1)
    tokens: list[int] = torch.minimum(found[:, 0], last).tolist()
    return tokens


def logprobs_of(logits: Tensor, tokens: Sequence[int], number: int) -> list[Logprobs]:
    """Of tokens under logits [R, V], before temperature and cuts, with the `number` likeliest (all
    where there are fewer)."""
    logprobs = logits.log_softmax(-1)
    own = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    if number == 0:
        return [Logprobs(value, ()) for value in own]
    best, which = logprobs.topk(min(number, logits.shape[-1]), dim=-1)
    pairs = zip(which.tolist(), best.tolist(), strict=True)
    return [
        Logprobs(value, tuple(zip(ids, likeliest, strict=True)))
        for value, (ids, likeliest) in zip(own, pairs, strict=True)
    ]
