"""What a proof does not say, in sentences that follow from how it was run."""

from __future__ import annotations

from twofold.evidence.records import Evidence
from twofold.units import format_quantity


def threats(evidence: Evidence) -> list[str]:
    """The limits of this evidence, the general ones first."""
    host = evidence.environment.get("host", {})
    found = [
        f"One machine ({host.get('cpu', {}).get('model', 'unknown processor')}), one day: another "
        "processor, framework version or load gives other factors.",
        f"{evidence.planned_blocks} paired blocks: the interval covers the noise of this machine "
        "and of these seeds, not of other data or other models.",
    ]
    found += _of_models(evidence)
    if any(kind == "same loss" for kind, _, _ in evidence.comparisons) and evidence.tuning:
        found.append(
            "Same loss is not the same model: the arms share data and held-out loss, not weights, "
            "and nothing beyond loss (downstream tasks, robustness) was compared."
        )
        found.append(
            "Only learning rate and batch were tuned; other settings are each recipe's own "
            "defaults, and tuning them could help any arm."
        )
    if evidence.target_origin.endswith("(another Python version)"):
        found.append("The recipes were tuned on the text of another Python version.")
    found += _of_commands(evidence)
    if evidence.energy_grade not in ("measured", "host-attributed"):
        found.append("No energy was measured; nothing is claimed about it.")
    if evidence.smoke:
        found.insert(0, "A smoke test: runs are cut to an eighth and prove nothing.")
    found.append(
        "The content hashes find corruption, not forgery: whoever can write the file can hash it."
    )
    return found


def _of_commands(evidence: Evidence) -> list[str]:
    commands = [arm for arm in evidence.arms if arm.command is not None]
    if not commands:
        return []
    found = [
        "What a command computes is known to its author alone; Twofold read only the times and "
        "losses it reported."
    ]
    for arm in commands:
        runs = [s for s in evidence.samples if s.arm == arm.name]
        wall_s = sum(s.train_s + s.startup_s for s in runs)
        if wall_s > 0:
            share = sum(s.train_s for s in runs) / wall_s
            found.append(
                f"'{arm.name}' reported {share:.0%} of its wall time as its steps; the rest is "
                "start-up, warm-up steps and evaluation, shown as start-up."
            )
        if "{seed}" not in (arm.command or ""):
            found.append(f"'{arm.name}' takes no seed: its runs repeat one seed, not several.")
    return found


def _of_models(evidence: Evidence) -> list[str]:
    sizes = [arm.num_parameters for arm in evidence.arms if arm.num_parameters]
    tokens = [max(arm.lengths_tokens) for arm in evidence.arms if arm.num_parameters]
    if not sizes:
        return []
    return [
        f"Models of {format_quantity(max(sizes))} parameters, at most "
        f"{format_quantity(max(tokens))} tokens of training: gains of optimizer and architecture "
        "shrink with model size (published: 1.4x at 0.1B to 1.1x at 1.2B for Muon-class "
        "optimizers, arXiv 2509.02046)."
    ]
