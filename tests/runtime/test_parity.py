"""Every layout trains as one process does, and a wrong weighting is noticed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.runtime.parity import Differences, differences
from tests.runtime.parity_cases import CASES, IN_CI, PLANTED, REBALANCED, Case

DOCS = Path(__file__).parents[2] / "docs" / "parity.md"
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


def test_the_committed_table_has_every_case_within_its_tolerances() -> None:
    rows = [line.split(" | ") for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    found = {row[0].removeprefix("| "): row[3:] for row in rows[1:]}
    assert list(found) == [case.name for case in CASES]
    for case in CASES:
        for cell, what in zip(
            found[case.name], ("loss", "norm", "gradient", "weight"), strict=True
        ):
            told = re.fullmatch(r"(\S+) \(of (\S+)\)( \|)?", cell)
            assert told is not None
            most = getattr(case.tolerance, what)
            assert float(told[2]) == pytest.approx(most)
            assert float(told[1]) <= most
