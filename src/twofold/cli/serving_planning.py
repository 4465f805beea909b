"""`twofold plan --serve`: the best way to answer requests, on a fleet or on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from twofold import __version__
from twofold.cli.choices import choose, objective_of, term_of
from twofold.cli.importing import named_model
from twofold.cli.output import EXIT_NO, answer, text_width, watcher
from twofold.cli.questions import run_date
from twofold.cli.serving_workload import serve_workload
from twofold.engines.serving import vllm_flags, vllm_lack
from twofold.errors import InputError
from twofold.fleet import Fleet
from twofold.model import Model
from twofold.perf.serving_rates import fitted_serving
from twofold.plan import Precision
from twofold.report.serving_text import Written, serving_text
from twofold.search.serving import answer as search
from twofold.search.serving.options import ServingOption
from twofold.search.serving.question import Formats, ServingQuestion, at_load, fitted_to
from twofold.serving_document import (
    ServingDocument,
    make_serving_document,
    write_serving_plan,
)
from twofold.serving_plan import KvPrecision, WeightPrecision

if TYPE_CHECKING:
    from twofold.cli.planning import Plan

_WEIGHTS, _CACHES = ("int8", "int4"), ("kv-int8", "kv-fp8")
_TRAINING = (
    "tokens", "seq_len", "global_batch", "deadline", "budget", "power_cap", "vary", "pareto",
    "by", "local_updates", "memory_limit", "text", "finals", "calibration",
)  # fmt: skip


def plan_serving(verb: Plan) -> int:
    """Understand, search, write the plan."""
    _refuse_training_options(verb)
    question, notes = _understand(verb)
    with watcher() as progress:
        found = search.answer(
            question, lambda done, total: progress.advance("simulating", done, total)
        )
    option, refused = _handed_over(verb, found.best)
    workload = question.workload
    if not question.rate_is_given and option.carried:
        workload = replace(workload, arrivals=at_load(workload, option.carried))
    output = Path("serve.json") if verb.output == Path("plan.json") else verb.output
    document = make_serving_document(
        model=question.model,
        workload=workload,
        fleet=question.fleet,
        plan=option.plan,
        estimate=option.estimate,
        seed=verb.seed,
        twofold_version=__version__,
        weights=None if verb.weights is None else str(verb.weights),
        date=run_date(verb.date),
    )
    write_serving_plan(document, output)
    written = Written(
        path=str(output), option=option, refused=refused, lacks=_lacks(verb, document)
    )
    if verb.json:
        told = {"plan": str(output), "objective": question.objective, "notes": notes}
        handed = {"written": option.role, "refused": refused, "lacks": written.lacks}
        answer({**told, **handed, **found.as_mapping(), "document": asdict(document)})
    else:
        answer(serving_text(question, found, written=written, notes=notes, width=text_width()))
    return EXIT_NO if found.is_no else 0


def _handed_over(verb: Plan, best: Sequence[ServingOption]) -> tuple[ServingOption, str | None]:
    """The best plan that an engine takes (the first where none is taken), and why the best of all
    is not taken."""
    if not verb.fleet:
        return best[0], None
    lacks = [vllm_lack(one.plan) for one in best]
    taken = [one for one, lack in zip(best, lacks, strict=True) if lack is None]
    return (taken or best)[0], None if lacks[0] is None else lacks[0].what


def _lacks(verb: Plan, document: ServingDocument) -> str | None:
    """What is to be done before the plan can be handed over."""
    try:
        if verb.fleet:
            vllm_flags(document)
    except InputError as error:
        return f"{error.help}: {error.what}"
    return None


def _understand(verb: Plan) -> tuple[ServingQuestion, list[str]]:

    assert verb.serve is not None
    model = named_model(verb.model)
    workload = serve_workload(
        verb.serve, rate=verb.rate, users=verb.users, ttft=verb.ttft, tpot=verb.tpot
    )
    workload, notes = fitted_to(model, workload)
    formats = formats_of(verb.precision)
    threads: tuple[int, ...] = (1,)
    if verb.fleet:
        fleet = _fleet(verb)
    else:
        fleet, threads = _this_machine(model, formats)
        notes = [*notes, "its steps were measured on this machine, once for this model"]
    preset = not verb.serve.endswith(".toml")
    open_loop = workload.arrivals.kind in ("poisson", "bursty")
    question = ServingQuestion(
        model=model,
        workload=workload,
        fleet=fleet,
        fit=fitted_serving(),
        objective=objective_of(verb.objective),
        formats=formats,
        threads=threads,
        rate_is_given=not (preset and open_loop and verb.rate is None),
        seed=verb.seed,
    )
    _check_figures(question)
    return question, notes


def formats_of(words: str | None) -> Formats:
    """`bf16,int8,kv-fp8`: formats of products, of weights alone, of keys and values. Weights and
    cache may stay as the products are, too."""
    if words is None:
        return Formats()
    known = (*get_args(Precision), *_WEIGHTS, *_CACHES)
    chosen = [choose(word, known, at="--precision") for word in words.split(",")]
    products = [word for word in chosen if word in get_args(Precision)]
    weights = [word for word in chosen if word in _WEIGHTS]
    caches = [word.removeprefix("kv-") for word in chosen if word in _CACHES]
    return Formats(
        products=cast("tuple[Precision, ...]", tuple(dict.fromkeys(products))),
        weights=cast("tuple[WeightPrecision, ...]", ("same", *dict.fromkeys(weights))),
        caches=cast("tuple[KvPrecision, ...]", ("same", *dict.fromkeys(caches))),
    )


def _fleet(verb: Plan) -> Fleet:
    from twofold.catalog import read_fleet

    if len(verb.fleet) > 1:
        raise InputError(
            "a serving plan is made for one fleet",
            at="--fleet",
            help="put unlike pools into one fleet file, or ask for each fleet by itself",
        )
    return read_fleet(verb.fleet, region=verb.region, term=term_of(verb.term))


def _this_machine(model: Model, formats: Formats) -> tuple[Fleet, tuple[int, ...]]:
    """With the engine's steps measured for each number of threads and format, once a model."""
    import os

    from twofold.cli.machine import require_torch
    from twofold.measure.serving_curves import local_serving_fleet

    require_torch()
    cores = len(os.sched_getaffinity(0))
    threads = tuple(sorted({1, cores}))
    with watcher() as progress:
        fleet = local_serving_fleet(
            model,
            threads=threads,
            precisions=formats.products or ("fp32", "bf16"),
            weight_precisions=formats.weights,
            progress=progress,
        )
    return fleet, threads


def _refuse_training_options(verb: Plan) -> None:
    defaults = {name: one.default for name, one in type(verb).__dataclass_fields__.items()}
    for name in _TRAINING:
        if getattr(verb, name) != defaults[name]:
            raise InputError(
                f"--{name.replace('_', '-')} is for training, and goes without --serve",
                at="plan",
                help="leave one of them out",
            )


def _check_figures(question: ServingQuestion) -> None:
    """Unknown is refused where it is asked for, with the figure that is missing."""
    for pool in question.fleet.pools:
        lacks = {
            "cost": pool.usd_per_node_hour is None,
            "energy": pool.node.accelerator.power_max_w is None,
            "carbon": pool.grid_kgco2e_per_kwh is None or pool.node.accelerator.power_max_w is None,
        }
        if lacks.get(question.objective):
            raise InputError(
                f"a figure of '{pool.name}' that {question.objective} needs is unknown",
                at="--objective",
                help="give prices, power or the grid's carbon in a fleet.toml, or --region",
            )
