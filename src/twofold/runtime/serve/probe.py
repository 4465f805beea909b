"""`python -m twofold.runtime.serve.probe serve.json`: what a step of the engine takes, by shape.

Runs the plan's own engine, scheduler included, without the HTTP front, on random prompts. One JSON
line on stdout that says what was measured, then one for each shape: tokens, sequences, pairs
and keys of the step (`policy.batching.Work`), and the median of its times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from twofold.errors import TwofoldError

if TYPE_CHECKING:
    from twofold.policy.batching import Work
    from twofold.runtime.serve.engine import Engine
    from twofold.serving_document import ServingDocument

REPEATS = 7
_SEED = 5
_LEAST_S = 0.15
"""A shape is timed until its steps add up to so much: short ones scatter more."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A step of `decodes` sequences with `context` tokens on the mean before it, and a prompt's
    part of `chunk` tokens behind `behind` others (no part where 0)."""

    decodes: int
    context: int
    chunk: int = 0
    behind: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    arguments = parser.parse_args()
    try:
        from twofold.document import part_hash
        from twofold.serving_document import read_serving_plan

        document = read_serving_plan(arguments.plan)
        plan = document.plan
        head = {
            "event": "start",
            "model_hash": part_hash(document.model),
            "precision": plan.precision,
            "weight_precision": plan.weight_precision,
            "threads": plan.threads,
        }
        print(json.dumps(head), flush=True)
        for work, time_s in measure(document):
            print(json.dumps({**work._asdict(), "time_s": time_s}), flush=True)
    except TwofoldError as error:
        said = {"error": error.what, "at": error.at, "help": error.help}
        with suppress(OSError):
            line = json.dumps({**said, "exit_code": error.exit_code})
            print(line, file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def shapes(document: ServingDocument) -> list[Shape]:
    """Decode batches from 1 to the most at a short and at longer contexts, prompts' parts from
    small to the largest, and both together; each within the model's context."""
    plan, most_len = document.plan, document.model.max_seq_len
    longest = max(1, most_len - 2 - _MOST_REPEATS)
    typical = int(document.workload.input.mean + document.workload.output.mean)
    context = max(1, min(typical, int(longest / _SPREAD)))
    most = min(plan.max_num_seqs, plan.max_batched_tokens, _MOST_DECODES)
    batches = sorted({1, max(1, most // 16), max(1, most // 4), max(1, most // 2), most})
    contexts = sorted({max(1, context // 4), context, min(3 * context, int(longest / _SPREAD))})
    chunk = min(plan.max_batched_tokens, most_len - 2, _MOST_CHUNK)
    chunks = sorted({max(2, chunk // 16), max(2, chunk // 4), max(2, chunk // 2), chunk})
    half = max(1, most // 2)
    return [
        *(Shape(batch, context) for batch in batches),
        *(Shape(max(1, most // 4), length) for length in contexts if length != context),
        Shape(most, contexts[-1]),
        *(Shape(0, 0, part) for part in chunks),
        Shape(0, 0, max(2, chunk // 4), behind=min(chunk, most_len - 2 - chunk // 4)),
        Shape(1, context, max(2, chunk // 4)),
        Shape(half, context, max(2, chunk // 4)),
        Shape(half, context, max(2, chunk // 2)),
    ]


_MOST_DECODES = 64
_MOST_CHUNK = 2048
_MOST_REPEATS = 24
_SPREAD = 1.5
"""Contexts are spread evenly from (2 - this) to this times their mean, as in real batches."""


def measure(document: ServingDocument) -> Iterator[tuple[Work, float]]:
    """What each shape held, and its median time. Shapes that the cache cannot hold are left out."""
    from twofold.runtime.serve.assembly import make_engine

    free = replace(document.plan, prefix_caching=False, chunked_prefill=True, batching="continuous")
    engine = make_engine(replace(document, plan=replace(free, max_batched_tokens=_FREE_TOKENS)))
    ids, random = count(), Random(_SEED)
    for shape in shapes(document):
        needed = shape.decodes * (shape.context + 2 * _MOST_REPEATS) + shape.behind + shape.chunk
        pool = engine.scheduler.pool
        if pool.blocks_for(needed) + shape.decodes + 1 > pool.num_free:
            continue
        yield _time(engine, shape, ids, random)


_FREE_TOKENS = 2**20
"""The probe, not the scheduler, decides what a step holds."""


def _time(engine: Engine, shape: Shape, ids: Iterator[int], random: Random) -> tuple[Work, float]:
    """Sequences are brought to the context first; the prompt's part is a new one every time."""
    decoding = _fill(engine, shape, ids, random)
    times_s: list[float] = []
    works = []
    while len(times_s) < REPEATS + 1 or (
        sum(times_s[1:]) < _LEAST_S and len(times_s) < _MOST_REPEATS
    ):
        added = None
        if shape.chunk:
            added = _behind(engine, shape, ids, random)
        start_s = time.perf_counter()
        engine.step()
        times_s.append(time.perf_counter() - start_s)
        assert engine.last_work is not None
        works.append(engine.last_work)
        if added is not None:
            engine.cancel(added)
    for id in decoding:
        engine.cancel(id)
    middle = works[1 + len(works[1:]) // 2]
    return middle, statistics.median(times_s[1:])


def _fill(engine: Engine, shape: Shape, ids: Iterator[int], random: Random) -> list[int]:
    """All prompts in one step, which is not timed."""
    decoding = []
    for index in range(shape.decodes):
        share = (index + 0.5) / shape.decodes
        context = max(1, round(shape.context * (2 - _SPREAD + (2 * _SPREAD - 2) * share)))
        decoding.append(_add(engine, context, 2 * _MOST_REPEATS, ids, random))
    if decoding:
        engine.step()
    return decoding


def _behind(engine: Engine, shape: Shape, ids: Iterator[int], random: Random) -> int:
    """A prompt of which only the part is left: what lies before it counts as computed."""
    id = _add(engine, shape.behind + shape.chunk, 2, ids, random)
    if shape.behind:
        sequence = engine.scheduler.waiting[-1]
        sequence.computed = shape.behind
    return id


def _add(
    engine: Engine, prompt_tokens: int, max_new_tokens: int, ids: Iterator[int], random: Random
) -> int:
    from twofold.runtime.serve.messages import Request

    vocab = engine.network.model.vocab
    id = next(ids)
    prompt = tuple(random.randrange(vocab) for _ in range(prompt_tokens))
    engine.add(Request(id=id, prompt=prompt, max_new_tokens=max_new_tokens))
    return id


if __name__ == "__main__":
    sys.exit(main())
