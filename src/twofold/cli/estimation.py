"""The verbs that say what predictions are, why, and what they are worth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from twofold.cli.choices import term_of
from twofold.cli.output import EXIT_NO, answer, text_width


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Predict one given plan on a fleet, without a search."""

    model: tyro.conf.Positional[str]
    """A name, a Hugging Face config.json or its folder, or a TOML file."""
    fleet: str
    """NAME:COUNT of machines or accelerators, or a fleet file (TOML)."""
    plan: str
    """`"tp=8 pp=4 recompute=full"` or a TOML file of levers; dp fills the fleet unless said."""
    tokens: str | None = None
    """Tokens to train on, for example 2T."""
    seq_len: int | None = None
    """Tokens in a sequence; unless said the model's, at most 4096."""
    global_batch: int | None = None
    """Sequences in an optimizer step; to be said unless a recipe gives it."""
    region: str | None = None
    """Where the fleet is: a cloud region, a country, a US state, or world."""
    term: str = "on-demand"
    """How machines are rented: on-demand, spot, reserved or capacity-block."""
    date: str | None = None
    """When it is run, for example 2026-11. By default now."""
    calibration: Path | None = None
    """The efficiencies that `calibrate --from` wrote, instead of the shipped ones."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Where the plan goes, if it is wanted as a document."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold import __version__
        from twofold.cli.importing import named_model
        from twofold.cli.questions import (
            efficiency_notes,
            read_efficiencies,
            read_fleets,
            run_date,
            workload_of,
        )
        from twofold.document import make_document, write_plan
        from twofold.errors import InputError
        from twofold.perf.fleet import estimate_plans, make_problem
        from twofold.report.fleet_text import estimate_text
        from twofold.search.given import read_given_plan
        from twofold.search.options import make_option

        date, fit = run_date(self.date), read_efficiencies(self.calibration)
        model = named_model(self.model)
        workload, notes = workload_of(
            model,
            self.model,
            tokens=self.tokens,
            seq_len=self.seq_len,
            global_batch=self.global_batch,
            text=None,
        )
        (fleet,), rounding = read_fleets([self.fleet], region=self.region, term=term_of(self.term))
        notes += [*rounding, *efficiency_notes(self.calibration)]
        if len(fleet.pools) > 1:
            raise InputError(
                f"'{self.fleet}' has {len(fleet.pools)} pools, and a given plan is for one",
                at="--fleet",
                help="name one pool; `twofold plan` plans for all of them together",
            )
        problem = make_problem(model, workload, fleet.pools[0], fit, date)
        plan = read_given_plan(self.plan, problem)
        option = make_option("given", problem, plan, estimate_plans(problem, [plan])[0])
        if self.output is not None:
            document = make_document(
                model=model,
                workload=workload,
                fleet=fleet,
                plan=plan,
                estimate=option.estimate,
                seed=0,
                twofold_version=__version__,
                date=date,
            )
            write_plan(document, self.output)
        if self.json:
            answer(
                {"date": date, **option.as_mapping(), "outcome": asdict(option.estimate.outcome)}
            )
        else:
            answer(estimate_text(problem, fleet, option, notes=notes, width=text_width()))
        return 0 if option.fits else EXIT_NO


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Split a plan's time, memory, money and energy into parts, or the ratio of two into causes."""

    plan: tyro.conf.Positional[Path]
    """A plan.json made with --fleet."""
    against: Path | None = None
    """Another plan.json: where does the factor between them come from?"""
    calibration: Path | None = None
    """The efficiencies that `calibrate --from` wrote, instead of the shipped ones."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold.cli.questions import read_efficiencies
        from twofold.document import read_plan
        from twofold.report.explain_text import comparison_text, explanation_text
        from twofold.search.comparison import compare
        from twofold.search.explanation import explain

        document, fit = read_plan(self.plan), read_efficiencies(self.calibration)
        if self.against is None:
            explanation = explain(document, date=document.date, fit=fit)
            answer(asdict(explanation) if self.json else explanation_text(explanation))
        else:
            other = read_plan(self.against)
            comparison = compare(document, other, date_a=document.date, date_b=other.date, fit=fit)
            answer(asdict(comparison) if self.json else comparison_text(comparison))
        return 0


@dataclass(frozen=True, kw_only=True)
class Validate:
    """Score the predictions against measured training or serving runs."""

    rows: tyro.conf.Positional[Path]
    """A CSV file, one measured run a row, in the columns of docs/validation.md. Columns of lengths
    and latencies (isl, osl, ttft_ms ...) make it one of serving runs."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold.calibrate.inference_rows import is_serving_file
        from twofold.calibrate.serving_validation import validate_serving
        from twofold.calibrate.validation import validate
        from twofold.catalog import find_node
        from twofold.report.serving_validation_text import serving_validation_text
        from twofold.report.validation_text import validation_text

        if is_serving_file(self.rows):
            scores = validate_serving(self.rows, find_node)
            answer(scores if self.json else serving_validation_text(scores))
            return 0
        scores = validate(self.rows, find_node)
        answer(scores if self.json else validation_text(scores))
        return 0
