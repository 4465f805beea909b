"""`twofold plan --fleet`: one question, asked as best plan, other models, front or reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold import __version__
from twofold.cli.choices import objective_of, precisions_of, read_limit, term_of
from twofold.cli.importing import named_model
from twofold.cli.output import EXIT_NO, answer, text_width
from twofold.cli.placement_planning import pool_notes
from twofold.cli.questions import (
    efficiency_notes,
    read_efficiencies,
    read_fleets,
    run_date,
    seconds_until,
    workload_of,
)
from twofold.document import PlanDocument, make_document, write_plan
from twofold.errors import InputError, NegativeAnswer
from twofold.fleet import Fleet, Pool
from twofold.model import Model
from twofold.perf.plans import NARROW
from twofold.perf.speeds import NARROW_KEYS, Efficiencies
from twofold.report.fleet_text import answers_text, question_line
from twofold.search.answers import Wish, answer_fleets, best_of, find_front
from twofold.search.options import Option
from twofold.units import format_bytes, parse_bytes, parse_count, parse_seconds, parse_watts
from twofold.workload import Train

if TYPE_CHECKING:
    from twofold.cli.planning import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What was typed, understood."""

    model: Model
    workload: Train
    fleets: list[Fleet]
    wish: Wish
    date: str
    fit: Efficiencies
    notes: list[str]
    seed: int
    output: Path
    json: bool

    def write(self, model: Model, workload: Train, fleet: Fleet, chosen: Option) -> PlanDocument:
        document = make_document(
            model=model,
            workload=workload,
            fleet=fleet,
            plan=chosen.plan,
            estimate=chosen.estimate,
            seed=self.seed,
            twofold_version=__version__,
            date=self.date,
        )
        write_plan(document, self.output)
        return document

    def mapping(self, **found: Any) -> dict[str, Any]:
        return {
            "plan": str(self.output),
            "objective": self.wish.objective,
            "date": self.date,
            "notes": self.notes,
            **found,
        }


_NOT_BY = ("pareto", "deadline", "budget", "power_cap", "precision", "memory_limit")


def plan_on_fleets(verb: Plan) -> int:
    """Understand, answer, write the plan."""
    if verb.by is not None:
        _refuse_together(verb, "--by", _NOT_BY)
    if verb.pareto:
        _refuse_together(verb, "--pareto", ("vary", "deadline", "budget", "power_cap"))
    question = _understand(verb)
    others = [] if verb.vary is None else _models(verb.vary)
    if verb.by is not None:
        return _reach(question, others, verb, verb.by)
    if others:
        return _vary(question, others)
    return _front(question) if verb.pareto else _best(question)


def _understand(verb: Plan) -> _Question:
    wish = Wish(
        objective=objective_of(verb.objective),
        deadline_s=read_limit(verb.deadline, parse_seconds, at="--deadline"),
        budget_usd=read_limit(
            verb.budget, lambda text: parse_count(text.lstrip("$")), at="--budget"
        ),
        power_cap_w=read_limit(verb.power_cap, parse_watts, at="--power-cap"),
        precisions=None if verb.precision is None else precisions_of(verb.precision),
        memory_limit_bytes=read_limit(verb.memory_limit, parse_bytes, at="--memory-limit"),
    )
    model = named_model(verb.model)
    workload, notes = workload_of(
        model,
        verb.model,
        tokens=verb.tokens,
        seq_len=verb.seq_len,
        global_batch=verb.global_batch,
        text=verb.text,
        any_tokens=verb.by is not None,
    )
    fleets, rounding = read_fleets(verb.fleet, region=verb.region, term=term_of(verb.term))
    _check_figures(fleets, wish, front=verb.pareto)
    return _Question(
        model=model,
        workload=workload,
        fleets=fleets,
        wish=wish,
        date=run_date(verb.date),
        fit=read_efficiencies(verb.calibration),
        notes=[
            *notes,
            *rounding,
            *pool_notes(fleets),
            *efficiency_notes(verb.calibration),
            *([] if verb.by else _device_notes(fleets, wish, model)),
        ],
        seed=verb.seed,
        output=verb.output,
        json=verb.json,
    )


