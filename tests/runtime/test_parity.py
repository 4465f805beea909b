"""Every layout trains as one process does, and a wrong weighting is noticed."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from tests.runtime.parity import Differences, differences
from tests.runtime.parity_cases import CASES, IN_CI, PLANTED, REBALANCED, Case

FEW = [case for case in CASES if case.name in IN_CI]
MANY = [case for case in CASES if case.name not in IN_CI]


@pytest.fixture(scope="module")
def few() -> dict[str, Differences]:
    return differences([*FEW, *PLANTED])


@pytest.fixture(scope="module")
def many() -> dict[str, Differences]:
    return differences(MANY)


@pytest.mark.slow
@pytest.mark.parametrize("case", FEW, ids=lambda case: case.name)
def test_a_layout_trains_as_one_process_does(case: Case, few: dict[str, Differences]) -> None:
    assert few[case.name].beyond(case) == []


@pytest.mark.slow
@pytest.mark.parametrize("case", REBALANCED, ids=lambda case: case.name)
def test_a_rank_throttled_in_mid_run_ends_with_few_sequences(
    case: Case, few: dict[str, Differences]
) -> None:
    """Also where ranks wait for each other inside the passes, which is not the waiter's fault."""
    assert sum(few[case.name].shares) == 12
    assert few[case.name].shares[1] <= 3


@pytest.mark.slow
@pytest.mark.parametrize("case", PLANTED, ids=lambda case: case.name)
def test_a_planted_mistake_is_noticed(case: Case, few: dict[str, Differences]) -> None:
    """Such as averaging over ranks with unlike shares: by far in the gradient, and in losses."""
    found = few[case.name]
    assert found.gradient > 10 * case.tolerance.gradient
    assert len(found.beyond(case)) > 1


@pytest.mark.verify
@pytest.mark.parametrize("case", MANY, ids=lambda case: case.name)
def test_another_layout_trains_so_too(case: Case, many: dict[str, Differences]) -> None:
    assert many[case.name].beyond(case) == []
