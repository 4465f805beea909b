"""Kubernetes manifests of a launch: what machines are told, and what is never written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engines.export.test_folder import plan_file
from twofold.cli.entry import _main
from twofold.engines.export import launchable
from twofold.errors import InputError
from twofold.launch.kubernetes import manifests, object_name
from twofold.launch.slurm import command_script


def exported(folder: Path, engine: str = "accelerate") -> Path:
    path = plan_file(folder, data_degree=16, zero_stage=3)
    assert _main(["export", str(path), "--to", engine, "-o", str(folder / "out")]) == 0
    return folder / "out"


@pytest.mark.parametrize("kind", ["train-job", "job-set"])
def test_manifests_say_machines_devices_queue_and_files(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_this_machine")
    out = exported(tmp_path)
    capsys.readouterr()
    command = ["launch", str(out), "--on", "kubernetes", "--dry-run", "--manifest", kind]
    assert _main([*command, "--image", "registry/train:1", "--queue", "team-a", "--json"]) == 0
    text = capsys.readouterr().out
    assert "hf_secret" not in text
    files, job = json.loads(text)
    assert set(files["data"]) == {
        "config.json", "train.py", "batches.py", "launch.sh", "accelerate.yaml",
    }  # fmt: skip
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team-a"}
    if kind == "train-job":
        trainer = job["spec"]["trainer"]
        assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 8)
        assert trainer["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": "8"}
        assert 'NODE_RANK="$PET_NODE_RANK"' in trainer["command"][2]
    else:
        spec = job["spec"]["replicatedJobs"][0]["template"]["spec"]
        assert (spec["parallelism"], spec["completionMode"]) == (2, "Indexed")
        assert f"MASTER_ADDR={job['metadata']['name']}-ranks-0-0." in json.dumps(spec)


def test_a_text_of_this_machine_needs_a_claim(tmp_path: Path) -> None:
    from dataclasses import replace

    launch = replace(launchable(exported(tmp_path)), data="/home/me/text.bin")
    with pytest.raises(InputError, match="on this machine alone"):
        manifests(launch, kind="job-set", image="i", queue=None, claim=None)
    _, job = manifests(launch, kind="job-set", image="i", queue=None, claim="shared")
    assert '{"claimName": "shared"}' in json.dumps(job)


def test_names_are_those_that_kubernetes_allows() -> None:
    assert object_name("Llama_3.1 8B") == "llama-3-1-8b"
    assert object_name("8b") == "run-8b"


def test_a_slurm_script_starts_the_command_once_a_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = exported(tmp_path)
    script = command_script(launchable(out))
    assert "#SBATCH --nodes=2\n" in script
    assert "#SBATCH --gpus-per-node=8\n" in script
    assert 'export NODE_RANK="$SLURM_NODEID"; bash launch.sh' in script
    capsys.readouterr()
    assert _main(["launch", str(out), "--on", "slurm", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash\n#SBATCH")
    assert not (out / "run.sbatch").exists()


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--on", "kubernets"], "perhaps 'kubernetes'"),
        (["--on", "kubernetes"], "needs an image"),
        (["--on", "slurm", "--image", "x"], "--image is for Kubernetes"),
        (["--on", "local"], "fills 2 machines"),
        (["--on", "kubernetes", "--image", "x", "--manifest", "pod"], "is none of train-job"),
    ],
)
def test_bad_input_is_refused(
    options: list[str], wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = exported(tmp_path)
    assert _main(["launch", str(out), *options]) == 2
    said = capsys.readouterr().err
    assert wrong in said
    assert "help: " in said


def test_a_dry_run_on_ray_prints_the_driver_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = exported(tmp_path)
    capsys.readouterr()
    assert _main(["launch", str(out), "--on", "ray", "--dry-run"]) == 0
    assert "--machines=2 --resource=GPU --amount=8" in capsys.readouterr().out
    assert not (out / "ray_driver.py").exists()
