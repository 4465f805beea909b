"""This machine as a fleet that serving is planned on: how long steps of the engine take here."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

from twofold import __version__
from twofold.calibrate import default_overlay_path, read_overlay
from twofold.calibrate.serving_curve import fit_step_curve
from twofold.document import content_hash, from_mapping, part_hash, write_json
from twofold.engines.embedded import check_finished
from twofold.engines.serving import probe_job
from twofold.engines.serving_default import this_machine
from twofold.fleet import Curves, Fleet, StepCurve
from twofold.launch import run_job
from twofold.launch.rows import Row
from twofold.measure.progress import Progress, wait_for_quiet
from twofold.model import Model
from twofold.plan import Precision
from twofold.serving_document import make_serving_document
from twofold.serving_plan import ServingPlan, WeightPrecision
from twofold.workload.serve import Arrivals, Lengths, Serve

_QUIET_WAIT_S = 10.0


def local_serving_fleet(
    model: Model,
    *,
    threads: Sequence[int],
    precisions: Sequence[Precision],
    weight_precisions: Sequence[WeightPrecision] = ("same",),
    progress: Progress,
    fresh: bool = False,
) -> Fleet:
    """With a step curve for every combination, each measured once for a model and kept; `fresh`
    measures again. Where the machine was calibrated, its other figures come along."""
    base = _base()
    curves = []
    for precision, weights, count in product(precisions, weight_precisions, threads):
        plan = ServingPlan(precision=precision, weight_precision=weights, threads=count)
        curves.append(_curve(model, base, plan, progress, fresh=fresh))
    pool = base.pools[0]
    accelerator = pool.node.accelerator
    known = accelerator.curves or Curves(framework=_framework())
    accelerator = replace(accelerator, curves=replace(known, steps=tuple(curves)))
    node = replace(pool.node, accelerator=accelerator)
    return replace(base, pools=(replace(pool, node=node),))


def _base() -> Fleet:
    overlay = default_overlay_path()
    return read_overlay(overlay).fleet if overlay.is_file() else this_machine()


def _curve(
    model: Model, fleet: Fleet, plan: ServingPlan, progress: Progress, *, fresh: bool
) -> StepCurve:
    hashed = part_hash(model)
    key = [hashed, plan.precision, plan.weight_precision, plan.threads, _framework(), __version__]
    path = default_overlay_path().parent / "serving-steps" / f"{content_hash(key)[:16]}.json"
    if path.is_file() and not fresh:
        return from_mapping(json.loads(path.read_text("utf-8")), StepCurve, at=str(path))
    progress.note(
        f"timing steps of '{model.name}' in {plan.precision}, {plan.threads} "
        f"thread{'s' if plan.threads > 1 else ''}"
    )
    wait_for_quiet(progress, _QUIET_WAIT_S)
    curve = fit_step_curve(
        _rows(model, fleet, plan),
        model_hash=hashed,
        precision=plan.precision,
        weight_precision=plan.weight_precision,
        threads=plan.threads,
    )
    write_json(path, asdict(curve))
    return curve


def _rows(model: Model, fleet: Fleet, plan: ServingPlan) -> list[Row]:
    """Of the probe, on random weights: how long a step takes does not depend on them."""
    length = float(max(2, model.max_seq_len // 4))
    document = make_serving_document(
        model=model,
        workload=Serve(
            arrivals=Arrivals(kind="offline"),
            input=Lengths(mean=length),
            output=Lengths(mean=length),
        ),
        fleet=fleet,
        plan=replace(plan, pool=fleet.pools[0].name),
        estimate=None,
        seed=0,
        twofold_version=__version__,
        weights="random",
    )
    rows: list[dict[str, Any]] = []

    def on_row(row: Row) -> None:
        if "time_s" in row:
            rows.append(row)

    with tempfile.TemporaryDirectory(prefix="twofold-steps-") as scratch:
        job = probe_job(document, Path(scratch))
        job = replace(job, metrics=(job.log,))
        check_finished(job, run_job(job, on_row))
    return rows


def _framework() -> str:
    try:
        return f"torch {version('torch')}"
    except PackageNotFoundError:
        return "no torch"
