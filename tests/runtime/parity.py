"""Layouts against a single process: `python -m tests.runtime.parity --write docs/parity.md`."""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

from tests.runtime.parity_cases import CASES, STEPS, Case

_PATIENCE_S = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Largest differences from the single process, in the units of `Tolerance`."""

    loss: float
    norm: float
    gradient: float
    weight: float
    shares: tuple[int, ...]
    """Those of the last step."""

    def beyond(self, case: Case) -> list[str]:
        """The tolerances that are not kept, each as a sentence."""
        return [
            f"{case.name}: {what} differs by {getattr(self, what):.2e}, more than {most:.0e}"
            for what in ("loss", "norm", "gradient", "weight")
            if not getattr(self, what) <= (most := getattr(case.tolerance, what))
        ]


def differences(cases: Sequence[Case]) -> dict[str, Differences]:
    """Train every case and its reference; one launch for each number of ranks.

    Cases of many ranks have a launch each, as a real run has: torch keeps meshes of several axes
    beyond the groups that they were made of, and meets them again in the next case.
    """
    wanted = {case.name: case for case in (*cases, *(case.reference() for case in cases))}
    launches: dict[tuple[int, str], list[Case]] = {}
    for case in wanted.values():
        ranks = case.full_plan().num_ranks
        launches.setdefault((ranks, case.name if ranks > 4 else ""), []).append(case)
    results: dict[str, dict[str, Any]] = {}
    for (ranks, _), group in sorted(launches.items()):
        with tempfile.TemporaryDirectory() as folder:
            results |= _launch(Path(folder), ranks, group)
    return {
        case.name: _compare(results[case.name], results[case.reference().name]) for case in cases
    }


def _launch(folder: Path, ranks: int, cases: list[Case]) -> dict[str, dict[str, Any]]:
    (folder / "cases.pickle").write_bytes(pickle.dumps(cases))
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TWOFOLD_STORE": "hosted",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONWARNINGS": "ignore",
    }
    processes = []
    for rank in range(ranks):
        with (folder / f"rank-{rank}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.runtime.parity_worker", str(folder)],
                    env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    _wait(folder, processes)
    return {
        case.name: _merged([_read(folder, index, rank) for rank in range(ranks)])
        for index, case in enumerate(cases)
    }


def _wait(folder: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    """Until all have ended; one that fails, or too long a wait, ends all and tells."""
    patience_ends = time.monotonic() + _PATIENCE_S
    try:
        while any(process.poll() is None for process in processes):
            late = time.monotonic() > patience_ends
            if late or any(process.poll() for process in processes):
                break
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    codes = [process.returncode for process in processes]
    if any(codes):
        logs = [log.read_text()[-2000:] for log in sorted(folder.glob("rank-*.log"))]
        raise AssertionError(f"ranks ended with {codes}:\n" + "\n---\n".join(logs))


def _read(folder: Path, index: int, rank: int) -> dict[str, Any]:
    result: dict[str, Any] = torch.load(folder / f"{index}-{rank}.pt", weights_only=True)
    return result


def _merged(ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """One result of all ranks, which must agree where they hold the same."""
    first = ranks[0]
    for other in ranks[1:]:
        for key in ("losses", "norms", "held_out", "shares"):
            assert other[key] == first[key], f"ranks tell unlike {key}"
    merged: dict[str, Any] = {key: first[key] for key in ("losses", "norms", "held_out", "shares")}
    for key in ("gradients", "weights"):
        merged[key] = {}
        for rank in ranks:
            for name, value in rank[key].items():
                known = merged[key].setdefault(name, value)
                assert torch.equal(known, value), f"ranks hold unlike {key} of {name}"
    return merged


def _compare(case: dict[str, Any], reference: dict[str, Any]) -> Differences:
    assert case["weights"].keys() == reference["weights"].keys()
    losses = zip(
        [*case["losses"], case["held_out"]],
        [*reference["losses"], reference["held_out"]],
        strict=True,
    )
    return Differences(
        shares=tuple(case["shares"][-1]),
        loss=max(abs(a - b) for a, b in losses),
        norm=max(abs(a / b - 1) for a, b in zip(case["norms"], reference["norms"], strict=True)),
        gradient=max(
            float((case["gradients"][name] - value).abs().max() / value.abs().max().clamp(min=1e-9))
            for name, value in reference["gradients"].items()
        ),
        weight=max(
            float((case["weights"][name] - value).abs().max())
            for name, value in reference["weights"].items()
        ),
    )


def table(cases: Iterable[Case], found: dict[str, Differences]) -> str:
    """The page for `docs/`."""
    lines = [
        "# Parity: every layout trains as one process does",
        "",
        f"Each row trains the same small model for {STEPS} steps over so many real processes",
        "(gloo, CPU) and in one process, from the same seed on the same sequences, and gives the",
        "largest difference found, with the tolerance that the tests hold it to. *Loss*: of any",
        "step and of the held-out loss at the end, in nats. *Norm*: of any step's gradient norm,",
        "relative. *Gradient*: of the first step's whole gradient, over the largest element of its",
        "tensor. *Weight*: of the weights after the last step. fp32 unless the row says bf16.",
        "",
        "Written by `python -m tests.runtime.parity --write docs/parity.md`.",
        "",
        "| layout | ranks | model | loss | norm | gradient | weight |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        is_mixture = case.model.experts is not None
        cells = [
            f"{getattr(found[case.name], what):.1e} (of {getattr(case.tolerance, what):.0e})"
            for what in ("loss", "norm", "gradient", "weight")
        ]
        lines.append(
            f"| {case.name} | {case.full_plan().num_ranks} | {'MoE' if is_mixture else 'dense'}, "
            f"{case.model.name} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    arguments = parser.parse_args()
    cases = [case for case in CASES if arguments.only in case.name]
    found = differences(cases)
    page = table(cases, found)
    if arguments.write is None:
        print(page)
    else:
        arguments.write.write_text(page, encoding="utf-8")
    beyond = [line for case in cases for line in found[case.name].beyond(case)]
    print("\n".join(beyond), file=sys.stderr)
    sys.exit(1 if beyond else 0)


if __name__ == "__main__":
    main()
