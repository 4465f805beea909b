"""How long simulated serving takes: 100,000 chat requests on one core.

    python benchmarks/simulate_serving.py [REQUESTS]

Llama-3.1-70B on 8 H200 in four replicas of two, 12 requests a second. Prints CPU and wall seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace

from twofold.catalog import read_fleet
from twofold.serving_plan import ServingPlan
from twofold.simulate import simulate_plan
from twofold.sources.models import find_model
from twofold.workload.serve_presets import serve_preset


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    fleet, model = read_fleet(["h200:8"]), find_model("llama-3.1-70b")
    workload = replace(serve_preset("chat", rate_per_s=12.0), num_requests=number)
    plan = ServingPlan(pool=fleet.pools[0].name, replicas=4, tensor_degree=2)
    cpu, wall = time.process_time(), time.perf_counter()
    outcome = simulate_plan(model, fleet, plan, workload).estimate.outcome
    print(
        json.dumps(
            {
                "requests": number,
                "cpu_s": round(time.process_time() - cpu, 1),
                "wall_s": round(time.perf_counter() - wall, 1),
                "load_average": os.getloadavg()[0],
                "attained_fraction": outcome.attained_fraction,
            }
        )
    )


if __name__ == "__main__":
    main()
