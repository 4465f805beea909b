"""Small catalog files that tests write."""

from __future__ import annotations

from pathlib import Path

H100_OVERLAY = """
id = "h100-sxm"
[figures]
flop_per_s.bf16 = {{ value = {value}, basis = "{basis}", source = "a test", date = "2026-11-01" }}
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_h100(folder: Path, *, value: str = "8e14", basis: str = "measured") -> Path:
    return write(
        folder / "accelerators" / "mine.toml", H100_OVERLAY.format(value=value, basis=basis)
    )
