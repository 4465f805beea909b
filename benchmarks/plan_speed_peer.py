"""The peer's half of `plan_speed.py`: Calculon in a process of its own, working when told to.

    python benchmarks/plan_speed_peer.py CHECKOUT       (started by plan_speed.py)

Needs the packages that Calculon imports (pandas, psutil), and nothing of Twofold. Each line read
is a number of CPU seconds to work for; each line written is a JSON object with the candidates
completed and rejected, and the CPU seconds taken.

One evaluation is the body of Calculon's own search loop (calculon/llm/optimal_execution.py):
Execution.from_json, Llm, compile, run, get_stats_json. Candidates are drawn by a fixed seed from
the whole space that its search walks, so rejected and completed ones come as they would there.
"""

from __future__ import annotations

import gc
import itertools
import json
import logging
import random
import sys
import time
from pathlib import Path
from typing import Any

DEVICES, LARGEST_BATCH, SEED, SAMPLE = 1024, 1536, 7, 100_000


def main() -> None:
    checkout = Path(sys.argv[1])
    sys.path.insert(0, str(checkout))
    import calculon
    from calculon.llm import Llm
    from calculon.system import System

    def read(*parts: str) -> Any:
        return calculon.io.read_json_file(str(checkout.joinpath(*parts)))

    application = Llm.Application(read("models", "gpt3-175B.json"))
    system = System(read("systems", "a100_80g.json"))
    space = candidates(application, system)
    drawn = random.Random(SEED)
    sample = iter([named(space[drawn.randrange(len(space))]) for _ in range(SAMPLE)])
    log = logging.Logger("silent")
    size = len(space)
    # The list of the space is ours, not the peer's: its collector need not walk it.
    del space
    gc.collect()
    gc.freeze()
    print(json.dumps({"space": size}), flush=True)
    for line in sys.stdin:
        seconds = float(line)
        completed = rejected = 0
        start = time.process_time()
        while time.process_time() - start < seconds:
            execution = Llm.Execution.from_json(next(sample))
            llm = Llm(application, log)
            try:
                llm.compile(system, execution)
                llm.run(system)
                llm.get_stats_json(False)
                completed += 1
            except Llm.Error:
                rejected += 1
        taken = time.process_time() - start
        report = {"completed": completed, "rejected": rejected, "cpu_s": taken}
        print(json.dumps(report), flush=True)


def candidates(application: Any, system: Any) -> list[tuple[Any, ...]]:
    """All executions that Calculon's search would try, as tuples in the order of `named`."""
    from calculon.llm import Llm
    from calculon.llm.optimal_execution import OptimalExecution

    found: list[tuple[Any, ...]] = []
    networks, offload = range(system.num_networks), system.mem2.capacity > 0
    for tensor in Llm.get_all_tensor_parallelisms(
        DEVICES, application.hidden, application.attn_heads
    ):
        for pipeline in Llm.get_all_pipeline_parallelisms(DEVICES, tensor, application.num_blocks):
            data = Llm.get_data_parallelism(DEVICES, tensor, pipeline)
            batch = OptimalExecution.get_batch_size(data, LARGEST_BATCH)
            if batch is None:
                continue
            micros = list(
                Llm.get_valid_microbatch_sizes(application.seq_size, tensor, data, batch, pipeline)
            )
            for chunks, recompute, sharded, messages in itertools.product(
                Llm.get_valid_pipeline_interleavings(application.num_blocks, pipeline),
                ("full", "attn_only", "none"),
                (True, False) if data > 1 else (False,),
                ("ar", "p2p_rs_ag", "rs_ag"),
            ):
                found.extend(
                    (tensor, pipeline, data, batch, chunks, recompute, sharded, messages, *rest)
                    for rest in itertools.product(
                        (True, False) if Llm.can_redo_ag(messages, recompute) else (False,),
                        (True, False) if data > 1 else (False,),
                        ("none", "ring", "pipe") if tensor > 1 else ("none",),
                        (True, False) if offload else (False,),
                        (True, False) if offload and recompute != "full" else (False,),
                        (True, False) if offload else (False,),
                        micros,
                        networks if tensor > 1 else (0,),
                        networks if pipeline > 1 else (0,),
                        networks if data > 1 else (0,),
                    )
                )
    return found


def named(candidate: tuple[Any, ...]) -> dict[str, Any]:
    names = (
        "tensor_par", "pipeline_par", "data_par", "batch_size", "pipeline_interleaving",
        "activation_recompute", "optimizer_sharding", "tensor_par_comm_type", "seq_par_ag_redo",
        "data_par_overlap", "tensor_par_overlap", "weight_offload", "activations_offload",
        "optimizer_offload", "microbatch_size", "tensor_par_net", "pipeline_par_net",
        "data_par_net",
    )  # fmt: skip
    fixed = {
        "num_procs": DEVICES, "datatype": "float16", "fused_activation": True,
        "attention_type": "multihead", "training": True,
    }  # fmt: skip
    return dict(zip(names, candidate, strict=True)) | fixed


if __name__ == "__main__":
    main()
