"""Keep freed memory in the process: a training step frees and asks for the same bytes again.

glibc gives the top of the heap back to the system when enough of it is free, which a step's end
does every time; the next step then faults every page in anew. Keeping it made whole steps of
small models 5 to 8 % faster here (benchmarks/train_single.py is the check). Results are the
same bits.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_NEVER = 2**31 - 1
_TOP_PAD_BYTES = 64 * 2**20
_MMAP_THRESHOLD_BYTES = 32 * 2**20
"""The largest that glibc accepts; bigger blocks come and go on their own."""


def keep_freed_memory() -> bool:
    """Tell glibc so; False where the C library is another one."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, _NEVER),
        (_M_TOP_PAD, _TOP_PAD_BYTES),
    )
    return all(mallopt(option, value) == 1 for option, value in settings)