def _best(asked: _Question) -> int:
    answers = answer_fleets(
        asked.model, asked.workload, asked.fleets, asked.wish, asked.date, asked.fit
    )
    chosen = best_of(answers, asked.wish.objective)
    home = next(one.fleet for one in answers if chosen.pool is one.pool)
    document = asked.write(asked.model, asked.workload, home, chosen)
    if asked.json:
        answer(
            asked.mapping(fleets=[one.as_mapping() for one in answers], document=asdict(document))
        )
        return 0
    answer(
        answers_text(
            question_line(asked.model, asked.workload, asked.date),
            answers,
            asked.wish.objective,
            chosen=chosen,
            path=str(asked.output),
            notes=asked.notes,
            width=text_width(),
        )
    )
    return 0


def _vary(asked: _Question, others: Sequence[Model]) -> int:
    """Other models in its place, at equal predicted loss, each with its best plan."""
    from twofold.report.alternatives_text import variants_text
    from twofold.search.variants import vary_models

    if len(asked.fleets) != 1 or len(asked.fleets[0].pools) != 1:
        raise InputError(
            "models are compared on one fleet of one pool",
            at="--fleet",
            help="name one, and ask again for another",
        )
    fleet, objective = asked.fleets[0], asked.wish.objective
    variants = vary_models(
        asked.model, asked.workload, others, fleet, asked.wish, asked.date, asked.fit
    )
    answers = [one.answer for one in variants if one.answer is not None]
    if not answers:
        raise NegativeAnswer(
            f"no plan of any of the models fits: {variants[0].refusal}",
            at="--fleet",
            help="use more or larger devices",
        )
    chosen = best_of(answers, objective)
    winner = next(one for one in variants if one.best is chosen)
    assert winner.workload is not None
    asked.write(winner.model, winner.workload, fleet, chosen)
    if asked.json:
        answer(asked.mapping(variants=[one.as_mapping() for one in variants]))
        return 0
    answer(
        variants_text(
            question_line(asked.model, asked.workload, asked.date),
            fleet,
            variants,
            objective,
            path=str(asked.output),
            notes=asked.notes,
            width=text_width(),
        )
    )
    return 0


def _front(asked: _Question) -> int:
    """The plans that none beats in both time and the objective."""
    from twofold.report.alternatives_text import front_text

    against = "cost" if asked.wish.objective == "time" else asked.wish.objective
    front = find_front(
        asked.model, asked.workload, asked.fleets, asked.wish, asked.date, asked.fit, against
    )
    chosen = front[0]
    asked.write(asked.model, asked.workload, _home(asked.fleets, chosen), chosen)
    if asked.json:
        answer(asked.mapping(against=against, front=[one.as_mapping() for one in front]))
        return 0
    answer(
        front_text(
            question_line(asked.model, asked.workload, asked.date),
            asked.fleets,
            front,
            against,
            path=str(asked.output),
            notes=asked.notes,
            width=text_width(),
        )
    )
    return 0


def _reach(asked: _Question, others: Sequence[Model], verb: Plan, by: str) -> int:
    """The most tokens by a date, of each model on each fleet; "no" where none gets enough."""
    from twofold.report.alternatives_text import reach_text
    from twofold.search.reach import Wanted, find_reach

    others = [model for model in dict.fromkeys(others) if model != asked.model]
    wanted = Wanted(tokens=None if verb.tokens is None else asked.workload.tokens)
    seconds = seconds_until(by, asked.date)
    reaches = find_reach(
        [asked.model, *others], asked.workload, asked.fleets, seconds, asked.date, asked.fit
    )
    winner = wanted.largest(reaches)
    assert winner.option is not None
    assert winner.workload is not None
    asked.write(winner.model, winner.workload, winner.fleet, winner.option)
    judged = bool(others) or verb.tokens is not None
    enough = wanted.met_by(winner) or not judged
    if asked.json:
        answer(
            asked.mapping(
                by=by,
                seconds=seconds,
                enough=enough,
                largest=winner.model.name,
                reach=[one.as_mapping() for one in reaches],
            )
        )
    else:
        answer(
            reach_text(
                reaches,
                winner,
                wanted,
                by,
                path=str(asked.output),
                notes=asked.notes,
                width=text_width(),
            )
        )
    return 0 if enough else EXIT_NO


