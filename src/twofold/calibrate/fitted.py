"""The fitted efficiencies as the TOML file that ships beside the physics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from twofold.perf.serving_rates import ServingEfficiencies
from twofold.perf.speeds import Efficiencies

_HEAD = """\
# Reached over sold, by die and by fabric: fitted on published training runs by
# benchmarks/fit_physics.py (see docs/validation.md for what it is worth). Generated; do not edit.
# gemm fp8 fp4 attention memory: fractions of the datasheet's dense rate or bandwidth.
# call_s: overhead of one operator call. num_runs: published runs that speak for the numbers.
"""


def efficiencies_toml(fit: Efficiencies) -> str:
    """The whole fit, readable and stable: sorted tables, four digits."""
    sources = ", ".join(f'"{name}"' for name in fit.sources)
    parts = [
        _HEAD,
        f"sources = [{sources}]\n",
        _table("shared", asdict(fit.shared)),
        _table("spread", fit.spread),
    ]
    parts.append(_table("frameworks", dict(sorted(fit.frameworks.items()))))
    for name in ("dies", "vendors", "fabrics"):
        for key, value in sorted(getattr(fit, name).items()):
            parts.append(_table(f"{name}.{key}", asdict(value)))
    return "\n".join(parts)


_SERVING_HEAD = """\
# Reached over sold in serving, by die, fabric and engine: fitted on published runs by
# benchmarks/fit_serving.py (see docs/validation.md for what it is worth). Generated; do not edit.
# gemm fp8 fp4 attention memory: fractions of the datasheet's dense rate or bandwidth; call_s: one
# kernel beside its work. habits: of benchmarks, not of engines. num_curves: published load curves.
"""


def serving_efficiencies_toml(fit: ServingEfficiencies) -> str:
    """As `efficiencies_toml`."""
    sources = ", ".join(f'"{name}"' for name in fit.sources)
    parts = [
        _SERVING_HEAD,
        f"sources = [{sources}]\n",
        _table("shared", asdict(fit.shared)),
        _table("spread", fit.spread),
    ]
    for name in ("dies", "vendors", "fabrics", "engines", "habits"):
        for key, value in sorted(getattr(fit, name).items()):
            parts.append(_table(f"{name}.{key}", asdict(value)))
    return "\n".join(parts)


def _table(name: str, values: Mapping[str, object]) -> str:
    quoted = ".".join(
        f'"{part}"' if not part.replace("-", "").replace("_", "").isalnum() else part
        for part in name.split(".", 1)
    )
    lines = [f"[{quoted}]"]
    for key, value in values.items():
        place = key if key.isidentifier() else f'"{key}"'
        lines.append(f"{place} = {value if isinstance(value, int) else format(value, '.4g')}")
    return "\n".join(lines) + "\n"
