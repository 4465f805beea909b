"""Local updates where the link is slow: offered apart, because they train another trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from twofold.perf.local_updates import (
    MOST_WORKERS,
    OUTER_BYTES,
    exposed_s,
    fewest_local_steps,
)
from twofold.perf.pool_exchange import NO_EXCHANGE, pieces_exchange_s, port_of
from twofold.perf.sockets import socket_path
from twofold.plan import Exchange as Width
from twofold.policy.exchanges import EXCHANGE_BYTES
from twofold.search.placement.data_parallel import (
    Ranks,
    Shared,
    exchange_of,
    placement_of,
    share_out,
)
from twofold.search.placement.found import Kind, Placement
from twofold.search.placement.question import Question

WORTH_FRACTION = 0.2
"""Of a synchronous step, from which on its messages are worth another trajectory."""
OVERHEAD_FRACTION = 0.1
"""Of a step, that exchanges may add where they are not overlapped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How updates are exchanged: DiLoCo at once in 32 bits, or streamed in pieces of 8 bits."""

    kind: Kind
    width: Width
    fragments: int


_FORMS = (
    _Form(kind="local updates", width="fp32", fragments=1),
    _Form(kind="streaming", width="int8", fragments=4),
)


def local_updates(question: Question, groups: Sequence[Ranks]) -> tuple[Placement, ...]:
    """The fastest plan of each form over all pools, every data rank a worker of its own.

    A rank is one device with all of the model and its states: the runtime has no groups that
    train together inside a worker. There are at most as many as were tried in the literature. The
    fewest local steps are taken with which the exchange is cheap, or hidden.
    """
    found = []
    for form in _FORMS:
        best: Placement | None = None
        for ranks in groups:
            workers = sum(ranks.count)
            layout, whole = ranks.layout, len(ranks.pools) == len(question.pools)
            alone = layout.tensor_degree * layout.pipeline_degree == 1 and not layout.zero_stage
            if not alone or not whole or not 2 <= workers <= MOST_WORKERS:
                continue
            placement = _placed(question, ranks, form)
            if placement is not None and (best is None or placement.step_s < best.step_s):
                best = placement
        if best is not None:
            found.append(best)
    return tuple(found)


def _placed(question: Question, ranks: Ranks, form: _Form) -> Placement | None:
    exchange_s = _exchange_s(question, ranks, form.width)
    outer_bytes = OUTER_BYTES * question.parameters
    alone = replace(
        ranks,
        exchange=NO_EXCHANGE,
        costs=tuple(
            replace(cost, peak_bytes=cost.peak_bytes + outer_bytes) for cost in ranks.costs
        ),
    )
    shared = share_out(question, alone, even=False)
    if shared is None:
        return None
    busy_s = shared.step_s
    allowed = OVERHEAD_FRACTION if form.fragments == 1 else 1.0
    steps = max(form.fragments, fewest_local_steps(exchange_s, busy_s, allowed))
    shown = exposed_s(exchange_s, busy_s, local_steps=steps, fragments=form.fragments)
    placed = placement_of(question, form.kind, replace(shared, exposed_s=shown))
    return replace(
        placed,
        plan=replace(
            placed.plan,
            local_steps=steps,
            exchange_precision=form.width,
            exchange_fragments=form.fragments,
        ),
    )


def _exchange_s(question: Question, ranks: Ranks, width: Width) -> float:
    """In 32 bits an all-reduce as that of gradients, in fewer by pieces (`policy.exchanges`),
    over the slowest port: of the joints, or of one pool's own machines. One pool without any
    exchanges between processes of a machine, as those were measured."""
    size = EXCHANGE_BYTES[width] * question.parameters
    counts = dict(zip(ranks.pools, ranks.count, strict=True))
    if width == "fp32":
        return exchange_of(
            question, ranks.pools, counts, ranks.layout, EXCHANGE_BYTES[width]
        ).once_s
    names = [question.pools[i].name for i in ranks.pools]
    joints = {
        (a, b): question.joints[names[a], names[b]] for a, b in combinations(range(len(names)), 2)
    }
    own = [port for i in ranks.pools if (port := port_of(question.pools[i])) is not None]
    rates = [*(j.port_bytes_per_s for j in joints.values()), *(p.bytes_per_s for p in own)]
    latency_s = max((port.latency_s for port in own), default=0.0)
    if not rates:
        path = socket_path(question.pools[ranks.pools[0]].node)
        rates, latency_s = [path.bytes_per_s], path.message_s
    return pieces_exchange_s(size, ranks.count, joints, min(rates), port_latency_s=latency_s)


def worth_offering(synchronous: Shared | None) -> bool:
    """Whether so much of the synchronous step over all pools is messages."""
    if synchronous is None:
        return False
    return synchronous.exposed_s >= WORTH_FRACTION * synchronous.step_s
