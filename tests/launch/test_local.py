"""The supervisor: rows as they come, no orphans, errors that say what happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from twofold.errors import InputError
from twofold.launch import Job, run_job


def python_job(folder: Path, code: str, **options: Any) -> Job:
    return Job(name="test", argv=(sys.executable, "-c", code), folder=folder, **options)


def test_rows_are_delivered_and_torn_lines_wait(tmp_path: Path) -> None:
    metrics = tmp_path / "m.jsonl"
    code = (
        "import sys,time\n"
        f"f=open({str(metrics)!r},'w')\n"
        'f.write(\'{"a": 1}\\n{"a"\'); f.flush(); time.sleep(0.3)\n'
        "f.write(': 2}\\nnot json\\n'); f.flush()\n"
    )
    rows: list[dict[str, object]] = []
    finished = run_job(python_job(tmp_path, code, metrics=(metrics,)), rows.append)
    assert rows == [{"a": 1}, {"a": 2}]
    assert finished.returncode == 0


def test_exit_code_and_last_lines_are_kept(tmp_path: Path) -> None:
    finished = run_job(python_job(tmp_path, "print('the reason'); raise SystemExit(7)"))
    assert finished.returncode == 7
    assert "the reason" in finished.last_lines


def test_timeout_ends_the_job(tmp_path: Path) -> None:
    finished = run_job(python_job(tmp_path, "import time; time.sleep(60)", timeout_s=0.5))
    assert finished.timed_out
    assert finished.wall_s < 30


def test_unknown_program_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be started"):
        run_job(Job(name="x", argv=("no-such-program-here",), folder=tmp_path))


def test_children_left_behind_are_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "import subprocess,sys\n"
        "p=subprocess.Popen([sys.executable,'-c','import time; time.sleep(60)'])\n"
        f"open({str(pid_file)!r},'w').write(str(p.pid))\n"
    )
    run_job(python_job(tmp_path, code))
    assert gone(int(pid_file.read_text()))


@pytest.mark.slow
def test_ctrl_c_stops_the_job_and_nothing_stays(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = f"import os,time\nopen({str(pid_file)!r},'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from twofold.launch import Job, run_job\n"
        f"argv = (sys.executable, '-c', {child!r})\n"
        f"run_job(Job(name='x', argv=argv, folder=Path({str(tmp_path)!r})))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    deadline = time.time() + 20
    while not (pid_file.exists() and pid_file.read_text()) and time.time() < deadline:
        time.sleep(0.05)
    parent.send_signal(signal.SIGINT)
    _, error = parent.communicate(timeout=30)
    assert b"KeyboardInterrupt" in error
    assert gone(int(pid_file.read_text()))


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False
