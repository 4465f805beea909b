"""Machines that are part one and part another: what a comparison is attributed on.

Two settings (model, workload, pool, plan, date) differ in up to eleven groups. A hybrid takes
each group from the one or the other: the chip of a B200 with the memory and the links of an
H100, under the plan of either. Many hybrids cannot be built at all, and price no less clearly
than real machines; those that could not even be run are refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from twofold.errors import InputError
from twofold.fleet import Accelerator, Pool
from twofold.model import Model
from twofold.perf.fleet import Problem, make_problem, price_table
from twofold.perf.plans import table_of
from twofold.perf.speeds import Efficiencies, age_months
from twofold.plan import Plan
from twofold.search.fleet_rules import check_fleet_plan
from twofold.workload import Train

_LAYOUT = (
    "tensor_degree",
    "context_degree",
    "pipeline_degree",
    "sequence_parallel",
    "zero_stage",
    "shard_degree",
    "schedule",
    "virtual_stages",
    "micro_batch",
    "offload",
)
"""The data degree is not among them: it is what the devices leave to a layout."""
_EXPERT_AXIS = ("expert_degree", "expert_tensor_degree")
"""Part of the layout between two sparse models; a dense one lacks the axis, so that against a
sparse one it is part of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One side of a comparison. `date` ("2026-11") says how ripe the software is."""

    model: Model
    workload: Train
    pool: Pool
    plan: Plan
    date: str

    @property
    def accelerator(self) -> Accelerator:
        return self.pool.node.accelerator

    @property
    def num_devices(self) -> int:
        return devices_of(self.plan)


def devices_of(plan: Plan) -> int:
    return plan.data_degree * plan.tensor_degree * plan.context_degree * plan.pipeline_degree


def _figures(*figures: Any) -> tuple[float | None, ...]:
    return tuple(None if figure is None else figure.value for figure in figures)


def _chip(setting: Setting) -> object:
    """Rates by precision, and what else comes with the die: its power and its failures."""
    device, node = setting.accelerator, setting.pool.node
    overhead = node.power_overhead_w
    return (
        device.die,
        device.vendor,
        {name: figure.value for name, figure in device.flop_per_s.items()},
        _figures(device.power_idle_w, device.power_max_w, device.failures_per_hour),
        None if overhead is None else overhead.value / node.num_accelerators,
        _figures(setting.pool.preemptions_per_hour),
    )


def _memory(setting: Setting) -> object:
    memory = setting.accelerator.memory
    return setting.accelerator.die, _figures(memory.bandwidth_bytes_per_s, memory.usable_bytes)


def _links(setting: Setting) -> object:
    node = setting.pool.node
    return node.num_accelerators, tuple(
        (
            link.scope,
            link.fabric,
            link.topology,
            link.domain,
            _figures(link.bandwidth_bytes_per_s, link.latency_s, link.pair_bytes_per_s),
        )
        for link in node.links
    )


def _workload(setting: Setting) -> object:
    workload = setting.workload
    return workload.seq_len, workload.recipe.global_batch, workload.tokens


GROUPS: Mapping[str, Callable[[Setting], object]] = {
    "chip rate": _chip,
    "memory": _memory,
    "link": _links,
    "devices": lambda s: s.num_devices,
    "precision": lambda s: s.plan.precision,
    "parallel layout": lambda s: tuple(getattr(s.plan, name) for name in _LAYOUT),
    "recompute": lambda s: (s.plan.recompute, s.plan.recompute_layers),
    "attention kernel": lambda s: s.plan.attention,
    "model": lambda s: replace(s.model, name="one"),
    "workload": _workload,
    "software age": lambda s: age_months(s.accelerator.launched, s.date),
}
"""What is compared to tell whether two settings differ in a group."""

PLAN_GROUPS = ("devices", "precision", "parallel layout", "recompute", "attention kernel")
"""Those that only the plan holds: hybrids that differ in no other are one problem's plans."""


def differing_groups(a: Setting, b: Setting) -> tuple[str, ...]:
    differ = {name for name, value in GROUPS.items() if value(a) != value(b)}
    if any(getattr(a.plan, name) != getattr(b.plan, name) for name in _EXPERT_AXIS):
        differ.add(_owner_of_experts(a, b))
    return tuple(name for name in GROUPS if name in differ)


def _owner_of_experts(a: Setting, b: Setting) -> str:
    both_or_none = (a.model.experts is None) == (b.model.experts is None)
    return "parallel layout" if both_or_none else "model"


