"""Batches in an order that depends on the seed alone, never on micro-batch, ranks or restarts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Batches:
    """Sequences of one part of a corpus, packed end to end without padding.

    The state is one number, the index of the next sample. Sample `i` of epoch `e` is window
    `permutation_e[i]` of `seq_len` tokens; its targets are the same window one token on. Each
    epoch has its own permutation and its own offset, so that windows do not repeat exactly.
    """

    def __init__(self, tokens: NDArray[np.uint8] | NDArray[np.uint16], seq_len: int, seed: int):
        self.tokens = tokens
        self.seq_len = seq_len
        self.seed = seed
        self.num_windows = (len(tokens) - seq_len) // seq_len
        self._epoch = -1
        self._offset = 0
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def batch(self, first_sample: int, num_samples: int) -> Tensor:
        """Samples [num_samples, seq_len + 1] as int64: inputs and targets overlap by one."""
        rows = np.stack([self._window(first_sample + i) for i in range(num_samples)])
        return torch.from_numpy(rows)

    def _window(self, sample: int) -> NDArray[np.int64]:
        epoch, index = divmod(sample, self.num_windows)
        if epoch != self._epoch:
            generator = np.random.default_rng([self.seed, epoch])
            self._offset = int(generator.integers(self.seq_len))
            self._order = generator.permutation(self.num_windows)
            self._epoch = epoch
        start = min(
            int(self._order[index]) * self.seq_len + self._offset,
            len(self.tokens) - self.seq_len - 1,
        )
        return self.tokens[start : start + self.seq_len + 1].astype(np.int64)


def held_out_windows(
    tokens: NDArray[np.uint8] | NDArray[np.uint16], seq_len: int, num_tokens: int
) -> Tensor:
    """Windows [n, seq_len + 1] spread evenly over a held-out part, the same for every run."""
    available = (len(tokens) - 1) // seq_len
    count = max(1, min(available, num_tokens // seq_len))
    chosen = np.linspace(0, available - 1, count).round().astype(np.int64)
    rows = np.stack([tokens[i * seq_len : i * seq_len + seq_len + 1] for i in chosen])
    return torch.from_numpy(rows.astype(np.int64))
