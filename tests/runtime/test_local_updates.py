"""Local updates: the published algorithm, the bytes it says, and nothing lost by a kill."""

from __future__ import annotations

import copy
import socket
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.runtime.ranks import MODEL, train_ranks
from twofold.plan import Exchange as Precision
from twofold.plan import Plan, Share
from twofold.policy import place_of
from twofold.policy.exchanges import EXCHANGE_BYTES
from twofold.runtime.train.exchange import Exchange, decode, encode
from twofold.runtime.train.local_updates import LocalState, LocalUpdates, fragments_of
from twofold.runtime.train.state import Saved, TrainingState
from twofold.runtime.train.support import RULES
from twofold.runtime.train.world import World
from twofold.workload import Recipe

RECIPE = Recipe(learning_rate=1.0, global_batch=8, outer_learning_rate=0.7, outer_momentum=0.9)
WEIGHTS = (0.5, 0.3, 0.2)
"""Shares of the tokens, unlike on purpose."""


@pytest.mark.parametrize(("precision", "error"), [("bf16", 2**-8), ("int8", 1 / 254)])
def test_encoded_numbers_come_back_within_half_a_step(precision: Precision, error: float) -> None:
    rows = torch.randn(3, 4 * 512, generator=torch.Generator().manual_seed(0))
    rows[1] = 0
    back = decode(encode(rows, precision), precision)
    largest = rows.view(3, -1, 512).abs().amax(dim=-1).repeat_interleave(512, dim=1)
    assert ((back - rows).abs() <= error * largest * 1.001).all()


def test_fragments_hold_every_parameter_once_and_blocks_in_turn() -> None:
    network = nn.ModuleDict({"embedding": nn.Embedding(4, 2), "blocks": nn.ModuleList()})
    blocks = network["blocks"]
    assert isinstance(blocks, nn.ModuleList)
    blocks.extend(nn.Linear(2, 2, bias=False) for _ in range(5))
    network["head"] = nn.Linear(2, 4, bias=False)
    assert [list(fragment) for fragment in fragments_of(network, 2)] == [
        ["embedding.weight", "blocks.0.weight", "blocks.2.weight", "blocks.4.weight"],
        ["blocks.1.weight", "blocks.3.weight", "head.weight"],
    ]


def sums_over_ranks_and_bytes_sent(rank: int) -> None:
    for precision, error in _ERRORS.items():
        _check_sum(rank, precision, error)


_ERRORS: dict[Precision, float] = {"fp32": 1e-6, "bf16": 1e-2, "int8": 2e-2}
"""Largest error of a sum, relative to its largest element."""


def _check_sum(rank: int, precision: Precision, error: float) -> None:
    every = [torch.randn(30 * 512, generator=torch.Generator().manual_seed(r)) for r in range(3)]
    exchange = Exchange(dist.new_group([0, 1, 2]), precision)
    futures = [exchange.start(every[rank]), exchange.start(every[rank] * 2)]
    total = sum(every)
    assert isinstance(total, Tensor)
    for factor, future in zip((1, 2), futures, strict=True):
        got = future.result()
        assert (got - factor * total).abs().max() <= error * factor * total.abs().max()
        same = [torch.empty_like(got) for _ in range(3)]
        dist.all_gather(same, got)
        assert all(torch.equal(one, got) for one in same), "ranks would drift apart"
    assert exchange.sent_bytes == 2 * (2 * 30 * 512 * EXCHANGE_BYTES[precision] * 2 / 3)
    exchange.close()


