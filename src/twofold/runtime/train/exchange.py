"""The sum of one flat tensor over ranks, sent in fewer bits, beside the computation.

Reduce-scatter and all-gather of encoded pieces: every rank sends each other one its piece, sums
its own in fp32 and sends the sum back. Narrow numbers are so rounded twice whatever the number of
ranks, and never overflow, as they would in an all-reduce that adds in the narrow type.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
import torch.distributed as dist
from torch import Tensor

from twofold.plan import Exchange as Precision
from twofold.policy.exchanges import SCALED_ELEMENTS, piece_elements, sent_bytes

_MOST_INT8 = 127.0


class Exchange:
    """Sums over the ranks of a group of its own, in the order in which they were started.

    The group must be used by nothing else: its messages are sent from a thread, while the
    caller's own collectives go on. `sent_bytes` counts the payload this rank has sent.
    """

    def __init__(self, group: dist.ProcessGroup, precision: Precision) -> None:
        self.group = group
        self.ranks = group.size()
        self.precision = precision
        self.sent_bytes = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exchange")

    def start(self, flat: Tensor) -> Future[Tensor]:
        """The sum of every rank's `flat` (fp32), once it is here."""
        self.sent_bytes += sent_bytes(flat.numel(), self.ranks, self.precision)
        return self._thread.submit(self._sum, flat)

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    def _sum(self, flat: Tensor) -> Tensor:
        if self.precision == "fp32":
            total = flat.clone()
            dist.all_reduce(total, group=self.group)
            return total
        piece = piece_elements(flat.numel(), self.ranks, self.precision)
        padded = flat.new_zeros(self.ranks * piece)
        padded[: flat.numel()] = flat
        sent = encode(padded.view(self.ranks, piece), self.precision)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        own = encode(decode(received, self.precision).sum(0, keepdim=True), self.precision)
        dist.all_gather(list(sent.unbind()), own[0], group=self.group)
        return decode(sent, self.precision).flatten()[: flat.numel()]


def encode(rows: Tensor, precision: Precision) -> Tensor:
    """Rows of fp32 as rows of bytes; int8 has one fp32 scale every `SCALED_ELEMENTS`."""
    if precision == "bf16":
        return rows.to(torch.bfloat16).view(torch.uint8)
    chunks = rows.view(rows.shape[0], -1, SCALED_ELEMENTS)
    scales = chunks.abs().amax(dim=-1, keepdim=True) / _MOST_INT8
    steps = (chunks / scales.clamp_min(torch.finfo(torch.float32).tiny)).round_().to(torch.int8)
    parts = (steps.flatten(1).view(torch.uint8), scales.flatten(1).view(torch.uint8))
    return torch.cat(parts, dim=1)


def decode(rows: Tensor, precision: Precision) -> Tensor:
    """The fp32 of encoded rows."""
    if precision == "bf16":
        return rows.view(torch.bfloat16).float()
    num_chunks = rows.shape[1] // (SCALED_ELEMENTS + 4)
    split = num_chunks * SCALED_ELEMENTS
    steps = rows[:, :split].view(torch.int8).view(rows.shape[0], num_chunks, SCALED_ELEMENTS)
    scales = rows[:, split:].contiguous().view(torch.float32).unsqueeze(-1)
    return (steps.float() * scales).flatten(1)
