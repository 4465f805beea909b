"""Files that grow: every row once, also where a resumed run trims them."""

import json
from pathlib import Path

from twofold.launch.rows import Follower
from twofold.runtime.train.metrics import MetricsFile


def steps(follower: Follower) -> list[tuple[int, str]]:
    return [(row["step"], row["of"]) for row in follower.rows()]


def test_rows_come_once_and_a_torn_line_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    follower = Follower(path)
    assert follower.rows() == []
    with path.open("w") as stream:
        stream.write('{"step": 1}\n{"st')
        stream.flush()
        assert follower.rows() == [{"step": 1}]
        stream.write('ep": 2}\n')
        stream.flush()
        assert follower.rows() == [{"step": 2}]
    assert follower.rows() == []


def test_what_stood_there_before_is_not_news(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n')
    assert Follower(path).rows() == []


def test_rows_written_after_a_trim_are_not_lost_whatever_the_length(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with MetricsFile(path, keep_steps=0) as metrics:
        for step in range(1, 5):
            metrics.write({"step": step, "of": "first"})
    follower = Follower(path)
    with MetricsFile(path, keep_steps=2) as metrics:
        for step in range(3, 9):
            metrics.write({"step": step, "of": "second"})
    assert steps(follower) == [(step, "second") for step in range(3, 9)]
    lost = [json.loads(line) for line in (tmp_path / "rows.lost.jsonl").read_text().splitlines()]
    assert [row["step"] for row in lost] == [3, 4]
