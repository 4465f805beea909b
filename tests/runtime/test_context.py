"""Zigzag pieces of sequences cover them, cost every rank the same, and see what came before.

That ranks train as one process does is in the parity cases.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pytest

pytest.importorskip("torch")

import torch

from tests.runtime.parity_cases import MODERN, Case
from tests.runtime.parity_worker import document_of
from twofold.errors import InputError
from twofold.runtime.train.network.attention import SelfAttention
from twofold.runtime.train.parallel.context import SequencePieces, make_pieces
from twofold.runtime.train.support import refuse_unsupported

SEQ = 48


def pieces_of(degree: int) -> list[SequencePieces]:
    return [
        SequencePieces.cut(
            SEQ, degree=degree, rank=rank, group=MagicMock(), device=torch.device("cpu")
        )
        for rank in range(degree)
    ]


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_pieces_are_every_position_once(degree: int) -> None:
    pieces = pieces_of(degree)
    given = torch.cat([piece.positions for piece in pieces])
    assert sorted(given.tolist()) == list(range(SEQ))
    assert all(given[piece.order].tolist() == list(range(SEQ)) for piece in pieces)


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_every_rank_multiplies_as_many_queries_by_keys(degree: int) -> None:
    """2c + 1 chunks by chunks, where masking against all keys takes 4c."""
    chunk = SEQ // (2 * degree)
    work = {sum(chunk * end for end in piece.ends) for piece in pieces_of(degree)}
    assert work == {(2 * degree + 1) * chunk * chunk}


@pytest.mark.parametrize("kernel", ["sdpa", "explicit"])
def test_chunks_attend_as_they_do_in_the_whole_sequence(kernel: Any) -> None:
    attention = SelfAttention(MODERN, kernel, value_embedding=False)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, MODERN.heads, SEQ, MODERN.head_size, generator=generator)
    key, value = torch.randn(2, 2, MODERN.kv_heads, SEQ, MODERN.head_size, generator=generator)
    whole = attention.attend(query, key, value)
    for piece in pieces_of(3):
        mine = query[:, :, piece.positions].chunk(2, dim=2)
        mixed = [
            attention.attend(chunk, key[:, :, :end], value[:, :, :end])
            for chunk, end in zip(mine, piece.ends, strict=True)
        ]
        torch.testing.assert_close(torch.cat(mixed, dim=2), whole[:, :, piece.positions])


def test_sequences_that_cannot_be_cut_in_chunks_are_refused() -> None:
    document = document_of(Case(name="c", plan={"context_degree": 4}))
    document = replace(document, workload=replace(document.workload, seq_len=36))
    with pytest.raises(InputError, match="36 tokens cannot be cut into the 8 chunks"):
        make_pieces(document, MagicMock())


@pytest.mark.parametrize(
    ("plan", "what"),
    [
        ({"tensor_degree": 2, "sequence_parallel": True}, "over context or over tensor ranks"),
    ],
)
def test_what_it_does_not_combine_with_is_refused(plan: dict[str, Any], what: str) -> None:
    document = document_of(Case(name="c", plan={"context_degree": 2} | plan))
    with pytest.raises(InputError, match=what):
        refuse_unsupported(document)
