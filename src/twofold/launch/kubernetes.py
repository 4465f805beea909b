"""Kubernetes manifests: a Kubeflow TrainJob, or a JobSet where Kubeflow is not installed.

Both carry the files of the launch as a ConfigMap, and Kueue's label where a queue is named.
Nothing of this machine's environment is written into them, so no secret can be.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any, Literal

from twofold.errors import EnvironmentLack, InputError, JobFailed
from twofold.launch.launchable import Launchable

Kind = Literal["train-job", "job-set"]
_PORT = 29500
_CONFIG_MAP_BYTES = 1024**2
_RUNTIME = "torch-distributed"
_TRAINER_JOB = "node"
"""The replicated job, and its container, of Kubeflow's torch runtime."""


def manifests(
    launch: Launchable, *, kind: Kind, image: str, queue: str | None, claim: str | None
) -> list[dict[str, Any]]:
    """What `kubectl apply` is given. `claim` is a volume that all machines share and runs are kept
    on; without one a machine's files go with its pod."""
    if launch.data is not None and claim is None:
        raise InputError(
            f"the plan reads {launch.data}, which is on this machine alone",
            at="--claim",
            help="name a volume claim that holds it, or plan for --tokens without a text",
        )
    job = (_train_job if kind == "train-job" else _job_set)(launch, image, claim)
    if queue is not None:
        job["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": queue}
    return [_config_map(launch), job]


def manifest_text(documents: list[dict[str, Any]]) -> str:
    """YAML, one document after the other."""
    return "---\n".join("\n".join(_yaml(document, "")) + "\n" for document in documents)


def apply(text: str) -> str:
    """Hand the manifests to the cluster; what kubectl said."""
    if shutil.which("kubectl") is None:
        raise EnvironmentLack(
            "there is no kubectl here", help="print the manifests with --dry-run, and apply them"
        )
    done = subprocess.run(
        ["kubectl", "apply", "-f", "-"], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise JobFailed(
            f"kubectl refused the manifests: {done.stderr.strip()}",
            help="print them with --dry-run; `kubectl config current-context` names the cluster",
        )
    return done.stdout.strip()


def object_name(name: str) -> str:
    """As Kubernetes allows: lower case, digits and hyphens, at most 48 characters."""
    clean = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48].strip("-")
    return clean if clean and clean[0].isalpha() else f"run-{clean}".rstrip("-")


def _config_map(launch: Launchable) -> dict[str, Any]:
    texts = {name: (launch.folder / name).read_text(encoding="utf-8") for name in launch.files}
    size = sum(len(text.encode()) for text in texts.values())
    if size > _CONFIG_MAP_BYTES:
        raise InputError(
            f"the files of the launch are {size} bytes, and a ConfigMap holds {_CONFIG_MAP_BYTES}",
            at=str(launch.folder),
            help="build them into the image, and start launch.sh there",
        )
    metadata = {"name": f"{object_name(launch.name)}-files"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": texts}


def _train_job(launch: Launchable, image: str, claim: str | None) -> dict[str, Any]:
    """Kubeflow's torch runtime numbers the machines and names the first (PET_ variables)."""
    found = 'NODE_RANK="$PET_NODE_RANK" MASTER_ADDR="$PET_MASTER_ADDR"'
    volumes, mounts = _volumes(launch, claim)
    pod = {"volumes": volumes, "containers": [{"name": _TRAINER_JOB, "volumeMounts": mounts}]}
    job = {"name": _TRAINER_JOB, "template": {"spec": {"template": {"spec": pod}}}}
    patch = {
        "manager": "twofold.dev/launch",
        "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}},
    }
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": object_name(launch.name)},
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "ClusterTrainingRuntime",
                "name": _RUNTIME,
            },
            "trainer": {
                "image": image,
                "command": ["bash", "-c", _script(launch, found)],
                "numNodes": launch.num_nodes,
                "numProcPerNode": launch.ranks_per_node,
                "resourcesPerNode": _resources(launch),
            },
            "runtimePatches": [patch],
        },
    }


def _job_set(launch: Launchable, image: str, claim: str | None) -> dict[str, Any]:
    """An indexed job: its index is the machine's number, its first pod has a name in the DNS."""
    name = object_name(launch.name)
    found = f'NODE_RANK="$JOB_COMPLETION_INDEX" MASTER_ADDR={name}-ranks-0-0.{name}'
    volumes, mounts = _volumes(launch, claim)
    container = {
        "name": "ranks",
        "image": image,
        "command": ["bash", "-c", _script(launch, found)],
        "resources": _resources(launch),
        "volumeMounts": mounts,
    }
    job = {
        "parallelism": launch.num_nodes,
        "completions": launch.num_nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {
            "spec": {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
        },
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": name},
        "spec": {
            "network": {"enableDNSHostnames": True, "subdomain": name},
            "replicatedJobs": [{"name": "ranks", "replicas": 1, "template": {"spec": job}}],
        },
    }


def _script(launch: Launchable, found: str) -> str:
    """ConfigMaps are read-only, so the files are copied to where the run may write."""
    work = f'/workspace/{object_name(launch.name)}-"$NODE_RANK"'
    return (
        f"export {found} MASTER_PORT={_PORT}; work={work}; "
        f'mkdir -p "$work"; cp -L /plan/* "$work"; cd "$work"; {launch.command}'
    )


def _volumes(
    launch: Launchable, claim: str | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    held: dict[str, Any] = (
        {"emptyDir": {}} if claim is None else {"persistentVolumeClaim": {"claimName": claim}}
    )
    volumes = [
        {"name": "plan", "configMap": {"name": f"{object_name(launch.name)}-files"}},
        {"name": "workspace", **held},
    ]
    mounts = [
        {"name": "plan", "mountPath": "/plan"},
        {"name": "workspace", "mountPath": "/workspace"},
    ]
    if not launch.on_cpu:  # NCCL's rings go through shared memory
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory"}})
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})
    return volumes, mounts


def _resources(launch: Launchable) -> dict[str, Any]:
    needed = {launch.resource: str(launch.resources_per_node)}
    return {"requests": needed, "limits": needed}


def _yaml(value: Any, indent: str) -> list[str]:
    """Block style; scalars as JSON, texts of several lines as literal blocks."""
    lines = []
    for key, item in value.items():
        head = f"{indent}{_scalar(key)}:"
        if isinstance(item, dict) and item:
            lines += [head, *_yaml(item, indent + "  ")]
        elif isinstance(item, list) and item and all(isinstance(one, dict) for one in item):
            lines.append(head)
            for one in item:
                first, *rest = _yaml(one, indent + "    ")
                lines += [f"{indent}  - {first.lstrip()}", *rest]
        elif isinstance(item, str) and _is_block(item):
            keeps = "|" if item.endswith("\n") else "|-"
            lines.append(f"{head} {keeps}")
            lines += [f"{indent}  {line}" if line else "" for line in item.splitlines()]
        else:
            lines.append(f"{head} {_scalar(item)}")
    return lines


def _is_block(text: str) -> bool:
    """Several lines without what a literal block would lose."""
    plain = all(char.isprintable() or char == "\n" for char in text)
    return "\n" in text and plain and not text.startswith((" ", "\n")) and not text.endswith("\n\n")


def _scalar(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*", value):
        word = value.lower() not in ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
        return value if word else json.dumps(value)
    return json.dumps(value)