def one_step_at_rate_one_without_momentum_is_averaging(rank: int) -> None:
    """With SGD inside that is plain data parallelism: same weights up to rounding."""
    recipe = replace(RECIPE, outer_learning_rate=1.0, outer_momentum=0.0)
    together = tiny_network()
    sgd = torch.optim.SGD(together.parameters(), lr=0.1)
    trained = Trained(rank, recipe, Plan(micro_batch=1, data_degree=3, local_steps=1), steps=6)
    for step in range(6):
        for r, weight in enumerate(WEIGHTS):
            (tiny_loss(together, r, step) * weight).backward()
        sgd.step()
        sgd.zero_grad()
        assert trained.step(step)
    for ours, theirs in zip(trained.network.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def outer_steps_are_those_of_torch(rank: int) -> None:
    """Three workers in one process, with torch's own Nesterov SGD at their anchor."""
    anchor = tiny_network()
    outer = torch.optim.SGD(anchor.parameters(), lr=0.7, momentum=0.9, nesterov=True)
    trained = Trained(rank, RECIPE, Plan(micro_batch=1, data_degree=3, local_steps=4), steps=12)
    for first in range(0, 12, 4):
        gradients = [torch.zeros_like(p) for p in anchor.parameters()]
        for r, weight in enumerate(WEIGHTS):
            worker = copy.deepcopy(anchor)
            sgd = torch.optim.SGD(worker.parameters(), lr=0.1)
            for step in range(first, first + 4):
                tiny_loss(worker, r, step).backward()
                sgd.step()
                sgd.zero_grad()
            for g, a, w in zip(gradients, anchor.parameters(), worker.parameters(), strict=True):
                g += weight * (a.detach() - w.detach())
        for parameter, gradient in zip(anchor.parameters(), gradients, strict=True):
            parameter.grad = gradient
        outer.step()
        met = [trained.step(step) for step in range(first, first + 4)]
        assert met == [False, False, False, True]
    for ours, theirs in zip(trained.network.parameters(), anchor.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def a_state_taken_while_a_fragment_is_under_way_goes_on_the_same(rank: int) -> None:
    plan = Plan(
        micro_batch=1, data_degree=3, local_steps=4, exchange_fragments=2, exchange_precision="int8"
    )
    whole, broken = (Trained(rank, RECIPE, plan, steps=11) for _ in range(2))
    for step in range(6):
        whole.step(step)
        broken.step(step)
    saved = copy.deepcopy(broken.held.state())
    assert int(saved["outer"]["under_way"]) == 0
    resumed = Trained(rank, RECIPE, plan, steps=11)
    every = frozenset(f"own.{other}.network" for other in range(3))
    resumed.held.prepare(Saved(6, names_in(saved) | every))
    state = resumed.held.state()
    read_into(state, saved)
    resumed.held.restore(state)
    for step in range(6, 11):
        whole.step(step)
        resumed.step(step)
    for ours, theirs in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        same = [torch.empty_like(ours) for _ in range(3)]
        dist.all_gather(same, ours.detach())
        assert all(torch.equal(one, ours) for one in same), "at the end all stand together"


class Trained:
    """A tiny network trained by SGD under local updates on one rank."""

    def __init__(self, rank: int, recipe: Recipe, plan: Plan, *, steps: int) -> None:
        world = World(
            rank=rank, size=3, place=place_of(rank, plan), device=torch.device("cpu"), mesh=None
        )
        self.rank = rank
        self.network = tiny_network()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1)
        self.local = LocalUpdates(
            self.network, recipe, plan, world, num_steps=steps, weight=lambda: WEIGHTS[rank]
        )
        self.held = LocalState(self.local, TrainingState(self.network, [self.optimizer]))

    def step(self, step: int) -> bool:
        tiny_loss(self.network, self.rank, step).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        met = self.local.after_step()
        if met:
            self.local.go_on()
        return met


def names_in(state: dict[str, Any]) -> frozenset[str]:
    """As a checkpoint names them."""
    found = set()
    for key, value in state.items():
        inner = names_in(value) if isinstance(value, dict) else None
        found |= {key} if inner is None else {f"{key}.{name}" for name in inner}
    return frozenset(found)


def read_into(state: dict[str, Any], saved: dict[str, Any]) -> None:
    """As a checkpoint is read: into the tensors that are there."""
    assert state.keys() == saved.keys()
    for key, value in saved.items():
        if isinstance(value, dict):
            read_into(state[key], value)
        else:
            state[key].detach().copy_(value)


def tiny_network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.Linear(8, 8), nn.Linear(8, 1)]
    return nn.Sequential(*layers)


