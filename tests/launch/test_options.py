"""What `twofold run` refuses before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from twofold.cli.running import Run
from twofold.errors import InputError
from twofold.launch.network import interface_of, parse_address

PLAN = Path("plan.json")


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (Run(plan=PLAN, hosts=3), "many machines need"),
        (Run(plan=PLAN, hosts=3, head="127.0.0.1:1"), "many machines need"),
        (Run(plan=PLAN, hosts=3, host_index=0), "many machines need"),
        (Run(plan=PLAN, coordinator=True), "many machines need"),
        (Run(plan=PLAN, hosts=3, host_index=3, head="127.0.0.1:1"), "host 3 of 3"),
        (Run(plan=PLAN, hosts=2, host_index=1, head="127.0.0.1"), "is not ADDRESS:PORT"),
        (
            Run(plan=PLAN, hosts=2, host_index=0, head="127.0.0.1:1", lost_after="0s"),
            "speak once a second",
        ),
        (Run(plan=PLAN, submit=True), "--submit goes with --slurm"),
        (Run(plan=PLAN, max_restarts=-1), "-1 restarts"),
        (Run(plan=PLAN, rehearse=True, slurm=True, submit=True), "without --slurm, --submit"),
        (Run(plan=PLAN, rehearse=True, hosts=2), "without --hosts"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run: Run, said: str) -> None:
    with pytest.raises(InputError, match=said):
        run.execute()


def test_addresses_and_their_interfaces() -> None:
    assert parse_address("127.0.0.1:29400") == ("127.0.0.1", 29400)
    assert parse_address("localhost:80")[1] == 80
    assert interface_of("127.0.0.1") in ("lo", None)
    assert interface_of("192.0.2.1") is None
    with pytest.raises(InputError, match="has no address"):
        parse_address("no-such-host.invalid:1")
