"""The verbs. The only place that prints and sets exit codes.

stdout carries the answer, stderr progress and messages; `--json` prints one JSON document.
Everything heavy is imported inside the verb that needs it.
"""

from __future__ import annotations

import json as json_module
import platform
import signal
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from twofold import __version__
from twofold.errors import EnvironmentLack, InputError, TwofoldError

if TYPE_CHECKING:
    from twofold.fleet import Fleet

EXIT_NO = 1
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


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
        _answer(description if self.json else doctor_text(description))
        return 0


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Measure this machine in about a minute; plans and predictions rest on it."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Where the catalog overlay goes; by default where `plan` and `prove` look for it."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold.calibrate import default_overlay_path
        from twofold.report.terminal import calibration_text

        path = self.output or default_overlay_path()
        fleet = _calibrate(path)
        _answer(asdict(fleet) if self.json else calibration_text(fleet, str(path)))
        return 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Find how to train a model on this machine: shortlist by prediction, then timed finals."""

    model: tyro.conf.Positional[Path]
    """A TOML file with [model] and, if wanted, [recipe]."""
    text: str = "stdlib"
    """`stdlib`, a text file, a folder of text, or a folder of token shards."""
    tokens: str = "1M"
    """Tokens to train on, for example 500k or 20M."""
    seq_len: int = 128
    """Tokens in a sequence."""
    global_batch: int | None = None
    """Sequences in an optimizer step; by default the recipe's."""
    memory_limit: str | None = None
    """Plan within this much memory, for example 1GB."""
    seed: int = 0
    """Initialisation and data order."""
    finals: bool = True
    """Time the finalists; without it the predicted best is taken."""
    calibration: Path | None = None
    """A catalog overlay to plan with, instead of this machine's own."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("plan.json")
    """Where the plan goes."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold.document import write_plan
        from twofold.measure.planning import make_plan
        from twofold.report.terminal import plan_text
        from twofold.units import parse_bytes, parse_count

        fleet = _local_fleet(self.calibration)
        with _watcher() as progress:
            made = make_plan(
                self.model,
                text=self.text,
                tokens=parse_count(self.tokens),
                seq_len=self.seq_len,
                global_batch=self.global_batch,
                fleet=fleet,
                memory_limit_bytes=(
                    parse_bytes(self.memory_limit) if self.memory_limit is not None else None
                ),
                seed=self.seed,
                with_finals=self.finals,
                progress=progress,
            )
        write_plan(made.document, self.output)
        _answer(
            {"plan": str(self.output), **made.as_mapping()}
            if self.json
            else plan_text(made, str(self.output))
        )
        return 0