def tiny_loss(network: nn.Module, rank: int, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * step + rank)
    inputs = torch.randn(5, 6, generator=generator)
    loss: Tensor = (network(inputs) - inputs.sum(dim=1, keepdim=True)).square().mean()
    return loss


CHECKS: tuple[Callable[[int], None], ...] = (
    sums_over_ranks_and_bytes_sent,
    one_step_at_rate_one_without_momentum_is_averaging,
    outer_steps_are_those_of_torch,
    a_state_taken_while_a_fragment_is_under_way_goes_on_the_same,
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What went wrong in each check: all run on the same three ranks, which are slow to start."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_on_rank, (port, folder), nprocs=3)
    return {
        check.__name__: "\n".join(
            (folder / f"{check.__name__}-{rank}").read_text() for rank in range(3)
        ).strip()
        for check in CHECKS
    }


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_three_ranks(found: dict[str, str], check: Callable[[int], None]) -> None:
    assert not found[check.__name__], found[check.__name__]


def _on_rank(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=3)
    for check in CHECKS:
        try:
            check(rank)
            wrong = ""
        except AssertionError:
            wrong = traceback.format_exc()
        (folder / f"{check.__name__}-{rank}").write_text(wrong)
    dist.destroy_process_group()


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_curve(tmp_path: Path, text: str) -> None:
    """With a fragment under way, unlike shares and narrow exchange; saved at meetings alone."""
    plan = {
        "data_degree": 2,
        "micro_batch": 8,
        "shares": tuple(Share(pool="local", ranks=1, sequences=n) for n in (8, 4)),
        "local_steps": 4,
        "exchange_fragments": 2,
        "exchange_precision": "int8",
    }
    whole = train_ranks(tmp_path / "whole", text, plan=plan, steps=14)
    cut = ("--max-steps", "6")
    train_ranks(tmp_path / "cut", text, plan=plan, steps=14, options=cut)
    resumed = train_ranks(tmp_path / "cut", text, plan=plan, steps=14)
    assert resumed.losses == whole.losses
    for name, weights in whole.weights.items():
        assert torch.equal(weights, resumed.weights[name]), name
    assert whole.losses[-1] < 0.9 * whole.losses[0]


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_workers(tmp_path: Path, text: str) -> None:
    """More workers start from the shared weights; one alone without local updates, and back."""
    local = {"local_steps": 2, "exchange_fragments": 2, "micro_batch": 12}
    for plan, steps in (
        ({"data_degree": 2, **local}, 6),
        ({"data_degree": 3, **local}, 8),
        ({}, 10),
        ({"data_degree": 2, **local}, 14),
    ):
        options = ("--max-steps", str(steps))
        trained = train_ranks(tmp_path, text, plan=plan, steps=14, options=options)
        assert [row["step"] for row in trained.rows if row["event"] == "step"] == [
            *range(1, steps + 1)
        ]
    assert trained.losses[-1] < 0.9 * trained.losses[0]


@pytest.mark.parametrize(
    ("levers", "named"),
    [
        ({"tensor_degree": 2}, "local_steps"),
        ({"zero_stage": 1}, "local_steps"),
        ({"expert_degree": 2}, "local_steps"),
        ({"data_degree": 1}, "local_steps"),
        ({"rebalance_steps": 5}, "rebalance_steps"),
        ({"exchange_fragments": 5}, "exchange_fragments"),
    ],
)
def test_what_local_updates_cannot_do_is_refused(levers: dict[str, Any], named: str) -> None:
    plan = Plan(**({"micro_batch": 6, "data_degree": 2, "local_steps": 8} | levers))
    refused = [rule.lever for rule in RULES if rule.refuses(plan, MODEL)]
    assert named in refused
