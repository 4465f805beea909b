"""The report of a proof of serving: one HTML file that needs nothing but itself."""

from __future__ import annotations

from pathlib import Path

from twofold.document import write_text
from twofold.evidence.serving.records import ServingEvidence
from twofold.report import wording
from twofold.report.page import assemble, page_header
from twofold.report.serving import claim, findings, latency
from twofold.report.serving.reading import look_of_serving

_SECTIONS = (
    claim.render,
    latency.render_distributions,
    latency.render_load,
    findings.render_pareto,
    findings.render_causes,
    latency.render_timeline,
    findings.render_predictions,
    findings.render_quality,
    findings.render_conditions,
    findings.render_limits,
    findings.render_repeat,
)


def write_serving_report(evidence: ServingEvidence, path: Path) -> None:
    """Write the page, or replace it whole."""
    write_text(path, render_serving_page(evidence))


def render_serving_page(evidence: ServingEvidence) -> str:
    look = look_of_serving(evidence)
    judged = sum(len(s.judged) for s in evidence.stretches if s.block >= 0)
    facts = [
        wording.moment(evidence.created),
        f"Twofold {evidence.twofold_version}",
        f"{judged:,} requests judged",
        f"{wording.seconds(evidence.wall_s)} in all",
    ]
    return assemble(
        f"{evidence.name}{' (smoke test)' if evidence.smoke else ''} · Twofold",
        page_header(evidence.name, facts, over="Twofold proof of serving"),
        [render(evidence, look) for render in _SECTIONS],
        smoke=evidence.smoke,
    )
