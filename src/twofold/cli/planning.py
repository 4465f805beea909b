"""The verb `plan`: on this machine by timed finals, on any fleet by prediction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from twofold.cli.choices import read_limit, read_option
from twofold.cli.machine import local_fleet
from twofold.cli.output import answer, watcher
from twofold.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Find the best way to train or serve a model: on the fleets named, or on this machine.

    With --fleet, plans are predicted and compared with a newcomer's and the well-known one.
    Without, the model is a TOML file, and the finalists are timed on this machine.
    """

    model: tyro.conf.Positional[str]
    """A name (`twofold catalog list model`), a Hugging Face config.json or its folder, or a TOML
    file with [model] and, if wanted, [recipe]."""
    fleet: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME:COUNT of machines or accelerators, or a fleet file (TOML). Repeat it to compare; the
    unlike pools of one file are planned for together."""
    tokens: str | None = None
    """Tokens to train on, for example 2T; on this machine 1M unless said."""
    seq_len: int | None = None
    """Tokens in a sequence; unless said 128 here, on a fleet the model's, at most 4096."""
    global_batch: int | None = None
    """Sequences in an optimizer step; to be said unless a recipe gives it."""
    objective: str = "time"
    """What counts: time, cost, energy or carbon."""
    deadline: str | None = None
    """At most so long, for example 30d."""
    budget: str | None = None
    """At most so many US dollars, for example 2M."""
    power_cap: str | None = None
    """At most so much power, for example 5MW."""
    region: str | None = None
    """Where the fleet is: a cloud region, a country, a US state, or world. Decides the carbon."""
    term: str = "on-demand"
    """How machines are rented: on-demand, spot, reserved or capacity-block."""
    precision: str | None = None
    """Number formats to choose from, for example bf16,fp8. Unless said only one is tried: bf16,
    without it fp16, without both fp32."""
    date: str | None = None
    """When it is run, for example 2026-11: software matures. By default now."""
    vary: str | None = None
    """`model=NAME,NAME`: other models in its place, trained to the same predicted loss; with
    --by, models to choose the largest from."""
    pareto: bool = False
    """All plans that none beats in both time and the objective (cost unless said)."""
    by: str | None = None
    """A day, for example 2027-03-01: how many tokens are done by then?"""
    local_updates: bool = False
    """Over unlike pools: write the plan with local updates (DiLoCo) where the link is so slow
    that one is offered. It trains another trajectory."""
    memory_limit: str | None = None
    """Plan within this much memory of a device, for example 1GB."""
    serve: str | None = None
    """Answer requests instead of training: a workload such as chat, code, reasoning or
    mlperf-llama2-70b-server, or a TOML file. --precision then takes int8 and int4 (weights alone),
    kv-fp8 and kv-int8 (keys and values) too."""
    rate: float | None = None
    """With --serve: requests a second; left out, as many as the fleet carries."""
    users: int | None = None
    """With --serve: so many users who each wait for an answer before they ask again."""
    ttft: str | None = None
    """With --serve: the time to first token to keep, for example 2s."""
    tpot: str | None = None
    """With --serve: the time per output token to keep, for example 100ms."""
    weights: Path | None = None
    """With --serve: the folder of the weights, written into the plan."""
    text: str | None = None
    """`stdlib`, a text file, a folder of text, or a folder of token shards."""
    seed: int = 0
    """Initialisation and data order."""
    finals: bool = True
    """Time the finalists on this machine; without it the predicted best is taken."""
    calibration: Path | None = None
    """What to plan with: an overlay instead of this machine's own, or with --fleet the
    efficiencies that `calibrate --from` wrote."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("plan.json")
    """Where the plan goes."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        if self.serve is not None:
            from twofold.cli.serving_planning import plan_serving

            return plan_serving(self)
        self._refuse_serving_options()
        if not self.fleet:
            return self._plan_here()
        from twofold.cli.fleet_planning import plan_on_fleets
        from twofold.cli.placement_planning import (
            asks_for_placement,
            plan_over_pools,
            refuse_local_updates,
        )

        if asks_for_placement(self):
            return plan_over_pools(self)
        refuse_local_updates(self)
        return plan_on_fleets(self)

    def _plan_here(self) -> int:
        from twofold.document import write_plan
        from twofold.measure.planning import make_plan
        from twofold.report.terminal import plan_text
        from twofold.units import parse_bytes, parse_count

        self._refuse_fleet_options()
        fleet = local_fleet(self.calibration)
        with watcher() as progress:
            made = make_plan(
                Path(self.model),
                text=self.text or "stdlib",
                tokens=read_option(self.tokens or "1M", parse_count, at="--tokens"),
                seq_len=self.seq_len or 128,
                global_batch=self.global_batch,
                fleet=fleet,
                memory_limit_bytes=read_limit(self.memory_limit, parse_bytes, at="--memory-limit"),
                seed=self.seed,
                with_finals=self.finals,
                progress=progress,
            )
        write_plan(made.document, self.output)
        answer(
            {"plan": str(self.output), **made.as_mapping()}
            if self.json
            else plan_text(made, str(self.output))
        )
        return 0

    def _refuse_serving_options(self) -> None:
        for name in ("rate", "users", "ttft", "tpot", "weights"):
            if getattr(self, name) is not None:
                raise InputError(
                    f"--{name} goes with --serve", at="plan", help="for example --serve chat"
                )

    def _refuse_fleet_options(self) -> None:
        """Nothing that the user asked for is skipped in silence."""
        defaults = {name: field.default for name, field in Plan.__dataclass_fields__.items()}
        for name in _FLEET_OPTIONS:
            if getattr(self, name) != defaults[name]:
                raise InputError(
                    f"--{name.replace('_', '-')} goes with --fleet",
                    at="plan",
                    help="name a fleet, for example --fleet azure-nd-h200-v5:64",
                )


_FLEET_OPTIONS = (
    "objective", "deadline", "budget", "power_cap", "region", "term", "precision", "date",
    "vary", "pareto", "by", "local_updates",
)  # fmt: skip
