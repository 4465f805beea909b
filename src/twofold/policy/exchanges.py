"""Local updates: which fragment of the network is sent when, and how many bytes that takes.

A fragment is every F-th block ("strided", Streaming DiLoCo, arXiv 2501.18512, section 2.1), with
the embeddings in the first and the head in the last. Every fragment is sent once in H steps, the
fragments as far apart as H allows; each has until the next one's turn to arrive.
"""

from __future__ import annotations

import math

from twofold.plan import Exchange

SCALED_ELEMENTS = 512
"""Elements that share one fp32 scale in an int8 exchange."""

EXCHANGE_BYTES: dict[Exchange, float] = {"fp32": 4.0, "bf16": 2.0, "int8": 1 + 4 / SCALED_ELEMENTS}
"""Bytes on the wire for each element, scales included."""


def fragment_due(steps_done: int, local_steps: int, fragments: int) -> int | None:
    """The fragment to be sent after so many steps, if any: p after ((p + 1) H) // F steps of H."""
    position = (steps_done - 1) % local_steps + 1
    for fragment in range(fragments):
        if (fragment + 1) * local_steps // fragments == position:
            return fragment
    return None


def fragment_of_block(block: int, fragments: int) -> int:
    return block % fragments


def piece_elements(elements: int, ranks: int, precision: Exchange) -> int:
    """Elements of the piece that one of the ranks sums, padded to whole scales."""
    piece = math.ceil(elements / ranks)
    return math.ceil(piece / SCALED_ELEMENTS) * SCALED_ELEMENTS if precision == "int8" else piece


def sent_bytes(elements: int, ranks: int, precision: Exchange) -> int:
    """What each rank sends in one exchange: 2 (M - 1) pieces of 1/M, so 2 P b (M - 1) / M and
    the padding."""
    piece = piece_elements(elements, ranks, precision)
    return round(2 * (ranks - 1) * piece * EXCHANGE_BYTES[precision])
