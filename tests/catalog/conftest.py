"""Every test sees the packaged catalog alone, whatever the user of the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("TWOFOLD_CATALOG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path
