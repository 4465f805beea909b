from __future__ import annotations

import pytest

from tests.machines import calibrated_fleet
from twofold.errors import InputError
from twofold.fleet import Fleet, OpCurve


def test_a_pool_is_found_by_name_and_an_unknown_one_refused() -> None:
    fleet = calibrated_fleet()
    assert fleet.pool("local").node.accelerator.threads == 2
    with pytest.raises(InputError, match="no pool 'remote'") as caught:
        fleet.pool("remote")
    assert "local" in (caught.value.help or "")


def test_a_fleet_needs_a_pool() -> None:
    with pytest.raises(InputError, match="without a pool"):
        Fleet(name="empty", pools=())


@pytest.mark.parametrize(
    ("sizes", "forward_s", "backward_s", "rule"),
    [
        ((), (), (), "at least one"),
        ((1.0, 2.0), (1.0,), (), "as many times"),
        ((1.0, 2.0), (1.0, 2.0), (1.0,), "backward"),
        ((2.0, 1.0), (1.0, 2.0), (), "rise"),
        ((1.0, 2.0), (1.0, -2.0), (), "positive"),
    ],
)
def test_a_curve_that_cannot_be_read_is_refused(
    sizes: tuple[float, ...], forward_s: tuple[float, ...], backward_s: tuple[float, ...], rule: str
) -> None:
    with pytest.raises(InputError, match=rule):
        OpCurve(
            op="gelu",
            precision="fp32",
            threads=1,
            sizes=sizes,
            forward_s=forward_s,
            backward_s=backward_s,
        )
