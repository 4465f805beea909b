"""How often hardware fails and spot machines are taken back, where somebody published it."""

from __future__ import annotations

from twofold.catalog import layers
from twofold.catalog.form import check_schema, read_figure, read_table
from twofold.figure import Figure


def typical_failure_rate() -> Figure:
    """Failures per accelerator-hour that stop a job, of large fleets of data-centre GPUs.

    Assumed for a device of which nothing is known; an `Accelerator` never gets it silently.
    """
    content = layers.read_toml(layers.PACKAGED / "reliability.toml")
    return read_figure(
        content["typical"]["failures_per_hour"],
        unit="1/h",
        at="twofold/catalog/reliability.toml, typical",
        sources=content.get("sources", {}),
    )


def observed_failure_rates() -> dict[str, Figure]:
    """What fleets have published, by fleet: failures per accelerator-hour."""
    content = layers.read_toml(layers.PACKAGED / "reliability.toml")
    return {
        str(row["fleet"]): read_figure(
            row["failures_per_hour"],
            unit="1/h",
            at=f"twofold/catalog/reliability.toml, {row['fleet']}",
            sources=content.get("sources", {}),
        )
        for row in content.get("observed", [])
    }


def preemption_rate(machine: str) -> Figure | None:
    """Preemptions per hour of a spot machine, or None: no provider publishes one that holds for
    a machine type, so it comes from `[preemptions_per_hour]` of a user's file in prices/."""
    found: Figure | None = None
    for origin, _, content in layers.documents("prices"):
        check_schema(content, origin)
        rates = read_table(content, "preemptions_per_hour", origin)
        if machine in rates:
            at = f"{origin}, preemptions_per_hour.{machine}"
            found = read_figure(rates[machine], unit="1/h", at=at)
    return found
