"""What a proof of serving does not say, in sentences that follow from how it was run."""

from __future__ import annotations

from twofold.evidence.serving.records import ServingEvidence
from twofold.evidence.serving.tails import percentile


def serving_threats(evidence: ServingEvidence) -> list[str]:
    host = evidence.environment.get("host", {})
    processor = host.get("cpu", {}).get("model", "unknown processor")
    found = [
        f"One machine ({processor}), one day: another processor or load gives other factors.",
        "The load is drawn (Poisson arrivals, log-normal lengths), and no trace of real users.",
        "The sender runs on the machine that it measures and takes a part of its cores.",
        f"Targets are multiples of what '{evidence.comparisons[0][1]}' takes for one user alone: "
        "with slower targets a baseline that batches loses less.",
    ]
    lags_s = [a.lag_s for s in evidence.stretches for a in s.judged]
    if lags_s:
        found.append(
            f"The sender was late by {1e3 * percentile(lags_s, 0.99):.1f} ms at the 99th "
            "percentile, which counts as latency of the server."
        )
    if any(arm.url is not None for arm in evidence.arms):
        found.append(
            "What serves behind a URL is known to whoever started it alone; where it runs on this "
            "machine, its work cannot be told from that of others, and a busy machine goes unseen."
        )
    if evidence.levers:
        found.append(
            "The levers between two arms were told apart in the first block only: their factors "
            "have no interval."
        )
    if evidence.energy_grade not in ("measured", "host-attributed"):
        found.append("No energy was measured; nothing is claimed about it.")
    if evidence.smoke:
        found.insert(0, "A smoke test: one block proves nothing.")
    found.append(
        "The content hashes find corruption, not forgery: whoever can write the file can hash it."
    )
    return found
