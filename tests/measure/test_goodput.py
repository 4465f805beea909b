"""The goodput ledger adds up, and agrees with what the rows say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from twofold.errors import JobFailed
from twofold.measure.goodput import read_goodput
from twofold.report.trace import trace_events, write_trace


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def step(number: int, ended_at: float) -> dict[str, Any]:
    return {
        "event": "step", "step": number, "step_time_s": 1.0, "data_s": 0.1, "ended_at": ended_at,
    }  # fmt: skip


def checkpoint(number: int, ended_at: float) -> dict[str, Any]:
    return {"event": "checkpoint", "step": number, "stall_s": 0.5, "ended_at": ended_at}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Starts at 100 and trains from 105; saved after step 2; dies at 109.5 in step 4, whose
    successor starts at 110.5, trains from 114 and ends at 117."""
    write(
        tmp_path / "events.jsonl",
        [
            {"time": 100.0, "event": "run_start", "attempt": 0},
            {"time": 100.0, "event": "attempt_start", "attempt": 0},
            {"time": 109.0, "event": "rank_died", "attempt": 0, "rank": 1},
            {"time": 110.5, "event": "attempt_start", "attempt": 1},
            {"time": 117.0, "event": "finished", "attempt": 1},
        ],
    )
    write(
        tmp_path / "metrics.jsonl",
        [step(1, 106.0), step(2, 107.0), checkpoint(2, 107.5), step(3, 115.0), step(4, 116.0)],
    )
    write(tmp_path / "metrics.lost.jsonl", [step(3, 108.5)])
    return tmp_path


def test_parts_add_up_to_the_wall_time(folder: Path) -> None:
    goodput = read_goodput(folder)
    assert goodput.wall_s == 17.0
    assert sum(goodput.parts_s.values()) == pytest.approx(goodput.wall_s)
    assert goodput.init_s == pytest.approx(5.0)
    assert goodput.compute_s == pytest.approx(4 * 0.9)
    assert goodput.data_stall_s == pytest.approx(0.4)
    assert goodput.checkpoint_s == pytest.approx(0.5)
    assert goodput.lost_s == pytest.approx(1.0 + 0.5)
    assert goodput.restart_s == pytest.approx(1.5 + 3.5)
    assert goodput.other_s == pytest.approx(1.0)
    assert goodput.failures == 1
    assert goodput.fraction == pytest.approx(3.6 / 17)
    assert 0 < goodput.predicted_fraction() < 1


def test_time_between_a_stop_and_its_resumption_is_nobody_s(folder: Path) -> None:
    before = read_goodput(folder)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    events[2] = {"time": 109.0, "event": "interrupted", "attempt": 0}
    events[3]["time"] += 3600.0
    events[4]["time"] += 3600.0
    write(folder / "events.jsonl", events)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows[3:]:
        row["ended_at"] += 3600.0
    write(folder / "metrics.jsonl", rows)
    after = read_goodput(folder)
    assert after.failures == 0
    assert after.wall_s == pytest.approx(before.wall_s - 1.5)
    assert sum(after.parts_s.values()) == pytest.approx(after.wall_s)
    assert all(seconds >= 0 for seconds in after.parts_s.values())


def test_an_attempt_nobody_saw_end_ends_with_its_last_row(folder: Path) -> None:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    del events[2]
    write(folder / "events.jsonl", events)
    goodput = read_goodput(folder)
    assert goodput.wall_s == pytest.approx(8.5 + 6.5)
    assert goodput.failures == 0


def test_a_run_under_way_has_no_ledger_yet(folder: Path) -> None:
    rows = (folder / "events.jsonl").read_text().splitlines()
    (folder / "events.jsonl").write_text("\n".join(rows[:-1]) + "\n")
    with pytest.raises(JobFailed, match="has not ended"):
        read_goodput(folder)


def test_one_trace_of_all_ranks(folder: Path) -> None:
    for rank in (0, 1):
        row = {
            "step": 1, "began_at": 105.0 + rank / 100, "compute_s": 0.7, "wait_s": 0.2,
            "sequences": 3,
        }  # fmt: skip
        write(folder / "ranks" / f"rank-{rank:05d}.jsonl", [row])
    spans = trace_events(folder)
    assert {span["pid"] for span in spans} == {0, 1}
    complete = [span for span in spans if span["ph"] == "X"]
    assert [span["name"] for span in complete].count("compute 1") == 2
    assert any(span["name"] == "rank_died" for span in spans)
    assert min(span["ts"] for span in spans if span["ph"] != "M") == 0
    assert write_trace(folder, folder / "trace.json") == len(spans)
    assert json.loads((folder / "trace.json").read_text())["traceEvents"] == spans
