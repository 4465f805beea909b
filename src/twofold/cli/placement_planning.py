"""`twofold plan --fleet` on a fleet of several pools: one plan over all, or the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from twofold import __version__
from twofold.catalog import LOCAL, Term, read_fleet
from twofold.cli.choices import precisions_of, read_limit, term_of
from twofold.cli.importing import named_model
from twofold.cli.output import answer
from twofold.cli.questions import (
    efficiency_notes,
    read_efficiencies,
    read_fleets,
    run_date,
    workload_of,
)
from twofold.document import make_document, write_plan
from twofold.errors import InputError, NegativeAnswer
from twofold.fleet import Fleet
from twofold.report.placement_text import placement_text
from twofold.search.placement.answer import PlacementAnswer, place
from twofold.search.placement.found import Placement
from twofold.search.placement.question import is_calibrated, make_question
from twofold.units import parse_bytes

if TYPE_CHECKING:
    from twofold.cli.planning import Plan

_APART = ("objective", "deadline", "budget", "power_cap", "vary", "pareto", "by")
"""With these, pools are compared one by one."""


def asks_for_placement(verb: Plan) -> bool:
    """Whether one fleet of several pools, or of processes on this machine, is asked for, and
    nothing that is answered pool by pool."""
    if len(verb.fleet) != 1:
        return False
    (spec,) = verb.fleet
    if not spec.endswith(".toml") and spec.partition(":")[0] != LOCAL:
        return False
    fleet = read_fleet(verb.fleet, region=verb.region, term=term_of(verb.term))
    local = any(is_calibrated(pool) for pool in fleet.pools)
    if len(fleet.pools) == 1 and not local:
        return False
    apart = [name for name in _APART if getattr(verb, name) not in (None, False, "time")]
    if apart and local:
        raise InputError(
            f"--{apart[0].replace('_', '-')} is not for processes of this machine",
            at="plan",
            help="leave it out: their plans are compared by time",
        )
    return not apart


def refuse_local_updates(verb: Plan) -> None:
    """Nothing that the user asked for is skipped in silence."""
    if verb.local_updates:
        raise InputError(
            "--local-updates is for a plan over several pools, by time",
            at="plan",
            help="name one fleet file with several [[pool]], or leave it out",
        )


def pool_notes(fleets: Sequence[Fleet]) -> list[str]:
    """Says so where unlike pools are compared one by one."""
    return [
        f"the {len(fleet.pools)} pools of '{fleet.name}' are compared one by one: a plan over all "
        "of them is made for one fleet file, by time, without limits"
        for fleet in fleets
        if len(fleet.pools) > 1
    ]


def plan_over_pools(verb: Plan) -> int:
    """Understand, place, write the plan."""
    term: Term = term_of(verb.term)
    model = named_model(verb.model)
    (fleet,), notes = read_fleets(verb.fleet, region=verb.region, term=term)
    local = any(is_calibrated(pool) for pool in fleet.pools)
    if local:
        _refuse_with_local(verb)
        notes = []
    workload, more = workload_of(
        model,
        verb.model,
        tokens=verb.tokens,
        seq_len=verb.seq_len,
        global_batch=verb.global_batch,
        text=verb.text or ("stdlib" if local else None),
    )
    question = make_question(
        model,
        workload,
        fleet,
        read_efficiencies(verb.calibration),
        run_date(verb.date),
        limit_bytes=read_limit(verb.memory_limit, parse_bytes, at="--memory-limit"),
        precisions=None if verb.precision is None else precisions_of(verb.precision),
    )
    found = place(question)
    chosen = _chosen(found, fleet, lossy=verb.local_updates)
    document = make_document(
        model=model,
        workload=workload,
        fleet=fleet,
        plan=chosen.plan,
        estimate=chosen.estimate,
        seed=verb.seed,
        twofold_version=__version__,
        date=question.date,
    )
    write_plan(document, verb.output)
    notes = [*notes, *more, *efficiency_notes(verb.calibration)]
    if verb.json:
        told = {"plan": str(verb.output), "date": question.date, "notes": notes}
        answer({**told, **found.as_mapping(), "document": asdict(document)})
    else:
        answer(placement_text(question, found, chosen, path=str(verb.output), notes=notes))
    return 0


def _chosen(found: PlacementAnswer, fleet: Fleet, *, lossy: bool) -> Placement:
    """The best synchronous plan, unless local updates were asked for by name."""
    if not lossy:
        return found.best[0]
    if not found.offered:
        raise NegativeAnswer(
            f"local updates are not worth it: {found.why_not}",
            at=f"fleet '{fleet.name}'",
            help="leave --local-updates out",
        )
    return min(found.offered, key=lambda one: one.step_s)


def _refuse_with_local(verb: Plan) -> None:
    for name in ("calibration", "region"):
        if getattr(verb, name) is not None:
            raise InputError(
                f"--{name} is not for processes of this machine",
                at="plan",
                help="they are planned with this machine's own calibration",
            )
