from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.perf.carbon import embodied_kgco2e, operational_kgco2e, water_l

MONTH_IT_J = 1024 * 970.0 * 30 * 86400.0


def test_a_thousand_h100_for_a_month_in_two_places() -> None:
    """822 MWh: 304 t at 369 g/kWh (USA 2023), 13 t at 16 g (Paris region)."""
    assert operational_kgco2e(MONTH_IT_J, 1.15, 0.369) == pytest.approx(304e3, rel=5e-3)
    assert operational_kgco2e(MONTH_IT_J, 1.15, 0.016) == pytest.approx(13e3, rel=2e-2)


def test_their_boards_share_of_five_years() -> None:
    """164 kg a device (NVIDIA's HGX H100 footprint, 1,312 kg a board): 2.8 t."""
    assert embodied_kgco2e(164.0 * 1024, 30 * 24.0, 5.0) == pytest.approx(2.8e3, rel=2e-2)


def test_water_on_site_is_by_it_energy_and_at_the_power_station_by_facility_energy() -> None:
    assert water_l(3.6e6, 1.2, 0.27) == pytest.approx(0.27)
    assert water_l(3.6e6, 1.2, 0.27, 3.1) == pytest.approx(0.27 + 1.2 * 3.1)


@settings(deadline=None)
@given(st.floats(0.0, 1e15), st.floats(1.0, 2.0), st.floats(0.0, 1.0), st.floats(0.0, 1e6))
def test_more_of_anything_is_never_less_carbon(energy_j, pue, grid, hours) -> None:
    base = operational_kgco2e(energy_j, pue, grid)
    assert base <= operational_kgco2e(energy_j * 1.1, pue, grid)
    assert base <= operational_kgco2e(energy_j, pue + 0.1, grid)
    assert base <= operational_kgco2e(energy_j, pue, grid + 0.1)
    assert embodied_kgco2e(100.0, hours) <= embodied_kgco2e(100.0, hours + 1.0)
    assert embodied_kgco2e(100.0, hours, 6.0) <= embodied_kgco2e(100.0, hours, 4.0)
