"""The batch script: what it says, and that it trains on a Slurm of two nodes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fleets import plain_fleet
from tests.launch.stand_in import curve, events, processes_of, wait_for
from tests.launch.training import make_run, succeed, twofold_run
from twofold.document import PlanDocument, read_plan
from twofold.errors import InputError
from twofold.fleet import Fleet, Pool
from twofold.launch.slurm import batch_script
from twofold.plan import Plan, Share

LAB = Path(__file__).parents[2] / "tools" / "lab" / "slurm_lab.sh"
STEPS = 20


def planned(plan: Plan, fleet: Fleet, tmp_path: Path) -> PlanDocument:
    return replace(
        read_plan(make_run(tmp_path, "stdlib", steps=STEPS) / "plan.json"), plan=plan, fleet=fleet
    )


def nodes(fleet: Fleet, name: str, *, num_nodes: int, devices: int, kind: str = "cpu") -> Pool:
    node = fleet.pools[0].node
    accelerator = replace(node.accelerator, kind=kind)
    return Pool(
        name=name,
        node=replace(node, accelerator=accelerator, num_accelerators=devices),
        num_nodes=num_nodes,
    )


def directives(script: str) -> set[str]:
    return set(re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE))


def test_the_script_asks_for_the_nodes_that_the_plan_fills(tmp_path: Path) -> None:
    fleet = plain_fleet()
    gpus = Fleet(name="g", pools=(nodes(fleet, "gpus", num_nodes=4, devices=8, kind="gpu"),))
    plan = Plan(micro_batch=1, pool="gpus", data_degree=8, tensor_degree=2)
    script = batch_script(planned(plan, gpus, tmp_path), tmp_path, num_nodes=None, options=())
    asked = directives(script)
    assert {"--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=8", "--exclusive"} <= asked
    assert {"--no-kill", "--requeue"} <= asked
    cpus = Fleet(name="c", pools=(nodes(fleet, "local", num_nodes=3, devices=1),))
    plan = Plan(micro_batch=1, data_degree=3, threads=4)
    script = batch_script(planned(plan, cpus, tmp_path), tmp_path, num_nodes=None, options=())
    assert {"--nodes=3", "--cpus-per-task=4"} <= directives(script)


def test_the_script_is_a_shell_script_with_awkward_folders_too(tmp_path: Path) -> None:
    folder = tmp_path / "my run's folder"
    document = planned(Plan(micro_batch=1, data_degree=2), plain_fleet(), tmp_path)
    script = batch_script(document, folder, num_nodes=2, options=("--checkpoint-every=5min",))
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    assert f'--output="{folder}/logs/slurm-%j.log"' in directives(script)


def test_unlike_pools_are_refused_because_slurm_numbers_nodes_by_name(tmp_path: Path) -> None:
    fleet = plain_fleet()
    pools = tuple(nodes(fleet, name, num_nodes=1, devices=1) for name in ("fast", "slow"))
    shares = (Share(pool="fast", ranks=1, sequences=4), Share(pool="slow", ranks=1, sequences=2))
    plan = Plan(micro_batch=4, pool="fast", data_degree=2, shares=shares)
    document = planned(plan, Fleet(name="two", pools=pools), tmp_path)
    with pytest.raises(InputError, match="pools fast, slow"):
        batch_script(document, tmp_path, num_nodes=None, options=())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[None]:
    """Two nodes on this host; skipped, with the reason, where that cannot be, but never in CI."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged") if not which(name)]
    reason = (
        "a Slurm for the test takes root"
        if os.geteuid() != 0
        else f"not installed: {', '.join(missing)}"
        if missing
        else None
    )
    if reason is not None and not os.environ.get("CI"):
        pytest.skip(reason)
    assert reason is None, reason
    lab = {"SLURM_LAB": str(tmp_path / "slurm"), "SLURM_LAB_MAX_S": "600"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (lab | {"SLURM_CONF": str(tmp_path / "slurm/slurm.conf")}).items():
            patch.setenv(name, value)
        try:
            up = subprocess.run([LAB, "up", "2"], capture_output=True, text=True)
            assert up.returncode == 0, up.stdout + up.stderr
            yield
        finally:
            subprocess.run([LAB, "down"], capture_output=True)


def which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def is_queued() -> bool:
    """Whether Slurm still waits for the job or runs it."""
    return bool(subprocess.run(["squeue", "-h"], capture_output=True, text=True).stdout.strip())


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_the_script_trains_on_two_nodes(tmp_path: Path, text: str) -> None:
    pytest.importorskip("torch")
    folder = make_run(tmp_path / "run", text, steps=STEPS)
    written = twofold_run(folder, "--slurm", "--submit", "--hosts", "2")
    said, error = written.communicate(timeout=120)
    assert written.returncode == 0, said + error
    job = re.search(r"job (\d+)", said)
    assert job is not None, said
    log = folder / "logs" / f"slurm-{job.group(1)}.log"
    deadline = time.monotonic() + 300
    while events(folder)[-1:] != ["finished"] and is_queued() and time.monotonic() < deadline:
        time.sleep(0.5)
    told = log.read_text() if log.exists() else "no log"
    assert events(folder)[-1:] == ["finished"], told
    assert len(curve(folder)) == STEPS, told
    assert "host 1" in told
    alone = make_run(tmp_path / "alone", text, steps=STEPS)
    succeed(twofold_run(alone))
    assert curve(folder) == curve(alone)
    wait_for(lambda: not processes_of(folder), 20)