@dataclass(frozen=True, kw_only=True)
class Run:
    """Execute a plan exactly, or resume a run folder; leaves metrics and checkpoints in it."""

    plan: tyro.conf.Positional[Path]
    """`plan.json`, or the folder of a run to resume."""
    runs: Path = Path("runs")
    """Where the run folder is made."""
    checkpoint_every: str = "1min"
    """Time between checkpoints."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold.measure.execution import execute_plan
        from twofold.report.terminal import run_text
        from twofold.units import parse_seconds

        with _watcher() as progress:
            done = execute_plan(
                self.plan,
                runs=self.runs,
                checkpoint_every_s=parse_seconds(self.checkpoint_every),
                progress=progress,
            )
        _answer(done.as_mapping() if self.json else run_text(done))
        return EXIT_NO if done.run.diverged else 0


@dataclass(frozen=True, kw_only=True)
class Prove:
    """Measure the arms of an experiment in pairs, at equal quality, and say what is proven."""

    experiment: tyro.conf.Positional[Path | None] = None
    """The experiment file (TOML)."""
    check: Path | None = None
    """Recompute every derived figure of an evidence.json, and fail on any disagreement."""
    resume: Path | None = None
    """Go on with the interrupted proof in this folder."""
    retune: bool = False
    """Tune every arm again first, and rewrite the tuned recipes."""
    quick: bool = False
    """A smoke test of the whole way in under two minutes. It proves nothing."""
    seed: int = 1000
    """Seed of the first block; tuning's seeds are refused."""
    runs: Path = Path("runs")
    """Where the proof's folder is made."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        given = [self.experiment is not None, self.check is not None, self.resume is not None]
        if sum(given) != 1:
            raise InputError(
                "one of EXPERIMENT, --check EVIDENCE and --resume FOLDER is wanted",
                help="for example: twofold prove examples/stdlib-lm.toml",
            )
        if self.experiment is None and (self.retune or self.quick):
            raise InputError(
                "--retune and --quick go with an EXPERIMENT", help="leave them out here"
            )
        if self.check is not None:
            return self._check(self.check)
        if self.retune:
            self._retune()
        return self._prove()

    def _check(self, path: Path) -> int:
        from twofold.evidence import check

        faults = check(path)
        if self.json:
            _answer({"evidence": str(path), "agrees": not faults, "faults": faults})
        elif faults:
            _answer("\n".join([*faults, f"{path}: {len(faults)} disagreements"]))
        else:
            _answer(f"{path}: every derived figure follows from its samples")
        return EXIT_NO if faults else 0

    def _retune(self) -> None:
        from twofold.measure.experiment import read_experiment
        from twofold.measure.tuned import write_tuned
        from twofold.measure.tuning import retune
        from twofold.workload import prepare_corpus

        assert self.experiment is not None
        experiment, _ = read_experiment(self.experiment)
        if experiment.workload is None or experiment.tuned is None:
            raise InputError(
                "the experiment has nothing to tune: no workload, or no `tuned` file named",
                at=str(self.experiment),
                help="commands are run as they are; leave --retune out",
            )
        fleet = _local_fleet(None)
        with _watcher() as progress:
            corpus = prepare_corpus(experiment.workload.text)
            tuned = retune(
                experiment, corpus, fleet, self.runs / f"tuning-{experiment.name}", progress
            )
        write_tuned(tuned, Path(experiment.tuned))

    def _prove(self) -> int:
        from twofold.measure.experiment import read_experiment
        from twofold.measure.prove import prove, resume
        from twofold.report import write_report
        from twofold.report.terminal import claim_text

        with _watcher() as progress:
            if self.resume is not None:
                proof = resume(self.resume, progress=progress, fleet=None)
            else:
                assert self.experiment is not None
                experiment, _ = read_experiment(self.experiment)
                fleet = _local_fleet(None) if experiment.workload is not None else None
                proof = prove(
                    self.experiment,
                    runs=self.runs,
                    fleet=fleet,
                    progress=progress,
                    seed=self.seed,
                    quick=self.quick,
                )
        report = proof.folder / "report.html"
        write_report(proof.evidence, report)
        derived = proof.evidence.derived
        assert derived is not None
        if self.json:
            _answer(
                {
                    "evidence": str(proof.path),
                    "report": str(report),
                    "smoke": proof.evidence.smoke,
                    "results": [asdict(result) for result in derived.results],
                }
            )
        else:
            _answer(claim_text(proof.evidence, report=str(report), evidence_path=str(proof.path)))
        proven = all(result.verdict == "proven" for result in derived.results)
        return 0 if proven else EXIT_NO


Verb = (
    Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Prove, tyro.conf.subcommand("prove")]
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `twofold` command."""
    sys.exit(_main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        _answer(f"twofold {__version__}")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        verb = tyro.cli(
            Verb,
            args=arguments,
            prog="twofold",
            description="Plan, run and prove AI training on the machines you have.",
            config=(tyro.conf.OmitArgPrefixes,),
        )
        return int(verb.execute())
    except TwofoldError as error:
        _say(_error_text(error))
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted; what was finished is kept: go on with `twofold run FOLDER` or")
        _say("`twofold prove --resume FOLDER`, the folder being the one named above")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return 0
    except Exception:
        _say(_bug_report(arguments))
        return EXIT_INTERNAL


def _error_text(error: TwofoldError) -> str:
    lines = [f"error: {error.what}"]
    if error.at is not None:
        lines.append(f"   at: {error.at}")
    if error.help is not None:
        lines.append(f" help: {error.help}")
    return "\n".join(lines)


def _bug_report(arguments: list[str]) -> str:
    return "\n".join(
        [
            "error: this is a bug of Twofold, not of yours. Please report it with this block:",
            "```",
            f"twofold {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"twofold {' '.join(arguments)}",
            traceback.format_exc().rstrip(),
            "```",
        ]
    )


def _local_fleet(path: Path | None) -> Fleet:
    """This machine as it was calibrated; calibrated now if it never was."""
    from twofold.calibrate import default_overlay_path, read_overlay

    overlay = path or default_overlay_path()
    if path is None and not overlay.is_file():
        _say("this machine was never calibrated; that is done once, in about a minute")
        return _calibrate(overlay)
    return read_overlay(overlay).fleet


def _calibrate(path: Path) -> Fleet:
    from twofold.measure.calibration import calibrate_here

    _require_torch()
    with _watcher() as progress:
        return calibrate_here(path, progress)


def _require_torch() -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise EnvironmentLack("PyTorch is not installed", help="pip install 'twofold[torch]'")


def _answer(value: Any) -> None:
    text = value if isinstance(value, str) else json_module.dumps(value, indent=1)
    print(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _watcher() -> Any:
    from twofold.report.watch import Watcher

    return Watcher(sys.stderr)


if __name__ == "__main__":
    main()
