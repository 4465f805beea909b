"""What the embedded runtime cannot run, refused by name before anything is built.

One list for every owner of a part: a lever that is not honoured is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twofold.document import PlanDocument
from twofold.errors import InputError
from twofold.model import Model
from twofold.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`what` and `help` may name fields: {plan.tensor_degree}, {model.heads}."""

    lever: str
    refuses: Callable[[Plan, Model], bool]
    what: str
    help: str


RULES: tuple[Rule, ...] = (
    Rule(
        lever="virtual_stages",
        refuses=lambda plan, model: (
            plan.virtual_stages > 1
            and (plan.schedule != "interleaved" or plan.pipeline_degree == 1)
        ),
        what="{plan.virtual_stages} chunks a rank need the interleaved schedule of a pipeline, and "
        "the plan has '{plan.schedule}' over {plan.pipeline_degree} ranks",
        help="use schedule 'interleaved', or virtual_stages 1",
    ),
    Rule(
        lever="compile",
        refuses=lambda plan, model: plan.compile and plan.pipeline_degree > 1,
        what="the embedded runtime does not compile the stages of a pipeline",
        help="plan with compile off, or with pipeline degree 1",
    ),
    Rule(
        lever="context_degree",
        refuses=lambda plan, model: plan.context_degree > 1 and plan.sequence_parallel,
        what="the embedded runtime splits sequences over context or over tensor ranks, and the "
        "plan asks for both",
        help="plan without sequence_parallel, or with context degree 1",
    ),
    Rule(
        lever="context_degree",
        refuses=lambda plan, model: plan.context_degree > 1 and model.entry is not None,
        what="the embedded runtime splits sequences in its own networks, not in '{model.entry}'",
        help="plan with context degree 1",
    ),
    Rule(
        lever="expert_degree",
        refuses=lambda plan, model: plan.expert_degree > 1 and model.experts is None,
        what="'{model.name}' has no experts to spread over {plan.expert_degree} ranks",
        help="plan with expert degree 1",
    ),
    Rule(
        lever="expert_degree",
        refuses=lambda plan, model: (
            model.experts is not None and model.experts.count % plan.expert_degree != 0
        ),
        what="expert degree {plan.expert_degree} does not divide the {model.experts.count} "
        "experts of '{model.name}'",
        help="use a divisor of {model.experts.count}",
    ),
    Rule(
        lever="expert_degree",
        refuses=lambda plan, model: (
            plan.data_degree * plan.context_degree % plan.expert_degree != 0
        ),
        what="experts are spread over data and context ranks, and expert degree "
        "{plan.expert_degree} does not divide {plan.data_degree} x {plan.context_degree} of them",
        help="use a divisor of data degree x context degree",
    ),
    Rule(
        lever="expert_tensor_degree",
        refuses=lambda plan, model: plan.expert_tensor_degree > 1,
        what="the embedded runtime does not split one expert over {plan.expert_tensor_degree} "
        "ranks",
        help="plan with expert_tensor_degree 1, or hand the plan to an engine that has it",
    ),
    Rule(
        lever="expert_degree",
        refuses=lambda plan, model: plan.expert_degree > 1 and plan.zero_stage > 0,
        what="the embedded runtime spreads experts or shards state (ZeRO stage "
        "{plan.zero_stage}), and the plan asks for both",
        help="plan with ZeRO stage 0, or with expert degree 1",
    ),
    Rule(
        lever="tensor_degree",
        refuses=lambda plan, model: model.kv_heads % plan.tensor_degree > 0,
        what="tensor degree {plan.tensor_degree} does not divide the {model.kv_heads} key/value "
        "heads of '{model.name}'",
        help="use a tensor degree that divides {model.kv_heads}",
    ),
    Rule(
        lever="tensor_degree",
        refuses=lambda plan, model: model.ffn % plan.tensor_degree > 0,
        what="tensor degree {plan.tensor_degree} does not divide the {model.ffn} channels of "
        "'{model.name}''s feed-forward network",
        help="use a tensor degree that divides {model.ffn}",
    ),
    Rule(
        lever="sequence_parallel",
        refuses=lambda plan, model: plan.sequence_parallel and model.experts is not None,
        what="tensor ranks repeat the experts' work on whole sequences, and the plan splits the "
        "sequences between them",
        help="plan without sequence_parallel",
    ),
    Rule(
        lever="tensor_degree",
        refuses=lambda plan, model: plan.num_ranks > plan.data_degree and model.entry is not None,
        what="a network of your own ('{model.entry}') cannot be taken apart: only data ranks can "
        "share it",
        help="plan with data ranks alone",
    ),
    Rule(
        lever="zero_stage",
        refuses=lambda plan, model: plan.zero_stage > 0 and model.entry is not None,
        what="a network of your own ('{model.entry}') cannot be taken apart, and ZeRO stage "
        "{plan.zero_stage} shards it block by block",
        help="plan with ZeRO stage 0",
    ),
    Rule(
        lever="zero_stage",
        refuses=lambda plan, model: plan.zero_stage > 0 and plan.pipeline_degree > 1,
        what="the embedded runtime does not shard the stages of a pipeline",
        help="plan with ZeRO stage 0, or without a pipeline",
    ),
    Rule(
        lever="shard_degree",
        refuses=lambda plan, model: (
            plan.shard_degree > 0 and plan.data_degree % plan.shard_degree > 0
        ),
        what="{plan.shard_degree} shards do not divide the {plan.data_degree} data ranks",
        help="use a shard degree that divides {plan.data_degree}, or 0 for all of them",
    ),
    Rule(
        lever="compile",
        refuses=lambda plan, model: (
            plan.compile and (plan.tensor_degree > 1 or plan.zero_stage > 0)
        ),
        what="the embedded runtime does not compile layers that are split or sharded",
        help="plan with compile off, or with data ranks alone and ZeRO stage 0",
    ),
    Rule(
        lever="local_steps",
        refuses=lambda plan, model: plan.local_steps > 0 and plan.num_ranks > plan.data_degree,
        what="local updates are between data ranks alone, and the plan has {plan.data_degree} of "
        "{plan.num_ranks} ranks",
        help="plan with tensor, context and pipeline degrees of 1, or with local_steps 0",
    ),
    Rule(
        lever="local_steps",
        refuses=lambda plan, model: (
            plan.local_steps > 0 and (plan.expert_degree > 1 or plan.zero_stage > 0)
        ),
        what="under local updates every rank holds weights of its own, and the plan spreads them: "
        "expert degree {plan.expert_degree}, ZeRO stage {plan.zero_stage}",
        help="plan with expert degree 1 and ZeRO stage 0, or with local_steps 0",
    ),
    Rule(
        lever="local_steps",
        refuses=lambda plan, model: plan.local_steps > 0 and plan.data_degree < 2,
        what="local updates of one rank have nobody to be exchanged with",
        help="plan with local_steps 0",
    ),
    Rule(
        lever="rebalance_steps",
        refuses=lambda plan, model: plan.local_steps > 0 and plan.rebalance_steps > 0,
        what="under local updates ranks do not meet every step, and their shares stay",
        help="plan with rebalance_steps 0",
    ),
    Rule(
        lever="rebalance_steps",
        refuses=lambda plan, model: plan.expert_degree > 1 and plan.rebalance_steps > 0,
        what="ranks that spread experts wait for each other inside every pass, which hides their "
        "own speeds, and shares are to follow those",
        help="plan with rebalance_steps 0, or with expert degree 1",
    ),
    Rule(
        lever="exchange_fragments",
        refuses=lambda plan, model: (
            plan.exchange_fragments > 1
            and plan.exchange_fragments > min(plan.local_steps, model.layers)
        ),
        what="{plan.exchange_fragments} fragments of {model.layers} layers cannot be sent in "
        "{plan.local_steps} local steps",
        help="use at most as many fragments as local steps and as layers",
    ),
    Rule(
        lever="offload",
        refuses=lambda plan, model: plan.offload != "none",
        what="the embedded runtime offloads nothing, and the plan offloads '{plan.offload}'",
        help="plan without offload, or hand the plan to an engine that has it",
    ),
    Rule(
        lever="precision",
        refuses=lambda plan, model: plan.precision in ("fp16", "mxfp8", "nvfp4", "fp8"),
        what="the embedded runtime does not compute in {plan.precision}",
        help="plan in fp32, tf32 or bf16",
    ),
    Rule(
        lever="recompute",
        refuses=lambda plan, model: plan.recompute == "selective",
        what="the embedded runtime recomputes whole blocks or nothing, not '{plan.recompute}'",
        help="plan with recompute 'none' or 'full'",
    ),
    Rule(
        lever="recompute_layers",
        refuses=lambda plan, model: (
            plan.recompute == "full" and plan.recompute_layers not in (None, model.layers)
        ),
        what="the embedded runtime recomputes all {model.layers} layers or none, not "
        "{plan.recompute_layers}",
        help="leave recompute_layers out",
    ),
)


def refuse_unsupported(document: PlanDocument) -> None:
    """Raise InputError for the first rule that the plan breaks."""
    plan, model = document.plan, document.model
    for rule in RULES:
        if rule.refuses(plan, model):
            raise InputError(
                rule.what.format(plan=plan, model=model),
                at=f"plan, {rule.lever}",
                help=rule.help.format(plan=plan, model=model),
            )
    _refuse_uneven_sequences(document)


def _refuse_uneven_sequences(document: PlanDocument) -> None:
    plan, seq_len = document.plan, document.workload.seq_len
    parts = plan.context_degree * (plan.tensor_degree if plan.sequence_parallel else 1)
    if seq_len % parts:
        raise InputError(
            f"{seq_len} positions cannot be split evenly over {parts} ranks",
            at="plan, sequence_parallel" if plan.sequence_parallel else "plan, context_degree",
            help=f"use a sequence length that is a multiple of {parts}",
        )
