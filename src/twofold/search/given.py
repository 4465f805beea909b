"""A plan that somebody states, `tp=8 pp=4 recompute=full` or a TOML, checked against its problem.

The words are the field's: dp tp cp pp ep etp (degrees), mb (micro-batch), zero (stage), shard
(ranks of hybrid sharding), vpp (chunks a device), layers (recomputed ones, under recompute=full),
sp; and precision, attention, recompute, schedule, offload, as in `Plan`. `dp` fills the fleet
where it is not stated.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from twofold.document import from_mapping, read_text
from twofold.errors import InputError
from twofold.fleet import Pool
from twofold.model import Model
from twofold.perf.fleet import Problem
from twofold.perf.speeds import peak_flop_per_s
from twofold.plan import Attention, Offload, Plan, Precision, Recompute, Schedule
from twofold.search.fleet_rules import check_fleet_plan
from twofold.search.space import divisors

WORDS = {
    "dp": "data_degree",
    "tp": "tensor_degree",
    "cp": "context_degree",
    "pp": "pipeline_degree",
    "ep": "expert_degree",
    "etp": "expert_tensor_degree",
    "vpp": "virtual_stages",
    "mb": "micro_batch",
    "zero": "zero_stage",
    "shard": "shard_degree",
    "sp": "sequence_parallel",
    "layers": "recompute_layers",
}
_KNOWN = (
    *WORDS,
    *WORDS.values(),
    *("precision", "attention", "recompute", "schedule", "offload", "pool"),
)
_BARE = ("sp", "sequence_parallel")
_CHOICES: dict[str, tuple[str, ...]] = {
    "precision": get_args(Precision),
    "attention": get_args(Attention),
    "recompute": get_args(Recompute),
    "schedule": get_args(Schedule),
    "offload": get_args(Offload),
}


def plan_words(plan: Plan) -> str:
    """A plan in the words that `read_given_plan` reads: what that supposes is left out, but for
    what people look for first."""
    said = [plan.precision, f"dp={plan.data_degree}"]
    for word in ("tp", "cp", "pp", "vpp", "ep", "etp"):
        degree = getattr(plan, WORDS[word])
        if degree > 1:
            said.append(f"{word}={degree}")
    said.append(f"mb={plan.micro_batch}")
    said.append(f"zero={plan.zero_stage}")
    if plan.shard_degree:
        said.append(f"shard={plan.shard_degree}")
    if plan.sequence_parallel:
        said.append("sp")
    elif plan.tensor_degree > 1:
        said.append("sp=0")
    if plan.pipeline_degree > 1 or plan.schedule != "1f1b":
        said.append(f"schedule={plan.schedule}")
    if plan.recompute != "none":
        said.append(f"recompute={plan.recompute}")
    if plan.recompute_layers is not None:
        said.append(f"layers={plan.recompute_layers}")
    if plan.attention != "sdpa":
        said.append(f"attention={plan.attention}")
    if plan.offload != "none":
        said.append(f"offload={plan.offload}")
    return " ".join(said)


def read_given_plan(text: str, problem: Problem) -> Plan:
    """The plan of `text`, or of the TOML file it names, legal for the problem. InputError else."""
    path = Path(text)
    if path.suffix == ".toml":
        levers, at = _read_toml(path), str(path)
    else:
        levers, at = _read_words(text), "--plan"
    pool = problem.pool
    _check_words(levers, pool, at)
    tensor = _degree(levers, "tensor_degree", at)
    if not problem.model.operators:
        _check_tensor(tensor, problem.model, at)
    others = tensor * _degree(levers, "context_degree", at)
    others *= _degree(levers, "pipeline_degree", at)
    if "data_degree" not in levers:
        if pool.num_devices % others:
            raise InputError(
                f"tensor x context x pipeline degrees of {others} do not divide the "
                f"{pool.num_devices} devices of '{pool.name}'",
                at=at,
                help="change a degree, or the number of devices",
            )
        levers["data_degree"] = pool.num_devices // others
    plan = from_mapping(_with_defaults(levers, pool), Plan, at=at)
    check_given(plan, problem, at)
    return plan


def check_given(plan: Plan, problem: Problem, at: str) -> None:
    """InputError where the plan cannot be run: a degree that does not divide, a missing format.

    What people get wrong most is told with the values that would do; the rest by its rule.
    """
    model, pool, workload = problem.model, problem.pool, problem.workload
    devices = plan.data_degree * plan.tensor_degree * plan.context_degree * plan.pipeline_degree
    if devices != pool.num_devices:
        raise InputError(
            f"the plan is for {devices} devices, '{pool.name}' has {pool.num_devices}",
            at=at,
            help="leave dp out to fill the fleet, or change a degree or the number of devices",
        )
    _check_model(plan, model, at)
    _must_divide(
        "the micro-batch on all data ranks",
        plan.micro_batch * plan.data_degree,
        f"sequences of a global batch of {workload.recipe.global_batch}",
        workload.recipe.global_batch,
        at,
    )
    _must_divide(
        "context degree",
        plan.context_degree,
        f"tokens of sequences of {workload.seq_len}",
        workload.seq_len,
        at,
    )
    ranks = plan.data_degree * plan.context_degree
    if plan.shard_degree:
        _must_divide("shard", plan.shard_degree, "data x context ranks", ranks, at)
    chunks = plan.pipeline_degree * plan.virtual_stages
    if not model.operators and chunks > model.layers:
        raise InputError(
            f"{chunks} pipeline chunks are more than the {model.layers} layers of '{model.name}'",
            at=f"{at}, pipeline",
            help=f"use at most {model.layers}",
        )
    stage_layers = -(-model.layers // plan.pipeline_degree)
    if plan.recompute_layers is not None and plan.recompute_layers > stage_layers:
        raise InputError(
            f"{plan.recompute_layers} recomputed layers are more than the {stage_layers} of a "
            "pipeline stage",
            at=f"{at}, layers",
            help=f"use at most {stage_layers}, or leave layers out to recompute all",
        )
    if (plan.virtual_stages > 1) != (plan.schedule == "interleaved"):
        raise InputError(
            f"schedule {plan.schedule} with {plan.virtual_stages} chunks a device",
            at=f"{at}, schedule",
            help="interleaved needs vpp of at least 2, every other schedule vpp=1",
        )
    peak_flop_per_s(pool.node.accelerator, plan.precision)
    check_fleet_plan(problem, plan)


def _check_words(levers: Mapping[str, Any], pool: Pool, at: str) -> None:
    """InputError where a word is none of its lever's, or levers are missing."""
    if not levers:
        raise InputError("the plan has no levers", at=at, help='write for instance "tp=8 pp=4"')
    for name, choices in _CHOICES.items():
        word = levers.get(name, choices[0])
        if word not in choices:
            near = difflib.get_close_matches(str(word), choices, n=1, cutoff=0.5)
            raise InputError(
                f"there is no {name} {word!r}",
                at=at,
                help=(f"perhaps '{near[0]}' is meant; " if near else "")
                + "use one of "
                + ", ".join(choices),
            )
    if levers.get("pool", pool.name) != pool.name:
        raise InputError(
            f"the plan is for the pool {levers['pool']!r}, the fleet is '{pool.name}'",
            at=at,
            help="leave pool out",
        )
    if "recompute_layers" in levers:
        _degree(levers, "recompute_layers", at)
        if levers.get("recompute") != "full":
            raise InputError(
                "a count of recomputed layers goes with recompute=full",
                at=at,
                help="add recompute=full, or leave the count out",
            )


