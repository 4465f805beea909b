"""A fresh process that becomes a training process: how long that takes and how large it grows.

Run by the probe as `python -m twofold.runtime.probe.heap TIME LEVEL`, TIME being the parent's
clock when it started; prints JSON rows. One small network is trained for a few steps at that
recompute level. What the process then holds beyond its live tensors is the allocator's: freed
blocks of unlike sizes that do not fit the next request. One network tells it for all.
"""

from __future__ import annotations

import json
import sys
import time

import torch
import torch.nn.functional as F

import twofold.runtime.train.loop  # noqa: F401 (what a training process imports)
from twofold.model import Model
from twofold.plan import Recompute
from twofold.runtime.allocator import keep_freed_memory
from twofold.runtime.probe.timing import Row
from twofold.runtime.train.memory import peak_memory_bytes, reset_peak_memory
from twofold.runtime.train.network import build_network

_MODEL = Model(
    name="heap", layers=3, hidden=192, heads=3, kv_heads=3, ffn=768, vocab=256, max_seq_len=192
)
_BATCH = 8
_STEPS = 4
_CPU = torch.device("cpu")


def main(arguments: list[str]) -> int:
    keep_freed_memory()
    ready_s = time.time() - float(arguments[0])
    level: Recompute = "full" if arguments[1] == "full" else "none"
    first_step_s = _touch_kernels()
    base_bytes = _resident_bytes()
    startup = {"kind": "startup", "ready_s": ready_s, "first_step_s": first_step_s}
    print(json.dumps(startup))
    print(json.dumps(_grow(level) | {"base_memory_bytes": base_bytes}))
    return 0


def _grow(level: Recompute) -> Row:
    network = build_network(_MODEL, attention="sdpa", recompute=level).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(0, _MODEL.vocab, (_BATCH, _MODEL.max_seq_len))
    reset_peak_memory(_CPU)
    for _ in range(_STEPS):
        logits = network(tokens)
        F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {
        "kind": "heap",
        "level": level,
        "layers": _MODEL.layers,
        "hidden": _MODEL.hidden,
        "heads": _MODEL.heads,
        "seq": _MODEL.max_seq_len,
        "vocab": _MODEL.vocab,
        "batch": _BATCH,
        "peak_memory_bytes": peak_memory_bytes(_CPU),
    }


def _touch_kernels() -> float:
    torch.set_num_threads(1)
    layer = torch.nn.Linear(64, 64)
    start_s = time.perf_counter()
    layer(torch.randn(64, 64)).sum().backward()
    torch.optim.AdamW(layer.parameters()).step()
    return time.perf_counter() - start_s


def _resident_bytes() -> float:
    """The peak, just forgotten, is what is resident now."""
    reset_peak_memory(_CPU)
    return peak_memory_bytes(_CPU)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
