"""The engines that training plans are handed over to, by name."""

from __future__ import annotations

import difflib

from twofold.engines.export import accelerate, deepspeed, maxtext, megatron, torchtitan
from twofold.engines.export.form import Engine
from twofold.errors import InputError

ENGINES: dict[str, Engine] = {
    one.ENGINE.name: one.ENGINE for one in (accelerate, deepspeed, megatron, torchtitan, maxtext)
}


def find_engine(name: str, *, at: str) -> Engine:
    """The engine of that name. InputError with the nearest."""
    word = name.strip().lower()
    if word in ENGINES:
        return ENGINES[word]
    near = difflib.get_close_matches(word, ENGINES, n=1)
    raise InputError(
        f"'{name}' is none of {', '.join(ENGINES)}",
        at=at,
        help=f"perhaps '{near[0]}' is meant" if near else "use one of them",
    )
