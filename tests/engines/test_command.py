"""A command as an arm: what it reports is read, what it does not report is an error."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from twofold.engines import Command, Run, command_job, read_command_run
from twofold.errors import InputError, JobFailed
from twofold.launch import run_job


def run(folder: Path, code: str, **options: Any) -> Run:
    script = folder / "script.py"
    script.write_text(code)
    command = Command(argv=f"{sys.executable} {script} {{seed}} {{folder}}", **options)
    job = command_job("mine", command, folder, seed=5)
    return read_command_run(command, job, run_job(job), seed=5)


def test_patterns_are_read_from_the_log(tmp_path: Path) -> None:
    code = (
        "for i in range(6): print(f'step {i}: loss {3 - i / 10:.2f}, time {1 + i / 100:.2f}ms')\n"
        "print('val loss 2.25')"
    )
    patterns = {
        "step_time_ms": r"time ([0-9.]+)ms",
        "loss": r"step \d+: loss ([0-9.]+)",
        "test_loss": r"val loss ([0-9.]+)",
    }
    found = run(tmp_path, code, patterns=patterns, tokens_per_step=1000, discard_steps=2)
    assert found.num_steps == 4
    assert found.tokens == 4000
    assert found.train_s == pytest.approx(0.00102 + 0.00103 + 0.00104 + 0.00105)
    assert found.test_loss == 2.25
    assert found.train_loss == 2.5


def test_fields_are_read_from_jsonl_and_the_seed_is_passed(tmp_path: Path) -> None:
    code = (
        "import json, sys\n"
        "with open(sys.argv[2] + '/m.jsonl', 'w') as f:\n"
        "    for i in range(4): f.write(json.dumps({'dt': 0.001, 'n': 10 * (i + 1)}) + '\\n')\n"
        "    f.write(json.dumps({'final': float(sys.argv[1])}) + '\\n')\n"
    )
    found = run(
        tmp_path,
        code,
        jsonl="{folder}/m.jsonl",
        fields={"step_time_s": "dt", "tokens": "n", "test_loss": "final"},
        discard_steps=1,
    )
    assert found.tokens == 30
    assert found.train_s == 0.003
    assert found.test_loss == 5.0


def test_train_time_alone_is_enough(tmp_path: Path) -> None:
    found = run(tmp_path, "print('took 0.0125 s')", patterns={"train_s": r"took ([0-9.]+) s"})
    assert found.train_s == 0.0125


def test_nothing_usable_is_an_error_that_shows_the_output(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="printed nothing usable") as caught:
        run(tmp_path, "print('hello')", patterns={"train_s": r"took ([0-9.]+) s"})
    assert "hello" in str(caught.value)


def test_failure_is_an_error_with_the_end_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="out of cheese"):
        run(tmp_path, "raise SystemExit('out of cheese')", patterns={"train_s": r"(\d+)"})


@pytest.mark.parametrize("time_s", ["900", "0.0", "nan", "inf"])
def test_a_time_that_cannot_be_is_refused(tmp_path: Path, time_s: str) -> None:
    with pytest.raises(JobFailed, match=r"ran for|not a positive number"):
        run(tmp_path, f"print('took {time_s} s')", patterns={"train_s": r"took (\S+) s"})


def test_a_loss_that_is_no_number_is_a_diverged_run(tmp_path: Path) -> None:
    code = "print('took 0.001 s'); print('val nan')"
    found = run(tmp_path, code, patterns={"train_s": r"took (\S+) s", "test_loss": r"val (\S+)"})
    assert found.diverged
    assert found.test_loss is None


def test_discarding_every_step_is_refused(tmp_path: Path) -> None:
    code = "print('time 0.5ms')"
    with pytest.raises(JobFailed, match="discarded as warm-up"):
        run(tmp_path, code, patterns={"step_time_ms": r"time (\S+)ms"}, discard_steps=3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"patterns": {"train_s": r"(\d)"}, "discard_steps": -1},
        {"patterns": {"train_s": r"(\d)"}, "tokens_per_step": 0},
        {"patterns": {"train_s": r"(\d)"}, "timeout_s": -1.0},
        {"patterns": {"loss": r"(\d)"}},
        {"patterns": {"train_s": r"\d"}},
        {"patterns": {"train_s": r"(\d"}},
        {"fields": {"train_s": "t"}},
        {"fields": {"train_s": "t"}, "jsonl": "x", "patterns": {"train_s": r"(\d)"}},
    ],
)
def test_a_command_that_cannot_be_read_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Command(argv="true", **options)


def test_json_rows_with_other_types_are_skipped(tmp_path: Path) -> None:
    rows = [{"t": None}, {"t": "x"}, {"t": 0.002}]
    text = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "m.jsonl").write_text(text + "\n{torn")
    found = run(tmp_path, "", jsonl="{folder}/m.jsonl", fields={"train_s": "t"})
    assert found.train_s == 0.002


def test_a_loss_of_null_tells_of_a_run_that_diverged(tmp_path: Path) -> None:
    """Null is how strict JSON says NaN."""
    rows = [{"t": 0.002, "loss": 2.0}, {"t": 0.002, "loss": None}]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    fields = {"step_time_s": "t", "loss": "loss"}
    found = run(tmp_path, "", jsonl="{folder}/m.jsonl", fields=fields)
    assert found.diverged
    assert found.train_loss == 2.0
