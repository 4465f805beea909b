from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.perf.cost import (
    annuity_fraction,
    break_even_utilisation,
    own_usd,
    own_usd_per_device_hour,
    rent_usd,
)

POWER = {"power_w": 1000.0, "pue": 1.2, "usd_per_kwh": 0.08}
H100 = {
    "capex_usd": 50e3,
    "years": 4.0,
    "interest_fraction": 0.08,
    "opex_usd_per_year": 1500.0,
    **POWER,
}


def test_rent_runs_on_wall_time() -> None:
    assert rent_usd(55.04, 128.0, 3600.0 * 24) == pytest.approx(55.04 * 128 * 24)


def test_an_annuity_repays_the_loan() -> None:
    left, payment = 1.0, float(annuity_fraction(0.08, 4.0))
    for _ in range(4):
        left = left * 1.08 - payment
    assert left == pytest.approx(0.0, abs=1e-12)
    assert annuity_fraction(0.0, 4.0) == pytest.approx(0.25)


def test_owning_an_h100_costs_what_is_published() -> None:
    """About 50 kUSD all-in; 1.30 to 1.69 USD an hour (InferenceX cost constants)."""
    price = float(own_usd_per_device_hour(utilisation_fraction=1.0, **H100))
    assert price == pytest.approx((50e3 * 0.3019 + 1500) / 8760 + 0.096, rel=1e-3)
    assert 1.3 < price < 2.2
    assert own_usd(price, 8.0, 7200.0) == pytest.approx(16 * price)


@settings(deadline=None)
@given(st.floats(0.05, 1.0), st.floats(0.0, 0.3), st.floats(0.0, 1.0))
def test_dearer_inputs_never_make_it_cheaper(use, interest, tariff) -> None:
    def price(**change: float) -> float:
        base = {**H100, "utilisation_fraction": use, "interest_fraction": interest}
        return float(own_usd_per_device_hour(**{**base, "usd_per_kwh": tariff, **change}))

    before = price()
    assert price(capex_usd=60e3) > before
    assert price(interest_fraction=interest + 0.01) >= before
    assert price(usd_per_kwh=tariff + 0.01) > before
    assert price(utilisation_fraction=use * 0.9) > before


def test_at_break_even_owning_costs_the_rent() -> None:
    use = float(break_even_utilisation(rent_usd_per_device_hour=3.0, **H100))
    assert 0.0 < use < 1.0
    assert own_usd_per_device_hour(utilisation_fraction=use, **H100) == pytest.approx(3.0)
    dear = {**H100, "usd_per_kwh": np.array([0.08, 10.0])}
    both = break_even_utilisation(rent_usd_per_device_hour=3.0, **dear)
    assert both[0] == pytest.approx(use)
    assert both[1] == np.inf
