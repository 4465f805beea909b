"""A text to train on, a cache of our own, and no run left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.launch.training import STARTED


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """A test that fails leaves no run behind."""
    yield
    for process in STARTED:
        process.kill()
        if process.stdout is not None and not process.stdout.closed:
            process.communicate()
    STARTED.clear()


@pytest.fixture(autouse=True, scope="package")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The prepared text of tests is no business of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWOFOLD_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("text")
    for index in range(200):
        lines = [f"def f{index}_{i}(x): return x * {i} + {index}" for i in range(60)]
        (folder / f"{index}.py").write_text("\n".join(lines))
    return str(folder)
