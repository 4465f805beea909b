"""The head of a run of stand-in ranks on several hosts: python head.py FOLDER PORT HOSTS ..."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.launch.stand_in import stand_in_job
from twofold.errors import TwofoldError
from twofold.launch.coordinator import Coordinator
from twofold.launch.hosts import ThisHost
from twofold.launch.interruption import Interruption
from twofold.launch.network import interface_of
from twofold.launch.supervisor import Smaller, Supervisor

ADDRESS = "127.0.0.1"


def main() -> int:
    folder, port, num_hosts = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    job = stand_in_job(folder, *sys.argv[4:], num_ranks=num_hosts)

    def shrink(attempt: int, lost: Sequence[int]) -> Smaller:
        nonlocal job
        kept = tuple(rank for rank in range(job.num_ranks) if rank not in lost)
        job = replace(job, num_ranks=len(kept))
        return Smaller(job=job, kept=kept, plan=f"plan.attempt-{attempt}.json")

    team = Coordinator(
        ADDRESS,
        port,
        folder,
        num_hosts=num_hosts,
        own=ThisHost(0, interface_of(ADDRESS)),
        lost_after_s=3.0,
        note=lambda text: print(text, file=sys.stderr),
    )
    code, why = 130, "interrupted"
    try:
        with Interruption() as interruption:
            team.gather(120.0, interruption)
            placement = tuple((rank,) for rank in range(num_hosts))
            code = (
                Supervisor(
                    job,
                    team,
                    placement,
                    interruption=interruption,
                    max_restarts=3,
                    shrink=shrink,
                )
                .run()
                .returncode
            )
            why = "done" if code == 0 else "ended"
    except KeyboardInterrupt:
        code = 130
    except TwofoldError as error:
        code, why = error.exit_code, error.what
        print(error, file=sys.stderr)
    finally:
        team.close(code, why)
    return code


if __name__ == "__main__":
    sys.exit(main())
