"""What no engine of others has, and what few have: refusals that several of them state."""

from __future__ import annotations

from collections.abc import Collection

from twofold.engines.export.form import Case, Lack
from twofold.plan import Plan


def _pools(plan: Plan) -> set[str]:
    placed = {share.pool for share in plan.shares} | {stage.pool for stage in plan.stages}
    return placed or {plan.pool}


EVERYWHERE = (
    Lack(
        lever="shares",
        refuses=lambda case: bool(case.plan.shares),
        what="{engine} gives every data rank as many sequences",
        help="plan on one pool, or run the plan with `twofold run`",
    ),
    Lack(
        lever="stages",
        refuses=lambda case: len(_pools(case.plan)) > 1,
        what="{engine} numbers machines by itself, and the plan places its stages on unlike pools",
        help="plan on one pool, or run the plan with `twofold run --hosts`",
    ),
    Lack(
        lever="rebalance_steps",
        refuses=lambda case: case.plan.rebalance_steps > 0,
        what="{engine} does not move work between ranks while it trains",
        help="plan with rebalance_steps 0",
    ),
    Lack(
        lever="local_steps",
        refuses=lambda case: case.plan.local_steps > 0,
        what="the export to {engine} sums gradients every step, and the plan takes "
        "{plan.local_steps} local steps between exchanges",
        help="plan with local_steps 0",
    ),
    Lack(
        lever="workload, recipe.optimizer",
        refuses=lambda case: case.workload.recipe.optimizer != "adamw",
        what="the {workload.recipe.optimizer} of {engine} is not scaled as the plan's: it would "
        "learn otherwise",
        help="plan with the optimizer adamw",
    ),
    Lack(
        lever="micro_batch",
        refuses=lambda case: (
            case.workload.recipe.global_batch % (case.plan.micro_batch * case.plan.data_degree) > 0
        ),
        what="{plan.data_degree} data ranks with micro-batches of {plan.micro_batch} do not divide "
        "the global batch of {workload.recipe.global_batch}",
        help="use a micro-batch x data degree that divides it",
    ),
    Lack(
        lever="model, operators",
        refuses=lambda case: bool(case.model.operators) or case.model.entry is not None,
        what="'{model.name}' is no transformer that {engine} could build from its shape",
        help="run the plan with `twofold run`, or write the model for {engine} yourself",
    ),
)


def at_most(lever: str, most: int, help: str) -> Lack:
    """The engine has no more of a degree than `most`."""
    return Lack(
        lever=lever,
        refuses=lambda case: getattr(case.plan, lever) > most,
        what=f"{{engine}} has no {lever} of {{plan.{lever}}}",
        help=help,
    )


def only(lever: str, values: Collection[object], help: str) -> Lack:
    """The engine has the lever at these values alone."""
    allowed = ", ".join(str(value) for value in values)
    return Lack(
        lever=lever,
        refuses=lambda case: getattr(case.plan, lever) not in values,
        what=f"{{engine}} has {lever} {allowed}, not {{plan.{lever}}}",
        help=help,
    )


NO_PIPELINE = (
    at_most("pipeline_degree", 1, "plan with pipeline_degree 1"),
    at_most("virtual_stages", 1, "plan with virtual_stages 1"),
)


OWN_DATA = Lack(
    lever="workload, text",
    refuses=lambda case: case.tokens is not None,
    what="{engine} reads data in its own form, and the plan names the text '{workload.text}'",
    help="plan for --tokens alone and give {engine} its own data, or export to accelerate or "
    "deepspeed",
)


def warmup_steps(case: Case) -> int:
    """Whole steps of warm-up, for engines that count them."""
    return round(case.workload.recipe.warmup_fraction * case.workload.num_steps)
