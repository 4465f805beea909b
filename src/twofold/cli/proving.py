"""The verb that proves a gain."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from twofold.cli.machine import local_fleet
from twofold.cli.output import EXIT_NO, answer, watcher
from twofold.errors import InputError


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
        if self._is_of_serving():
            return self._prove_serving()
        if self.retune:
            self._retune()
        return self._prove()

    def _check(self, path: Path) -> int:
        from twofold.evidence import check
        from twofold.evidence.serving.check import check_serving
        from twofold.evidence.serving.files import is_serving

        faults = check_serving(path) if is_serving(path) else check(path)
        if self.json:
            answer({"evidence": str(path), "agrees": not faults, "faults": faults})
        elif faults:
            answer("\n".join([*faults, f"{path}: {len(faults)} disagreements"]))
        else:
            answer(f"{path}: every derived figure follows from its samples")
        return EXIT_NO if faults else 0

    def _is_of_serving(self) -> bool:
        from twofold.measure.serving.experiment import is_serving_experiment
        from twofold.measure.serving.prove import is_serving_proof

        if self.experiment is not None:
            return is_serving_experiment(self.experiment)
        return self.resume is not None and is_serving_proof(self.resume)

    def _prove_serving(self) -> int:
        from twofold.measure.serving.prove import prove_serving, resume_serving
        from twofold.report.serving.page import write_serving_report
        from twofold.report.serving.text import serving_claim_text

        if self.retune:
            raise InputError(
                "a proof of serving tunes its arms every time", help="leave --retune out"
            )
        with watcher() as progress:
            if self.resume is not None:
                proof = resume_serving(self.resume, progress=progress)
            else:
                assert self.experiment is not None
                proof = prove_serving(
                    self.experiment,
                    runs=self.runs,
                    progress=progress,
                    seed=self.seed,
                    quick=self.quick,
                )
        report = proof.folder / "report.html"
        write_serving_report(proof.evidence, report)
        derived = proof.evidence.derived
        assert derived is not None
        if self.json:
            answer(
                {
                    "evidence": str(proof.path),
                    "report": str(report),
                    "smoke": proof.evidence.smoke,
                    "results": [asdict(result) for result in derived.results],
                }
            )
        else:
            answer(serving_claim_text(proof.evidence, str(report), str(proof.path)))
        claimed = [r for r in derived.results if r.target == proof.evidence.claimed]
        return 0 if all(result.verdict == "proven" for result in claimed) else EXIT_NO

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
        fleet = local_fleet(None)
        with watcher() as progress:
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

        with watcher() as progress:
            if self.resume is not None:
                proof = resume(self.resume, progress=progress, fleet=None)
            else:
                assert self.experiment is not None
                experiment, _ = read_experiment(self.experiment)
                fleet = local_fleet(None) if experiment.workload is not None else None
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
            answer(
                {
                    "evidence": str(proof.path),
                    "report": str(report),
                    "smoke": proof.evidence.smoke,
                    "results": [asdict(result) for result in derived.results],
                }
            )
        else:
            answer(claim_text(proof.evidence, report=str(report), evidence_path=str(proof.path)))
        proven = all(result.verdict == "proven" for result in derived.results)
        return 0 if proven else EXIT_NO
