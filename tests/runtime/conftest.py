"""A text to train on, and a cache of prepared text apart from the user's."""

from __future__ import annotations

import os
from typing import Any

import pytest


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("text")
    for index in range(300):
        lines = [f"def f{index}_{i}(x): return x * {i} + {index}" for i in range(60)]
        (folder / f"{index}.py").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    before = os.environ.get("TWOFOLD_HOME")
    os.environ["TWOFOLD_HOME"] = str(tmp_path_factory.mktemp("home"))
    yield
    if before is None:
        del os.environ["TWOFOLD_HOME"]
    else:
        os.environ["TWOFOLD_HOME"] = before
