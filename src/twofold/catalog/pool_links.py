"""Links between the pools of a fleet file:

[[link]]
between = ["east", "west"]            # names of two pools
bandwidth_bytes_per_s = 1.25e8        # one way, for all devices of a pool together
latency_s = 0.03
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twofold.catalog.form import read_figure, unknown_key
from twofold.errors import InputError
from twofold.fleet import PoolLink

_KEYS = ("between", "bandwidth_bytes_per_s", "latency_s")


def read_links(rows: Sequence[dict[str, Any]], path: str) -> tuple[PoolLink, ...]:
    """The links of a file's rows; which pools there are is checked where they are known."""
    links = tuple(_read_link(row, f"{path}, link {index + 1}") for index, row in enumerate(rows))
    pairs = [frozenset(link.between) for link in links]
    for pair in pairs:
        if pairs.count(pair) > 1:
            raise InputError(
                f"two links between {' and '.join(sorted(pair))}", at=path, help="keep one"
            )
    return links


def check_links(links: Sequence[PoolLink], pools: Sequence[str], path: str) -> None:
    """InputError where a link names a pool that is not there."""
    for link in links:
        for name in link.between:
            if name not in pools:
                raise InputError(
                    f"a link names the pool '{name}', and there is none",
                    at=f"{path}, link, between",
                    help="use two of " + ", ".join(pools),
                )


def _read_link(row: dict[str, Any], at: str) -> PoolLink:
    for key in row:
        if key not in _KEYS:
            raise unknown_key(key, _KEYS, f"{at}, {key}")
    between = row.get("between")
    named = isinstance(between, list) and all(isinstance(name, str) for name in between)
    if not named or between is None or len(set(between)) != 2 or len(between) != 2:
        raise InputError(
            "a link is between two pools",
            at=f"{at}, between",
            help='write for instance between = ["fast", "slow"]',
        )
    for key in _KEYS[1:]:
        if key not in row:
            raise InputError(
                f"the link has no `{key}`", at=at, help="give its rate one way and its latency"
            )
    rate = read_figure(row["bandwidth_bytes_per_s"], unit="B/s", at=f"{at}, bandwidth_bytes_per_s")
    if rate.value <= 0:
        raise InputError(
            "a link of no rate", at=f"{at}, bandwidth_bytes_per_s", help="use more than 0"
        )
    return PoolLink(
        between=(between[0], between[1]),
        bandwidth_bytes_per_s=rate,
        latency_s=read_figure(row["latency_s"], unit="s", at=f"{at}, latency_s"),
    )
