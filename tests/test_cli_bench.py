"""`twofold bench` as a person types it: exit codes, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from tests.measure.load.small_server import SmallServer, serving_beside
from twofold.cli.entry import _main

TINY = ["--serve", "tiny", "--rate", "100", "--requests", "20", "--warmup", "0"]


@pytest.mark.parametrize("rate", ["inf", "0", "-3", "nan"])
def test_a_rate_that_is_none_is_refused_where_it_was_given(
    rate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(["bench", "http://127.0.0.1:9", "--rate", rate]) == 2
    assert "at: --rate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--users", "0"), ("--requests", "0"), ("--warmup", "-1"), ("--seed", "-1")],
)
def test_counts_that_cannot_be_are_refused_where_they_were_given(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(["bench", "http://127.0.0.1:9", option, value]) == 2
    assert f"at: {option}" in capsys.readouterr().err


def test_the_exit_code_says_whether_the_targets_were_reached(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving_beside(SmallServer(step_s=0.001, slots=64)) as url:
        assert _main(["bench", url, *TINY, "--ttft", "30s", "--tpot", "30s"]) == 0
        assert "(reached: 90% were to)" in capsys.readouterr().out
        assert _main(["bench", url, *TINY, "--ttft", "0.001ms"]) == 1
        assert "(NOT reached: 90% were to)" in capsys.readouterr().out


def test_a_request_that_fails_is_said_and_ends_it_with_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = SmallServer(step_s=0.001, slots=64, fail_every=20)
    with serving_beside(small) as url:
        assert _main(["bench", url, *TINY, "--ttft", "30s", "--tpot", "30s"]) == 1
    said = capsys.readouterr().out
    assert "FAILED: 1 of 20 requests: HTTP 429" in said
    assert "19 of 20 judged requests were answered" in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_while_the_server_says_nothing(number: int, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "twofold.cli", "bench", url],
            cwd=tmp_path,
            env=os.environ | {"TWOFOLD_HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = listener.accept()
        with connection:
            connection.recv(1)
            process.send_signal(number)
            _, messages = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted before a request was answered" in messages


def test_json_has_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with serving_beside(SmallServer(step_s=0.001, slots=64, fail_every=20)) as url:
        assert _main(["bench", url, *TINY, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert sum(said["errors"].values()) == 1
