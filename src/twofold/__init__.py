"""Twofold: plan, run and prove AI training on the machines you have."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "EnvironmentLack": "errors",
    "Estimate": "outcome",
    "Evidence": "evidence.records",
    "Figure": "figure",
    "Fleet": "fleet",
    "InputError": "errors",
    "JobFailed": "errors",
    "Measurement": "outcome",
    "Model": "model",
    "NegativeAnswer": "errors",
    "Outcome": "outcome",
    "Plan": "plan",
    "PlanDocument": "document",
    "Recipe": "workload",
    "Train": "workload",
    "TwofoldError": "errors",
    "check": "evidence",
    "estimate": "perf.train",
    "prepare_corpus": "workload",
    "read_evidence": "evidence",
    "read_plan": "document",
    "shortlist": "search",
    "write_plan": "document",
    "write_report": "report",
}
"""Where each public name lives; it is imported when first used, so that start-up stays light."""

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'twofold' has no attribute '{name}'")
    return getattr(import_module(f"twofold.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