def hybrid(a: Setting, b: Setting, from_b: Collection[str]) -> Setting:
    """`a` with the groups `from_b` taken from `b`.

    The device count is a group of its own: the layout's other degrees divide it into replicas,
    and where they do not `Pricer.refusal` says so. Price and place are dropped: they are factors.
    """

    def side(group: str) -> Setting:
        return b if group in from_b else a

    chip, memory, aged = side("chip rate"), side("memory"), side("software age")
    node = chip.pool.node
    overhead = node.power_overhead_w
    link_node = side("link").pool.node
    if overhead is not None:
        share = link_node.num_accelerators / node.num_accelerators
        overhead = replace(overhead, value=overhead.value * share)
    device = replace(
        chip.accelerator,
        die=_hybrid_die(chip, memory),
        memory=memory.accelerator.memory,
        launched=aged.accelerator.launched,
    )
    layout, recompute = side("parallel layout").plan, side("recompute").plan
    experts = side(_owner_of_experts(a, b)).plan
    inner = layout.tensor_degree * layout.context_degree * layout.pipeline_degree
    return Setting(
        model=side("model").model,
        workload=side("workload").workload,
        pool=replace(
            chip.pool,
            name="hybrid",
            node=replace(link_node, accelerator=device, power_overhead_w=overhead),
            usd_per_node_hour=None,
            grid_kgco2e_per_kwh=None,
            pue=None,
        ),
        plan=replace(
            layout,
            pool="hybrid",
            data_degree=max(side("devices").num_devices // inner, 1),
            precision=side("precision").plan.precision,
            expert_degree=experts.expert_degree,
            expert_tensor_degree=experts.expert_tensor_degree,
            recompute=recompute.recompute,
            recompute_layers=recompute.recompute_layers,
            attention=side("attention kernel").plan.attention,
        ),
        date=aged.date,
    )


def _hybrid_die(chip: Setting, memory: Setting) -> str | None:
    one, other = chip.accelerator, memory.accelerator
    if (one.die, one.vendor) == (other.die, other.vendor):
        return one.die
    return f"{one.die or one.vendor} with the memory of {other.die or other.vendor}"


def with_hybrid_dies(fit: Efficiencies, a: Setting, b: Setting) -> Efficiencies:
    """The fit, knowing also chips that reach as much of their memory as another die does."""
    dies = dict(fit.dies)
    for chip, memory in ((a, b), (b, a)):
        name = _hybrid_die(chip, memory)
        if name is not None and name != chip.accelerator.die:
            reached = fit.die(memory.accelerator).memory
            dies[name] = replace(fit.die(chip.accelerator), memory=reached)
    return replace(fit, dies=dies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a hybrid takes, per token: `run_s` and `energy_j` count start-up and failures in.

    `billed_devices` come in whole machines. The energy is at the machine, before its facility.
    """

    step_s: float
    run_s: float
    energy_j: float | None
    billed_devices: int
    fits: bool


@dataclass(frozen=True, slots=True)
class Pricer:
    """Checks and prices hybrids of two settings; the operator table of each pair of model and
    workload is made once."""

    fit: Efficiencies
    _problems: dict[tuple[int, int], Problem] = field(default_factory=dict)

    def problem(self, setting: Setting) -> Problem:
        key = id(setting.model), id(setting.workload)
        if key not in self._problems:
            self._problems[key] = make_problem(
                setting.model, setting.workload, setting.pool, self.fit, setting.date
            )
        return replace(self._problems[key], pool=setting.pool, date=setting.date)

    def refusal(self, setting: Setting, num_devices: int) -> str | None:
        """Why a setting cannot run on so many devices; None where it can. Memory is not asked."""
        plan, node = setting.plan, setting.pool.node
        if devices_of(plan) != num_devices:
            inner = plan.tensor_degree * plan.context_degree * plan.pipeline_degree
            return f"tensor x context x pipeline of {inner} do not divide {num_devices} devices"
        # However many machines that makes: a hybrid's devices need not fill them.
        counted = replace(
            setting.pool, node=replace(node, num_accelerators=1), num_nodes=num_devices
        )
        try:
            check_fleet_plan(replace(self.problem(setting), pool=counted), plan)
        except InputError as error:
            return error.what
        if plan.shard_degree and plan.data_degree % plan.shard_degree:
            return f"shard degree {plan.shard_degree} does not divide {plan.data_degree} data ranks"
        if setting.workload.seq_len > setting.model.max_seq_len and not setting.model.operators:
            return (
                f"sequences of {setting.workload.seq_len} tokens in a model made for "
                f"{setting.model.max_seq_len}"
            )
        up = node.link("scale-up")
        domain = (up.domain or node.num_accelerators) if up else 1
        if num_devices > domain and node.link("scale-out") is None:
            return f"{num_devices} devices without a link between domains of {domain}"
        return None

    def prices(self, settings: Sequence[Setting]) -> list[Price]:
        """Of settings that differ in the plan alone."""
        first = settings[0]
        columns = price_table(self.problem(first), table_of([one.plan for one in settings]))
        tokens = first.workload.tokens_per_step * first.workload.num_steps
        per_node = first.pool.node.num_accelerators
        energy_j = columns.energy_j
        return [
            Price(
                step_s=float(columns.step.step_time_s[row]) / first.workload.tokens_per_step,
                run_s=float(columns.time_s[row]) / tokens,
                energy_j=None if energy_j is None else float(energy_j[row]) / tokens,
                billed_devices=-(-setting.num_devices // per_node) * per_node,
                fits=bool(columns.fits[row]),
            )
            for row, setting in enumerate(settings)
        ]
