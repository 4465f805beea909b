"""Local updates: every data rank trains alone, and now and then all move on from a common point.

DiLoCo (Douillard et al. 2023, arXiv 2311.08105, algorithm 1): after H optimizer steps on its own
data each rank sends its pseudo-gradient, the way from its weights back to the anchor where all
stood last. The weighted mean moves the anchor by SGD with Nesterov momentum, and all go on from
there. Streaming (arXiv 2501.18512, algorithm 2) sends the network in fragments, each behind the
steps that follow; a fragment that arrives is mixed with what its rank has done meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from twofold.plan import Plan
from twofold.policy.exchanges import fragment_due, fragment_of_block
from twofold.runtime.train.exchange import Exchange
from twofold.runtime.train.state import Held, Saved, State
from twofold.runtime.train.world import World
from twofold.workload import Recipe

_KEPT_OF_MEANWHILE = 0.5
"""Of the way gone while a fragment was under way (the mixing factor of arXiv 2501.18512)."""


class LocalUpdates:
    """Anchors and outer momentum, the same on every rank, and the exchange of pseudo-gradients.

    `weight` is this rank's share of the tokens, asked for at every exchange.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        plan: Plan,
        world: World,
        *,
        num_steps: int,
        weight: Callable[[], float],
    ) -> None:
        self.network = network
        self.recipe = recipe
        self.plan = plan
        self.rank = world.rank
        self.workers = world.size
        self.num_steps = num_steps
        self.weight = weight
        self.done = 0
        self.exchange = Exchange(dist.new_group(list(range(world.size))), plan.exchange_precision)
        self._fragments = [
            _Fragment(named) for named in fragments_of(network, plan.exchange_fragments)
        ]
        self._under_way: tuple[int, Future[Tensor]] | None = None

    def after_step(self) -> bool:
        """Take up what arrived; whether all ranks meet after this optimizer step.

        When they do, `go_on` follows, once whatever else they have to tell each other is told:
        behind a fragment on a slow link it would wait.
        """
        self.done += 1
        if self.done == self.num_steps:
            self._finish()
            return True
        due = fragment_due(self.done, self.plan.local_steps, len(self._fragments))
        if due is None:
            return False
        self._arrive(keep=_KEPT_OF_MEANWHILE)
        if len(self._fragments) == 1:
            self._send(due)
            self._arrive(keep=0.0)
        return True

    def go_on(self) -> None:
        """Send the fragment that is due behind the steps that follow."""
        due = fragment_due(self.done, self.plan.local_steps, len(self._fragments))
        if due is not None and len(self._fragments) > 1 and self.done < self.num_steps:
            self._send(due)

    @contextmanager
    def shared_weights(self) -> Iterator[None]:
        """The network as all ranks share it: the anchors in place of this rank's weights."""
        own = [fragment.weights() for fragment in self._fragments]
        for fragment in self._fragments:
            fragment.go_to(fragment.anchor)
        yield
        for fragment, weights in zip(self._fragments, own, strict=True):
            fragment.go_to(weights)

    def state(self) -> State:
        """The shared weights (tensors in use) and what the exchanges still need."""
        arrived = torch.zeros_like(max(self._fragments, key=lambda f: f.anchor.numel()).anchor)
        under_way = -1
        if self._under_way is not None:
            under_way, future = self._under_way
            total = future.result()
            arrived[: total.numel()] = total
        return {
            "network": {**self.network.state_dict(), **self._named("anchor")},
            "outer": {
                "momentum": self._named("momentum"),
                "arrived": arrived,
                "under_way": torch.tensor(under_way),
                "done": torch.tensor(self.done),
            },
        }

    def restore(self, state: State) -> None:
        """Take up what is not in use in what `state` gave: steps done, a fragment under way."""
        outer = state["outer"]
        self.done, index = int(outer["done"]), int(outer["under_way"])
        self._under_way = None
        if index >= 0:
            here: Future[Tensor] = Future()
            here.set_result(outer["arrived"][: self._fragments[index].anchor.numel()].clone())
            self._under_way = (index, here)

    def start_from_anchor(self) -> None:
        """Stand where all ranks stood last."""
        for fragment in self._fragments:
            fragment.go_to(fragment.anchor)

    def close(self) -> None:
        self.exchange.close()

    def _send(self, index: int) -> None:
        moved = self._fragments[index].pseudo_gradient() * self.weight()
        self._under_way = (index, self.exchange.start(moved))

    def _arrive(self, *, keep: float) -> None:
        if self._under_way is None:
            return
        index, future = self._under_way
        self._under_way = None
        fragment = self._fragments[index]
        fragment.outer_step(
            future.result(), self.recipe.outer_learning_rate, self.recipe.outer_momentum
        )
        fragment.go_to(fragment.anchor.lerp(fragment.weights(), keep))

    def _finish(self) -> None:
        """At the end of the run every fragment is exchanged, and all ranks stand at the anchor."""
        self._arrive(keep=_KEPT_OF_MEANWHILE)
        for index in range(len(self._fragments)):
            self._send(index)
            self._arrive(keep=0.0)

    def _named(self, part: str) -> dict[str, Tensor]:
        return {name: t for f in self._fragments for name, t in f.named(getattr(f, part)).items()}


