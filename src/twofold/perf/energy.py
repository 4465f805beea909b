"""Energy from a power range: modelled, so never proof of a saving."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twofold.fleet import Accelerator

Array = NDArray[np.float64]


def modelled_energy_j(accelerator: Accelerator, threads: Array, busy_s: Array) -> Array | None:
    """E = (P_idle + u (P_max - P_idle)) t, with u the share of threads kept busy.

    The linear model of the Cloud Carbon Footprint coefficients; estimators of this kind differ
    by 2x at best and 10x at worst. None where the accelerator's power is not known.
    """
    if accelerator.power_idle_w is None or accelerator.power_max_w is None:
        return None
    share = np.minimum(1.0, threads / accelerator.threads)
    idle_w, max_w = accelerator.power_idle_w.value, accelerator.power_max_w.value
    power_w: Array = idle_w + share * (max_w - idle_w)
    return power_w * busy_s
