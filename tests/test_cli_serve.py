"""`twofold serve` as a person types it."""

from __future__ import annotations

import json
import os
import shutil
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


def test_a_queue_of_less_than_nothing_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.runtime.serve.documents import serving_document

    write_serving_plan(serving_document(), tmp_path / "serve.json")
    done = twofold("serve", "serve.json", "--max-queue", "-1", folder=tmp_path)
    assert done.returncode == 2
    assert "at: --max-queue" in done.stderr


@pytest.mark.slow
def test_a_server_that_is_killed_is_told(tmp_path: Path) -> None:
    pytest.importorskip("torch")
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
        process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        _, messages = process.communicate(timeout=60)
        assert process.returncode == 3
        assert messages.startswith("error: the server was ended by SIGKILL")
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_models_folder_is_served_and_chats_by_its_own_template(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    httpx = pytest.importorskip("httpx")
    tokenizers = pytest.importorskip("tokenizers")
    golden = Path(__file__).parent / "runtime" / "serve" / "golden" / "llama"
    folder = tmp_path / "model"
    shutil.copytree(golden, folder)
    words = {f"w{index}": index for index in range(48)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}w3 {{ m.content }} {% endfor %}w4"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    process = subprocess.Popen(
        [sys.executable, "-m", "twofold.cli", "serve", str(folder), "--port", "0", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = json.loads("".join(iter(lambda: process.stdout.readline(), "}\n")) + "}")
        body = {"messages": [{"role": "user", "content": "w5 w6"}], "max_tokens": 3}
        answer = httpx.post(said["url"] + "/v1/chat/completions", json=body, timeout=30).json()
        assert answer["usage"]["prompt_tokens"] == 4
        assert answer["choices"][0]["message"]["role"] == "assistant"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.communicate()
