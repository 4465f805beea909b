"""Blocks of the key-value cache, by what must hold after any operations."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from twofold.policy.kv_blocks import BlockPool

_KEYS = st.integers(0, 5)


class Blocks(RuleBasedStateMachine):
    """Holders take, share, name and release; a model counts who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[list[int]] = []
        self.content: dict[int, int] = {}

    @initialize(num_blocks=st.integers(1, 12))
    def make(self, num_blocks: int) -> None:
        self.pool = BlockPool(num_blocks, 16)

    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        blocks = self.pool.take(data.draw(st.integers(0, self.pool.num_free)))
        counts = self._counts()
        assert not any(counts[block] for block in blocks), "a block is taken twice"
        for block in blocks:
            self.content.pop(block, None)
        self.held.append(blocks)

    @precondition(lambda self: any(self.held))
    @rule(data=st.data(), key=_KEYS)
    def name(self, data: st.DataObject, key: int) -> None:
        blocks = data.draw(st.sampled_from([blocks for blocks in self.held if blocks]))
        block = data.draw(st.sampled_from(blocks))
        self.pool.name(block, key)
        if self.pool.find([key]) == [block]:
            self.content[block] = key

    @rule(keys=st.lists(_KEYS, max_size=4))
    def share(self, keys: list[int]) -> None:
        found = self.pool.find(keys)
        assert [self.content[block] for block in found] == keys[: len(found)]
        free = self.pool.num_free
        idle = self.pool.num_idle(dict.fromkeys(found))
        self.pool.hold(found)
        assert self.pool.num_free == free - idle
        self.held.append(found)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.held) - 1))
        self.pool.release(self.held.pop(index))

    @invariant()
    def free_are_those_that_nobody_holds(self) -> None:
        if hasattr(self, "pool"):
            assert self.pool.num_free == self.pool.num_blocks - len(self._counts())

    def _counts(self) -> Counter[int]:
        return Counter(block for blocks in self.held for block in blocks)


TestBlocks = Blocks.TestCase
TestBlocks.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def test_the_longest_unused_is_forgotten_first() -> None:
    pool = BlockPool(2, 16)
    first, second = pool.take(2)
    pool.name(first, "a")
    pool.name(second, "b")
    pool.release([second])
    pool.release([first])
    pool.take(1)
    assert pool.find(["b"]) == []
    assert pool.find(["a"]) == [first]


def test_a_beginning_outlives_its_end() -> None:
    pool = BlockPool(2, 16)
    blocks = pool.take(2)
    for block, key in zip(blocks, ("a", "ab"), strict=True):
        pool.name(block, key)
    pool.release(blocks)
    pool.take(1)
    assert pool.find(["a", "ab"]) == [blocks[0]]
