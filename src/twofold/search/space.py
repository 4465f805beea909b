"""The legal levers of one device: which values exist, which are refused, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

from twofold.errors import InputError
from twofold.fleet import Accelerator, Curves, Fleet, Pool
from twofold.model import Model
from twofold.perf.efficiency import measured_threads, require_curves
from twofold.plan import Attention, OptimizerKernel, Plan, Precision, Recompute
from twofold.workload import Train

_CPU_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_GPU_PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
_RECOMPUTES: tuple[Recompute, ...] = ("none", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """The values each lever may take on one pool, for one workload."""

    pool: str
    micro_batch: tuple[int, ...]
    precision: tuple[Precision, ...]
    attention: tuple[Attention, ...]
    recompute: tuple[Recompute, ...]
    compile: tuple[bool, ...]
    threads: tuple[int, ...]
    optimizer_kernel: tuple[OptimizerKernel, ...]
    orthogonal_precision: tuple[Literal["fp32", "bf16"], ...]

    def plans(self) -> Iterator[Plan]:
        """Every combination, in a fixed order."""
        for (
            precision,
            attention,
            threads,
            recompute,
            compiled,
            kernel,
            orthogonal,
            micro,
        ) in product(
            self.precision,
            self.attention,
            self.threads,
            self.recompute,
            self.compile,
            self.optimizer_kernel,
            self.orthogonal_precision,
            self.micro_batch,
        ):
            yield Plan(
                pool=self.pool,
                micro_batch=micro,
                precision=precision,
                attention=attention,
                recompute=recompute,
                compile=compiled,
                threads=threads,
                optimizer_kernel=kernel,
                orthogonal_precision=orthogonal,
            )


def make_levers(workload: Train, pool: Pool) -> Levers:
    """All values worth naming on this pool, legal or not; `refusal` tells which are not."""
    accelerator = pool.node.accelerator
    curves = require_curves(accelerator)
    cpu = accelerator.kind == "cpu"
    muon = workload.recipe.optimizer == "muon"
    return Levers(
        pool=pool.name,
        micro_batch=divisors(workload.recipe.global_batch),
        precision=_CPU_PRECISIONS if cpu else _GPU_PRECISIONS,
        attention=get_args(Attention),
        recompute=_RECOMPUTES,
        compile=(False, True),
        threads=measured_threads(curves),
        optimizer_kernel=get_args(OptimizerKernel),
        orthogonal_precision=("fp32", "bf16") if muon else ("fp32",),
    )


def refusal(plan: Plan, workload: Train, accelerator: Accelerator) -> str | None:
    """Why the plan cannot run or cannot be predicted on this device; None where it can.

    The sentences are few and fixed, so that rejections can be counted by them.
    """
    curves = require_curves(accelerator)
    if plan.threads not in measured_threads(curves):
        return "thread count not measured"
    if plan.compile and not _has_compiler(curves):
        return "no compiler for torch.compile"
    if not _has_products(curves, "linear", plan.precision, plan.threads):
        return f"{plan.precision} not measured"
    if not _has_attention(curves, plan):
        return f"{plan.attention} attention in {plan.precision} not measured"
    if workload.recipe.optimizer == "muon" and not _has_products(
        curves, "orthogonalise", plan.orthogonal_precision, plan.threads
    ):
        return f"orthogonalisation in {plan.orthogonal_precision} not measured"
    return None


def legal_plans(workload: Train, pool: Pool) -> tuple[list[Plan], Counter[str]]:
    """The plans that can run and be predicted on the pool, and how many cannot, by reason."""
    plans: list[Plan] = []
    refused: Counter[str] = Counter()
    for plan in make_levers(workload, pool).plans():
        reason = refusal(plan, workload, pool.node.accelerator)
        if reason is None:
            plans.append(plan)
        else:
            refused[reason] += 1
    return plans, refused


def check_plan(model: Model, workload: Train, fleet: Fleet, plan: Plan) -> None:
    """InputError when a lever of the plan has a value that is not legal here."""
    accelerator = fleet.pool(plan.pool).node.accelerator
    for axis in ("data_degree", "tensor_degree", "pipeline_degree"):
        if getattr(plan, axis) != 1:
            _refuse(axis, f"{axis} {getattr(plan, axis)} needs more than one device", "use 1")
    _check_values(plan)
    batch = workload.recipe.global_batch
    if batch % plan.micro_batch:
        _refuse(
            "micro_batch",
            f"micro-batch {plan.micro_batch} does not divide the global batch of {batch}",
            "use one of " + ", ".join(map(str, divisors(batch))),
        )
    if plan.threads > accelerator.threads:
        _refuse(
            "threads",
            f"{plan.threads} threads on {accelerator.threads} cores of '{accelerator.name}'",
            f"use at most {accelerator.threads}",
        )
    if workload.seq_len > model.max_seq_len:
        raise InputError(
            f"sequences of {workload.seq_len} tokens in a model made for {model.max_seq_len}",
            at="workload, seq_len",
            help=f"use at most {model.max_seq_len}, or raise the model's max_seq_len",
        )
    reason = refusal(plan, workload, accelerator)
    if reason is not None:
        _refuse("levers", f"{reason} on '{accelerator.name}'", "choose another, or calibrate again")


def divisors(number: int) -> tuple[int, ...]:
    return tuple(d for d in range(1, number + 1) if number % d == 0)


def _check_values(plan: Plan) -> None:
    allowed: dict[str, tuple[str, ...]] = {
        "precision": _GPU_PRECISIONS,
        "attention": get_args(Attention),
        "recompute": _RECOMPUTES,
        "optimizer_kernel": get_args(OptimizerKernel),
    }
    for name, values in allowed.items():
        value = getattr(plan, name)
        if value not in values:
            _refuse(name, f"there is no {name} '{value}'", "use one of " + ", ".join(values))


def _has_compiler(curves: Curves) -> bool:
    figure = curves.scalars.get("compiler_available")
    return figure is not None and figure.value > 0


def _has_products(curves: Curves, op: str, precision: str, threads: int) -> bool:
    return any((c.op, c.precision, c.threads) == (op, precision, threads) for c in curves.gemm)


def _has_attention(curves: Curves, plan: Plan) -> bool:
    wanted = plan.attention, plan.precision, plan.threads
    return any((c.kernel, c.precision, c.threads) == wanted for c in curves.attention)


def _refuse(lever: str, what: str, help: str) -> None:
    raise InputError(what, at=f"plan, {lever}", help=help)
