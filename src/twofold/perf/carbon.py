"""Carbon and water of a run: Software Carbon Intensity (SCI) v1.1, ISO/IEC 21031:2024.

SCI = (E I + M) per functional unit: operational and embodied carbon, no offsets. Hardware that
is reserved counts, used or not. I is location-based; a figure's source says whether it is an
average of generation or of consumption, and whether of the life cycle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Column = Array | float

JOULES_PER_KWH = 3.6e6
LIFE_YEARS = 5.0
"""Middle of the 4 to 6 years over which server hardware is written off."""
_HOURS_PER_YEAR = 8760.0


def operational_kgco2e(it_energy_j: Column, pue: Column, grid_kgco2e_per_kwh: Column) -> Array:
    """O = E_IT PUE I.

    `it_energy_j` is what the machines draw; with energy at the facility's meter, as
    `energy.step_energy_j` gives it, `pue` is 1.
    """
    return np.asarray(it_energy_j / JOULES_PER_KWH * pue * grid_kgco2e_per_kwh)


def embodied_kgco2e(
    manufactured_kgco2e: Column, reserved_hours: Column, life_years: Column = LIFE_YEARS
) -> Array:
    """M = TE TiR / EL: the share of making the hardware that falls to the hours reserved.

    `manufactured_kgco2e` is the sum over the devices and nodes that are reserved (all of each:
    RR / ToR = 1). Sources for one part differ by a factor of two.
    """
    return np.asarray(manufactured_kgco2e * reserved_hours / (life_years * _HOURS_PER_YEAR))


def water_l(
    it_energy_j: Column,
    pue: Column,
    on_site_l_per_kwh: Column,
    generation_l_per_kwh: Column = 0.0,
) -> Array:
    """W = E_IT (WUE + PUE w): evaporated on site per IT energy (ISO/IEC 30134-9), and where the
    electricity is made per facility energy (w of the grid, often ten times the former)."""
    return np.asarray(
        it_energy_j / JOULES_PER_KWH * (on_site_l_per_kwh + pue * generation_l_per_kwh)
    )