def _device_notes(fleets: Sequence[Fleet], wish: Wish, model: Model) -> list[str]:
    """What a device has and the question leaves out, or asks for and the device lacks."""
    notes = []
    devices = {p.node.accelerator.name: p.node.accelerator for f in fleets for p in f.pools}
    for device in devices.values():
        usable, limit = device.memory.usable_bytes.value, wish.memory_limit_bytes
        if limit is not None and limit > usable:
            notes.append(
                f"--memory-limit {format_bytes(limit)} is more than the {format_bytes(usable)} "
                f"that {device.name} has to use, so it limits nothing there"
            )
        narrow = [name for name in NARROW if set(NARROW_KEYS[name]) & set(device.flop_per_s)]
        if narrow and wish.precisions is None and not model.operators:
            are = "is" if len(narrow) == 1 else "are"
            notes.append(
                f"{', '.join(narrow)} {are} possible on {device.name}: --precision bf16,{narrow[0]}"
            )
    return notes


def _check_figures(fleets: Sequence[Fleet], wish: Wish, *, front: bool) -> None:
    """Unknown is refused where it is asked for, with the figure that is missing; a fleet beside
    others is only left out."""
    pools = [pool for fleet in fleets for pool in fleet.pools]
    lacks = [_lack(pool, wish, front=front) for pool in pools]
    first = lacks[0]
    if first is not None and all(lack is not None for lack in lacks):
        raise first


def _lack(pool: Pool, wish: Wish, *, front: bool) -> InputError | None:
    objective = "cost" if front and wish.objective == "time" else wish.objective
    money = objective == "cost" or wish.budget_usd is not None
    power = objective in ("energy", "carbon") or wish.power_cap_w is not None
    if money and pool.usd_per_node_hour is None:
        return _missing(
            pool, "price", "give usd_per_machine_hour in a fleet.toml, or try another --term"
        )
    if power and pool.node.accelerator.power_max_w is None:
        return _missing(pool, "power", "give accelerator_figures.power.max_w in a fleet.toml")
    if objective == "carbon" and pool.grid_kgco2e_per_kwh is None:
        return _missing(
            pool,
            "carbon of the electricity",
            "name its place, for example --region westeurope; "
            "`twofold catalog list region` has all",
        )
    return None


def _missing(pool: Pool, figure: str, help: str) -> InputError:
    return InputError(f"the {figure} of '{pool.name}' is unknown", at="--fleet", help=help)


def _models(vary: str) -> list[Model]:
    what, _, names = vary.partition("=")
    if what != "model" or not names:
        raise InputError(
            f"'{vary}' is not model=NAME,NAME",
            at="--vary",
            help="for example --vary model=mixtral-8x7b,qwen3-30b-a3b",
        )
    return [named_model(name.strip()) for name in names.split(",")]


def _home(fleets: Sequence[Fleet], option: Option) -> Fleet:
    fleet = next(fleet for fleet in fleets if any(pool is option.pool for pool in fleet.pools))
    return fleet if len(fleet.pools) == 1 else replace(fleet, pools=(option.pool,))


def _refuse_together(verb: Plan, flag: str, names: Sequence[str]) -> None:
    """Nothing that the user asked for is skipped in silence."""
    for name in names:
        if getattr(verb, name) not in (None, False):
            raise InputError(
                f"--{name.replace('_', '-')} does not go with {flag}",
                at="plan",
                help="leave one of them out",
            )
