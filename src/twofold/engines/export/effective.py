"""A plan without the levers that do nothing: what two plans that execute alike have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace

from twofold.engines.export.form import NO_POOL
from twofold.model import Model
from twofold.plan import Plan
from twofold.workload import Train


def effective_plan(plan: Plan, model: Model, workload: Train) -> Plan:
    """Levers that change nothing about this execution stand at their defaults.

    The schedule of a pipeline of one stage, shards over all data ranks, equal shares of one pool,
    the precision of Muon's iteration under AdamW ...
    """
    changes = _parallel(plan, model) | _recompute(plan, model)
    if workload.recipe.optimizer != "muon":
        changes["orthogonal_precision"] = "bf16"
    if plan.local_steps == 0:
        changes |= {"exchange_precision": "fp32", "exchange_fragments": 1}
    if plan.stages and len(plan.stages) == 1:
        changes |= {"stages": (), "pool": plan.stages[0].pool}
    if _equal_shares(plan):
        changes |= {"shares": (), "pool": plan.shares[0].pool}
    return replace(plan, **changes)  # type: ignore[arg-type]


def _parallel(plan: Plan, model: Model) -> dict[str, object]:
    changes: dict[str, object] = {}
    if plan.tensor_degree == 1:
        changes["sequence_parallel"] = False
    if plan.pipeline_degree == 1:
        changes["schedule"] = "1f1b"
    if plan.schedule == "interleaved" and plan.virtual_stages == 1:
        changes["schedule"] = "1f1b"
    if plan.data_degree == 1 and plan.offload == "none":
        changes |= {"zero_stage": 0, "shard_degree": 0}
    if plan.zero_stage == 0 or plan.shard_degree == plan.data_degree:
        changes["shard_degree"] = 0
    if model.experts is None:
        changes |= {"expert_degree": 1, "expert_tensor_degree": 1}
    return changes


def _recompute(plan: Plan, model: Model) -> dict[str, object]:
    if plan.recompute == "full" and plan.recompute_layers == 0:
        return {"recompute": "none", "recompute_layers": None}
    largest = max((s.layers for s in plan.stages), default=-(-model.layers // plan.pipeline_degree))
    if plan.recompute != "full" or (plan.recompute_layers or 0) >= largest:
        return {"recompute_layers": None}
    return {}


def _equal_shares(plan: Plan) -> bool:
    shares = plan.shares
    per_rank = {share.sequences for share in shares}
    return bool(shares) and len({share.pool for share in shares}) == 1 and len(per_rank) == 1


def carried_plan(plan: Plan, model: Model, workload: Train, *, ignores: Iterable[str] = ()) -> Plan:
    """What an engine's files carry of a plan, and are read back as.

    The effective plan, without the names of pools (which machines an engine runs on is its
    launcher's matter) and with the levers that the engine settles by itself at their defaults.
    """
    effective = effective_plan(plan, model, workload)
    stages = tuple(replace(stage, pool=NO_POOL) for stage in effective.stages)
    own = {field.name: field.default for field in fields(Plan) if field.name in set(ignores)}
    return replace(effective, pool=NO_POOL, stages=stages, **own)  # type: ignore[arg-type]
