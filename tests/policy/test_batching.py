"""The batching scheduler, by what must hold whatever comes."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import given, settings

from twofold.policy.batching import Batch, Limits, Scheduler, Sequence

_BLOCK = 4


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    return Limits(
        batching=draw(st.sampled_from(["continuous", "continuous", "static"])),
        max_num_seqs=draw(st.integers(1, 6)),
        max_batched_tokens=draw(st.integers(1, 40)),
        chunked=draw(st.booleans()),
        prefix_caching=draw(st.booleans()),
        block_tokens=_BLOCK,
        num_blocks=draw(st.integers(2, 24)),
    )


@st.composite
def requests(draw: st.DrawFn) -> list[tuple[int, int, int, bool]]:
    """(step of arrival, prompt, new tokens, whether it begins as others do)."""
    one = st.tuples(st.integers(0, 20), st.integers(1, 40), st.integers(1, 12), st.booleans())
    return sorted(draw(st.lists(one, min_size=1, max_size=10)))


def _sequence(index: int, prompt: int, new_tokens: int, shares: bool) -> Sequence:
    text = 0 if shares else index + 1
    keys = tuple((text, block) for block in range(prompt // _BLOCK))
    return Sequence(id=index, prompt_tokens=prompt, max_new_tokens=new_tokens, prefix_keys=keys)


def _check_step(scheduler: Scheduler, batch: Batch) -> None:
    bounds, pool = scheduler.limits, scheduler.pool
    assert batch.num_tokens <= bounds.max_batched_tokens
    assert len(scheduler.running) <= bounds.max_num_seqs
    assert len({entry.sequence.id for entry in batch.entries}) == len(batch.entries)
    holders = Counter(block for one in scheduler.running for block in one.blocks)
    assert pool.num_free == pool.num_blocks - len(holders)
    for block, count in holders.items():
        if count > 1:
            sharers = [one for one in scheduler.running if block in one.blocks]
            places = {one.blocks.index(block) for one in sharers}
            assert len(places) == 1, "a shared block stands at the same place of all"
            keys = {one.prefix_keys[min(places)] for one in sharers}
            assert len(keys) == 1, "only who begins alike shares"
            assert bounds.prefix_caching
    for sequence, tokens, yields in batch.entries:
        assert 1 <= tokens <= sequence.pending
        assert yields == (tokens == sequence.pending)
        assert sequence.computed + tokens <= len(sequence.blocks) * _BLOCK
    for sequence in batch.preempted:
        assert sequence.computed == 0
        assert not sequence.blocks
        assert sequence in scheduler.waiting or sequence in scheduler.running


@settings(max_examples=60, deadline=None)
@given(limits=limits(), asked=requests(), stopping=st.integers(0, 20))
def test_all_end_within_the_limits(
    limits: Limits, asked: list[tuple[int, int, int, bool]], stopping: int
) -> None:
    scheduler = Scheduler(limits)
    coming = [
        (at, _sequence(index, prompt, new_tokens, shares))
        for index, (at, prompt, new_tokens, shares) in enumerate(asked)
        if scheduler.fits(prompt, new_tokens)
    ]
    expected = {one.id for _, one in coming}
    ended: dict[int, Sequence] = {}
    for step in range(20_000):
        while coming and coming[0][0] <= step:
            scheduler.add(coming.pop(0)[1])
        was_running = {one.id for one in scheduler.running}
        batch = scheduler.schedule()
        if limits.batching == "static" and was_running:
            assert {entry.sequence.id for entry in batch.entries} <= was_running
        _check_step(scheduler, batch)
        work = batch.work()
        assert (work.tokens, work.sequences) == (batch.num_tokens, len(batch.entries))
        stopped = {stopping} if step % 7 == 6 else set()
        for one in scheduler.advance(batch, stopped=stopped):
            assert one.id not in ended
            assert one.generated == one.max_new_tokens or one.id in stopped
            assert one.computed == one.prompt_tokens + one.generated - 1
            assert not one.blocks
            ended[one.id] = one
        if not coming and not scheduler.waiting and not scheduler.running:
            break
    assert set(ended) == expected
    assert scheduler.pool.num_free == limits.num_blocks


@settings(max_examples=60, deadline=None)
@given(limits=limits(), asked=requests())
def test_a_leap_is_so_many_single_steps(
    limits: Limits, asked: list[tuple[int, int, int, bool]]
) -> None:
    """All are there from the start; one scheduler leaps, its twin goes step by step."""
    twins = [Scheduler(limits), Scheduler(limits)]
    for index, (_, prompt, new_tokens, shares) in enumerate(asked):
        if twins[0].fits(prompt, new_tokens):
            for twin in twins:
                twin.add(_sequence(index, prompt, new_tokens, shares))
    leaping, walking = twins
    for _ in range(20_000):
        batch = leaping.schedule()
        steps = leaping.steady_steps(batch)
        assert steps >= 1
        leaping.advance(batch, steps=steps)
        for _ in range(steps):
            single = walking.schedule()
            assert _ids(single) == _ids(batch)
            walking.advance(single)
        assert _state(leaping) == _state(walking)
        if not leaping.waiting and not leaping.running:
            break
    assert not walking.waiting
    assert not walking.running


def _ids(batch: Batch) -> list[tuple[int, int]]:
    return [(sequence.id, tokens) for sequence, tokens, _ in batch.entries]


def _state(scheduler: Scheduler) -> tuple[object, ...]:
    return (
        [(one.id, one.computed, one.generated, len(one.blocks)) for one in scheduler.running],
        [(one.id, one.preemptions) for one in scheduler.waiting],
        scheduler.pool.num_free,
    )


def _limits(**changed: int | bool | str) -> Limits:
    usual = {"max_num_seqs": 8, "max_batched_tokens": 64, "block_tokens": 4, "num_blocks": 8}
    return Limits(**(usual | changed))  # type: ignore[arg-type]


def test_the_newest_gives_up_its_blocks_and_computes_again() -> None:
    scheduler = Scheduler(_limits(num_blocks=4))
    old = Sequence(id=0, prompt_tokens=7, max_new_tokens=6)
    new = Sequence(id=1, prompt_tokens=7, max_new_tokens=6)
    scheduler.add(old)
    scheduler.add(new)
    scheduler.advance(scheduler.schedule())
    scheduler.advance(scheduler.schedule())
    batch = scheduler.schedule()
    assert batch.preempted == [new]
    assert [entry.sequence for entry in batch.entries] == [old]
    assert (new.computed, new.generated, new.preemptions) == (0, 2, 1)
    while scheduler.running:
        scheduler.advance(batch)
        batch = scheduler.schedule()
    assert (old.generated, new.generated) == (6, 6)


def test_a_shared_beginning_is_computed_once() -> None:
    scheduler = Scheduler(_limits())
    scheduler.add(_sequence(0, 9, 2, True))
    scheduler.advance(scheduler.schedule())
    later = _sequence(1, 9, 2, True)
    scheduler.add(later)
    batch = scheduler.schedule()
    assert later.cached == 8
    assert [(entry.sequence.id, entry.num_tokens) for entry in batch.entries] == [(0, 1), (1, 1)]


def test_work_counts_pairs_of_prompts_and_keys_of_decodes() -> None:
    scheduler = Scheduler(_limits(max_batched_tokens=6))
    scheduler.add(Sequence(id=0, prompt_tokens=3, max_new_tokens=4))
    scheduler.advance(scheduler.schedule())
    scheduler.add(Sequence(id=1, prompt_tokens=8, max_new_tokens=1))
    batch = scheduler.schedule()
    assert batch.work() == (6, 2, 15, 4)
    scheduler.advance(batch)
    assert scheduler.schedule().work() == (4, 2, 3 * 5 + 6, 5)


def test_one_whose_prompt_was_computed_elsewhere_only_decodes() -> None:
    scheduler = Scheduler(_limits())
    scheduler.add(Sequence(id=0, prompt_tokens=8, max_new_tokens=3, computed=8, generated=1))
    batch = scheduler.schedule()
    assert batch.work() == (1, 1, 0, 9)
    assert scheduler.steady_steps(batch) == 2
    assert [one.id for one in scheduler.advance(batch, steps=2)] == [0]


def test_whoever_is_dropped_leaves_its_blocks() -> None:
    scheduler = Scheduler(_limits())
    one, other = (Sequence(id=i, prompt_tokens=8, max_new_tokens=3) for i in range(2))
    scheduler.add(one)
    scheduler.advance(scheduler.schedule())
    scheduler.add(other)
    scheduler.drop(one)
    scheduler.drop(other)
    assert scheduler.pool.num_free == 8
    assert not scheduler.schedule().entries
