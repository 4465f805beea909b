"""A serving plan for whoever has only a trained run or a model's folder: plain defaults."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

from twofold import __version__
from twofold.document import read_plan
from twofold.errors import InputError
from twofold.figure import Figure
from twofold.fleet import Accelerator, Fleet, MemoryTier, Node, Pool
from twofold.host.limits import available_memory_bytes
from twofold.model import Model
from twofold.serving_document import ServingDocument, make_serving_document
from twofold.serving_plan import ServingPlan
from twofold.sources.models import find_model
from twofold.workload.serve import Arrivals, Lengths, Serve

_SEQUENCES = 32
_STEP_TOKENS = 512


def default_document(folder: Path) -> ServingDocument:
    """Of a run folder (`plan.json` and checkpoints) or a model's (`config.json`, safetensors)."""
    weights = str(folder.resolve())
    if (folder / "plan.json").is_file():
        trained = read_plan(folder / "plan.json")
        return _document(trained.model, weights, precision_fp32=True)
    if (folder / "config.json").is_file():
        return _document(find_model(str(folder)), weights, precision_fp32=not _has_gpu())
    raise InputError(
        "the folder holds neither a run's plan.json nor a model's config.json",
        at=str(folder),
        help="name a serve.json, a run folder or a model's folder",
    )


def _document(model: Model, weights: str, *, precision_fp32: bool) -> ServingDocument:
    length = max(2, model.max_seq_len // 4)
    return make_serving_document(
        model=model,
        workload=Serve(
            arrivals=Arrivals(rate_per_s=1.0),
            input=Lengths(mean=length),
            output=Lengths(mean=length),
        ),
        fleet=this_machine(),
        plan=ServingPlan(
            precision="fp32" if precision_fp32 else "bf16",
            max_num_seqs=_SEQUENCES,
            max_batched_tokens=_STEP_TOKENS,
            memory_fraction=0.5,
        ),
        estimate=None,
        seed=0,
        twofold_version=__version__,
        weights=weights,
    )


def this_machine() -> Fleet:
    """What needs no calibration: a processor with the memory that is free."""
    memory = Figure(
        value=float(available_memory_bytes() or 2**30),
        unit="B",
        basis="measured",
        source="memory free when the plan was made",
        date=date.today().isoformat(),
    )
    accelerator = Accelerator(
        name="cpu",
        kind="cpu",
        memory=MemoryTier(name="memory", usable_bytes=memory),
        flop_per_s={},
        threads=os.cpu_count() or 1,
    )
    return Fleet(
        name="local", pools=(Pool(name="local", node=Node(name="local", accelerator=accelerator)),)
    )


def _has_gpu() -> bool:
    from twofold.host.description import nvidia_gpus

    return bool(nvidia_gpus())
