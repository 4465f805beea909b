"""All-reduces of two processes into the two numbers of `perf.sockets`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from twofold.calibrate.rows import Row
from twofold.perf.sockets import SocketPath


def fit_socket_path(rows: Sequence[Row]) -> SocketPath:
    """Two ranks exchange twice, each sending V bytes in all: T = 2 l + V / B, both positive.

    Relative errors count alike, so that the short messages have their say beside the long ones.
    """
    from scipy.optimize import nnls  # type: ignore[attr-defined]

    times_s = np.array([row["time_s"] for row in rows], dtype=float)
    sizes = np.array([row["bytes"] for row in rows], dtype=float)
    largest = sizes.max()
    terms = np.column_stack((np.full(len(rows), 2.0), sizes / largest)) / times_s[:, None]
    (message_s, largest_s), _ = nnls(terms, np.ones(len(rows)))
    return SocketPath(
        message_s=float(message_s), bytes_per_s=float(largest / max(float(largest_s), 1e-9))
    )
