"""Colours in light and dark, and which arm wears which.

Derived from the eight colours of Okabe and Ito, told apart by colour-blind readers, with their
two palest darkened for white paper. Every arm has a shape as well: colour is never alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from twofold.evidence.records import Evidence
from twofold.report.figures.frame import SHAPES, Shape

TOKENS: dict[str, tuple[str, str]] = {
    "paper": ("#fdfdfc", "#14171a"),
    "raised": ("#f4f5f5", "#1d2125"),
    "ink": ("#1b2025", "#e7eaed"),
    "muted": ("#59626b", "#a2abb4"),
    "line": ("#c9ced3", "#434a52"),
    "grid": ("#e7eaec", "#272c31"),
    "accent": ("#005f99", "#62b5ee"),
    "good": ("#00684b", "#4fd3a7"),
    "bad": ("#a83f00", "#ff9a62"),
    "unsure": ("#6b5300", "#e5c04d"),
    "banner": ("#ffe9b8", "#4a3a0c"),
    "arm-0": ("#717a83", "#9aa3ac"),
    "arm-1": ("#0072b2", "#4fa9e6"),
    "arm-2": ("#d55e00", "#ef8545"),
    "arm-3": ("#00845f", "#2fc59a"),
    "arm-4": ("#b4568b", "#e29ac4"),
    "arm-5": ("#a87000", "#e6b137"),
    "arm-6": ("#4b5bb5", "#9aa8f5"),
    "part-0": ("#9ec3dd", "#2f5f80"),
    "part-1": ("#e9c59b", "#7c5526"),
    "part-2": ("#a9d5c4", "#2c6a56"),
    "part-3": ("#dfb7cf", "#764661"),
    "part-4": ("#cfd3a0", "#5f6429"),
    "part-5": ("#c0c5e6", "#464f83"),
    "part-6": ("#d3d6d9", "#50575e"),
    "heat-0": ("#fdfdfc", "#14171a"),
    "heat-1": ("#e8f1f7", "#16242f"),
    "heat-2": ("#d0e4f1", "#173246"),
    "heat-3": ("#b4d4e9", "#17425f"),
    "heat-4": ("#94c2df", "#15527a"),
}
"""Name -> (light, dark)."""

NUM_ARM_COLOURS = sum(name.startswith("arm-") for name in TOKENS)
NUM_PART_COLOURS = sum(name.startswith("part-") for name in TOKENS)
NUM_HEATS = sum(name.startswith("heat-") for name in TOKENS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How each arm is drawn, the same in every figure. Slot 0, grey, is the naive baseline."""

    slots: dict[str, int]

    def colour(self, arm: str) -> str:
        return f"arm-{self.slots.get(arm, 0) % NUM_ARM_COLOURS}"

    def shape(self, arm: str) -> Shape:
        slot = self.slots.get(arm, 0)
        # When the colours come round again, they meet the next shape.
        return SHAPES[(slot + slot // NUM_ARM_COLOURS) % len(SHAPES)]


def look_of(evidence: Evidence) -> Look:
    """The claimed arm is blue, the naive baseline grey; the others follow in their order."""
    same_loss = [comparison for comparison in evidence.comparisons if comparison[0] == "same loss"]
    first = [(baseline, arm) for _, arm, baseline in (*same_loss, *evidence.comparisons)][:1]
    names = [*(name for pair in first for name in pair), *(arm.name for arm in evidence.arms)]
    return Look(slots={name: slot for slot, name in enumerate(dict.fromkeys(names))})


def css_variables() -> str:
    """The custom properties of both themes: the system's choice, unless the reader chose."""
    light = _block(0)
    dark = _block(1)
    return (
        f":root{{color-scheme:light;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light])"
        f"{{color-scheme:dark;{dark}}}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"
        f"@media print{{:root:root:root{{color-scheme:light;{light}}}}}"
    )


def _block(theme: int) -> str:
    return "".join(f"--{name}:{colours[theme]};" for name, colours in TOKENS.items())


def css_classes() -> str:
    """`.arm-1`, `.part-1` and `.heat-1` set the colour a mark is drawn with."""
    names = [name for name in TOKENS if name.partition("-")[0] in ("arm", "part", "heat")]
    return "".join(f".{name}{{--c:var(--{name})}}" for name in names)
