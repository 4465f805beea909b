"""The verbs about this machine: what it has, and how fast it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from twofold.cli.output import answer, say, watcher
from twofold.errors import EnvironmentLack

if TYPE_CHECKING:
    from twofold.calibrate.refine import Refinement
    from twofold.fleet import Fleet


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """What this machine has, what Twofold can use of it, and what is missing."""

    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold.calibrate import default_overlay_path
        from twofold.host import describe_host
        from twofold.report.terminal import doctor_text

        description = describe_host()
        overlay = default_overlay_path()
        description["calibration"] = str(overlay) if overlay.is_file() else None
        answer(description if self.json else doctor_text(description))
        return 0


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Measure this machine in about a minute; plans and predictions rest on it.

    With --from, narrow the predictions for a fleet by steps that were measured on it.
    """

    rows: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Measured steps: a CSV file as `validate` takes, or the folder of a finished run."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Where the calibration goes; unless said where `plan` and `prove` look for that of this
    machine, and efficiencies.toml with --from."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        return self._measure() if self.rows is None else self._refine(self.rows)

    def _refine(self, rows: Path) -> int:
        from twofold.calibrate.refine import refine_from
        from twofold.catalog import find_node
        from twofold.report.validation_text import refinement_text

        output = self.output or Path("efficiencies.toml")
        if rows.is_dir():
            refined = self._refine_from_run(rows, output)
        else:
            refined = refine_from(rows, output, find_node)
        answer(asdict(refined) if self.json else refinement_text(refined))
        return 0

    @staticmethod
    def _refine_from_run(folder: Path, output: Path) -> Refinement:
        from twofold.calibrate.own_run import refine_from_run
        from twofold.cli.questions import run_date
        from twofold.document import read_plan
        from twofold.engines import read_run

        document = read_plan(folder / "plan.json")
        return refine_from_run(document, read_run(folder).step_times_s, run_date(None), output)

    def _measure(self) -> int:
        from twofold.calibrate import default_overlay_path
        from twofold.report.terminal import calibration_text

        path = self.output or default_overlay_path()
        fleet = calibrate_now(path)
        answer(asdict(fleet) if self.json else calibration_text(fleet, str(path)))
        return 0


def local_fleet(path: Path | None) -> Fleet:
    """This machine as it was calibrated; calibrated now if it never was."""
    from twofold.calibrate import default_overlay_path, read_overlay

    overlay = path or default_overlay_path()
    if path is None and not overlay.is_file():
        say("this machine was never calibrated; that is done once, in about a minute")
        return calibrate_now(overlay)
    return read_overlay(overlay).fleet


def calibrate_now(path: Path) -> Fleet:
    from twofold.measure.calibration import calibrate_here

    require_torch()
    with watcher() as progress:
        return calibrate_here(path, progress)


def require_torch() -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise EnvironmentLack("PyTorch is not installed", help="pip install 'twofold[torch]'")
