"""Money: what machines cost by the hour, rented or owned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Column = Array | float

HOURS_PER_YEAR = 8760.0
SECONDS_PER_HOUR = 3600.0


def rent_usd(usd_per_node_hour: Column, num_nodes: Column, wall_s: Column) -> Array:
    """C = price x nodes x hours. Wall time, failures and start-up included: rent runs on.

    Power, cooling and people are in the price; storage and traffic out are not. Price lists for
    the same part differ by a factor of five, so the price's place and date belong beside C.
    """
    return np.asarray(usd_per_node_hour * num_nodes * wall_s / SECONDS_PER_HOUR)


def annuity_fraction(interest_fraction: Column, years: Column) -> Array:
    """a = r / (1 - (1 + r)^-n): the yearly payment that repays 1 in n years at interest r.

    The standard annuity; 1 / n at no interest.
    """
    r = np.maximum(np.asarray(interest_fraction, dtype=np.float64), 1e-12)
    return np.asarray(r / -np.expm1(-np.asarray(years) * np.log1p(r)))


def own_usd_per_device_hour(
    *,
    capex_usd: Column,
    years: Column,
    interest_fraction: Column,
    utilisation_fraction: Column,
    opex_usd_per_year: Column,
    power_w: Column,
    pue: Column,
    usd_per_kwh: Column,
) -> Array:
    """c = (capex a(r, n) + opex) / (8760 u) + kW PUE tariff, per device and hour of use.

    The formula of InferenceX's cost constants (SemiAnalysisAI/InferenceX), with `power_w` the
    device's and its share of the node at the socket. `utilisation_fraction` is the share of
    hours in which somebody uses the device: idle hours are paid by the used ones, but their
    idle power is left out, so c is low by that where u is small.
    """
    fixed_usd = capex_usd * annuity_fraction(interest_fraction, years) + opex_usd_per_year
    energy_usd = power_w * pue * usd_per_kwh / 1e3
    return np.asarray(fixed_usd / (HOURS_PER_YEAR * utilisation_fraction) + energy_usd)


def own_usd(usd_per_device_hour: Column, num_devices: Column, wall_s: Column) -> Array:
    """C = c x devices x hours, with c of `own_usd_per_device_hour`."""
    return np.asarray(usd_per_device_hour * num_devices * wall_s / SECONDS_PER_HOUR)


def break_even_utilisation(
    *,
    rent_usd_per_device_hour: Column,
    capex_usd: Column,
    years: Column,
    interest_fraction: Column,
    opex_usd_per_year: Column,
    power_w: Column,
    pue: Column,
    usd_per_kwh: Column,
) -> Array:
    """u* = (capex a + opex) / (8760 (rent - kW PUE tariff)): used more than that, owning is
    cheaper. Above 1 it never is; infinite where the rent does not even pay the power."""
    margin_usd = np.asarray(rent_usd_per_device_hour - power_w * pue * usd_per_kwh / 1e3)
    fixed_usd = capex_usd * annuity_fraction(interest_fraction, years) + opex_usd_per_year
    pays = margin_usd > 0
    return np.where(pays, fixed_usd / (HOURS_PER_YEAR * np.where(pays, margin_usd, 1.0)), np.inf)
