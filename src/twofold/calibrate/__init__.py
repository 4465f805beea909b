"""Measured rows into a fleet with curves, kept as an overlay that a person can edit."""

from twofold.calibrate.build import calibrate_from_rows
from twofold.calibrate.checks import find_implausible
from twofold.calibrate.overlay import Overlay, default_overlay_path, read_overlay, write_overlay
from twofold.calibrate.rows import read_rows

__all__ = [
    "Overlay",
    "calibrate_from_rows",
    "default_overlay_path",
    "find_implausible",
    "read_overlay",
    "read_rows",
    "write_overlay",
]
