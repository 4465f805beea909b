"""Blocks of a paged key-value cache: who holds which, and which prefixes can be used again.

Paging as in vLLM (Kwon et al. 2023, arXiv 2309.06180, section 4): a block holds the keys and
values of `block_tokens` consecutive tokens in all layers. A full block of a prompt may carry a
key that names it *and everything before it*; whoever starts alike holds the same block.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence

Key = Hashable
Keys = Sequence[Key]


class BlockPool:
    """`num_blocks` blocks. One that nobody holds keeps its content until it is needed, the
    longest unused first. Only a block with a name can have several holders: those alone are
    counted."""

    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        assert num_blocks >= 1
        assert block_tokens >= 1
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self._empty = list(range(num_blocks - 1, -1, -1))
        self._idle: OrderedDict[int, Key] = OrderedDict()
        self._holders: dict[int, int] = {}
        self._block_of: dict[Key, int] = {}
        self._key_of: dict[int, Key] = {}

    @property
    def num_free(self) -> int:
        """Blocks that can be taken, remembered ones included."""
        return len(self._empty) + len(self._idle)

    @property
    def used_fraction(self) -> float:
        return 1.0 - self.num_free / self.num_blocks

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    def take(self, number: int) -> list[int]:
        """So many blocks to write to; the caller has seen that they are free."""
        empty = self._empty
        if number > len(empty):
            assert number <= self.num_free, "more blocks than are free"
            for _ in range(number - len(empty)):
                self._forget_oldest()
        if number == 1:  # as nearly always
            return [empty.pop()]
        blocks = empty[len(empty) - number :]
        del empty[len(empty) - number :]
        return blocks

    def find(self, keys: Keys) -> list[int]:
        """The blocks of the longest known beginning; they are not held yet."""
        found = []
        for key in keys:
            block = self._block_of.get(key)
            if block is None:
                break
            found.append(block)
        return found

    def num_idle(self, blocks: Iterable[int]) -> int:
        """How many of them nobody holds: holding them takes so many from the free ones."""
        return sum(block in self._idle for block in blocks)

    def hold(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            self._idle.pop(block, None)
            self._holders[block] += 1

    def name(self, block: int, key: Key) -> None:
        """The block is full and holds what `key` names; the first block of a name keeps it."""
        if key not in self._block_of and block not in self._key_of:
            self._block_of[key] = block
            self._key_of[block] = key
            self._holders[block] = 1

    def release(self, blocks: Sequence[int]) -> None:
        """The last of a prompt are forgotten first: a beginning is of use without its end."""
        key_of = self._key_of
        self._empty += [block for block in blocks if block not in key_of]
        for block in [block for block in reversed(blocks) if block in key_of]:
            self._holders[block] -= 1
            if not self._holders[block]:
                self._idle[block] = key_of[block]

    def _forget_oldest(self) -> None:
        block, key = self._idle.popitem(last=False)
        del self._block_of[key], self._key_of[block], self._holders[block]
        self._empty.append(block)
