"""Plans of several ranks as jobs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from tests.fleets import figure, plain_fleet
from twofold.document import make_document
from twofold.engines import embedded_job
from twofold.engines.embedded import read_rows, read_run
from twofold.fleet import Fleet
from twofold.model import Model
from twofold.plan import Plan, Share
from twofold.runtime.train.metrics import MetricsFile
from twofold.workload import Recipe, Train

MODEL = Model(
    name="m", layers=1, hidden=32, heads=2, kv_heads=2, ffn=64, vocab=256, max_seq_len=32
)  # fmt: skip


def test_ranks_are_held_to_the_cores_of_their_pools(tmp_path: Path) -> None:
    pool = plain_fleet().pools[0]
    slow = replace(pool, name="slow", cpu_cores=figure(0.25, "1"))
    fleet = Fleet(name="two", pools=(replace(pool, name="fast"), slow))
    shares = (
        Share(pool="fast", ranks=1, sequences=3),
        Share(pool="slow", ranks=1, sequences=1),
    )
    document = make_document(
        model=MODEL,
        workload=Train(tokens=1280, seq_len=32, recipe=Recipe(learning_rate=1e-3, global_batch=4)),
        fleet=fleet,
        plan=Plan(pool="fast", micro_batch=3, data_degree=2, shares=shares),
        estimate=None,
        seed=0,
        twofold_version="test",
    )
    job = embedded_job([document], [tmp_path])
    assert job.num_ranks == 2
    assert job.cpu_cores == (None, 0.25)
    assert job.environment == {"OMP_NUM_THREADS": "1"}
    alone = replace(document, plan=Plan(pool="fast", micro_batch=4))
    assert embedded_job([alone], [tmp_path]).cpu_cores == ()


def test_a_run_that_diverged_is_strict_json_and_can_be_read(tmp_path: Path) -> None:
    step = {"event": "step", "step_time_s": 1.0, "time_s": 1.0, "tokens": 32}
    end = {"event": "end", "tokens": 64, "num_steps": 2, "train_s": 2.0, "cpu_s": 2.0}
    with MetricsFile(tmp_path / "metrics.jsonl", keep_steps=0) as metrics:
        metrics.write({"event": "start", "startup_s": 0.0, "num_parameters": 1})
        metrics.write({**step, "loss": 2.0})
        metrics.write({**step, "loss": math.nan, "norms": [math.inf]})
        metrics.write({"event": "diverged"})
        metrics.write({**end, "peak_memory_bytes": 1})
    assert read_rows(tmp_path / "metrics.jsonl")[2] == {**step, "loss": None, "norms": [None]}
    run = read_run(tmp_path)
    assert run.diverged
    assert run.train_loss is None
    assert run.curve == [(32, 1.0, 2.0)]