class LocalState:
    """What a checkpoint holds under local updates: `network` as all share it, and under this
    rank's own key the weights and optimizer state that no other rank has.

    Of a checkpoint by another number of workers all start from the shared weights with fresh
    optimizers, because the rank numbers in it mean other workers. One of a run without local
    updates has only weights to give.
    """

    def __init__(self, local: LocalUpdates, own: Held) -> None:
        self.local = local
        self.own = own
        self._step = 0
        self._not_saved: frozenset[str] = frozenset()

    def state(self) -> State:
        whole = {**self.local.state(), "own": {str(self.local.rank): self.own.state()}}
        return {key: part for key, part in whole.items() if key not in self._not_saved}

    def prepare(self, saved: Saved) -> None:
        own = saved.part("own")
        workers = {name.split(".")[0] for name in own.names}
        has_own = len(workers) == self.local.workers
        has_outer = bool(saved.part("outer").names)
        self._step = saved.step
        self._not_saved = frozenset(
            key for key, has in (("own", has_own), ("outer", has_outer)) if not has
        )
        if has_own:
            self.own.prepare(own.part(str(self.local.rank)))

    def restore(self, state: State) -> None:
        self._not_saved = frozenset()
        if "own" in state:
            self.own.restore(state["own"][str(self.local.rank)])
        else:
            self.local.start_from_anchor()
        if "outer" in state:
            self.local.restore(state)
        else:
            self.local.done = self._step


class _Fragment:
    """Some parameters, their anchor and its momentum, flat."""

    def __init__(self, named: dict[str, nn.Parameter]) -> None:
        self.parameters = named
        self.anchor = self.weights()
        self.momentum = torch.zeros_like(self.anchor)

    @torch.no_grad()
    def weights(self) -> Tensor:
        return torch.cat([parameter.flatten() for parameter in self.parameters.values()]).float()

    def pseudo_gradient(self) -> Tensor:
        return self.anchor - self.weights()

    def outer_step(self, gradient: Tensor, rate: float, momentum: float) -> None:
        """v = mu v + g; anchor -= rate (g + mu v): `torch.optim.SGD(nesterov=True)`."""
        self.momentum.mul_(momentum).add_(gradient)
        self.anchor.sub_(gradient.add(self.momentum, alpha=momentum), alpha=rate)

    @torch.no_grad()
    def go_to(self, flat: Tensor) -> None:
        for name, part in self.named(flat).items():
            self.parameters[name].copy_(part)

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        sizes = [parameter.numel() for parameter in self.parameters.values()]
        return {
            name: part.view_as(parameter)
            for (name, parameter), part in zip(
                self.parameters.items(), flat.split(sizes), strict=True
            )
        }


def fragments_of(network: nn.Module, fragments: int) -> list[dict[str, nn.Parameter]]:
    """The network's parameters by fragment: blocks in turn, what comes before the first block in
    the first fragment and what comes after the last in the last."""
    found: list[dict[str, nn.Parameter]] = [{} for _ in range(fragments)]
    seen_block = False
    for name, parameter in network.named_parameters():
        words = name.split(".")
        block = next((int(word) for word in words if word.isdigit()), None)
        seen_block = seen_block or block is not None
        if block is not None:
            index = fragment_of_block(block, fragments)
        else:
            index = fragments - 1 if seen_block else 0
        found[index][name] = parameter
    return found
