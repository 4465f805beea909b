"""The network, data and optimizer of a Twofold plan, trained under somebody else's framework.

Started by `train_distributed.py`, once a rank, in an environment that has the framework:

    python train_distributed_peer.py FRAMEWORK plan.json OUT.jsonl

Only the loop, the wrapping and the gradient exchange are the framework's, as its documentation
shows them. Rank 0 writes one line a step: its wall time and the loss on its rows.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.document import PlanDocument, read_plan
from twofold.policy import shares_of
from twofold.runtime.allocator import keep_freed_memory
from twofold.runtime.train.data import Batches
from twofold.runtime.train.network import build_network, initialise
from twofold.workload import prepare_corpus

RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


class WithLoss(nn.Module):
    """The network as these frameworks expect it: rows [B, S + 1] in, mean loss out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor, **_: Any) -> dict[str, Tensor]:
        logits = self.network(rows[:, :-1])
        return {"loss": F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())}


class Log:
    """Times between the ends of steps."""

    def __init__(self, path: Path) -> None:
        self.stream = path.open("w") if RANK == 0 else None
        self.before_s = time.perf_counter()

    def step(self, loss: float) -> None:
        now_s = time.perf_counter()
        if self.stream is not None:
            row = {"step_time_s": now_s - self.before_s, "loss": loss}
            self.stream.write(json.dumps(row) + "\n")
            self.stream.flush()
        self.before_s = now_s


def main() -> None:
    framework, plan_path, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    document = read_plan(plan_path)
    torch.set_num_threads(document.plan.threads)
    keep_freed_memory()
    FRAMEWORKS[framework](document, Log(out))


def model_of(document: PlanDocument) -> WithLoss:
    network = build_network(document.model, attention=document.plan.attention, recompute="none")
    initialise(network, document.workload.recipe.initialisation, document.seed)
    return WithLoss(network).train()


def optimizer_of(document: PlanDocument, model: nn.Module) -> torch.optim.AdamW:
    recipe = document.workload.recipe
    return torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        weight_decay=recipe.weight_decay,
        fused=document.plan.optimizer_kernel == "fused",
        foreach=document.plan.optimizer_kernel == "foreach",
    )


def batches_of(document: PlanDocument) -> Iterator[Tensor]:
    """This rank's rows of every step."""
    workload, recipe = document.workload, document.workload.recipe
    batches = Batches(
        prepare_corpus(workload.text).tokens("train"), workload.seq_len, document.seed
    )
    shares = shares_of(document.plan, recipe.global_batch)
    for step in range(workload.num_steps):
        first = step * recipe.global_batch + sum(shares[:RANK])
        yield batches.batch(first, shares[RANK])


def accelerate(document: PlanDocument, log: Log) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = model_of(document)
    model, optimizer = accelerator.prepare(model, optimizer_of(document, model))
    for rows in batches_of(document):
        loss = model(rows)["loss"]
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), document.workload.recipe.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        log.step(float(loss))


def fabric(document: PlanDocument, log: Log) -> None:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment

    class Started(LightningEnvironment):
        """The ranks are already there."""

        @property
        def creates_processes_externally(self) -> bool:
            return True

        def world_size(self) -> int:
            return SIZE

        def global_rank(self) -> int:
            return RANK

        def local_rank(self) -> int:
            return RANK

    lightning = Fabric(accelerator="cpu", devices=SIZE, strategy="ddp", plugins=[Started()])
    lightning.launch()
    model = model_of(document)
    wrapped, optimizer = lightning.setup(model, optimizer_of(document, model))
    for rows in batches_of(document):
        loss = wrapped(rows)["loss"]
        lightning.backward(loss)
        clip = document.workload.recipe.gradient_clip
        lightning.clip_gradients(wrapped, optimizer, max_norm=clip)
        optimizer.step()
        optimizer.zero_grad()
        log.step(float(loss))


def trainer(document: PlanDocument, log: Log) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    every = list(batches_of(document))
    size = every[0].shape[0]

    class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        """All rows of the run in an order that the sampler deals out to the ranks as we do."""

        def __init__(self) -> None:
            workload, recipe = document.workload, document.workload.recipe
            corpus = prepare_corpus(workload.text)
            self.batches = Batches(corpus.tokens("train"), workload.seq_len, document.seed)
            self.length = workload.num_steps * recipe.global_batch

        def __len__(self) -> int:
            return self.length

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {"rows": self.batches.batch(index, 1)[0]}

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            log.step(0.0)

    model = model_of(document)
    recipe = document.workload.recipe
    arguments = TrainingArguments(
        output_dir=str(Path(sys.argv[3]).with_suffix("")),
        use_cpu=True,
        ddp_backend="gloo",
        per_device_train_batch_size=size,
        max_steps=document.workload.num_steps,
        max_grad_norm=recipe.gradient_clip,
        lr_scheduler_type="constant",
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    Trainer(
        model=model,
        args=arguments,
        train_dataset=Rows(),
        optimizers=(optimizer_of(document, model), None),
        callbacks=[Steps()],
    ).train()


def deepspeed(document: PlanDocument, log: Log) -> None:
    import deepspeed as ds

    ds.init_distributed("gloo")
    recipe, plan = document.workload.recipe, document.plan
    share = shares_of(plan, recipe.global_batch)[RANK]
    model = model_of(document)
    settings = {
        "train_micro_batch_size_per_gpu": share,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": recipe.gradient_clip,
        "zero_optimization": {"stage": plan.zero_stage},
        "zero_allow_untested_optimizer": True,
    }
    engine, *_ = ds.initialize(
        model=model, optimizer=optimizer_of(document, model), config=settings
    )
    for rows in batches_of(document):
        loss = engine(rows)["loss"]
        engine.backward(loss)
        engine.step()
        log.step(float(loss))


FRAMEWORKS: dict[str, Callable[[PlanDocument, Log], None]] = {
    "accelerate": accelerate,
    "fabric": fabric,
    "trainer": trainer,
    "deepspeed": deepspeed,
}

if __name__ == "__main__":
    main()
