"""`calibrate`: run the probe as a Job on this machine, and keep what it found."""

from __future__ import annotations

import datetime
import sys
import tempfile
from pathlib import Path
from typing import Any

from twofold.calibrate import calibrate_from_rows, find_implausible, read_rows, write_overlay
from twofold.engines.embedded import check_finished
from twofold.fleet import Fleet
from twofold.host import describe_host
from twofold.launch import Job, run_job
from twofold.measure.progress import Progress, wait_for_quiet

_QUIET_WAIT_S = 30.0


def calibrate_here(path: Path, progress: Progress) -> Fleet:
    """Measure, fit, and write the overlay to `path`. Waits a bounded time for a quiet machine.

    The device is the NVIDIA GPU where there is one, else the processor.
    """
    host = describe_host()
    nvidia = any(found.get("vendor") == "NVIDIA" for found in host["accelerators"])
    device = "cuda" if nvidia else "cpu"
    wait_for_quiet(progress, _QUIET_WAIT_S)
    with tempfile.TemporaryDirectory(prefix="twofold-probe-") as scratch:
        rows = Path(scratch) / "rows.jsonl"
        job = Job(
            name="probe",
            argv=(
                sys.executable,
                "-m",
                "twofold.runtime.probe",
                "--out",
                str(rows),
                "--device",
                device,
            ),
            folder=Path(scratch),
            metrics=(Path(scratch) / "job.log",),
        )

        def on_row(row: dict[str, Any]) -> None:
            if row.get("event") == "progress":
                progress.advance("calibrating", row["done"], row["total"])

        check_finished(job, run_job(job, on_row))
        fleet = calibrate_from_rows(read_rows(rows), host)
    for doubt in find_implausible(fleet):
        progress.note(f"doubtful: {doubt}")
    write_overlay(fleet, path, host=host, date=datetime.date.today().isoformat())
    return fleet
