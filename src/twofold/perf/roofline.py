"""The roofline: no operation is faster than its FLOP at the peak rate or its bytes at the peak
bandwidth (Williams, Waterman and Patterson 2009)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def roofline_s(
    flop: Array, size_bytes: Array, flop_per_s: float | Array, bytes_per_s: float | Array
) -> Array:
    """T = max(flop / flop_per_s, bytes / bytes_per_s): the least time, perfect overlap assumed.

    The bytes count every operand once from main memory; data that stays in caches between
    operations can beat the memory side, so only the FLOP side is a bound on a CPU.
    """
    return np.maximum(flop / flop_per_s, size_bytes / bytes_per_s)
