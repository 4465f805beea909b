"""The house rules that a machine can hold: layers, sizes, start-up, names."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import twofold

SOURCE = Path(twofold.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_nobody_imports_the_runtime() -> None:
    offenders = [
        path
        for path in FILES
        if "runtime" not in path.relative_to(SOURCE).parts
        and any(name.startswith("twofold.runtime") for name in imports(path))
    ]
    assert offenders == []


def test_the_runtime_imports_only_what_it_may() -> None:
    allowed = (
        "runtime", "policy", "plan", "model", "workload", "outcome", "document", "host", "fleet",
        "figure", "units", "errors", "serving_document", "serving_plan",
    )  # fmt: skip
    for path in (SOURCE / "runtime").rglob("*.py"):
        for name in imports(path):
            if name.startswith("twofold."):
                assert name.split(".")[1] in allowed, f"{path} imports {name}"


def test_only_runtime_and_sources_import_a_framework() -> None:
    frameworks = {"torch", "tensorflow", "jax", "keras"}
    offenders = [
        path
        for path in FILES
        if not {"runtime", "sources"} & set(path.relative_to(SOURCE).parts)
        and {name.split(".")[0] for name in imports(path)} & frameworks
    ]
    assert offenders == []


def test_no_file_is_too_long_and_none_is_called_utils() -> None:
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 500, path
        assert path.stem not in ("utils", "helpers", "misc", "common"), path


def test_public_names_are_sorted_and_exist() -> None:
    assert list(twofold.__all__) == sorted(twofold.__all__)
    for name in twofold.__all__:
        assert getattr(twofold, name) is not None


def test_help_starts_fast_and_without_heavy_imports() -> None:
    code = (
        "import json, resource, sys\n"
        "from twofold.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "usage = resource.getrusage(resource.RUSAGE_SELF)\n"
        "heavy = [m for m in ('torch', 'numpy', 'pydantic', 'scipy') if m in sys.modules]\n"
        "print(json.dumps({'cpu_s': usage.ru_utime + usage.ru_stime, 'heavy': heavy}), "
        "file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = json.loads(done.stderr.splitlines()[-1])
    assert said["heavy"] == []
    assert said["cpu_s"] < 2.0
