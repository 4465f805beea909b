"""AdamW as torch has it, Muon for hidden matrices, and the learning-rate schedules."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Shard, _StridedShard

from twofold.plan import Plan
from twofold.runtime.train.shards import local_part, shard_of, whole_of
from twofold.workload import Recipe

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz (Jordan et al. 2024), matrices of a shape at once.

    Experts' weights [L, outputs, inputs] are so many matrices; a rank moves those that it holds.

    `torch.optim.Muon` does the same one matrix at a time and always in bfloat16, which a CPU
    without bfloat16 units emulates a hundred times slower; here the precision is a lever. The
    update is scaled by sqrt(max(1, rows / columns)), as in Jordan's reference.

    A sharded matrix is gathered for its orthogonalisation, which every rank then repeats to keep
    its own part: right under any layout, and costly, as neither work nor memory of it is divided.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        steps: int,
        precision: torch.dtype,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.precision = precision
        self.steps = steps

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    direction = self._direction(parameter, group["momentum"])
                    by_shape[direction.shape].append((parameter, direction))
            for alike in by_shape.values():
                self._step_shape(alike, group)

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        """Whole matrices of the gradient's momentum, Nesterov's."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer, gradient = local_part(state["momentum_buffer"]), local_part(_grad(parameter))
        buffer.lerp_(gradient, 1 - momentum)
        direction = gradient.lerp(buffer, momentum)
        return whole_of(direction, parameter) if _is_cut(parameter) else direction

    def _step_shape(self, alike: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        stacked = torch.stack([direction for _, direction in alike])
        rows, columns = stacked.shape[-2:]
        matrices = stacked.view(-1, rows, columns)
        updates = orthogonalise(matrices, self.steps, self.precision).view_as(stacked)
        rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
        for (parameter, _), update in zip(alike, updates, strict=True):
            mine = shard_of(update, parameter) if _is_cut(parameter) else update
            held = local_part(parameter)
            held.mul_(1 - group["lr"] * group["weight_decay"])
            held.add_(mine.to(held.dtype), alpha=-rate)


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _is_cut(parameter: Tensor) -> bool:
    """Whether ranks hold parts of its matrices; those of whole experts are held whole."""
    return isinstance(parameter, DTensor) and any(
        isinstance(placement, (Shard, _StridedShard)) and placement.dim >= parameter.ndim - 2
        for placement in parameter.placements
    )


def orthogonalise(matrices: Tensor, steps: int, precision: torch.dtype) -> Tensor:
    """Nearest semi-orthogonal matrices [n, rows, columns] by quintic Newton-Schulz steps.

    After five, singular values lie in about 0.7 to 1.2, which Muon does not mind; after fewer,
    the smallest lag behind.
    """
    a, b, c = _NEWTON_SCHULZ
    x = matrices.to(precision)
    wide = x.shape[-2] > x.shape[-1]
    if wide:
        x = x.transpose(-1, -2)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(-1, -2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(-1, -2) if wide else x


def make_optimizers(network: nn.Module, recipe: Recipe, plan: Plan) -> list[torch.optim.Optimizer]:
    """AdamW over everything, or Muon over the blocks' matrices and AdamW over the rest.

    Only matrices are decayed (nanoGPT's rule).
    """
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    if recipe.optimizer == "muon":
        hidden = [p for name, p in named if _is_hidden_matrix(name, p)]
        rest = [(name, p) for name, p in named if not _is_hidden_matrix(name, p)]
        assert recipe.adam_learning_rate is not None
        precision = torch.bfloat16 if plan.orthogonal_precision == "bf16" else torch.float32
        muon = Muon(
            hidden,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            steps=recipe.orthogonal_steps,
            precision=precision,
        )
        return [muon, _adamw(rest, recipe, plan, recipe.adam_learning_rate, decay=0.0)]
    return [_adamw(named, recipe, plan, recipe.learning_rate, decay=recipe.weight_decay)]


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    outer = "embedding" in name or "positions" in name or "head" in name
    return _is_matrix(name, parameter) and not outer


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Or many: experts' weights are stacked, and so are their biases, which are vectors."""
    return parameter.ndim >= 2 and not name.endswith("bias")


def _adamw(
    named: list[tuple[str, nn.Parameter]], recipe: Recipe, plan: Plan, rate: float, *, decay: float
) -> torch.optim.AdamW:
    matrices = [p for name, p in named if _is_matrix(name, p)]
    vectors = [p for name, p in named if not _is_matrix(name, p)]
    groups = [
        {"params": alike, "weight_decay": weight_decay}
        for parameters, weight_decay in ((matrices, decay), (vectors, 0.0))
        for alike in _by_layout(parameters)
    ]
    return torch.optim.AdamW(
        groups,
        lr=rate,
        betas=(recipe.beta1, recipe.beta2),
        fused=plan.optimizer_kernel == "fused",
        foreach=plan.optimizer_kernel == "foreach",
    )


def _by_layout(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Torch's kernels over many tensors take whole ones or shards over one mesh, not both."""
    alike: dict[object, list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        alike[parameter.device_mesh if isinstance(parameter, DTensor) else None].append(parameter)
    return list(alike.values())


def learning_rate_fraction(recipe: Recipe, step: int, num_steps: int) -> float:
    """The schedule at `step` (0-based) as a fraction of the peak rate.

    Warm-up is linear. `cosine` and `linear` then fall to the final fraction over the rest;
    `trapezoid` stays at the peak until the last `decay_fraction`, then falls linearly.
    """
    warmup = recipe.warmup_fraction * num_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    final = recipe.final_learning_rate_fraction
    if recipe.schedule == "trapezoid":
        decay = max(1.0, recipe.decay_fraction * num_steps)
        progress = max(0.0, (step + 1 - (num_steps - decay)) / decay)
    else:
        progress = (step - warmup) / max(1.0, num_steps - warmup)
    if recipe.schedule == "cosine":
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
    return final + (1 - final) * (1 - progress)
