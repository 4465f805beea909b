"""A plain PyTorch training script that knows nothing of Twofold: somebody's own job.

It trains a small network to guess the next byte of its own source code
and prints the time and loss of each step, as such scripts do.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=15)
parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
parser.add_argument("--sleep-ms", type=float, default=0.0, help="a planted slowdown")
options = parser.parse_args()

torch.manual_seed(options.seed)
model = nn.Sequential(
    nn.Embedding(256, 256),
    *(layer for _ in range(4) for layer in (nn.Linear(256, 256), nn.GELU())),
    nn.Linear(256, 256),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
text = torch.frombuffer(bytearray(Path(__file__).read_bytes()), dtype=torch.uint8).long()
train, held_out = text[:-400], text[-400:]


def loss_of(tokens: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.dtype == "bf16"):
        logits = model(tokens[:-1])
    return nn.functional.cross_entropy(logits.float(), tokens[1:])


for step in range(options.steps):
    start = time.perf_counter()
    first = int(torch.randint(len(train) - 513, ()))
    loss = loss_of(train[first : first + 513])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    time.sleep(options.sleep_ms / 1e3)
    print(f"step {step}: loss {loss.item():.4f}, time {(time.perf_counter() - start) * 1e3:.3f}ms")

with torch.no_grad():
    print(f"val loss {loss_of(held_out).item():.4f}")