def _check_model(plan: Plan, model: Model, at: str) -> None:
    if model.operators:
        if plan.tensor_degree * plan.context_degree * plan.expert_degree > 1:
            raise InputError(
                f"'{model.name}' is no transformer: it has no tensor, context or expert axis",
                at=at,
                help="use dp and zero",
            )
        return
    _check_tensor(plan.tensor_degree, model, at)
    experts = 1 if model.experts is None else model.experts.count
    what = f"experts of '{model.name}'" if model.experts else f"expert ('{model.name}' is dense)"
    _must_divide("expert degree", plan.expert_degree, what, experts, at)
    ranks = plan.data_degree * plan.context_degree * plan.tensor_degree
    _must_divide(
        "expert x expert-tensor degree",
        plan.expert_degree * plan.expert_tensor_degree,
        "ranks of a pipeline stage",
        ranks,
        at,
    )


def _check_tensor(degree: int, model: Model, at: str) -> None:
    heads = f"attention heads of '{model.name}'"
    _must_divide("tensor degree", degree, heads, model.heads, at)


def _must_divide(what: str, degree: int, of: str, number: int, at: str) -> None:
    if number % degree == 0:
        return
    near = [d for d in divisors(number) if d <= 4 * degree][-8:]
    raise InputError(
        f"{what} {degree} does not divide the {number} {of}",
        at=at,
        help="use one of " + ", ".join(map(str, near)),
    )


