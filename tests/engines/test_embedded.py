"""Plans of several ranks as jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.fleets import figure, plain_fleet
from twofold.document import make_document
from twofold.engines import embedded_job
from twofold.fleet import Fleet
from twofold.model import Model
from twofold.plan import Plan, Share
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
