"""Reports: evidence as one self-contained page, answers as text."""

from typing import Any

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    # The page is only loaded by who writes one: texts are needed far more often.
    if name == "write_report":
        from twofold.report.page import write_report

        return write_report
    raise AttributeError(f"module 'twofold.report' has no attribute '{name}'")