def _with_defaults(levers: dict[str, Any], pool: Pool) -> dict[str, Any]:
    """What a well-informed user leaves unsaid."""
    rates = pool.node.accelerator.flop_per_s
    rest: dict[str, Any] = {
        "pool": pool.name,
        "micro_batch": 1,
        "zero_stage": 1,
        "precision": next((p for p in ("bf16", "fp16", "fp32") if p in rates), "bf16"),
        "sequence_parallel": levers.get("tensor_degree", 1) > 1,
        "schedule": "interleaved" if levers.get("virtual_stages", 1) > 1 else "1f1b",
        "optimizer_kernel": "fused",
    }
    return rest | levers


def _degree(levers: Mapping[str, Any], name: str, at: str) -> int:
    value = levers.get(name, 1)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} is {value!r}", at=at, help="use a whole number of at least 1")
    return value


def _read_words(text: str) -> dict[str, Any]:
    levers: dict[str, Any] = {}
    for item in text.replace(",", " ").split():
        word, equals, value = item.partition("=")
        if not equals and word in _CHOICES["precision"]:
            word, value = "precision", word
        elif not equals and word in _BARE:
            value = "1"
        elif not equals or not value:
            raise InputError(
                f"'{item}' is not WORD=VALUE",
                at="--plan",
                help='write for instance --plan "tp=8 pp=4 recompute=full", or name a .toml file',
            )
        name = _field(word, "--plan")
        if name in levers:
            raise InputError(f"'{word}' is said twice", at="--plan", help="say it once")
        levers[name] = _value(name, value)
    return levers


def _value(name: str, text: str) -> Any:
    if name == "sequence_parallel":
        if text.lower() not in ("0", "1", "true", "false"):
            raise InputError(f"sp is '{text}'", at="--plan", help="use 1 or 0")
        return text.lower() in ("1", "true")
    if name in WORDS.values():
        if not text.isascii() or not text.isdigit():
            raise InputError(
                f"{name} is '{text}'", at="--plan", help="use a whole number of at least 1"
            )
        return int(text[:12])
    return text


def _field(word: str, at: str) -> str:
    name = WORDS.get(word, word)
    if name in {field.name for field in fields(Plan)}:
        return name
    near = difflib.get_close_matches(word, _KNOWN, n=1, cutoff=0.5)
    raise InputError(
        f"there is no lever '{word}'",
        at=at,
        help=(f"perhaps '{near[0]}' is meant; " if near else "")
        + "levers: "
        + " ".join((*WORDS, "precision", "recompute", "schedule", "offload", "attention")),
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(
            f"the file is not TOML: {error}", at=str(path), help="correct it"
        ) from error
    table = content.get("plan", content)
    if not isinstance(table, dict):
        raise InputError(
            "`plan` is not a table", at=str(path), help="write [plan] above the levers"
        )
    return {_field(word, f"{path}, {word}"): value for word, value in table.items()}
