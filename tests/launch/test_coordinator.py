"""Several machines, played by agents on this one: joining, losing one, losing the head."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.launch.stand_in import (
    curve,
    events,
    expected_curve,
    free_port,
    processes_of,
    read_lines,
    wait_for,
)
from twofold.launch.wire import make_token

pytestmark = pytest.mark.slow

Process = subprocess.Popen[str]
WAIT_S = 240
"""Long: it only ends a test that fails, and machines of CI are shared."""


def agent(index: int, port: int, *, hosts: int = 3) -> Process:
    words = ["run", "any.json", "--hosts", str(hosts), "--host-index", str(index)]
    words += ["--head", f"127.0.0.1:{port}", "--join-within", "120s"]
    return start("-m", "twofold.cli", *words)


def start(*arguments: str) -> Process:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def run_on_three(folder: Path, *options: str) -> Iterator[tuple[Process, Process, Process, int]]:
    """(head, agent 1, agent 2, port): the agents may come before the head."""
    port = free_port()
    agents = agent(1, port), agent(2, port)
    head = start("-m", "tests.launch.head", str(folder), str(port), "3", *options)
    try:
        yield head, *agents, port
    finally:
        for process in (head, *agents):
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.communicate()
        wait_for(lambda: not processes_of(folder), 5)


def test_a_lost_machine_is_left_out_and_the_data_order_is_kept(tmp_path: Path) -> None:
    with run_on_three(tmp_path, "--steps", "60") as (head, first, second, _):
        wait_for(lambda: len(curve(tmp_path)) >= 12)
        second.kill()
        assert head.wait(timeout=WAIT_S) == 0
        assert first.wait(timeout=WAIT_S) == 0
    assert curve(tmp_path) == expected_curve(60)
    assert {"hosts_lost", "shrunk"} <= set(events(tmp_path))
    worlds = [row["num_ranks"] for row in read_lines(tmp_path / "events.jsonl") if
              row["event"] == "attempt_start"]  # fmt: skip
    assert worlds == [3, 2]


def test_a_silent_machine_is_lost_and_stops_its_own_ranks(tmp_path: Path) -> None:
    with run_on_three(tmp_path, "--steps", "250") as (head, _, second, _):
        wait_for(lambda: len(curve(tmp_path)) >= 3)
        second.send_signal(signal.SIGSTOP)
        wait_for(lambda: "shrunk" in events(tmp_path))
        second.send_signal(signal.SIGCONT)
        assert second.wait(timeout=WAIT_S) == 3
        assert head.wait(timeout=WAIT_S) == 0
    assert curve(tmp_path) == expected_curve(250)


def test_without_its_head_every_machine_stops_and_the_run_can_be_resumed(tmp_path: Path) -> None:
    with run_on_three(tmp_path, "--steps", "50") as (head, first, second, _):
        wait_for(lambda: len(curve(tmp_path)) >= 12)
        head.kill()
        for process in (first, second):
            assert process.wait(timeout=WAIT_S) == 3
            assert "the head of the run is gone" in process.stderr.read()  # type: ignore[union-attr]
        wait_for(lambda: not processes_of(tmp_path), 5)
    with run_on_three(tmp_path, "--steps", "50") as (head, _, _, _):
        assert head.wait(timeout=WAIT_S) == 0
    assert curve(tmp_path) == expected_curve(50)


@pytest.mark.parametrize("asked", [(1,), (0, 1, 2)], ids=["one machine", "each, as Slurm does"])
def test_asked_to_stop_on_any_machine_all_save_and_stop(
    tmp_path: Path, asked: tuple[int, ...]
) -> None:
    options = ("--steps", "100000", "--checkpoint-every", "100000")
    with run_on_three(tmp_path, *options) as (*hosts, _):
        wait_for(lambda: len(curve(tmp_path)) >= 3)
        for index in asked:
            hosts[index].send_signal(signal.SIGTERM)
        assert [host.wait(timeout=WAIT_S) for host in hosts] == [130, 130, 130]
    assert events(tmp_path)[-1] == "interrupted"
    saved = [path.name for path in (tmp_path / "checkpoints").glob("step-*")]
    assert saved == [f"step-{curve(tmp_path)[-1][0]:08d}"]


def test_strangers_and_doubles_are_turned_away(tmp_path: Path) -> None:
    port = free_port()
    first = agent(1, port, hosts=3)
    head = start("-m", "tests.launch.head", str(tmp_path), str(port), "3")
    try:
        wait_for(lambda: (tmp_path / ".token").exists())
        assert (tmp_path / ".token").stat().st_mode & 0o777 == 0o600
        for garbage in (b'{"kind": "hello", "host": "x"}\n', b"GET / HTTP/1.1\r\n\r\n[1]\n{}\n"):
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.settimeout(10)
                stranger.sendall(garbage)
                assert stranger.recv(65536) == b""
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.settimeout(10)
            hello = {"kind": "hello", "host": 2, "name": "x", "nonce": "1"}
            stranger.sendall(json.dumps(hello).encode() + b"\n")
            assert b"welcome" in stranger.recv(65536)
            stranger.sendall(json.dumps({"kind": "proof", "proof": "0" * 64}).encode() + b"\n")
            assert stranger.recv(65536) == b""
        assert "joined" in head.stderr.readline() + head.stderr.readline()  # type: ignore[union-attr]
        double = agent(1, port)
        assert double.wait(timeout=WAIT_S) == 2
        assert "host 1 already" in double.communicate()[1]
        head.send_signal(signal.SIGINT)
        assert head.wait(timeout=WAIT_S) == 130
        assert first.wait(timeout=WAIT_S) == 130
    finally:
        for process in (first, head):
            process.kill()
            process.communicate()


def test_a_head_that_does_not_know_the_secret_is_not_obeyed(tmp_path: Path) -> None:
    """Whoever answers at the port cannot make a machine run anything."""
    make_token(tmp_path)
    port = free_port()
    victim = agent(1, port)
    with socket.create_server(("127.0.0.1", port)) as listener:
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            welcome = {"kind": "welcome", "folder": str(tmp_path), "proof": "0" * 64}
            welcome |= {"nonce": "1", "lost_after_s": 9.0}
            peer.sendall(json.dumps(welcome).encode() + b"\n")
            assert victim.wait(timeout=WAIT_S) == 3
    assert "not the head" in victim.communicate()[1]


def test_machines_that_do_not_share_the_folder_are_told(tmp_path: Path) -> None:
    port = free_port()
    lost = agent(1, port)
    with socket.create_server(("127.0.0.1", port)) as listener:
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            welcome = {"kind": "welcome", "folder": str(tmp_path / "absent"), "proof": "0"}
            welcome |= {"nonce": "1", "lost_after_s": 9.0}
            peer.sendall(json.dumps(welcome).encode() + b"\n")
            assert lost.wait(timeout=WAIT_S) == 3
    error = lost.communicate()[1]
    assert "does not see the run folder" in error
    assert "filesystem that all machines share" in error


def test_an_absent_machine_is_named(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from twofold.launch.coordinator import Coordinator\n"
        "from twofold.launch.interruption import Interruption\n"
        f"team = Coordinator('127.0.0.1', {free_port()}, Path({str(tmp_path)!r}), num_hosts=2,\n"
        "    own=None, lost_after_s=3.0, note=print)\n"
        "team.gather(0.3, Interruption())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "host 0, 1 of 2 did not join within" in done.stderr
