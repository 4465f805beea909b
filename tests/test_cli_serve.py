"""`twofold serve` as a person types it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.test_serving import document
from tests.test_cli import twofold
from twofold.serving_document import write_serving_plan


def test_a_plan_for_a_fleet_becomes_vllms_command(tmp_path: Path) -> None:
    write_serving_plan(document(tensor_degree=4), tmp_path / "serve.json")
    done = twofold("serve", "serve.json", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("vllm serve meta-llama/Llama-3.3-70B \\\n")
    said = json.loads(twofold("serve", "serve.json", "--json", folder=tmp_path).stdout)
    assert {"words": "--tensor-parallel-size 4", "comes_from": "tensor_degree"} in said["flags"]


def test_what_cannot_be_expressed_is_refused(tmp_path: Path) -> None:
    write_serving_plan(document(batching="static"), tmp_path / "serve.json")
    done = twofold("serve", "serve.json", folder=tmp_path)
    assert done.returncode == 2
    assert "at: plan, batching" in done.stderr


@pytest.mark.slow
def test_a_plan_for_this_machine_is_served_until_ctrl_c(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    httpx = pytest.importorskip("httpx")
    from tests.runtime.serve.documents import serving_document

    write_serving_plan(serving_document(), tmp_path / "serve.json")
    process = subprocess.Popen(
        [sys.executable, "-m", "twofold.cli", "serve", "serve.json", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first, command = process.stdout.readline(), process.stdout.readline()
        assert first.startswith("serving 'bytes' at http://127.0.0.1:")
        url = first.split()[3]
        body = {"prompt": "Hello", "max_tokens": 3}
        assert httpx.post(url + "/completions", json=body, timeout=30).status_code == 200
        assert command.startswith(f"next: curl {url}/completions ")
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
        assert process.returncode == 130
        assert messages == ""
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_an_error_of_the_server_reads_like_any_other(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.runtime.serve.documents import serving_document

    write_serving_plan(serving_document(compile=True), tmp_path / "serve.json")
    done = twofold("serve", "serve.json", "--port", "0", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: the embedded engine does not compile its network",
        "   at: plan, compile",
        " help: plan with compile off",
    ]
