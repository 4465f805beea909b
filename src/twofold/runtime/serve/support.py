"""What the embedded engine cannot serve, refused by name before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twofold.errors import InputError
from twofold.model import Model
from twofold.serving_document import ServingDocument
from twofold.serving_plan import ServingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`what` may name fields: {plan.tensor_degree}, {model.name}."""

    lever: str
    refuses: Callable[[ServingPlan, Model], bool]
    what: str
    help: str


_OTHER_ENGINE = "hand the plan to an engine that has it: twofold serve prints its command"

RULES: tuple[Rule, ...] = (
    *(
        Rule(
            lever=lever,
            refuses=lambda plan, model, lever=lever: getattr(plan, lever) > 1,  # type: ignore[misc]
            what=f"the embedded engine serves on one device, and {lever} is {{plan.{lever}}}",
            help=f"plan with {lever} 1, or {_OTHER_ENGINE}",
        )
        for lever in (
            "replicas",
            "tensor_degree",
            "pipeline_degree",
            "attention_data_degree",
            "expert_degree",
        )
    ),
    Rule(
        lever="precision",
        refuses=lambda plan, model: plan.precision not in ("fp32", "bf16"),
        what="the embedded engine does not compute in {plan.precision}",
        help="plan in fp32 or bf16",
    ),
    Rule(
        lever="weight_precision",
        refuses=lambda plan, model: plan.weight_precision not in ("same", "int8"),
        what="the embedded engine does not store weights in {plan.weight_precision}",
        help="plan with weight_precision 'same' or 'int8'",
    ),
    Rule(
        lever="weight_precision",
        refuses=lambda plan, model: plan.weight_precision == "int8" and model.experts is not None,
        what="the embedded engine does not store the experts of '{model.name}' in int8",
        help="plan with weight_precision 'same'",
    ),
    Rule(
        lever="kv_precision",
        refuses=lambda plan, model: plan.kv_precision != "same",
        what="the embedded engine keeps keys and values as it computes them, not in "
        "{plan.kv_precision}",
        help="plan with kv_precision 'same'",
    ),
    Rule(
        lever="prefill",
        refuses=lambda plan, model: plan.prefill is not None,
        what="the embedded engine computes prompts where it decodes, and the plan has a pool for "
        "them",
        help=f"plan without prefill, or {_OTHER_ENGINE}",
    ),
    Rule(
        lever="compile",
        refuses=lambda plan, model: plan.compile,
        what="the embedded engine does not compile its network",
        help="plan with compile off",
    ),
)


def serving_lack(model: Model) -> str | None:
    """Why the embedded engine cannot build the model; None where it can."""
    lacks = {
        "an operator table is no network": bool(model.operators),
        "it is a network of your own": model.entry is not None,
        "it is an encoder": not model.causal,
        "it has latent attention": model.latent is not None,
        "it has towers": bool(model.towers),
        "it has attention sinks": model.attention_sinks,
        f"its norms stand {model.norm_place} the blocks' parts": model.norm_place != "before",
        "its embedding is normalised": model.embedding_norm,
        f"its positions are '{model.position}'": model.position in ("alibi", "none"),
        f"its activation is '{model.activation}'": model.activation in ("relu", "geglu"),
        "its products within the feed-forward network have other biases": (
            model.mlp_bias not in (None, model.bias)
        ),
        "it has token types, a pooler or a masked head": bool(
            model.token_types or model.pooler or model.masked_head
        ),
    }
    return next((lack for lack, present in lacks.items() if present), None)


def refuse_unsupported(document: ServingDocument) -> None:
    """Raise InputError for the first thing that cannot be honoured."""
    plan, model = document.plan, document.model
    lack = serving_lack(model)
    if lack is not None:
        raise InputError(
            f"the embedded engine cannot build this model: {lack}",
            at=f"model '{model.name}'",
            help="serve it with another engine",
        )
    for rule in RULES:
        if rule.refuses(plan, model):
            raise InputError(
                rule.what.format(plan=plan, model=model), at=f"plan, {rule.lever}", help=rule.help
            )
    if document.weights is None:
        raise InputError(
            "the plan names no weights",
            at="weights",
            help="plan from the model's folder, or with weights 'random' for a load test",
        )
