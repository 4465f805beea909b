"""Evidence: samples as measured, the figures that follow from them, and the check that they do."""

from twofold.evidence.check import check
from twofold.evidence.derive import derive, derive_noise_floor
from twofold.evidence.files import SCHEMA_VERSION, predictions_hash, read_evidence, write_evidence
from twofold.evidence.quality import at_parity, non_inferior
from twofold.evidence.roof import roof_violations
from twofold.evidence.statistics import paired_ratio, pairs_needed, spreads_too_widely

__all__ = [
    "SCHEMA_VERSION",
    "at_parity",
    "check",
    "derive",
    "derive_noise_floor",
    "non_inferior",
    "paired_ratio",
    "pairs_needed",
    "predictions_hash",
    "read_evidence",
    "roof_violations",
    "spreads_too_widely",
    "write_evidence",
]
