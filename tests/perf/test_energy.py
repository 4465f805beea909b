from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.perf.energy import (
    device_power_w,
    energy_parts_j,
    node_overhead_w,
    step_energy_j,
)

fractions = st.floats(0.0, 1.0)
watts = st.floats(1.0, 1500.0)


def test_an_h100_node_in_intensive_training_draws_three_quarters_of_its_rating() -> None:
    """7.75 kW of 10.2 (arXiv 2506.14551), at the time shares the shares were set for."""
    device = device_power_w(70.0, 700.0, 0.80, 0.12, 0.06)
    node_w = 8 * device + node_overhead_w(10200.0, 700.0, 8.0)
    assert node_w == pytest.approx(7750.0, rel=0.01)
    assert node_w / 10200.0 == pytest.approx(0.76, abs=0.01)


def test_that_node_never_draws_more_than_was_ever_seen() -> None:
    """8.4 kW (arXiv 2412.08602)."""
    node_w = 8 * device_power_w(70.0, 700.0, 1.0, 1.0, 1.0) + node_overhead_w(10200.0, 700.0, 8.0)
    assert node_w == pytest.approx(8400.0, rel=0.01)


def test_a_thousand_h100_for_a_month() -> None:
    """1,024 x 30 days x 0.97 kW x 1.15 = 822 MWh."""
    energy_j = 1024 * step_energy_j(30 * 86400.0, 620.0, 350.0, 1.15)
    assert energy_j / 3.6e9 == pytest.approx(822.0, rel=2e-3)


@settings(deadline=None)
@given(watts, st.floats(0.0, 2000.0), fractions, fractions, fractions, fractions)
def test_power_lies_between_idle_and_cap_and_rises_with_use(
    idle_w, range_w, tensor, memory, link, more
) -> None:
    cap_w = idle_w + range_w
    power_w = device_power_w(idle_w, cap_w, tensor, memory, link)
    assert idle_w <= power_w <= cap_w * (1 + 1e-12)
    for use in ((tensor + more, memory, link), (tensor, memory + more, link)):
        assert device_power_w(idle_w, cap_w, *use) >= power_w * (1 - 1e-12)
    assert device_power_w(idle_w, cap_w, tensor, memory, link + more) >= power_w * (1 - 1e-12)


@settings(deadline=None)
@given(watts, st.floats(0.0, 2000.0), fractions, fractions, fractions, st.floats(1.0, 2.0))
def test_parts_add_up(idle_w, range_w, tensor, memory, link, pue) -> None:
    max_w = idle_w + range_w
    parts = energy_parts_j(
        3.0,
        idle_w=idle_w,
        max_w=max_w,
        tensor_fraction=tensor,
        memory_fraction=memory,
        link_fraction=link,
        overhead_w_per_device=350.0,
        pue=pue,
    )
    power_w = device_power_w(idle_w, max_w, tensor, memory, link)
    assert sum(parts) == pytest.approx(step_energy_j(3.0, power_w, 350.0, pue))
    assert min(parts) >= 0.0


@settings(deadline=None)
@given(st.floats(0.1, 100.0), st.floats(0.0, 10.0), watts, st.floats(1.0, 2.0))
def test_longer_steps_take_more_energy(step_s, more_s, power_w, pue) -> None:
    shorter = step_energy_j(step_s, power_w, 300.0, pue)
    assert step_energy_j(step_s + more_s, power_w, 300.0, pue) >= shorter
    assert step_energy_j(step_s, power_w, 300.0, pue + 0.1) > shorter


def test_a_machine_rated_below_its_devices_has_no_negative_overhead() -> None:
    assert node_overhead_w(1000.0, 700.0, 8.0) == 0.0
