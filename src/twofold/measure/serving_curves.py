"""This machine as a fleet that serving is planned on: how long steps of the engine take here.

Steps are timed in a server that answers requests over HTTP, since its front and whoever asks want
the same cores. A curve timed with the engine alone promised twice the speed on two cores.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

from twofold import __version__
from twofold.calibrate import default_overlay_path, read_overlay
from twofold.calibrate.serving_curve import fit_step_curve
from twofold.document import content_hash, from_mapping, part_hash, write_json
from twofold.engines.serving_default import this_machine
from twofold.evidence.serving.answers import Answer
from twofold.fleet import Curves, Fleet, StepCurve
from twofold.measure.load.client import discover, session
from twofold.measure.load.drive import drive, requests_for
from twofold.measure.load.prompts import WORDS, prompts_of
from twofold.measure.progress import Progress, wait_for_quiet
from twofold.measure.serving.servers import served
from twofold.model import Model
from twofold.perf.serving_terms import Steps, curve_terms, price_steps
from twofold.plan import Precision
from twofold.serving_document import ServingDocument, make_serving_document
from twofold.serving_plan import ServingPlan, WeightPrecision
from twofold.workload.serve import Arrivals, Lengths, Serve

_QUIET_WAIT_S = 10.0
_LONE = (1, 0.2)
_CROWDS = ((32, 0.15), (32, 0.4), (12, 0.25))
"""Users that wait for their answers, and the mean prompt as a share of the model's context."""
_OPEN = (0.3, 0.5, 0.7)
"""Shares of the last crowd's answers a second at which requests then come by themselves: its
front works beside the engine, where that of waiting users works between steps."""
_CROWD_S, _OPEN_S = 0.8, 1.6
_SPREAD = 0.5
_OUTPUT_TOKENS = 12
_SEED = 5


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
    steps, alone = _timed(model, fleet, plan)
    curve = fit_step_curve(
        steps,
        model_hash=hashed,
        precision=plan.precision,
        weight_precision=plan.weight_precision,
        threads=plan.threads,
    )
    curve = replace(curve, answer_s=_outside_s(curve, alone))
    write_json(path, asdict(curve))
    return curve


def _timed(
    model: Model, fleet: Fleet, plan: ServingPlan
) -> tuple[list[dict[str, float]], list[Answer]]:
    """All steps of a server under several loads, and what a lone user got. Weights are random:
    how long a step takes does not depend on them."""
    plan = replace(plan, pool=fleet.pools[0].name, prefix_caching=False)
    document = make_serving_document(
        model=model,
        workload=_crowd(model, *_LONE),
        fleet=fleet,
        plan=plan,
        estimate=None,
        seed=_SEED,
        twofold_version=__version__,
        weights="random",
    )
    with tempfile.TemporaryDirectory(prefix="twofold-steps-") as scratch:
        log = Path(scratch) / "steps.jsonl"
        alone = asyncio.run(_asked(document, Path(scratch), log))
        lines = log.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines], alone


def _crowd(model: Model, users: int, share: float) -> Serve:
    context = model.max_seq_len
    output = max(2, min(_OUTPUT_TOKENS, context // 8))
    longest = max(1, context - 2 * output - 1)
    return Serve(
        arrivals=Arrivals(kind="closed", users=users),
        input=Lengths(mean=max(1.0, share * longest), spread=_SPREAD, least=1, most=longest),
        output=Lengths(mean=output),
        num_requests=users,
    )


async def _asked(document: ServingDocument, folder: Path, log: Path) -> list[Answer]:
    """The answers to the lone user; the server is gone when they are told, its log written."""
    model = document.model
    async with session() as http:
        with served([("steps", document)], folder, step_log=log) as (url,):
            server = await discover(http, url, list(WORDS))

            async def answers(load: Serve, least_s: float) -> tuple[Answer, ...]:
                requests = requests_for(load, _SEED, least_s)
                prompts = prompts_of(requests, server, _SEED, None, 0)
                driven = await drive(
                    http, server, load, requests, prompts, seed=_SEED, least_s=least_s
                )
                return driven.answers

            alone = await answers(_crowd(model, *_LONE), _CROWD_S)
            for users, share in _CROWDS:
                crowd = _crowd(model, users, share)
                told = await answers(crowd, _CROWD_S)
            rate_per_s = len(told) / max(answer.end_s for answer in told)
            for share in _OPEN:
                arrivals = Arrivals(rate_per_s=share * rate_per_s)
                await answers(replace(crowd, arrivals=arrivals), _OPEN_S)
    return list(alone)


def _outside_s(curve: StepCurve, alone: Sequence[Answer]) -> float:
    """What a lone user waited for first tokens beyond the step that computed the prompt."""
    waits_s = []
    terms = curve_terms(curve)
    for answer in alone:
        if answer.whole and answer.ttft_s is not None:
            tokens = answer.input_tokens
            prompt = Steps(tokens=tokens, sequences=1, pairs=tokens * (tokens + 1) / 2, keys=0)
            waits_s.append(answer.ttft_s - float(sum(price_steps(terms, prompt).values())))
    return max(0.0, statistics.median(waits_s)) if waits_s else 0.0


def _framework() -> str:
    try:
        return f"torch {version('torch')}"
    except PackageNotFoundError:
        return "no torch"
