"""Ranks on machines: by the plan's pools, in rank order, every rank once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fleets import plain_fleet
from twofold.errors import InputError
from twofold.fleet import Fleet, Pool
from twofold.plan import Plan, Share, Stage
from twofold.policy import num_machines, ranks_of_hosts


def fleet(**num_nodes: int) -> Fleet:
    node = replace(plain_fleet().pools[0].node, num_accelerators=2)
    return Fleet(
        name="f",
        pools=tuple(Pool(name=name, node=node, num_nodes=n) for name, n in num_nodes.items()),
    )


def test_one_pool_is_cut_into_equal_hosts() -> None:
    plan = Plan(micro_batch=1, data_degree=5)
    assert ranks_of_hosts(plan, fleet(local=9), 2) == ((0, 1, 2), (3, 4))
    assert ranks_of_hosts(plan, fleet(local=9), 1) == ((0, 1, 2, 3, 4),)
    with pytest.raises(InputError, match="6 hosts for 5 ranks"):
        ranks_of_hosts(plan, fleet(local=9), 6)


def test_shares_put_data_ranks_on_their_pools() -> None:
    shares = (Share(pool="fast", ranks=4, sequences=3), Share(pool="slow", ranks=1, sequences=1))
    plan = Plan(micro_batch=3, data_degree=5, shares=shares)
    assert ranks_of_hosts(plan, fleet(fast=2, slow=1), 3) == ((0, 1), (2, 3), (4,))
    assert ranks_of_hosts(plan, fleet(fast=2, slow=1), 2) == ((0, 1, 2, 3), (4,))
    with pytest.raises(InputError, match=r"3 machines \(2 of 'fast', 1 of 'slow'\)"):
        ranks_of_hosts(plan, fleet(fast=2, slow=1), 4)


def test_stages_put_pipeline_ranks_on_their_pools() -> None:
    stages = (Stage(pool="a", layers=1), Stage(pool="b", layers=1), Stage(pool="a", layers=1))
    plan = Plan(micro_batch=1, data_degree=2, pipeline_degree=3, stages=stages)
    assert ranks_of_hosts(plan, fleet(a=1, b=1), 2) == ((0, 1, 4, 5), (2, 3))


def test_a_plan_fills_as_many_machines_as_its_devices_need() -> None:
    assert num_machines(Plan(micro_batch=1, data_degree=5), fleet(local=9)) == 3
    assert num_machines(Plan(micro_batch=1, data_degree=5), fleet(local=2)) == 2
