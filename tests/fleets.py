"""A machine made up for tests, with datasheet figures only."""

from __future__ import annotations

from twofold.figure import Figure
from twofold.fleet import Accelerator, Fleet, MemoryTier, Node, Pool


def figure(value: float, unit: str) -> Figure:
    return Figure(value=value, unit=unit, basis="assumed", source="test", date="2026-11-24")


def plain_fleet() -> Fleet:
    processor = Accelerator(
        name="test-cpu",
        kind="cpu",
        memory=MemoryTier(name="memory", usable_bytes=figure(8e9, "B")),
        flop_per_s={"fp32": figure(1e11, "FLOP/s")},
        threads=2,
    )
    return Fleet(
        name="test", pools=(Pool(name="local", node=Node(name="n", accelerator=processor)),)
    )
